from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.shared_memory import posterior_mean


def mixture(sizes: Sequence[float], *, zeros: int = 5000) -> tuple[NDArray[np.float64], ...]:
    """True sums, most of them 0, and the same with noise of deviation 1."""
    true = np.concatenate([np.zeros(zeros), np.repeat(np.array(sizes, np.float64), 50)])
    return true, true + np.random.default_rng(0).laplace(scale=0.5**0.5, size=len(true))


def squared(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    return float(np.square(found - true).mean())


def test_of_no_sums_there_is_no_mean() -> None:
    assert posterior_mean(np.zeros(0), 1.0).shape == (0,)


def test_one_sum_far_below_all_others_spoils_none_of_them() -> None:
    _true, sums = mixture([50.0])
    found = posterior_mean(np.append(sums, -1000.0), 1.0)
    assert 0 <= found[-1] < 0.1
    assert found[-51:-1] == pytest.approx(sums[-50:], rel=0.1)


@given(st.lists(st.floats(-1e6, 1e6), max_size=9))
def test_without_noise_sums_are_themselves_and_never_below_zero(sums: list[float]) -> None:
    assert posterior_mean(np.array(sums), 0.0).tolist() == [max(it, 0.0) for it in sums]


def test_nothing_but_noise_is_believed_to_be_next_to_nothing() -> None:
    true, sums = mixture([])
    found = posterior_mean(sums, 1.0)
    assert found.min() >= 0
    assert found.mean() < 0.05
    assert found.max() < 0.5
    assert squared(found, true) < 0.01 * squared(sums, true)


@pytest.mark.parametrize("sizes", [[6.0], [4.0, 9.0, 20.0]])
def test_few_large_sums_among_zeros_are_found_again(sizes: list[float]) -> None:
    true, sums = mixture(sizes)
    found = posterior_mean(sums, 1.0)
    assert squared(found, true) < 0.15 * min(squared(sums, true), squared(0 * true, true))
    assert found[true > 0].mean() == pytest.approx(true[true > 0].mean(), rel=0.08)


@pytest.mark.parametrize("largest", [100.0, 1000.0, 10_000.0, 100_000.0])
def test_however_much_larger_than_the_noise_a_sum_is_about_what_it_was(largest: float) -> None:
    true, sums = mixture(np.geomspace(30, largest, 20).tolist())
    found = posterior_mean(sums, 1.0)
    np.testing.assert_allclose(found[true > 0], sums[true > 0], rtol=0.15)
    assert found[true == 0].mean() < 0.1


@given(
    st.lists(st.floats(-4, 15), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.5, 1.0, 3.0]),
)
def test_a_larger_sum_is_never_believed_to_be_less(sums: list[float], noise: float) -> None:
    found = posterior_mean(np.sort(np.array(sums) * noise), noise)
    assert (np.diff(found) >= -1e-9 * noise).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("unit", [1e-3, 1 / 3, 4.0, 1e5])
def test_in_another_unit_the_mean_is_the_same(unit: float) -> None:
    _true, sums = mixture([5.0, 12.0], zeros=500)
    found = posterior_mean(sums, 1.0)
    np.testing.assert_allclose(posterior_mean(unit * sums, unit), unit * found, rtol=1e-3)


@pytest.mark.parametrize("count", [5, 50, 5000])
def test_where_all_is_noise_nothing_is_believed_however_large_it_is(count: int) -> None:
    rng = np.random.default_rng(count)
    noise = rng.normal(0, 300.0, count)
    assert not posterior_mean(noise - noise.mean(), 300.0).any()
    seen = noise - noise.mean() + 2.1 * 300 / np.sqrt(count)
    assert posterior_mean(seen, 300.0).any()
