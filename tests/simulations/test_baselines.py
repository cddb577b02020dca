from __future__ import annotations

import numpy as np
import pytest

from clients.memory import recency_weights
from shared.catalogue import Catalogue
from shared.events import Histories, from_lists, question
from shared.ranking import Scorer, rank
from simulations.baselines import ItemKnn, Popularity, TfIdf

SHOP = Catalogue(
    items=("a", "b", "c", "d"),
    texts=("red tea cup", "red tea pot", "oak garden chair", "oak garden table"),
)


def histories(*rows: list[int]) -> Histories:
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    return from_lists(arrays, tuple(f"s{place}" for place in range(len(rows))))


def test_popularity_counts_train_rows() -> None:
    scorer = Popularity.fit(histories([0, 1, 1], [1, 2]), items=4)
    assert scorer.scores(histories([3], [0])).tolist() == [[1, 3, 1, 0], [1, 3, 1, 0]]


def test_the_last_five_events_weigh_less_with_age() -> None:
    weights = recency_weights(histories([5, 4, 3, 2, 1, 0], [2, 2]), items=6).toarray()
    np.testing.assert_allclose(weights[0], [1, 0.7, 0.49, 0.343, 0.2401, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[1], [0, 0, 1.7, 0, 0, 0], rtol=1e-6)


def test_tfidf_finds_the_item_with_the_same_words() -> None:
    scores = TfIdf.fit(SHOP).scores(histories([0], [2]))
    # "red", "tea" are in two of four texts, "cup" in one: idf = 1 + ln(5/3) and 1 + ln(5/2).
    two, one = 1 + np.log(5 / 3), 1 + np.log(5 / 2)
    shared = 2 * two**2 / (2 * two**2 + one**2)
    np.testing.assert_allclose(scores, [[1, shared, 0, 0], [0, 0, 1, shared]], rtol=1e-5)


def test_tfidf_pools_the_last_events() -> None:
    scorer = TfIdf.fit(SHOP)
    tea, oak = scorer.scores(histories([0], [2]))
    pooled = scorer.scores(histories([2, 0]))[0]
    np.testing.assert_allclose(pooled, tea + 0.7 * oak, rtol=1e-6)


def test_items_with_equal_words_score_exactly_the_same() -> None:
    twins = Catalogue(items=("a", "b", "c"), texts=("blue mug", "mug blue", "tin"))
    scores = TfIdf.fit(twins).scores(histories([2, 0]))[0]
    assert scores[0] == scores[1]


def test_texts_without_a_word_score_nothing_and_stop_nothing() -> None:
    scorer = TfIdf.fit(Catalogue(items=("a", "b"), texts=("x", "y")))
    assert scorer.scores(histories([0], [1])).tolist() == [[0, 0], [0, 0]]


def test_item_knn_norms_co_visits_by_both_items_counts() -> None:
    # n = 2, 2, 1 and 1; items 0 and 1 meet in two Histories, 0 and 2 in one.
    scorer = ItemKnn.fit(histories([0, 1, 2], [1, 0], [3]), items=4)
    similar = scorer.similar.toarray()
    np.testing.assert_allclose(similar[0], [0, 2 / 7, 1 / np.sqrt(7 * 6), 0], rtol=1e-6)
    np.testing.assert_allclose(similar, similar.T)
    assert similar[3].tolist() == [0, 0, 0, 0]


def test_item_knn_counts_a_pair_once_a_history() -> None:
    once, often = (
        ItemKnn.fit(histories(row, [2, 3]), items=4).similar.toarray()
        for row in ([0, 1], [0, 1, 0, 1, 0])
    )
    np.testing.assert_array_equal(once, often)


def test_item_knn_pairs_only_the_last_fifty_events() -> None:
    long = ItemKnn.fit(histories([51, *range(50)]), items=52)
    assert long.similar.toarray()[51].tolist() == [0] * 52
    assert long.similar.nnz == 50 * 49


def test_item_knn_adds_the_neighbours_of_the_last_events() -> None:
    scorer = ItemKnn.fit(histories([0, 1], [2, 3]), items=4)
    # Each pair has met once and each n is 1: 1 / 6.
    np.testing.assert_allclose(
        scorer.scores(histories([2, 0])), [[0, 1 / 6, 0, 0.7 / 6]], rtol=1e-6
    )


@pytest.mark.parametrize(
    "scorer",
    [
        Popularity.fit(histories([0, 1], [2, 3]), items=4),
        TfIdf.fit(SHOP),
        ItemKnn.fit(histories([0, 1], [2, 3]), items=4),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
def test_every_baseline_scores_a_shopper_without_history(scorer: Scorer) -> None:
    scores = scorer.scores(histories([]))
    assert scores.shape == (1, 4)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_what_baselines_remember_is_train_rows_alone() -> None:
    # Item 3 stands only in validation and test events, so no memory may know it.
    rows = histories([0, 1, 3, 2], [1, 0, 2, 3])
    train = rows.without_last(2)
    assert Popularity.fit(train, items=4).counts.tolist() == [2, 2, 0, 0]
    assert ItemKnn.fit(train, items=4).similar.toarray()[3].tolist() == [0, 0, 0, 0]


def test_baselines_rank_a_question_from_end_to_end() -> None:
    rows = histories([0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3])
    scorer = ItemKnn.fit(rows.without_last(2), items=4)
    ranking = rank(scorer, question(rows, "test"), items=4, k=2)
    assert ranking.ranks.tolist() == [1.0, 1.0, 1.0]  # all but the target are seen
    assert ranking.top.tolist() == [[3, -1]] * 3
