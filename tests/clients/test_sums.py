from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from clients.memory import REACH, Memory
from clients.randomness import simulated
from clients.sums import MOST, ON_PAIRS, SENSITIVITY, Places, bounded, exact, released
from shared.events import Histories, from_lists
from shared.pairs import Pairs, met
from shared.tasks import co_visitation as task

# The list knows "a" to "h", the Catalogue sells "c" to "j", and in another order.
LISTED = tuple("abcdefgh")
SOLD = dict(zip("jcidhefg", range(8), strict=True))
EVERY = [(left, right) for right in range(8) for left in range(right)]

ROW = st.lists(st.integers(0, 7), max_size=9) | st.lists(
    st.integers(0, 7), min_size=51, max_size=70
)
SOME = st.lists(ROW, max_size=5)
LISTS = st.lists(st.sampled_from(EVERY), max_size=28).map(lambda chosen: undirected(chosen))


def directed(chosen: Sequence[tuple[int, int]], items: Sequence[str] = LISTED) -> Pairs:
    keys = [left * len(items) + right for left, right in chosen]
    return met(items, np.array(keys, np.int64))


def undirected(chosen: Sequence[tuple[int, int]], items: Sequence[str] = LISTED) -> Pairs:
    return replace(directed(chosen, items), directed=False)


def histories(rows: list[list[int]]) -> Histories:
    arrays = [np.array(row, np.int32) for row in rows]
    return from_lists(arrays, tuple(f"s{place}" for place in range(len(rows))))


def named(*words: str) -> Histories:
    """Histories of items by their letters."""
    return histories([[SOLD[letter] for letter in word] for word in words])


def added_by(row: list[int], places: Places) -> NDArray[np.float64]:
    """What one History adds, once more and slowly."""
    pairs, shift = places.pairs, len(places.pairs)
    row = [int(places.theirs[item]) for item in row[-REACH:]]
    of = {
        (int(a), int(b)): at for at, (a, b) in enumerate(zip(pairs.left, pairs.right, strict=True))
    }
    apart: dict[int, int] = {}
    for later, item in enumerate(row):
        for sooner, other in enumerate(row[:later]):
            pair = of.get((min(item, other), max(item, other)))
            if pair is not None:
                apart[pair] = min(apart.get(pair, REACH), later - sooner)
    counted = sorted(apart, key=lambda pair: (apart[pair], pair))[:MOST]
    things = [item for item in row if item >= 0]
    found = np.zeros(shift + len(pairs.items))
    found[counted] = ON_PAIRS / max(1, len(counted))
    found[[shift + thing for thing in things[-1:]]] = 1 - ON_PAIRS if counted else 1
    return found


ALL = Places(undirected(EVERY), SOLD)
RELEASES = 20_000


@given(LISTS, SOME, ROW, st.integers(0, 5))
def test_a_shopper_more_changes_the_sums_by_at_most_one_and_alike_whoever_else_is_there(
    pairs: Pairs, others: list[list[int]], one: list[int], place: int
) -> None:
    places = Places(pairs, SOLD)
    more = histories([*others[:place], one, *others[place:]])
    change = bounded(more, places) - bounded(histories(others), places)
    assert np.abs(change).sum() <= 1 + 1e-9
    assert np.count_nonzero(bounded(histories([one]), places)) <= MOST + 1
    np.testing.assert_allclose(change, bounded(histories([one]), places), rtol=0, atol=1e-9)


@given(LISTS, SOME)
def test_the_sums_are_those_of_every_history_counted_by_hand(
    pairs: Pairs, rows: list[list[int]]
) -> None:
    places = Places(pairs, SOLD)
    by_hand = sum((added_by(row, places) for row in rows), np.zeros(len(pairs) + len(LISTED)))
    np.testing.assert_allclose(bounded(histories(rows), places), by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("word", "norm"),
    [
        ("cd", 1.0),
        ("cdhef" * 12, 1.0),
        ("cc", 1.0),
        ("jci", 1.0),
        ("jij", 0.0),
        ("", 0.0),
        ("cd" + "j" * REACH, 0.0),
        ("c" + "j" * (REACH - 1) + "d", 1.0),
        ("c" + "j" * (REACH - 2) + "d", 1.0),
    ],
)
def test_a_history_adds_one_in_all_if_it_has_an_item_of_the_list_and_else_nothing(
    word: str, norm: float
) -> None:
    assert bounded(named(word), ALL).sum() == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize(
    ("word", "pairs", "items"),
    [
        ("cd", {"cd": 0.9}, {"d": 0.1}),
        ("dcj", {"cd": 0.9}, {"c": 0.1}),
        ("cde", {"cd": 0.3, "de": 0.3, "ce": 0.3}, {"e": 0.1}),
        ("jc", {}, {"c": 1.0}),
        ("c" + "j" * (REACH - 1) + "d", {}, {"d": 1.0}),
    ],
)
def test_nine_tenths_are_for_pairs_alike_and_the_rest_for_the_last_item(
    word: str, pairs: dict[str, float], items: dict[str, float]
) -> None:
    listed = zip(ALL.pairs.left, ALL.pairs.right, strict=True)
    names = [*(LISTED[left] + LISTED[right] for left, right in listed), *LISTED]
    found = bounded(named(word), ALL)
    told = {names[at]: found[at] for at in np.flatnonzero(found)}
    assert told == pytest.approx({**pairs, **items})


def test_of_too_many_pairs_those_fewest_events_apart_count_and_of_these_the_first() -> None:
    found = bounded(named("defg"), ALL)  # three pairs one event apart, two two events
    near = ["de", "ef", "fg", "df"]
    listed = zip(ALL.pairs.left, ALL.pairs.right, strict=True)
    counted = [LISTED[left] + LISTED[right] for left, right in listed]
    assert len(near) == MOST
    assert {counted[at] for at in np.flatnonzero(found[: len(EVERY)])} == set(near)
    np.testing.assert_allclose(found[found > 0][:MOST], 0.9 / MOST)


def test_the_same_pair_again_adds_no_more() -> None:
    once, again = (bounded(named(word), ALL) for word in ("cd", "cdcdcd"))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("items", [(), LISTED])
def test_over_a_list_without_pairs_only_items_are_told(items: tuple[str, ...]) -> None:
    found = bounded(named("cde", "jj"), Places(undirected([], items), SOLD))
    assert found.tolist() == pytest.approx([0, 0, 0, 0, 1, 0, 0, 0] if items else [])


@given(st.lists(st.sampled_from(EVERY)), SOME, st.sampled_from([1.0, 0.3, 60.0, 7.1]))
def test_exact_sums_are_whole_counts_of_a_memory_when_they_are_added_up(
    chosen: list[tuple[int, int]], rows: list[list[int]], weight: float
) -> None:
    places = Places(directed([(2, 3), *chosen]), SOLD)
    memory = Memory.of(histories(rows), items=len(SOLD))
    together, following = memory.together.toarray(), memory.following.toarray()
    sums = exact(histories(rows), places, weight=weight)
    assert all(it.dtype == np.float32 for it in sums.values())
    told = {name: weight * it.astype(np.float64) for name, it in sums.items()}
    for pair in range(len(places.pairs)):
        names = (LISTED[places.pairs.left[pair]], LISTED[places.pairs.right[pair]])
        left, right = (SOLD.get(name) for name in names)
        counts = [0, 0, 0]
        if left is not None and right is not None:
            counts = [together[left, right], following[left, right], following[right, left]]
        found = [told[task.TOGETHER][pair], *told[task.FOLLOWING][pair]]
        assert found == pytest.approx(counts, rel=1e-6)
    holders = [together[SOLD[name], SOLD[name]] if name in SOLD else 0 for name in LISTED]
    assert told[task.ITEMS].tolist() == pytest.approx(holders, rel=1e-6)
    assert float(told[task.WEIGHT][0]) == pytest.approx(1)


@pytest.mark.parametrize("chosen", [[], [(0, 1)], [(0, 2)]])
def test_who_sells_no_pair_of_the_list_counts_its_items_all_the_same(
    chosen: list[tuple[int, int]],
) -> None:
    sums = exact(named("cd", "ce"), Places(directed(chosen), SOLD), weight=1.0)
    assert sums[task.ITEMS].tolist() == [0, 0, 2, 1, 1, 0, 0, 0]
    assert not sums[task.TOGETHER].any()


def test_without_noise_the_bounded_sums_leave_in_the_tensors_of_the_task() -> None:
    rows = named("cde", "hg", "jc")
    told = released(rows, ALL, weight=2.0, noise_multiplier=0.0, randomness=simulated(0))
    assert {name: it.shape for name, it in told.items()} == task.untrained(ALL.pairs).shapes
    assert all(it.dtype == np.float32 for it in told.values())
    both = np.concatenate([told[task.TOGETHER], told[task.ITEMS]])
    np.testing.assert_allclose(both, bounded(rows, ALL), rtol=1e-6)
    assert both.any()
    assert (told[task.VARIANCE].tolist(), told[task.WEIGHT].tolist()) == ([0], [1])


def test_the_noise_has_the_spread_that_is_paid_for_on_every_number() -> None:
    items = tuple(f"{place:03}" for place in range(200))
    every = [(left, right) for right in range(200) for left in range(right)]
    places = Places(undirected(every, items), dict(zip(items, range(200), strict=True)))
    rows = histories([[place, place + 1] for place in range(0, 200, 2)] * 50)
    told = released(rows, places, weight=3.0, noise_multiplier=1.7, randomness=simulated("spread"))
    both = np.concatenate([told[task.TOGETHER], told[task.ITEMS]])
    noise = both - bounded(rows, places)
    spread = math.sqrt(2) * 1.7 * SENSITIVITY
    assert kstest(noise, "laplace", args=(0, 1.7 * SENSITIVITY)).pvalue > 0.01
    # 20,100 draws: the standard error of their deviation is 0.8 % of it, of their mean 0.7 %.
    assert noise.std() == pytest.approx(spread, rel=0.03)
    assert abs(noise.mean()) < 0.03 * spread
    assert (noise != 0).all()
    # Times the weight, the noise has the variance that is told, times the weight.
    assert 3.0 * told[task.VARIANCE][0] == pytest.approx((3.0 * spread) ** 2)


@pytest.mark.parametrize("word", ["jc", "cd", "cdefgh"])
def test_who_watches_release_after_release_tells_a_shopper_from_none_as_epsilon_allows_and_no_more(
    word: str,
) -> None:
    # The best test there is, of likelihoods, under ε = 1: its bound comes near 1 and stays below.
    others = named("cdh", "efg")
    there, absent = bounded(named("cdh", "efg", word), ALL), bounded(others, ALL)

    def bound(scale: float) -> float:
        """ε is at least this, with 99 % confidence (Clopper and Pearson)."""
        counts = []
        for name, total in (("there", there), ("absent", absent)):
            drawn = simulated(name).on_grid(
                np.tile(total, (RELEASES, 1)),
                sensitivity=SENSITIVITY,
                multiplier=scale,
                number=0,
                mechanism="laplace",
            )
            nearer = np.abs(drawn - absent).sum(1) - np.abs(drawn - there).sum(1)
            counts.append([(nearer > at).sum() for at in (-0.5, 0.0, 0.5, 0.9)])
        least = beta.ppf(0.005, counts[0], RELEASES - np.array(counts[0]) + 1)
        most = beta.ppf(0.995, np.array(counts[1]) + 1, RELEASES - np.array(counts[1]))
        return float(np.log(least / most).max())

    assert 0.6 < bound(1.0) < 1.0
    assert bound(0.5) > 1.0


def test_noise_repeats_under_one_seed_and_differs_under_another() -> None:
    def told(seed: int) -> list[float]:
        drawn = simulated(seed)
        sums = released(named("cde"), ALL, weight=1.0, noise_multiplier=2.0, randomness=drawn)
        return [float(it) for it in sums[task.TOGETHER]]

    assert told(0) == told(0)
    assert not set(told(0)) & set(told(1))


def test_what_is_not_sold_here_gets_zeros_and_noise_as_everything_else() -> None:
    rows, missing = named("cdefgh", "jcid"), np.array([name not in SOLD for name in LISTED])
    pairs = missing[ALL.pairs.left] | missing[ALL.pairs.right]
    how = {"weight": 1.0, "randomness": simulated(0)}
    bare = released(rows, ALL, noise_multiplier=0.0, **how)  # type: ignore[arg-type]
    noised = released(rows, ALL, noise_multiplier=1.0, **how)  # type: ignore[arg-type]
    for name, lacks in ((task.TOGETHER, pairs), (task.ITEMS, missing)):
        assert lacks.any()
        assert not bare[name][lacks].any()
        assert bare[name][~lacks].any()
        assert noised[name].all()


def test_the_sensitivity_has_room_for_what_rounding_to_a_grid_adds() -> None:
    assert SENSITIVITY * (1 - (MOST + 1) * 2.0**-24) >= 1
