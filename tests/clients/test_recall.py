from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import DECAY, LAST, Memory
from clients.recall import DEEP, SHOPPERS, Recall, Shares
from clients.shared_memory import SharedMemory
from shared.events import Histories, Question, from_lists
from shared.metrics import ndcg
from shared.ranking import rank

ITEMS = 6
MANY = 4 * DEEP  # of which a signal's best are few
SILENT = Shares(similar=0, next=0, popularity=0, shared=0, shared_popularity=0)
LOUD = Shares(similar=2.0, next=3.0, popularity=0.5, shared=0.7, shared_popularity=0.3)


class Flat:
    """A prior that prefers item 3 a little."""

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return np.tile(np.eye(ITEMS, dtype=np.float32)[3] * 0.01, (len(contexts), 1))


@dataclass
class Told:
    """A prior of what each item says of the others: [N, N], read at the last of a context."""

    table: NDArray[np.float32]

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return self.table[contexts.last()]


def histories(rows: list[list[int]]) -> Histories:
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    return from_lists(arrays, tuple(f"s{place}" for place in range(len(rows))))


def memory(rows: list[list[int]], *, items: int = ITEMS) -> Memory:
    return Memory.of(histories(rows), items=items)


def random_table(seed: int, *, items: int) -> NDArray[np.float32]:
    """Scores of which no two are alike, all below 0.1."""
    drawn = np.random.default_rng(seed).permutation(items * items).reshape(items, items)
    return (drawn * (0.1 / items**2)).astype(np.float32)


def shared_memory(table: NDArray[np.float32], popularity: NDArray[np.float32]) -> SharedMemory:
    both = np.asarray(table + table.T, np.float32)
    np.fill_diagonal(both, 0)
    return SharedMemory(sparse.csr_array(both), popularity)


def gain(recall: Recall, asked: Question) -> float:
    """Mean NDCG@10 over the whole Catalogue."""
    return float(ndcg(rank(recall, asked, items=len(recall.memory.rows)).ranks).mean())


def test_scores_are_the_prior_and_each_signal_as_loudly_as_it_is_told() -> None:
    found, scale = memory([[0, 1], [0, 1], [2, 1]]), 6.0
    shared = shared_memory(random_table(0, items=ITEMS), np.arange(ITEMS, dtype=np.float32))
    contexts = histories([[5, 5, 2, 0, 2, 0, 4], [1], []])  # the first longer than what speaks
    by_hand = np.zeros((3, ITEMS))
    for shopper in range(3):
        for age, item in enumerate(contexts[shopper][::-1][:LAST]):
            by_hand[shopper, item] += DECAY**age
    expected = Flat().scores(contexts) + scale * (
        2.0 * by_hand @ found.similar.toarray()
        + 3.0 * by_hand @ found.next.toarray()
        + 0.5 * np.log1p(found.rows)
        + 0.7 * by_hand @ shared.together.toarray()
        + 0.3 * np.arange(ITEMS)
    )
    scores = Recall(Flat(), found, scale, LOUD, shared).scores(contexts)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.dtype == np.float32


def test_without_a_shared_memory_its_shares_say_nothing() -> None:
    contexts, found = histories([[0], [2, 1]]), memory([[0, 1], [2, 1]])
    deaf = replace(LOUD, shared=0.0, shared_popularity=0.0)
    one, other = (Recall(Flat(), found, 6.0, it).scores(contexts) for it in (LOUD, deaf))
    np.testing.assert_array_equal(one, other)


def test_an_empty_memory_leaves_the_prior_as_it_is() -> None:
    contexts = histories([[1], [0, 2]])
    recall = Recall(Flat(), memory([]), 6.0)
    np.testing.assert_array_equal(recall.scores(contexts), Flat().scores(contexts))


def test_a_shopper_without_events_is_told_of_what_is_popular() -> None:
    scores = Recall(Flat(), memory([[1, 2], [1, 3]]), 6.0).scores(histories([[]]))
    assert scores.shape == (1, ITEMS)
    assert np.isfinite(scores).all()
    assert int(scores[0].argmax()) == 1


# Shares ---------------------------------------------------------------------------------------

HAD = range(0, MANY, 2)
ASKED = Question(histories([[place] for place in HAD]), np.arange(1, MANY, 2, dtype=np.int32))
PAIRED = [[place, place + 1] for place in HAD] * 5  # each item and its target
CROSSED = [[place, (place + 3) % MANY] for place in HAD] * 5  # each and another's
ASTRAY = [[place, (place + 5) % MANY] for place in HAD]
NOTHING = np.zeros(MANY, np.float32)


def pairs_of(rows: list[list[int]]) -> NDArray[np.float32]:
    table = np.zeros((MANY, MANY), np.float32)
    for left, right in rows:
        table[left, right] = 1.0
    return table


WORLDS = {
    "own": Recall(
        Told(random_table(0, items=MANY)),
        memory(PAIRED, items=MANY),
        1.0,
        SILENT,
        shared_memory(pairs_of(CROSSED), NOTHING),
    ),
    "shared": Recall(
        Told(random_table(0, items=MANY)),
        memory(CROSSED, items=MANY),
        1.0,
        SILENT,
        shared_memory(pairs_of(PAIRED), NOTHING),
    ),
    "prior": Recall(
        Told(random_table(0, items=MANY) + 0.2 * pairs_of(PAIRED)),
        memory(CROSSED, items=MANY),
        1.0,
        Shares(),
        shared_memory(pairs_of(ASTRAY), NOTHING),
    ),
}


@pytest.mark.parametrize("who", list(WORLDS))
def test_whoever_alone_knows_the_targets_is_listened_to(who: str) -> None:
    recall = WORLDS[who]
    fitted = recall.fitted(ASKED)
    assert gain(recall, ASKED) < 0.9
    assert gain(fitted, ASKED) == 1
    loud = {"own": fitted.shares.similar, "shared": fitted.shares.shared}
    assert {name for name, share in loud.items() if share > 0} == {who} - {"prior"}
    assert fitted.shares.next == fitted.shares.similar
    assert replace(fitted, shares=recall.shares) == recall


@pytest.mark.parametrize("who", ["popularity", "shared_popularity"])
def test_popularity_is_listened_to_where_it_is_what_is_taken(who: str) -> None:
    taken = list(range(ITEMS, 12))
    rows = [[item] for item in taken] * 20 if who == "popularity" else []
    told = np.where(np.arange(12) >= ITEMS, 3.0, 0.0).astype(np.float32)
    zeros = np.zeros((12, 12), np.float32)
    shared = shared_memory(zeros, told if who == "shared_popularity" else told * 0)
    table = random_table(0, items=12) - 0.11 * (np.arange(12) >= ITEMS)
    recall = Recall(Told(table.astype(np.float32)), memory(rows, items=12), 1.0, SILENT, shared)
    asked = Question(histories([[0], [1], [2], [3]]), np.array([8, 7, 11, 10], np.int32))
    fitted = recall.fitted(asked)
    assert gain(fitted, asked) > gain(recall, asked)
    assert fitted.shares == replace(SILENT, **{who: getattr(fitted.shares, who)})


ROWS = st.lists(st.lists(st.integers(0, 15), min_size=2, max_size=6), max_size=20)
SHARE = st.sampled_from([0.0, 0.1, 0.7, 2.0])


@given(st.integers(0, 10**6), ROWS, st.builds(Shares, SHARE, SHARE, SHARE, SHARE, SHARE))
def test_fitting_never_lowers_the_mean_ndcg_of_those_it_is_fitted_to(
    seed: int, rows: list[list[int]], shares: Shares
) -> None:
    rng, table = np.random.default_rng(seed), random_table(seed, items=16)
    shared = shared_memory(table[::-1], rng.random(16).astype(np.float32))
    asked = Question(
        histories([rng.integers(0, 8, 3).tolist() for _ in range(9)]),
        rng.integers(8, 16, 9).astype(np.int32),
    )
    recall = Recall(Told(table), memory(rows, items=16), 6.0, shares, shared)
    fitted = recall.fitted(asked)
    assert gain(fitted, asked) >= gain(recall, asked) - 1e-9


def test_of_shares_that_are_as_good_the_earlier_stay() -> None:
    recall = replace(WORLDS["own"], shares=Shares())
    assert gain(recall, ASKED) == 1
    assert recall.fitted(ASKED).shares == Shares()
    assert WORLDS["own"].fitted(ASKED).shares.similar == 0.3  # 0.6 and more find them too


def test_targets_that_nobody_knows_leave_the_shares_as_they_are() -> None:
    prior = random_table(0, items=MANY) - 9 * pairs_of(PAIRED)
    recall = Recall(Told(prior), memory([], items=MANY), 1.0, LOUD)
    assert recall.fitted(ASKED).shares == LOUD


def test_where_nobody_is_asked_it_is_the_same_object() -> None:
    recall = Recall(Flat(), memory([[0, 1]]), 6.0)
    assert recall.fitted(Question(histories([]), np.zeros(0, np.int32))) is recall


def test_of_many_shoppers_evenly_spaced_ones_choose() -> None:
    rows = [[0, 1], [12], [13], *([2, item] for item in range(3, 12))]
    prior = random_table(0, items=14)
    prior[0, [13, 1]] = 0.25, 0.2  # memory lifts 1 over 13, and nine over the target of 2
    prior[2, 12] = 0.12
    recall = Recall(Told(prior), memory(rows * 5, items=14), 1.0, SILENT)

    def chosen(count: int) -> Shares:
        contexts, targets = [[0], [2]] * count, [1, 12] * count
        asked = Question(histories(contexts[:-1]), np.array(targets[:-1], np.int32))
        return recall.fitted(asked).shares

    assert chosen(1) == chosen(SHOPPERS) != SILENT  # every other one, so that all had 0
    assert chosen(SHOPPERS // 2) == SILENT


def test_shared_shares_are_not_fitted_to_what_is_not_there() -> None:
    recall = replace(WORLDS["own"], shares=LOUD, shared=None)
    told = recall.fitted(ASKED).shares
    assert (told.shared, told.shared_popularity) == (LOUD.shared, LOUD.shared_popularity)


def test_a_target_level_with_others_is_not_taken_for_found() -> None:
    flat = np.zeros((MANY, MANY), np.float32)  # a prior to which all items are alike
    recall = Recall(Told(flat), memory(PAIRED, items=MANY), 1.0, SILENT)
    assert gain(recall.fitted(ASKED), ASKED) == 1
