from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.memory import Memory
from clients.signals import KEPT, OWN, Signals, at, indicator
from shared.events import from_lists
from shared.words import NEAREST, Texts

ITEMS = 6


def memory(rows: list[list[int]], *, items: int = ITEMS) -> Memory:
    arrays = [np.array(row, np.int32) for row in rows]
    return Memory.of(from_lists(arrays, tuple(str(at) for at in range(len(rows)))), items=items)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def texts(vectors: NDArray[np.float64]) -> Texts:
    return Texts.of(unit(vectors), [f"thing {place}" for place in range(len(vectors))])


APART = texts(np.eye(ITEMS))  # no text is like another


def dense(signals: Signals) -> dict[str, NDArray[np.float32]]:
    return {name: pairs.toarray() for name, pairs in signals.pairs.items()}


def test_what_was_taken_together_and_what_came_next_are_the_memory_s_own() -> None:
    own = memory([[0, 1], [0, 1], [2, 1]])
    found = Signals(own, APART)
    assert tuple(found.pairs) == OWN
    assert found.pairs["similar"] is own.similar
    assert found.pairs["next"] is own.next


def test_something_alike_speaks_for_what_was_never_met() -> None:
    vectors = np.eye(ITEMS)
    vectors[5] = [0, 0.8, 0, 0, 0, 0.6]  # 5 is much like 1
    own = memory([[0, 1]])
    found = dense(Signals(own, texts(vectors)))
    near = np.float32(0.8)
    # 0 was taken with 1, which is like 5; and whoever has 5 has something like 1.
    assert np.isclose(found["likewise"][0, 5], own.similar.toarray()[0, 1] * near)
    assert np.isclose(found["likewise"][5, 0], found["likewise"][0, 5])
    assert np.isclose(found["onward"][0, 5], own.next.toarray()[0, 1] * near)
    assert found["onward"][5, 0] == 0  # nothing came after 1
    assert found["likewise"].any(axis=1).tolist() == [True, False, False, False, False, True]


def test_twice_is_something_taken_with_something_taken_together() -> None:
    own = memory([[0, 1], [1, 2]])
    found = dense(Signals(own, APART))
    similar = own.similar.toarray()
    assert np.isclose(found["twice"][0, 2], similar[0, 1] * similar[1, 2])
    assert found["likewise"].any() == found["onward"].any() == False  # noqa: E712


ROWS = st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=6), max_size=20)


@given(ROWS, st.integers(0, 10**6))
def test_no_item_speaks_of_itself_and_nothing_is_said_below_nothing(
    rows: list[list[int]], seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(16, 4))
    found = Signals(memory(rows, items=16), texts(vectors))
    for pairs in dense(found).values():
        assert (pairs >= 0).all()
        assert not np.diagonal(pairs).any()
    near = found.texts.near.toarray()
    assert (near > 0).sum(axis=1).max() <= NEAREST
    assert not np.diagonal(near).any()


def test_near_texts_are_the_highest_cosines_above_nothing() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(40, 3)))
    near = Texts.of(vectors, ["a"] * 40).near.toarray()
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    for row in range(40):
        best = np.sort(np.argsort(-cosines[row])[:NEAREST])
        best = best[cosines[row, best] > 0]
        np.testing.assert_array_equal(np.flatnonzero(near[row]), best)
        np.testing.assert_allclose(near[row, best], cosines[row, best], rtol=1e-6)


def test_of_what_is_derived_the_strongest_are_kept() -> None:
    many = KEPT + 30
    rows = [[0, 1], *([1, other] for other in range(2, many))]
    rows += [[1, many - 1]] * 5  # one stands out
    found = dense(Signals(memory(rows, items=many), texts(np.eye(many))))["twice"]
    assert (found > 0).sum(axis=1).max() == KEPT
    assert found[0].argmax() == many - 1


def test_a_catalogue_of_one_item_and_one_without_rows_say_nothing() -> None:
    for items in (1, 3):
        found = Signals(memory([], items=items), texts(np.ones((items, 2))))
        assert not any(pairs.any() for pairs in dense(found).values())


def test_an_indicator_is_one_wherever_there_is_a_value_and_values_are_found_by_place() -> None:
    similar = memory([[0, 1], [1, 2], [1, 2]]).similar
    np.testing.assert_array_equal(indicator(similar).toarray(), similar.toarray() > 0)
    rows, columns = np.array([[0, 1], [2, 5]]), np.array([[1, 2], [0, 5]])
    np.testing.assert_array_equal(at(similar, rows, columns), similar.toarray()[rows, columns])
