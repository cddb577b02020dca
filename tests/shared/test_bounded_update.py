from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.update import (
    PROTECTIONS,
    BoundedUpdate,
    Protection,
    Update,
    bound,
    check_update,
    from_bytes,
    norm,
    to_bytes,
)

LARGEST = float(np.finfo(np.float32).max)
TINIEST = float(np.finfo(np.float32).smallest_subnormal)
NORMAL = float(np.finfo(np.float32).smallest_normal)

Delta = Mapping[str, NDArray[np.float32]]

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
hostile = st.floats(width=32) | st.sampled_from(
    [0.0, -0.0, math.nan, math.inf, -math.inf, LARGEST, -LARGEST, 1e20, TINIEST, -TINIEST, 1e-40]
)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, LARGEST, -LARGEST, 1e20, TINIEST, 1e-40]
)
limits = st.floats(1e-300, 1e300) | st.sampled_from([1.0, 100.0, 1e9, TINIEST, NORMAL, 1e-44])


def deltas(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Delta]:
    """Up to four tensors of any shape, empty ones and single numbers too."""
    names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8)
    tensors = hnp.arrays(np.float32, shapes, elements=numbers)
    return st.dictionaries(names, tensors, max_size=4)


def bounded(delta: Delta, limit: float) -> BoundedUpdate:
    return bound(Update(delta, base="base", weight=2.0), limit, noise="secure")


def flat(delta: Delta) -> NDArray[np.float64]:
    """All numbers in double precision, tensors in the order of their names."""
    parts = [np.asarray(delta[name], np.float64).reshape(-1) for name in sorted(delta)]
    return np.concatenate([np.zeros(0), *parts])


def length(delta: Delta) -> float:
    """Norm in double precision, summed another way than the code does; no square overflows."""
    return math.hypot(*flat(delta).tolist())


def same(one: Delta, other: Delta) -> bool:
    """Names, shapes and every bit."""
    return one.keys() == other.keys() and all(
        np.shape(one[name]) == np.shape(other[name])
        and np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()
        for name in one
    )


def pair(*numbers: float) -> dict[str, NDArray[np.float32]]:
    """Numbers spread over two tensors."""
    half = len(numbers) // 2
    return {"a": np.array(numbers[:half], np.float32), "b": np.array([numbers[half:]], np.float32)}


@given(deltas(hostile), limits)
def test_the_norm_is_at_most_the_bound_for_any_float32_input(delta: Delta, limit: float) -> None:
    told = bounded(delta, limit)
    assert norm(told.delta) <= limit
    assert length(told.delta) <= limit * (1 + 1e-15)  # another order of summing
    assert np.isfinite(flat(told.delta)).all()
    assert {name: np.shape(it) for name, it in told.delta.items()} == {
        name: it.shape for name, it in delta.items()
    }
    assert all(np.asarray(it).dtype == np.float32 for it in told.delta.values())
    assert (told.bound, told.noise, told.base, told.weight) == (limit, "secure", "base", 2.0)


@given(deltas(finite), limits)
def test_within_the_bound_nothing_changes_to_the_last_bit(delta: Delta, limit: float) -> None:
    if norm(delta) <= limit:
        assert same(bounded(delta, limit).delta, delta)


@given(deltas(finite), st.floats(1e-30, 1e30))
def test_beyond_the_bound_the_direction_stays_and_the_norm_is_the_bound(
    delta: Delta, limit: float
) -> None:
    before, told = flat(delta), flat(bounded(delta, limit).delta)
    size = length(delta)
    if size > limit:
        assert np.linalg.norm(told) == pytest.approx(limit, rel=1e-6)
        # Each number to float32's precision; the smallest may fall below its range.
        np.testing.assert_allclose(told, before / size * limit, rtol=1e-6, atol=1e-44)


@given(deltas(finite), st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_one_number_that_is_not_finite_makes_all_of_them_zero(
    delta: Delta, bad: float, data: st.DataObject
) -> None:
    full = sorted(name for name, it in delta.items() if it.size)
    if full:
        spoilt = {name: it.copy() for name, it in delta.items()}
        name = data.draw(st.sampled_from(full))
        place = data.draw(st.integers(0, spoilt[name].size - 1))
        spoilt[name].reshape(-1)[place] = bad
        told = bounded(spoilt, 5.0)
        assert not flat(told.delta).any()
        assert told.delta.keys() == delta.keys()


# The table of the docstring, line by line ----------------------------------------------------

ITSELF: dict[str, Delta] = {
    "no tensors": {},
    "an empty tensor": {"a": np.zeros(0, np.float32)},
    "a tensor with an axis of length 0": {"a": np.zeros((3, 0, 2), np.float32)},
    "all zero": pair(0.0, 0.0, 0.0, 0.0),
    "zeros of either sign": pair(0.0, -0.0, -0.0, 0.0),
    "norm below the bound": pair(1.0, 1.0, 1.0, 1.0),
    "norm at the bound": pair(3.0, 0.0, 0.0, 4.0),
    "one number at the bound": {"a": np.array(5.0, np.float32)},
    "subnormal numbers": pair(TINIEST, -TINIEST, 1e-40, 0.0),
}
ZEROS: dict[str, Delta] = {
    "NaN": pair(1.0, math.nan, 1.0, 1.0),
    "infinity": pair(math.inf, 0.0, 0.0, 0.0),
    "infinities that would cancel": pair(math.inf, -math.inf, 0.0, 1.0),
    "NaN among numbers that overflow": pair(LARGEST, math.nan, LARGEST, LARGEST),
}


@pytest.mark.parametrize("what", list(ITSELF))
def test_what_is_within_the_bound_is_handed_on_as_it_is(what: str) -> None:
    assert same(bounded(ITSELF[what], 5.0).delta, ITSELF[what])


@pytest.mark.parametrize("what", list(ZEROS))
def test_what_is_not_finite_is_handed_on_as_zeros(what: str) -> None:
    told = bounded(ZEROS[what], 5.0).delta
    assert same(told, {name: np.zeros_like(it) for name, it in ZEROS[what].items()})


def test_a_longer_update_by_hand() -> None:
    told = bounded(pair(6.0, 0.0, 0.0, -8.0), 5.0).delta
    np.testing.assert_allclose(flat(told), [3, 0, 0, -4], rtol=1e-6)
    assert norm(told) <= 5.0


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_squares_that_overflow_float32_are_scaled_and_not_lost(size: int) -> None:
    told = bounded({"a": np.full(size, LARGEST, np.float32)}, 5.0).delta
    np.testing.assert_allclose(flat(told), 5 / math.sqrt(size), rtol=1e-6)
    assert norm(told) <= 5.0


def test_a_limit_that_float32_cannot_hold_gives_zeros() -> None:
    for limit in (1e-300, 5e-324, TINIEST / 2):
        assert not flat(bounded(pair(1.0, 2.0, 3.0, 4.0), limit).delta).any()
    # Each number rounds up to the tiniest there is, and all of them together would be too long.
    many = {"a": np.ones(100, np.float32)}
    assert not flat(bounded(many, TINIEST * 9).delta).any()


def test_rounding_to_float32_never_lengthens_beyond_the_bound() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        delta = {"a": rng.normal(size=301).astype(np.float32)}
        limit = float(rng.uniform(1e-3, 14))
        told = norm(bounded(delta, limit).delta)
        assert limit * (1 - 1e-6) <= told <= limit


def test_the_bound_is_over_all_tensors_together() -> None:
    ones = {str(number): np.ones(4, np.float32) for number in range(25)}
    told = bounded(ones, 5.0)
    assert norm(told.delta) == pytest.approx(5.0, rel=1e-6)
    np.testing.assert_allclose(flat(told.delta), 0.5, rtol=1e-6)


def test_the_update_that_came_is_left_as_it_was() -> None:
    delta = pair(6.0, math.nan, 1.0, 8.0)
    before = {name: it.copy() for name, it in delta.items()}
    bounded(delta, 1.0)
    assert same(delta, before)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_bound_that_is_none_is_a_fault_of_ours(limit: float) -> None:
    with pytest.raises(ValueError, match="is not positive and finite"):
        bounded(pair(1.0, 1.0), limit)


@given(deltas(hostile))
def test_a_norm_is_that_of_double_precision_or_infinite(delta: Delta) -> None:
    every = flat(delta)
    expected = length(delta) if np.isfinite(every).all() else math.inf
    assert norm(delta) == pytest.approx(expected, rel=1e-12, abs=0)


# As a Ledger keeps it ------------------------------------------------------------------------


@given(
    deltas(finite),
    st.floats(0, 1000, exclude_min=True),
    limits,
    st.sampled_from(PROTECTIONS),
    st.text(min_size=1, max_size=64).filter(lambda text: text.isprintable()),
)
def test_what_a_ledger_keeps_comes_back_the_same_to_the_last_bit(
    delta: Delta, weight: float, limit: float, noise: Protection, base: str
) -> None:
    told = bound(Update(delta, base=base, weight=weight), limit, noise=noise)
    back = from_bytes(to_bytes(told))
    assert isinstance(back, BoundedUpdate)
    assert same(back.delta, told.delta)
    assert (back.base, back.weight, back.bound, back.noise) == (base, weight, limit, noise)


def test_views_in_another_order_of_memory_come_back_the_same() -> None:
    square = np.arange(6, dtype=np.float32).reshape(2, 3)
    told = bounded({"a": square.T, "b": square[:, ::2]}, 100.0)
    assert same(from_bytes(to_bytes(told)).delta, {"a": square.T.copy(), "b": square[:, ::2]})


def test_a_server_refuses_an_update_longer_than_the_bound_it_names() -> None:
    adapter = Adapter({"a": np.zeros(2, np.float32)}, backbone="b", task="t")
    delta = {"a": np.array([3.0, 4.0], np.float32)}
    check_update(BoundedUpdate(delta, base=adapter.digest, bound=5.0), adapter)
    with pytest.raises(ReplyError, match=r"update has norm 5, more than its bound 4\.9"):
        check_update(BoundedUpdate(delta, base=adapter.digest, bound=4.9), adapter)
