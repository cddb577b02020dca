from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import egress
from clients.egress import noised_metrics
from clients.randomness import Stream, simulated
from shared import wire


def test_noised_metrics_are_ratios_in_range_whoever_is_there() -> None:
    for count in (0, 1, 5, 4000):
        ranks = np.arange(1, count + 1, dtype=np.float32)
        told = noised_metrics(ranks, noise_multiplier=5.0, randomness=simulated(count), number=0)
        assert set(told) == set(wire.METRIC_NAMES)
        assert all(0 <= it <= 1 for it in told.values())


def test_with_many_shoppers_noised_metrics_come_near_the_true_ones_and_are_not_they() -> None:
    ranks = np.tile(np.array([1, 30], np.float32), 20_000)  # half of them hit, at the top
    told = noised_metrics(ranks, noise_multiplier=2.0, randomness=simulated(0), number=0)
    for found in told.values():
        assert found == pytest.approx(0.5, abs=1e-3)
        assert found != 0.5


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 200))
def test_a_shopper_more_moves_the_sums_of_metrics_by_less_than_is_noised_for(
    ranks: list[int], one: int
) -> None:
    def sums(every: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        # The noise is far below the sums here, and the same: what is left is the sums' change.
        seen: list[Any] = []

        class Bare:
            def on_grid(self, total: Any, **_how: Any) -> Any:
                seen.append(total)
                return total

        array = np.array(every, np.float32)
        noised_metrics(array, noise_multiplier=1.0, randomness=Bare(), number=0)  # type: ignore[arg-type]
        return np.asarray(seen[0])

    apart = float(np.linalg.norm(sums([*ranks, one]) - sums(ranks)))
    assert apart <= egress.METRICS_SENSITIVITY


def test_the_noise_of_metrics_is_of_the_size_that_is_charged_in_a_stream_of_its_own() -> None:
    asked: list[dict[str, Any]] = []

    class Watched:
        def on_grid(self, total: Any, **how: Any) -> Any:
            asked.append(how)
            return total

    ranks = np.ones(3, np.float32)
    noised_metrics(ranks, noise_multiplier=5.0, randomness=Watched(), number=4)  # type: ignore[arg-type]
    assert asked == [
        {
            "sensitivity": egress.METRICS_SENSITIVITY,
            "multiplier": 5.0,
            "number": 4,
            "stream": Stream.METRICS,
        }
    ]
    assert egress.METRICS_SENSITIVITY > 3**0.5  # room for what rounding to the grid adds
