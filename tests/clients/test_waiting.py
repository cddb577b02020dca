"""When a reply leaves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.egress import wait


@given(st.floats(0, 1e6), st.floats(1e-3, 3600))
def test_a_reply_leaves_at_a_whole_multiple_and_never_before_it_is_ready(
    elapsed: float, step: float
) -> None:
    rest = wait(elapsed, step)
    assert 0 <= rest <= step
    multiple = (elapsed + rest) / step
    assert multiple >= 1
    assert multiple == pytest.approx(round(multiple), rel=1e-9)


def test_a_reply_that_is_ready_on_the_stroke_never_waits_less_than_no_time() -> None:
    for count in range(1, 2000):
        stroke = count * 0.1
        for elapsed in (math.nextafter(stroke, 0), stroke, math.nextafter(stroke, math.inf)):
            assert wait(elapsed, 0.1) >= 0


def test_without_a_step_a_reply_leaves_at_once() -> None:
    assert wait(0.123, 0.0) == 0
