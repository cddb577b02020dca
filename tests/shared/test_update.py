from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.update import MAX_WEIGHT, Update, check_update, check_weight

ADAPTER = Adapter(
    {"a": np.ones((2, 3), np.float32), "b": np.zeros(1, np.float32)}, backbone="b", task="t"
)
ZERO = {name: np.zeros(shape, np.float32) for name, shape in ADAPTER.shapes.items()}
UPDATE = Update(ZERO, base=ADAPTER.digest)


def refused(update: Update) -> str:
    with pytest.raises(ReplyError) as caught:
        check_update(update, ADAPTER)
    said = str(caught.value)
    assert "\n" not in said
    return said


def holding(**tensors: NDArray[np.float32]) -> Update:
    return replace(UPDATE, delta={**ZERO, **tensors})


@given(
    hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(0, MAX_WEIGHT, exclude_min=True),
)
def test_an_update_of_this_adapter_is_accepted(tensor: NDArray[np.float32], weight: float) -> None:
    check_update(replace(holding(a=tensor), weight=weight), ADAPTER)


def test_a_view_in_another_order_of_memory_is_accepted() -> None:
    check_update(holding(a=np.asfortranarray(ZERO["a"])), ADAPTER)


@pytest.mark.parametrize("base", ["", "0" * 64, ADAPTER.digest[:12], ADAPTER.digest.upper()])
def test_an_update_that_starts_elsewhere_is_refused(base: str) -> None:
    assert "update starts from" in refused(replace(UPDATE, base=base))


def test_an_update_of_the_round_before_is_refused() -> None:
    next_one = ADAPTER.plus({name: tensor + 1 for name, tensor in ZERO.items()}, version=1)
    check_update(UPDATE, ADAPTER)
    with pytest.raises(ReplyError, match="train on the adapter it was sent"):
        check_update(UPDATE, next_one)


@pytest.mark.parametrize(
    ("delta", "odd"),
    [
        ({}, "a"),
        ({"a": ZERO["a"]}, "b"),
        ({**ZERO, "c": ZERO["b"]}, "c"),
        ({"a": ZERO["a"], "B": ZERO["b"]}, "B"),
    ],
)
def test_other_names_are_refused(delta: Mapping[str, NDArray[np.float32]], odd: str) -> None:
    assert f"(first: {odd!r})" in refused(replace(UPDATE, delta=delta))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (1, 3), (0,), ()])
def test_other_shapes_are_refused_even_if_they_would_broadcast(shape: tuple[int, ...]) -> None:
    said = refused(holding(a=np.zeros(shape, np.float32)))
    assert f"tensor 'a' has shape {shape}, not (2, 3)" in said


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -1e20])
@pytest.mark.parametrize("place", [0, 5])
def test_a_value_that_is_not_finite_or_overflows_is_refused(bad: float, place: int) -> None:
    tensor = np.zeros(6, np.float32)
    tensor[place] = bad
    assert "tensor 'a' holds values that are not finite" in refused(holding(a=tensor.reshape(2, 3)))


def test_infinities_of_both_signs_do_not_cancel() -> None:
    tensor = np.array([[np.inf, -np.inf, 0], [0, 0, 0]], np.float32)
    assert "not finite" in refused(holding(a=tensor))


BAD_WEIGHTS = [0.0, -0.0, -1.0, 1000.1, 1e300, float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("weight", BAD_WEIGHTS)
def test_a_weight_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(ReplyError, match=r"is not in \(0, 1000\]; set \[platform\] weight"):
        check_weight(weight)
    assert "weight" in refused(replace(UPDATE, weight=weight))


@pytest.mark.parametrize("weight", [1e-9, 1.0, 1, 1000.0])
def test_a_weight_within_bounds_is_accepted(weight: float) -> None:
    check_weight(weight)
