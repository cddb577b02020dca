from __future__ import annotations

import logging

import pytest

from shared import wire
from simulations.benchmarks.overhead import MIB, adapter, measure


def test_both_engines_have_a_figure_or_none() -> None:
    found = measure(platforms=3, rounds=2, ray=False)
    assert list(found) == ["in_process_s_per_round", "ray_s_per_round"]
    assert found["ray_s_per_round"] is None
    assert found["in_process_s_per_round"] is not None
    assert found["in_process_s_per_round"] > 0


def test_the_adapter_that_travels_has_one_mebibyte() -> None:
    assert wire.size(wire.request(adapter())) == MIB


def test_a_benchmark_leaves_the_logs_as_they_were() -> None:
    logger = logging.getLogger("atoll")
    before = logger.level
    measure(platforms=1, rounds=1, ray=False)
    assert logger.level == before


@pytest.mark.parametrize("rounds", [1, 4])
def test_every_round_is_timed(rounds: int) -> None:
    assert (measure(platforms=1, rounds=rounds, ray=False)["in_process_s_per_round"] or 0) > 0
