from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from clients.randomness import BLOCK, FINENESS, Stream, grid_of, simulated
from shared.accounting import Mechanism

HERE = simulated("test")

sums = hnp.arrays(np.float64, st.integers(0, 6), elements=st.floats(-1e4, 1e4))
clips = st.floats(1e-3, 1e3)
multipliers = st.floats(0.2, 1e3)
mechanisms = st.sampled_from(get_args(Mechanism))


def noised(
    total: NDArray[np.float64],
    clip: float,
    multiplier: float,
    *,
    number: int = 0,
    mechanism: Mechanism = "gaussian",
) -> NDArray[np.float64]:
    return HERE.on_grid(
        total, sensitivity=clip, multiplier=multiplier, number=number, mechanism=mechanism
    )


@given(clips, multipliers)
def test_the_grid_is_a_power_of_two_far_below_clip_and_noise(
    clip: float, multiplier: float
) -> None:
    grid = grid_of(clip, multiplier)
    assert math.frexp(grid)[0] == 0.5
    assert grid <= min(clip, clip * multiplier) * 2.0**-FINENESS < 2 * grid


@given(sums, clips, multipliers, mechanisms)
def test_every_output_is_on_the_grid(
    total: NDArray[np.float64], clip: float, multiplier: float, mechanism: Mechanism
) -> None:
    told = noised(total, clip, multiplier, mechanism=mechanism)
    steps = told / grid_of(clip, multiplier)  # exact: by a power of two
    assert told.shape == total.shape
    assert (steps == np.rint(steps)).all()
    assert (np.abs(steps) < 2.0**53).all()  # so that no sum of two was rounded


@given(sums, clips, multipliers, st.integers(-(2**40), 2**40), mechanisms)
def test_a_sum_that_is_so_many_steps_on_gives_the_same_so_many_steps_on(
    total: NDArray[np.float64], clip: float, multiplier: float, steps: int, mechanism: Mechanism
) -> None:
    # Which values can be reached is then the same for every sum: the last bits tell nothing.
    grid = grid_of(clip, multiplier)
    start = np.rint(total / grid) * grid
    on = start + steps * grid  # exact below 2^53 steps
    told = [noised(it, clip, multiplier, mechanism=mechanism) for it in (on, start)]
    assert (told[0] - told[1] == steps * grid).all()


@given(sums, sums, clips, multipliers, mechanisms)
def test_the_noise_is_the_same_whatever_the_sum_is(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    clip: float,
    multiplier: float,
    mechanism: Mechanism,
) -> None:
    size = min(len(one), len(other))
    grid = grid_of(clip, multiplier)

    def noise(total: NDArray[np.float64]) -> NDArray[np.float64]:
        told = noised(total, clip, multiplier, mechanism=mechanism)
        return told / grid - np.rint(total / grid)

    assert np.array_equal(noise(one[:size]), noise(other[:size]))


def test_neighbours_of_the_grid_are_all_reached_from_every_sum() -> None:
    # One number, many draws, a coarse view: the last three bits are all eight values, evenly.
    grid = grid_of(1.0, 1.0)
    for total in (0.0, 0.3, -1.7e3):
        told = [noised(np.array([total]), 1.0, 1.0, number=it) / grid for it in range(4000)]
        counts = np.bincount(np.concatenate(told).astype(np.int64) % 8, minlength=8)
        assert chi2.sf(((counts - 500) ** 2 / 500).sum(), 7) > 0.01


def test_the_noise_has_the_deviation_it_should_in_every_place() -> None:
    laws: dict[Mechanism, str] = {"laplace": "laplace", "gaussian": "norm"}
    for mechanism, law in laws.items():
        for clip, multiplier in ((1.0, 1.0), (0.1, 3.0), (20.0, 0.5), (1.0, 0.02)):
            told = noised(np.zeros(50_000), clip, multiplier, mechanism=mechanism)
            told = told / (clip * multiplier)
            assert kstest(told, law).pvalue > 0.01
    halves = told.reshape(2, -1)
    assert abs((halves[0] * halves[1]).mean()) < 4 / math.sqrt(halves.shape[1])


def test_two_sums_of_a_round_are_noised_apart() -> None:
    draws = [noised(np.zeros(100), 1.0, 1.0, number=number) for number in range(4)]
    assert all(not np.intersect1d(one, other).size for one, other in pairwise(draws))


def test_an_empty_sum_is_empty_and_shapes_stay() -> None:
    assert noised(np.zeros((0, 3)), 1.0, 1.0).shape == (0, 3)
    assert noised(np.zeros((2, 3)), 1.0, 1.0).shape == (2, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sum_that_is_not_finite_was_not_clipped_and_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite was not clipped"):
        noised(np.array([0.0, bad]), 1.0, 1.0)


def test_laplace_noise_of_more_than_a_block_repeats_nothing() -> None:
    drawn = HERE.laplaces(Stream.SUMS, 0, 2 * BLOCK + 5)
    assert len(np.unique(drawn)) == len(drawn)
    assert np.array_equal(HERE.laplaces(Stream.SUMS, 0, BLOCK), drawn[:BLOCK])
