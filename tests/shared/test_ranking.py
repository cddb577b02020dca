from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.events import Histories, Question, from_lists
from shared.ranking import NO_ITEM, rank


@dataclass(frozen=True)
class Fixed:
    """Scores items the same for every History."""

    row: NDArray[np.float32]

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return np.broadcast_to(self.row, (len(contexts), len(self.row)))


@dataclass(frozen=True)
class LastItem:
    """Scores by a table [N, N]: the row of the last item of a context."""

    table: NDArray[np.float32]

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return self.table[contexts.last()]


def asked(contexts: list[list[int]], targets: list[int]) -> Question:
    rows = [np.array(row, dtype=np.int32) for row in contexts]
    names = tuple(f"s{place}" for place in range(len(rows)))
    return Question(from_lists(rows, names), np.array(targets, dtype=np.int32))


def fixed(*row: float) -> Fixed:
    return Fixed(np.array(row, dtype=np.float32))


def drawn(shoppers: int, items: int, *, seed: int = 0) -> Question:
    """Contexts of 1 to 9 items and a target that is in none of them."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(items)[: rng.integers(2, 11)] for _ in range(shoppers)]
    return asked([row[1:].tolist() for row in rows], [int(row[0]) for row in rows])


def test_the_best_unseen_item_has_rank_one() -> None:
    ranking = rank(fixed(0.9, 0.1, 0.5, 0.3), asked([[0], [1]], [2, 0]), items=4, k=2)
    assert ranking.ranks.tolist() == [1.0, 1.0]
    assert ranking.top.tolist() == [[2, 3], [0, 2]]
    assert ranking.ranks.dtype == np.float32
    assert ranking.top.dtype == np.int32


def test_seen_items_neither_push_the_target_down_nor_stand_in_the_list() -> None:
    ranking = rank(fixed(4, 3, 2, 1), asked([[0, 1, 0]], [3]), items=4, k=3)
    assert ranking.ranks.tolist() == [2.0]
    assert ranking.top.tolist() == [[2, 3, NO_ITEM]]


def test_ties_take_their_mean_rank() -> None:
    # Item 0 is first; items 1, 2, 3 share ranks 2, 3, 4. Once item 1 is seen, 2 and 3 share 2, 3.
    ranking = rank(fixed(2, 1, 1, 1), asked([[0], []], [2, 2]), items=4)
    assert ranking.ranks.tolist() == [2.0, 3.0]
    assert rank(fixed(2, 1, 1, 1), asked([[1]], [2]), items=4).ranks.tolist() == [2.5]


def test_a_scorer_that_knows_nothing_ranks_in_the_middle() -> None:
    ranking = rank(Fixed(np.zeros(101, np.float32)), asked([[]], [7]), items=101)
    assert ranking.ranks.tolist() == [51.0]


def test_ties_in_the_list_go_to_the_lower_position() -> None:
    scores = fixed(1, 5, 1, 5, 1, 7)
    assert rank(scores, asked([[]], [0]), items=6, k=4).top.tolist() == [[5, 1, 3, 0]]
    assert rank(scores, asked([[0]], [2]), items=6, k=4).top.tolist() == [[5, 1, 3, 2]]


def test_a_list_longer_than_the_catalogue_ends_in_no_item() -> None:
    ranking = rank(fixed(1, 2), asked([[]], [0]), items=2, k=4)
    assert ranking.top.tolist() == [[1, 0, NO_ITEM, NO_ITEM]]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_block_size_changes_nothing(block: int) -> None:
    rng = np.random.default_rng(1)
    scorer = LastItem(rng.integers(0, 6, size=(40, 40)).astype(np.float32))  # many ties
    question = drawn(100, 40)
    whole = rank(scorer, question, items=40)
    parts = rank(scorer, question, items=40, block=block)
    np.testing.assert_array_equal(parts.ranks, whole.ranks)
    np.testing.assert_array_equal(parts.top, whole.top)


def test_the_ranking_is_that_of_a_plain_sort() -> None:
    rng = np.random.default_rng(2)
    table = rng.integers(-3, 4, size=(30, 30)).astype(np.float32)
    question = drawn(60, 30, seed=3)
    ranking = rank(LastItem(table), question, items=30, k=5)
    for place, target in enumerate(question.targets):
        context = question.contexts[place]
        score = table[context[-1]]
        unseen = np.setdiff1d(np.arange(30), context)
        order = unseen[np.lexsort((unseen, -score[unseen]))].tolist()
        tied = [spot for spot, item in enumerate(order, 1) if score[item] == score[target]]
        assert ranking.ranks[place] == np.mean(tied)
        assert ranking.top[place].tolist() == order[:5]


def test_memory_is_flat_in_the_number_of_shoppers() -> None:
    def peak(shoppers: int) -> int:
        question = drawn(shoppers, 500)
        tracemalloc.start()
        rank(Fixed(np.arange(500, dtype=np.float32)), question, items=500, block=64)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    kept = (1000 - 100) * (4 + 10 * 4)  # bytes: a rank and ten positions a shopper
    assert peak(1000) - peak(100) < 1.5 * kept


def test_the_scorers_own_array_is_left_as_it_was() -> None:
    row = np.arange(4, dtype=np.float32)
    rank(LastItem(np.tile(row, (4, 1))), asked([[3]], [0]), items=4)
    assert row.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        rank(fixed(1, bad, 2), asked([[0]], [2]), items=3)


def test_scores_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected \(1, 4\)"):
        rank(fixed(1, 2, 3), asked([[0]], [2]), items=4)


def test_a_target_that_is_masked_is_refused() -> None:
    with pytest.raises(ValueError, match="its own context"):
        rank(fixed(1, 2, 3), asked([[0, 2]], [2]), items=3)


def test_nobody_to_rank_gives_an_empty_ranking() -> None:
    ranking = rank(fixed(1, 2, 3), asked([], []), items=3)
    assert ranking.ranks.shape == (0,)
    assert ranking.top.shape == (0, 10)
