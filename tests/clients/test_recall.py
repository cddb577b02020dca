from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import DECAY, LAST, Memory
from clients.recall import DEEP, Recall
from clients.shared_memory import SharedMemory
from clients.signals import Signals
from clients.weighing import FEATURES, KINDS, SILENCE, Shares, Weighing, spread, weighing_of
from shared.events import Histories, Question, from_lists
from shared.metrics import ndcg
from shared.ranking import rank
from shared.words import Texts

ITEMS = 6
MANY = 4 * DEEP  # of which a signal's best are few
LOUD = spread(Shares(similar=2.0, next=3.0, popularity=0.5, shared=0.7, shared_popularity=0.3))


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


def signals(rows: list[list[int]], *, items: int = ITEMS, seed: int | None = None) -> Signals:
    """Of these rows; no text is like another, or those that are drawn are."""
    texts = Texts.of(np.eye(items, dtype=np.float32), ["a"] * items)
    if seed is not None:
        drawn = np.random.default_rng(seed).normal(size=(items, 3)).astype(np.float32)
        words = [f"red {place % 2} {place % 3}{place % 3}" for place in range(items)]
        texts = Texts.of(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), words)
    return Signals(Memory.of(histories(rows), items=items), texts)


def random_table(seed: int, *, items: int) -> NDArray[np.float32]:
    """Scores of which no two are alike, all below 0.1."""
    drawn = np.random.default_rng(seed).permutation(items * items).reshape(items, items)
    return (drawn * (0.1 / items**2)).astype(np.float32)


def shared_memory(table: NDArray[np.float32], popularity: NDArray[np.float32]) -> SharedMemory:
    both = np.asarray(table + table.T, np.float32)
    np.fill_diagonal(both, 0)
    return SharedMemory(sparse.csr_array(both), popularity)


def any_weighing(seed: int) -> Weighing:
    flat = np.random.default_rng(seed).normal(size=FEATURES)
    flat[0] = 1.0
    return weighing_of(flat)


def gain(recall: Recall, asked: Question) -> float:
    """Mean NDCG@10 over the whole Catalogue."""
    return float(ndcg(rank(recall, asked, items=len(recall.memory.rows)).ranks).mean())


def test_scores_are_the_prior_and_each_signal_as_loudly_as_it_is_told() -> None:
    found, scale = signals([[0, 1], [0, 1], [2, 1], [3, 4], [2, 4]], seed=0), 6.0
    shared = shared_memory(random_table(0, items=ITEMS), np.arange(ITEMS, dtype=np.float32))
    contexts = histories([[5, 5, 2, 0, 2, 0, 4], [1], []])  # the first longer than what speaks
    told = any_weighing(1)
    kinds = {**found.pairs, "shared": shared.together}
    words = (found.texts.words @ found.texts.words.T).toarray()
    by_hand = np.zeros((3, ITEMS))
    for shopper in range(3):
        for age, item in enumerate(contexts[shopper][::-1][:LAST]):
            for name, pairs in kinds.items():
                said = pairs.toarray()[item]
                by_hand[shopper] += told.loud[KINDS.index(name), age] * said
                by_hand[shopper] += told.met[KINDS.index(name), age] * (said > 0)
            by_hand[shopper] += told.words[age] * words[item]
    by_hand += told.liked[0] * np.log1p(found.memory.rows) + told.liked[2] * np.arange(ITEMS)
    scores = Recall(Flat(), found, scale, told, shared).scores(contexts)
    np.testing.assert_allclose(scores, Flat().scores(contexts) + scale * by_hand, rtol=1e-4)
    assert scores.dtype == np.float32


def test_by_default_own_rows_are_as_loud_as_was_found_by_hand() -> None:
    found = signals([[0, 1], [2, 1]])
    contexts = histories([[4, 0], [1]])
    by_hand = np.zeros((2, ITEMS))
    for shopper in range(2):
        for age, item in enumerate(contexts[shopper][::-1]):
            by_hand[shopper, item] += DECAY**age
    memory = found.memory
    expected = 2 * by_hand @ (memory.similar + memory.next).toarray() + 0.02 * memory.popularity
    scores = Recall(Flat(), found, 1.0).scores(contexts)
    np.testing.assert_allclose(scores - Flat().scores(contexts), expected, rtol=1e-4)


def test_without_a_shared_memory_its_weights_say_nothing() -> None:
    contexts, found = histories([[0], [2, 1]]), signals([[0, 1], [2, 1]])
    flat = LOUD.flat
    loud = LOUD.loud.copy()
    loud[KINDS.index("shared")] = 0
    deaf = replace(LOUD, loud=loud, liked=LOUD.liked * [1, 1, 0])
    assert (deaf.flat != flat).any()
    one, other = (Recall(Flat(), found, 6.0, it).scores(contexts) for it in (LOUD, deaf))
    np.testing.assert_array_equal(one, other)


def test_an_empty_memory_leaves_the_prior_as_it_is() -> None:
    contexts = histories([[1], [0, 2]])
    recall = Recall(Flat(), signals([]), 6.0)
    np.testing.assert_array_equal(recall.scores(contexts), Flat().scores(contexts))


def test_a_shopper_without_events_is_told_of_what_is_popular() -> None:
    scores = Recall(Flat(), signals([[1, 2], [1, 3]]), 6.0).scores(histories([[]]))
    assert scores.shape == (1, ITEMS)
    assert np.isfinite(scores).all()
    assert int(scores[0].argmax()) == 1


ROWS = st.lists(st.lists(st.integers(0, 15), min_size=2, max_size=6), max_size=20)


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 15), min_size=1, max_size=8), st.integers(0, 10**6))
def test_what_is_said_of_an_item_adds_up_to_its_score(
    rows: list[list[int]], context: list[int], seed: int
) -> None:
    found = signals(rows, items=16, seed=seed)
    shared = shared_memory(random_table(seed, items=16), np.zeros(16, np.float32))
    recall = Recall(Told(np.zeros((16, 16), np.float32)), found, 6.0, any_weighing(seed), shared)
    asked = histories([context])
    best = np.arange(16)[::3]
    pairs, words = recall.said(asked[0], best)
    assert pairs.shape == words.shape == (len(context), len(best))
    told = (pairs + words).sum(axis=0) + recall.scale * recall.liked(asked)[0, best]
    np.testing.assert_allclose(told, recall.scores(asked)[0][best], rtol=1e-3, atol=1e-3)


@settings(deadline=None)
@given(ROWS, st.integers(0, 10**6))
def test_a_field_s_features_times_a_weighing_are_the_scores(
    rows: list[list[int]], seed: int
) -> None:
    """So what is fitted in the Field is what ranks."""
    rng, table = np.random.default_rng(seed), random_table(seed, items=16)
    shared = shared_memory(table[::-1], rng.random(16).astype(np.float32))
    recall = Recall(
        Told(table), signals(rows, items=16, seed=seed), 6.0, any_weighing(seed), shared
    )
    asked = Question(
        histories([rng.integers(0, 8, 3).tolist() for _ in range(9)]),
        rng.integers(8, 16, 9).astype(np.int32),
    )
    found = recall.field(asked)
    assert (found.asked, len(found.target)) == (9, 9)  # all are candidates of so few items
    np.testing.assert_allclose(
        found.gain(recall.weighing.flat), gain(recall, asked), rtol=1e-4, atol=1e-4
    )
    assert found.valid.sum(axis=1).max() <= 16


# Fitting --------------------------------------------------------------------------------------

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
        signals(PAIRED, items=MANY),
        1.0,
        spread(SILENCE).silent(),
        shared_memory(pairs_of(CROSSED), NOTHING),
    ),
    "shared": Recall(
        Told(random_table(0, items=MANY)),
        signals(CROSSED, items=MANY),
        1.0,
        spread(SILENCE).silent(),
        shared_memory(pairs_of(PAIRED), NOTHING),
    ),
    "prior": Recall(
        Told(random_table(0, items=MANY) + 0.2 * pairs_of(PAIRED)),
        signals(CROSSED, items=MANY),
        1.0,
        spread(Shares()),
        shared_memory(pairs_of(ASTRAY), NOTHING),
    ),
}


@pytest.mark.parametrize("who", list(WORLDS))
def test_whoever_alone_knows_the_targets_is_listened_to(who: str) -> None:
    recall = WORLDS[who]
    fitted = recall.fitted(ASKED)
    assert gain(recall, ASKED) < 0.9
    assert gain(fitted, ASKED) == 1
    own, shared = fitted.weighing.loud[[0, -1], 0]
    silent = abs(own) < 0.01
    assert {"own": own > shared, "shared": silent and shared > 0.4, "prior": silent}[who]
    assert replace(fitted, weighing=recall.weighing, own=recall.own, held_out=0.0) == recall


def test_held_out_is_what_own_memory_reached_for_those_it_was_not_fitted_to() -> None:
    recall = replace(WORLDS["own"], shared=None)
    fitted = recall.fitted(ASKED)
    assert fitted.held_out > 0.9
    assert replace(fitted, weighing=recall.weighing, own=recall.own, held_out=0.0) == recall


@pytest.mark.parametrize("who", ["popularity", "shared_popularity"])
def test_popularity_is_listened_to_where_it_is_what_is_taken(who: str) -> None:
    taken = list(range(ITEMS, 12))
    rows = [[item] for item in taken] * 20 if who == "popularity" else []
    told = 3.0 * (np.arange(12) >= ITEMS) * (who == "shared_popularity")
    shared = shared_memory(np.zeros((12, 12), np.float32), told.astype(np.float32))
    table = random_table(0, items=12) - 0.11 * (np.arange(12) >= ITEMS)
    deaf = spread(SILENCE).silent()
    recall = Recall(Told(table.astype(np.float32)), signals(rows, items=12), 1.0, deaf, shared)
    asked = Question(histories([[0], [1], [2], [3]]), np.array([8, 7, 11, 10], np.int32))
    fitted = recall.fitted(asked)
    assert gain(fitted, asked) > gain(recall, asked)
    most = [recall.memory.popularity.max(), 0, shared.popularity.max()]
    own, _lately, others = fitted.weighing.liked * most
    assert (own > others) == (who == "popularity")
    assert (others > own) == (who == "shared_popularity")


def test_targets_that_nobody_knows_leave_what_was_found_by_hand() -> None:
    prior = random_table(0, items=MANY) - 9 * pairs_of(PAIRED)
    recall = Recall(Told(prior), signals([], items=MANY), 1.0, LOUD)
    found = recall.field(ASKED)
    assert (len(found.target), found.asked) == (0, len(HAD))
    np.testing.assert_array_equal(recall.fitted(ASKED).weighing.flat, spread(Shares()).flat)


def test_a_block_in_which_nobody_s_target_is_known_counts_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clients.recall.BLOCK", len(HAD))
    known = WORLDS["prior"]
    contexts = [ASKED.contexts[place] for place in range(len(HAD))]
    astray = int(np.argmin(random_table(0, items=MANY)[0, 10:])) + 10  # last of all for item 0
    both = Question(
        from_lists([*contexts, np.array([0], np.int32)], ("s",) * (len(HAD) + 1)),
        np.append(ASKED.targets, np.int32(astray)),
    )
    found = known.field(both)
    assert (len(found.target), found.asked) == (len(HAD), len(HAD) + 1)


def test_where_nobody_is_asked_it_is_the_same_object() -> None:
    recall = Recall(Flat(), signals([[0, 1]]), 6.0)
    assert recall.fitted(Question(histories([]), np.zeros(0, np.int32))) is recall


def test_of_many_shoppers_evenly_spaced_ones_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    recall = WORLDS["own"]
    monkeypatch.setattr("clients.recall.SHOPPERS", 9)
    some = recall.fitted(ASKED)
    np.testing.assert_array_equal(some.weighing.flat, recall.fitted(ASKED.spaced(9)).weighing.flat)
    assert recall.field(ASKED.spaced(9)).asked == 9


def test_a_target_level_with_others_is_not_taken_for_found() -> None:
    flat = np.zeros((MANY, MANY), np.float32)  # a prior to which all items are alike
    recall = Recall(Told(flat), signals(PAIRED, items=MANY), 1.0, spread(SILENCE))
    assert gain(recall.fitted(ASKED), ASKED) == 1
