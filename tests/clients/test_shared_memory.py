from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.memory import Memory
from clients.randomness import simulated
from clients.shared_memory import SharedMemory, others, posterior_mean
from clients.sums import SENSITIVITY, Places, bounded, exact, released
from server.aggregate import total
from shared.adapter import Adapter, Tensors
from shared.events import Histories, from_lists
from shared.pairs import Pairs, met
from shared.tasks import co_visitation as task
from shared.update import Update

LISTED = tuple("abcdef")
EVERY = [left * 6 + right for right in range(6) for left in range(right)]
PAIRS = replace(met(LISTED, np.array(EVERY, np.int64)), directed=False)
DIRECTED = replace(PAIRS, directed=True)
# What each of three platforms sells, in its order; "z" is in no list.
SHOPS = ("cabde", "zfabc", "defcz")
WEIGHTS = (60.0, 28.0, 3.0)
ROWS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), max_size=5)


def places(shop: str, pairs: Pairs) -> Places:
    return Places(pairs, {name: at for at, name in enumerate(shop)})


def histories(rows: Sequence[Sequence[int]]) -> Histories:
    arrays = [np.array(row, np.int32) for row in rows]
    return from_lists(arrays, tuple(f"s{place}" for place in range(len(rows))))


def named(shop: str, *words: str) -> Histories:
    return histories([[shop.index(letter) for letter in word] for word in words])


def added(pairs: Pairs, parts: Sequence[Tensors], weights: Sequence[float] = WEIGHTS) -> Adapter:
    """What the coordinator makes of these Updates."""
    start = task.untrained(pairs)
    sent = [Update(it, start.digest, weight) for it, weight in zip(parts, weights, strict=True)]
    return start.plus(total(sent).delta, version=1)


def elsewhere(rows: Sequence[list[list[int]]]) -> Memory:
    """The Memory of the second and third shop's rows, in the Catalogue of the first."""
    names = [*SHOPS[0], "f", "z"]
    moved = [
        [names.index(shop[item]) for item in row]
        for shop, those in zip(SHOPS[1:], rows, strict=True)
        for row in those
    ]
    return Memory.of(histories(moved), items=len(names))


@given(ROWS, ROWS, ROWS)
def test_exact_sums_less_ones_own_are_the_memory_of_the_others(
    mine: list[list[int]], second: list[list[int]], third: list[list[int]]
) -> None:
    parts = [
        exact(histories(rows), places(shop, DIRECTED), weight=weight)
        for shop, rows, weight in zip(SHOPS, (mine, second, third), WEIGHTS, strict=True)
    ]
    adapter = added(DIRECTED, parts)
    found = others(adapter, places(SHOPS[0], DIRECTED), own=parts[0], weight=WEIGHTS[0])
    assert isinstance(found, Memory)
    expected = elsewhere([second, third])
    sold = len(SHOPS[0])  # "f" and "z" are not sold here
    together = expected.together.toarray()[:sold, :sold]
    following = expected.following.toarray()[:sold, :sold]
    np.fill_diagonal(following, 0)  # an item after itself is in no list
    np.testing.assert_array_equal(found.together.toarray(), together)
    np.testing.assert_array_equal(found.following.toarray(), following)
    np.testing.assert_array_equal(found.rows, together.diagonal())


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("weight", [0.3, 1.0, 60.0])
def test_where_nobody_else_took_part_nothing_is_believed(noise: float, weight: float) -> None:
    here = places(SHOPS[0], PAIRS)
    own = released(
        named(SHOPS[0], "cabd", "be"),
        here,
        weight=weight,
        noise_multiplier=noise,
        randomness=simulated(0),
    )
    found = others(added(PAIRS, [own], [weight]), here, own=own, weight=weight)
    assert isinstance(found, SharedMemory)
    assert found.together.nnz == 0
    assert not found.popularity.any()


def test_of_exact_sums_of_ones_own_nothing_remains() -> None:
    here = places(SHOPS[0], DIRECTED)
    own = exact(named(SHOPS[0], "cabd", "be"), here, weight=0.3)
    found = others(added(DIRECTED, [own], [0.3]), here, own=own, weight=0.3)
    assert isinstance(found, Memory)
    assert found.together.nnz == found.following.nnz == found.rows.sum() == 0


def mean_of_two(rows: Sequence[Histories]) -> NDArray[np.float64]:
    """[P + M] the weighted mean of what the second and third shop add without noise."""
    sums = [
        weight * bounded(it, places(shop, PAIRS))
        for it, shop, weight in zip(rows[1:], SHOPS[1:], WEIGHTS[1:], strict=True)
    ]
    return np.asarray(np.sum(sums, axis=0) / sum(WEIGHTS[1:]))


@pytest.mark.parametrize("took_part", [True, False])
def test_without_noise_it_is_the_others_mean_over_what_is_sold_here(took_part: bool) -> None:
    rows = [
        named(SHOPS[0], "cab", "ed"),
        named(SHOPS[1], "fab", "zac", "fc"),
        named(SHOPS[2], "def", "ce", "z"),
    ]
    parts = [
        released(it, places(shop, PAIRS), weight=w, noise_multiplier=0.0, randomness=simulated(0))
        for it, shop, w in zip(rows, SHOPS, WEIGHTS, strict=True)
    ]
    here, first = places(SHOPS[0], PAIRS), 0 if took_part else 1
    adapter = added(PAIRS, parts[first:], WEIGHTS[first:])
    found = others(adapter, here, own=parts[0] if took_part else None, weight=WEIGHTS[0])
    assert isinstance(found, SharedMemory)
    together, items = np.split(mean_of_two(rows), [len(PAIRS)])
    by_hand = np.zeros((5, 5))
    for value, left, right in zip(together, PAIRS.left, PAIRS.right, strict=True):
        if right < 5:  # the first shop sells "a" to "e"
            one, other = SHOPS[0].index(LISTED[left]), SHOPS[0].index(LISTED[right])
            by_hand[one, other] = by_hand[other, one] = value
    np.testing.assert_allclose(found.together.toarray(), by_hand, rtol=1e-5, atol=1e-6)
    shares = {name: items[at] / items.mean() for at, name in enumerate(LISTED)}
    popularity = [np.log1p(shares[name]) for name in SHOPS[0]]
    np.testing.assert_allclose(found.popularity, popularity, rtol=1e-5, atol=1e-6)
    assert found.together.dtype == found.popularity.dtype == np.float32


def test_an_item_that_is_in_no_list_is_neither_popular_nor_near_anything() -> None:
    here = places(SHOPS[1], PAIRS)
    part = released(
        named(SHOPS[0], "cabde", "ca"),
        places(SHOPS[0], PAIRS),
        weight=1.0,
        noise_multiplier=0.0,
        randomness=simulated(0),
    )
    found = others(added(PAIRS, [part], [1.0]), here, own=None, weight=1.0)
    assert isinstance(found, SharedMemory)
    z, a = (SHOPS[1].index(letter) for letter in "za")
    assert found.popularity[z] == 0 < found.popularity[a]
    assert found.together.toarray()[z].tolist() == [0] * 5
    assert found.together.toarray()[a].any()


@pytest.mark.parametrize("pairs", [PAIRS, DIRECTED])
def test_who_sells_nothing_of_the_list_learns_nothing(pairs: Pairs) -> None:
    ones = {name: np.ones_like(it) for name, it in task.untrained(pairs).tensors.items()}
    found = others(added(pairs, [ones], [2.0]), places("zyx", pairs), own=None, weight=1.0)
    assert found.together.shape == (3, 3)
    assert found.together.nnz == 0
    assert not found.popularity.any()


def test_the_noise_that_is_reckoned_with_is_the_others_own() -> None:
    sigmas = (9.0, 0.5, 1.0)
    parts = [
        released(
            named(shop, shop[:4]),
            places(shop, PAIRS),
            weight=weight,
            noise_multiplier=sigma,
            randomness=simulated(shop),
        )
        for shop, weight, sigma in zip(SHOPS, WEIGHTS, sigmas, strict=True)
    ]
    here = places(SHOPS[0], PAIRS)
    found = others(added(PAIRS, parts), here, own=parts[0], weight=WEIGHTS[0])
    mean = (28 * parts[1][task.TOGETHER] + 3 * parts[2][task.TOGETHER]) / 31
    noise = np.sqrt(2) * np.hypot(28 * 0.5, 3 * 1.0) * SENSITIVITY / 31
    believed = posterior_mean(mean.astype(np.float64), float(noise))
    by_hand = np.zeros((6, 6))
    order = [SHOPS[0].find(letter) for letter in LISTED]  # "f", not sold here, is the last
    for value, left, right in zip(believed, PAIRS.left, PAIRS.right, strict=True):
        by_hand[order[left], order[right]] = by_hand[order[right], order[left]] = value
    assert isinstance(found, SharedMemory)
    np.testing.assert_allclose(found.together.toarray(), by_hand[:5, :5], rtol=1e-3, atol=1e-5)


def test_the_same_sum_is_believed_sooner_of_kin_than_of_strangers() -> None:
    items = tuple(f"{at:02}" for at in range(60))
    keys = [left * 60 + right for right in range(60) for left in range(right)]
    strangers = replace(met(items, np.array(keys, np.int64)), directed=False)
    kin = np.arange(len(strangers)) % 10 == 0
    pairs = replace(strangers, nearness=np.where(kin, 0.9, 0.1).astype(np.float32))
    sums = np.where(kin, 3.0, 0.0) + np.random.default_rng(0).laplace(
        scale=0.5**0.5, size=len(pairs)
    )
    watched = [10, 11]  # one of kin, one of strangers
    sums[watched] = 2.5
    told = {
        **task.untrained(pairs).tensors,
        task.TOGETHER: sums.astype(np.float32),
        task.VARIANCE: np.ones(1, np.float32),
        task.WEIGHT: np.ones(1, np.float32),
    }
    adapter = Adapter(told, pairs.digest, task.NAME)
    here = Places(pairs, {name: at for at, name in enumerate(items)})
    together = others(adapter, here, own=None, weight=1.0).together.toarray()
    near, far = together[pairs.left[watched], pairs.right[watched]]
    assert near > 2 > 0.5 > far >= 0


def test_sums_over_another_list_or_of_another_task_are_refused() -> None:
    adapter, here = task.untrained(PAIRS), places(SHOPS[0], PAIRS)
    others(adapter, here, own=None, weight=1.0)
    for other in (task.untrained(DIRECTED), replace(adapter, task="next-item")):
        with pytest.raises(ValueError, match="another list"):
            others(other, here, own=None, weight=1.0)
