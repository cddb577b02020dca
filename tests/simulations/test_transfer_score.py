from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.randomness import simulated
from shared.errors import PlanError
from shared.events import Histories, from_lists
from shared.plan import default_delta
from simulations.transfer_score import (
    ON_COUNT,
    Released,
    Score,
    Vectors,
    release,
    score,
    vectors,
    without,
)

ITEMS, WIDTH = 40, 24


def table(seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(ITEMS, WIDTH)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


TABLE = table()


def histories(rows: list[list[int]]) -> Histories:
    names = tuple(f"s{place}" for place in range(len(rows)))
    return from_lists([np.array(row, np.int32) for row in rows], names)


def journeys(shoppers: int, *, step: int, seed: int) -> Vectors:
    """Shoppers who go round the catalogue, mostly `step` places at a time."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(shoppers):
        place, row = int(rng.integers(ITEMS)), []
        for _event in range(5):
            row.append(place)
            place = (place + step if rng.random() < 0.8 else int(rng.integers(ITEMS))) % ITEMS
        rows.append(row)
    return vectors(histories(rows), TABLE)


def told(mine: Vectors, name: str, *, epsilon: float = 0.5) -> Released:
    return release(
        mine, epsilon=epsilon, delta=default_delta(len(mine)), randomness=simulated(0, name)
    )


def quiet(mine: Vectors) -> Released:
    """As if nothing had to be protected."""
    return Released(mine.sum(0), 0.0, math.inf, 0.0)


def test_a_vector_is_of_norm_1_and_of_its_own_history_alone() -> None:
    rows = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11]]
    found = vectors(histories(rows), TABLE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(vectors(histories([row]), TABLE)[0], found[place])


@pytest.mark.parametrize("row", [[3], [3, 3, 3], [3, 5, 3]])
def test_a_history_without_an_order_is_only_counted(row: list[int]) -> None:
    found = vectors(histories([row]), TABLE)[0]
    np.testing.assert_allclose(found[:-1], 0.0, atol=1e-12)
    assert found[-1] == pytest.approx(math.sqrt(ON_COUNT))


def test_no_history_gives_no_vector() -> None:
    assert vectors(histories([]), TABLE).shape[0] == 0


def test_the_mirror_image_of_a_history_has_the_opposite_vector() -> None:
    there, back = vectors(histories([[1, 2, 3, 4], [4, 3, 2, 1]]), TABLE)
    np.testing.assert_allclose(there[:-1], -back[:-1], atol=1e-12)
    assert there[-1] == back[-1]


def test_one_shopper_more_changes_the_sum_by_1_at_most_and_the_noise_by_nothing() -> None:
    mine = journeys(50, step=1, seed=0)
    draws = [
        release(rows, epsilon=0.5, delta=1e-3, randomness=simulated(7))
        for rows in (mine, mine[:-1])
    ]
    apart = float(np.linalg.norm(draws[0].total - draws[1].total))
    assert apart <= 1 + 1e-5
    assert draws[0].noise == draws[1].noise > 1


def test_a_smaller_epsilon_is_more_noise_and_none_is_refused() -> None:
    mine = journeys(50, step=1, seed=0)
    assert told(mine, "a", epsilon=0.1).noise > told(mine, "a", epsilon=1.0).noise
    with pytest.raises(PlanError, match=r"epsilon 0\.0 is not a positive number"):
        told(mine, "a", epsilon=0.0)


def test_a_platform_of_the_same_law_is_near_and_of_the_contrary_law_far() -> None:
    others = [told(journeys(900, step=1, seed=place), f"o{place}") for place in (1, 2, 3)]
    same = score(journeys(200, step=1, seed=4), others)
    mirror = score(journeys(200, step=-1, seed=5), others)
    stranger = score(journeys(200, step=17, seed=6), others)
    assert (same.verdict, mirror.verdict) == ("near", "contrary")
    assert same.nearness is not None
    assert mirror.nearness is not None
    assert same.nearness > 0.8
    assert mirror.nearness < -0.8
    assert mirror.expected < 0 < same.expected
    assert same.expected > stranger.expected > mirror.expected


def test_without_noise_the_score_of_many_identical_histories_is_known_by_hand() -> None:
    rows = vectors(histories([[1, 2, 3]] * 10), TABLE)
    found = score(rows, [quiet(np.repeat(rows, 100, axis=0))])
    # Own mean is the unit vector, without error; the others' too, but for the bound 1/1000.
    assert found.nearness == pytest.approx(1.0, abs=1e-3)
    assert found.expected == pytest.approx(-1.0, abs=0.1)  # nothing is left to be learnt
    assert found.verdict == "near"


def test_the_fewer_its_own_histories_the_more_a_platform_should_gain() -> None:
    others = [quiet(journeys(3000, step=1, seed=1))]
    expected = [
        score(journeys(count, step=1, seed=2), others).expected for count in (10, 100, 1000)
    ]
    assert expected[0] > expected[1] > expected[2]


def test_nobody_else_or_too_few_histories_is_told_as_unclear() -> None:
    mine = journeys(20, step=1, seed=0)
    nothing = Score(None, 0.0, 0.0)
    assert score(mine, []) == score(mine[:1], [quiet(mine)]) == nothing
    assert nothing.verdict == "unclear"


def test_others_who_are_lost_in_noise_are_told_as_unclear() -> None:
    mine = journeys(30, step=1, seed=0)
    tiny = journeys(5, step=1, seed=1)
    found = [score(mine, [told(tiny, f"draw {draw}", epsilon=0.05)]) for draw in range(40)]
    assert sum(it.verdict == "unclear" for it in found) >= 34  # by chance 4 are not
    assert all(-1 <= it.expected <= 1 for it in found)


def test_a_platforms_own_release_is_not_among_the_others() -> None:
    every = {name: quiet(journeys(5, step=1, seed=0)) for name in ("b", "a", "c")}
    assert without(every, "a") == [every["b"], every["c"]]
