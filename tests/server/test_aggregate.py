from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregate import (
    Aggregate,
    Algorithm,
    ServerState,
    algorithm,
    average,
    fedadam,
    fedavg,
    sums,
    total,
)
from shared.adapter import Adapter
from shared.update import Update


def tensor(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def update(*values: float, weight: float = 1.0) -> Update:
    return Update({"w": tensor(*values)}, base="digest", weight=weight)


def start(*values: float) -> Adapter:
    return Adapter({"w": tensor(*values)}, backbone="backbone", task="task")


def walk(rule: Algorithm, state: ServerState, deltas: Sequence[float]) -> list[float]:
    """Where one number stands after each of these averages."""
    places = []
    for version, delta in enumerate(deltas, start=1):
        state = rule.step(state, Aggregate({"w": tensor(delta)}, 1.0), version)
        places.append(float(state.adapter.tensors["w"][0]))
    return places


def test_an_average_is_weighted_by_public_weight() -> None:
    found = average([update(1, 2, weight=1), update(5, -2, weight=3)])
    assert found.delta["w"].tolist() == [4, -1]  # (1·1 + 3·5)/4, (1·2 - 3·2)/4
    assert found.weight == 4
    assert found.delta["w"].dtype == np.float32


def test_every_tensor_is_averaged_on_its_own() -> None:
    one = Update({"a": tensor(1), "b": tensor(0, 8)}, base="digest")
    two = Update({"a": tensor(3), "b": tensor(4, 0)}, base="digest")
    found = average([one, two]).delta
    assert {name: value.tolist() for name, value in found.items()} == {"a": [2], "b": [2, 4]}


def test_one_update_is_its_own_average_whatever_its_weight() -> None:
    assert average([update(0.25, -3, weight=0.1)]).delta["w"].tolist() == [0.25, -3]


def test_averaging_leaves_the_updates_as_they_were() -> None:
    given = [update(1, weight=2), update(2)]
    average(given)
    assert [float(it.delta["w"][0]) for it in given] == [1, 2]


@given(
    st.lists(
        st.tuples(st.floats(-10, 10, width=32), st.floats(0.01, 1000)), min_size=1, max_size=8
    ),
    st.integers(0, 2**32),
)
def test_the_order_of_updates_changes_an_average_by_rounding_only(
    pairs: list[tuple[float, float]], seed: int
) -> None:
    updates = [update(value, weight=weight) for value, weight in pairs]
    turned = [updates[place] for place in np.random.default_rng(seed).permutation(len(updates))]
    first, second = average(updates).delta["w"], average(turned).delta["w"]
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)
    low, high = min(value for value, _ in pairs), max(value for value, _ in pairs)
    assert low - 1e-4 <= first[0] <= high + 1e-4  # and an average lies among what it is of


def test_a_total_is_a_sum_by_public_weight() -> None:
    found = total([update(1, 2, weight=1), update(5, -2, weight=3)])
    assert found.delta["w"].tolist() == [16, -4]  # 1·1 + 3·5, 1·2 - 3·2
    assert found.weight == 4
    assert found.delta["w"].dtype == np.float32


def test_every_tensor_is_summed_on_its_own() -> None:
    one = Update({"a": tensor(1), "b": tensor(0, 8)}, base="digest")
    two = Update({"a": tensor(3), "b": tensor(4, 0)}, base="digest", weight=2)
    found = total([one, two]).delta
    assert {name: value.tolist() for name, value in found.items()} == {"a": [7], "b": [8, 8]}


def test_totalling_leaves_the_updates_as_they_were() -> None:
    given = [update(1, weight=2), update(2)]
    total(given)
    assert [float(it.delta["w"][0]) for it in given] == [1, 2]


@given(st.lists(st.integers(0, 2**15), min_size=2, max_size=2))
def test_whole_counts_times_whole_weights_stay_whole(counts: list[int]) -> None:
    updates = [update(count, weight=weight) for count, weight in zip(counts, (3, 28), strict=True)]
    assert total(updates).delta["w"].tolist() == [3 * counts[0] + 28 * counts[1]]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**20), st.sampled_from([0.1, 1, 2.5, 3, 28, 49, 1000])),
        min_size=1,
        max_size=6,
    )
)
def test_counts_divided_by_their_weight_come_back_to_the_nearest_whole_number(
    pairs: list[tuple[int, float]],
) -> None:
    updates = [update(count / weight, weight=weight) for count, weight in pairs]
    assert np.rint(total(updates).delta["w"]).tolist() == [sum(count for count, _ in pairs)]


def test_a_total_forgets_no_small_update_beside_a_large_one() -> None:
    found = total([update(2**24), update(1), update(1)])
    assert found.delta["w"].tolist() == [2**24 + 2]  # in single precision it would stay at 2**24


def test_sums_are_added_to_what_was_there() -> None:
    rule = sums()
    combined = rule.combine([update(1, 2, weight=3), update(4, 0, weight=28)])
    after = rule.step(rule.init(start(10, 0)), combined, 1)
    assert after.adapter.tensors["w"].tolist() == [125, 6]  # 10 + 3·1 + 28·4, 3·2
    assert (after.adapter.version, dict(after.moments)) == (1, {})


def test_fedavg_moves_by_the_average_times_its_learning_rate() -> None:
    assert walk(fedavg(), ServerState(start(1)), [2, -1]) == [3, 2]
    assert walk(fedavg(0.5), ServerState(start(1)), [2, -1]) == [2, 1.5]


def test_fedavg_keeps_no_moments() -> None:
    rule = fedavg()
    after = rule.step(rule.init(start(1)), Aggregate({"w": tensor(1)}, 1.0), 1)
    assert dict(after.moments) == {}


def test_fedadam_follows_algorithm_2_of_the_paper_for_two_steps() -> None:
    # β1 .9, β2 .99, τ .001, η .1, from 0; averages 1 then -2.
    #   m = .1·1                = .1       v = .01·1²               = .01
    #   x = .1·.1/(√.01 + .001)            = .01/.101    = .0990099
    #   m = .9·.1 + .1·(-2)     = -.11     v = .99·.01 + .01·(-2)²  = .0499
    #   x = .0990099 - .1·.11/(√.0499 + .001) = .0990099 - .011/.2243831 = .0499864
    # To a thousandth, because the paper lets v start anywhere from τ² = .000001 up.
    rule = fedadam(0.1)
    first, second = walk(rule, rule.init(start(0)), [1, -2])
    assert first == pytest.approx(0.0990099, rel=1e-3)
    assert second == pytest.approx(0.0499864, rel=1e-3)


def test_fedadam_moments_are_not_debiased() -> None:
    rule = fedadam(1.0)
    state = rule.step(rule.init(start(0)), Aggregate({"w": tensor(1)}, 1.0), 1)
    assert state.moments["first/w"][0] == pytest.approx(0.1)
    assert state.moments["second/w"][0] == pytest.approx(0.01, rel=1e-3)


def test_fedadam_goes_on_where_its_last_average_pointed() -> None:
    rule = fedadam(0.1)
    first, second = walk(rule, rule.init(start(0)), [1, 0])
    assert second > first  # the average was zero; what moves is the momentum


def test_fedadam_steps_large_where_updates_are_small_and_steady() -> None:
    rule = fedadam(0.1)
    large, small = (walk(rule, rule.init(start(0)), [size])[0] for size in (1.0, 0.1))
    assert small == pytest.approx(large, rel=0.15)  # ten times smaller, nearly the same step


@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_a_step_leaves_the_state_it_came_from_as_it_was(name: str) -> None:
    rule = fedavg() if name == "fedavg" else fedadam(0.1)
    state = rule.init(start(1, 2))
    digest = state.adapter.digest
    moments = {key: value.copy() for key, value in state.moments.items()}
    after = rule.step(state, Aggregate({"w": tensor(1, 1)}, 1.0), 7)
    again = rule.step(state, Aggregate({"w": tensor(1, 1)}, 1.0), 7)
    assert after.adapter.digest == again.adapter.digest != digest
    fresh = Adapter(state.adapter.tensors, state.adapter.backbone, state.adapter.task)
    assert fresh.digest == digest  # hashed anew: no tensor was written to
    assert all((state.moments[key] == value).all() for key, value in moments.items())
    assert (state.adapter.version, after.adapter.version) == (0, 7)


def test_a_state_cannot_be_assigned_to() -> None:
    state = ServerState(start(1))
    with pytest.raises(FrozenInstanceError):
        state.adapter = start(2)  # type: ignore[misc]


def test_an_algorithm_goes_by_its_name() -> None:
    moments = {name: algorithm(name, 0.1).init(start(1)).moments for name in ("fedavg", "fedadam")}
    assert {name: sorted(value) for name, value in moments.items()} == {
        "fedavg": [],
        "fedadam": ["first/w", "second/w"],
    }
    assert walk(algorithm("fedavg", 0.5), ServerState(start(0)), [1]) == [0.5]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_server_learning_rate_is_finite_and_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="server learning rate"):
        algorithm("fedavg", rate)
