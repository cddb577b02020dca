from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.memory import DECAY, LAST, Memory, recency_weights
from shared.events import Histories, from_lists

ITEMS = 6
SOME = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9), max_size=6)


def histories(rows: list[list[int]]) -> Histories:
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    return from_lists(arrays, tuple(f"s{place}" for place in range(len(rows))))


def memory(rows: list[list[int]]) -> Memory:
    return Memory.of(histories(rows), items=ITEMS)


def same(left: Memory, right: Memory) -> bool:
    return (
        np.array_equal(left.together.toarray(), right.together.toarray())
        and np.array_equal(left.following.toarray(), right.following.toarray())
        and np.array_equal(left.rows, right.rows)
    )


def test_what_stood_together_is_counted_once_a_history_and_what_followed_by_its_gap() -> None:
    found = memory([[0, 1, 0, 2], [1, 0]])
    together, following = found.together.toarray(), found.following.toarray()
    assert together[0].tolist() == [2, 2, 1, 0, 0, 0]
    assert (together == together.T).all()
    # 0→1 one after; 0→2 one after (6) and three after (2); 0→0 two after (3).
    assert following[0].tolist() == [3, 6, 8, 0, 0, 0]
    # 1→0 one after, in both Histories; 1→2 two after.
    assert following[1].tolist() == [12, 0, 3, 0, 0, 0]
    assert found.rows.tolist() == [3, 2, 1, 0, 0, 0]


@given(SOME, SOME)
def test_adding_and_taking_out_leave_what_counting_anew_would_give(
    first: list[list[int]], second: list[list[int]]
) -> None:
    both = memory([*first, *second])
    assert same(memory(first).plus(memory(second)), both)
    assert same(both.minus(memory(second)), memory(first))


@given(SOME, st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=4), min_size=6, max_size=6))
def test_a_new_day_s_rows_update_without_a_rebuild(
    rows: list[list[int]], day: list[list[int]]
) -> None:
    grown = [[*row, *new] for row, new in zip(rows, day, strict=False)]
    touched = [place for place, row in enumerate(rows) if row != grown[place]]
    before = histories([rows[place] for place in touched])
    after = histories([grown[place] for place in touched])
    assert same(memory(rows).updated(before, after), memory(grown))


def test_an_erased_shopper_leaves_nothing_behind() -> None:
    rest = memory([[0, 1], [4, 5]]).minus(memory([[4, 5]]))
    assert rest.together[4:, :].nnz == rest.together[:, 4:].nnz == rest.following[4:, :].nnz == 0
    assert rest.rows.tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("strange", [[[0, 5]], [[5]], [[0, 1], [0, 1]]])
def test_histories_that_are_not_in_it_cannot_be_taken_out(strange: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="not in this Memory"):
        memory([[0, 1]]).minus(memory(strange))


def test_only_the_last_fifty_events_are_paired() -> None:
    long = Memory.of(histories([[60, *range(50)]]), items=61)
    assert long.together[60].nnz == long.following[60].nnz == 0
    assert long.rows[60] == 1


def test_no_item_is_its_own_neighbour_and_rare_pairs_are_shrunk() -> None:
    found = memory([[0, 1, 2], [1, 0], [3, 3]])
    similar, following = found.similar.toarray(), found.next.toarray()
    np.testing.assert_allclose(similar[0], [0, 2 / 7, 1 / np.sqrt(42), 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(following[0], [0, 1 / 7, 0.5 / np.sqrt(42), 0, 0, 0], rtol=1e-6)
    assert similar[3].tolist() == following[3].tolist() == [0] * ITEMS
    assert similar.dtype == following.dtype == np.float32


def test_the_latest_events_of_a_context_speak_and_repeats_add_up() -> None:
    found = recency_weights(histories([[5, 5, 2, 0, 2, 0, 4], [1], []]), items=ITEMS).toarray()
    assert LAST == 5
    one, two, three, four = (DECAY**age for age in range(1, LAST))
    first = [one + three, 0.0, two + four, 0.0, 1.0, 0.0]
    expected = np.array([first, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0] * ITEMS])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
