from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import DAYS, LATELY, Memory
from clients.recall import Recall
from clients.signals import Signals
from clients.weighing import SILENCE, spread
from shared.events import Histories, Question, from_lists
from shared.metrics import ndcg
from shared.ranking import rank
from shared.words import Texts

ITEMS = 12
DATED = st.lists(
    st.lists(st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 99)), min_size=1, max_size=5),
    max_size=6,
)


class Even:
    """A prior to which all items are nearly alike."""

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return np.tile(np.linspace(0.01, 0, ITEMS, dtype=np.float32), (len(contexts), 1))


def dated(rows: list[list[tuple[int, int]]]) -> Histories:
    """Histories of (item, day) each."""
    lists = [np.array([item for item, _ in row], np.int32) for row in rows]
    days = np.array([day for row in rows for _, day in row], np.int32)
    return replace(from_lists(lists, tuple(f"s{k}" for k in range(len(rows)))), days=days)


def memory(rows: list[list[tuple[int, int]]]) -> Memory:
    return Memory.of(dated(rows), items=ITEMS)


def recall(rows: list[list[tuple[int, int]]]) -> Recall:
    texts = Texts.of(np.eye(ITEMS, dtype=np.float32), ["a"] * ITEMS)
    return Recall(Even(), Signals(memory(rows), texts), 1.0, spread(SILENCE))


def gain(found: Recall, asked: Question) -> float:
    return float(ndcg(rank(found, asked, items=ITEMS).ranks).mean())


@given(DATED, DATED)
def test_rows_of_the_days_before_count_and_those_of_the_day_and_after_do_not(
    rows: list[list[tuple[int, int]]], asked: list[list[tuple[int, int]]]
) -> None:
    found = memory(rows).lately(dated(asked))
    expected = np.zeros((len(asked), ITEMS))
    for place, row in enumerate(asked):
        for item, day in (event for one in rows for event in one):
            expected[place, item] += row[-1][1] - LATELY <= day < row[-1][1]
    np.testing.assert_allclose(found, np.log1p(expected), rtol=1e-6)


def test_who_asks_without_a_day_asks_on_the_day_after_the_latest_row() -> None:
    rows = [[(0, 0), (1, 50)], [(2, 50 - LATELY + 1), (3, 50 - LATELY)]]
    found = memory(rows).lately(from_lists([np.array([4], np.int32)] * 2, ("a", "b")))
    assert (found > 0).tolist() == [[False, True, True] + [False] * (ITEMS - 3)] * 2


def test_where_no_days_are_known_nothing_was_taken_lately() -> None:
    plain = from_lists([np.array([0, 1], np.int32)], ("a",))
    found = Memory.of(plain, items=ITEMS)
    assert found.daily.nnz == 0
    assert not found.lately(plain).any()
    assert not found.lately(dated([[(0, 5)]])).any()


@pytest.mark.parametrize("day", [-(10**6), 10**9])
def test_a_day_out_of_all_bounds_is_one_of_the_bounds(day: int) -> None:
    found = memory([[(0, day), (1, day)]])
    assert found.daily.shape == (ITEMS, DAYS)
    assert found.daily.sum() == 2
    assert found.lately(dated([[(2, day)]])).shape == (1, ITEMS)


@given(DATED, DATED)
def test_days_are_added_and_taken_out_exactly(
    first: list[list[tuple[int, int]]], second: list[list[tuple[int, int]]]
) -> None:
    both = memory([*first, *second])
    rest = both.minus(memory(second)).daily
    assert (rest.data > 0).all()
    for found, expected in (
        (memory(first).plus(memory(second)).daily, both.daily),
        (rest, memory(first).daily),
    ):
        assert not sparse.csr_array(found - expected).data.any()


def test_a_row_of_another_day_cannot_be_taken_out() -> None:
    with pytest.raises(ValueError, match="not in this Memory"):
        memory([[(0, 1), (1, 2)]]).minus(memory([[(0, 1), (1, 3)]]))


# Who takes on day 40 + k takes item k, which others took the weeks before; of another item more
# were taken, and long ago.
TIMES = [40 * (1 + place) for place in range(4)]
TAKEN = [[(6 + place, day - 1)] * 3 for place, day in enumerate(TIMES)]
ASKED = Question(dated([[(0, day)] for day in TIMES]), np.arange(6, 10, dtype=np.int32))


def test_what_was_taken_lately_is_listened_to_where_it_is_what_is_taken() -> None:
    whole = recall(TAKEN)
    fitted = whole.fitted(ASKED)
    assert fitted.weighing.liked[1] > 0
    assert gain(fitted, ASKED) == 1
    timeless = whole.with_memory(Memory.of(replace(dated(TAKEN), days=None), items=ITEMS))
    assert gain(timeless.fitted(ASKED), ASKED) < 1


def test_it_ranks_as_it_was_fitted_and_is_told_as_popularity() -> None:
    found = recall(TAKEN)
    found = replace(found, weighing=replace(found.weighing, liked=np.array([0.1, 0.5, 0.0])))
    field = found.field(ASKED)
    assert field.gain(found.weighing.flat) == pytest.approx(gain(found, ASKED))
    contexts = ASKED.contexts
    expected = 0.1 * found.memory.popularity + 0.5 * found.memory.lately(contexts)
    np.testing.assert_allclose(found.liked(contexts), expected, rtol=1e-6)
    np.testing.assert_allclose(
        found.scores(contexts) - Even().scores(contexts), expected, rtol=1e-4, atol=1e-6
    )
