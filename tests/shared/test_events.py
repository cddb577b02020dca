from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.catalogue import Catalogue
from shared.errors import DataError
from shared.events import EVENT_SCHEMA, Histories, Part, from_lists, group, question, training_part

Row = tuple[str, str, float]  # shopper, item, order
LENGTHS: dict[Part, int] = {"test": 1, "validation": 2}

ragged = st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=6)
long_enough = st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=9), max_size=6)


def catalogue(*items: str) -> Catalogue:
    return Catalogue(items, tuple(f"text of {item}" for item in items))


def events(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        [(shopper, item, order, None, None, None) for shopper, item, order in rows],
        schema=EVENT_SCHEMA,
        orient="row",
    )


def histories(rows: list[list[int]]) -> Histories:
    names = tuple(f"shopper-{place}" for place in range(len(rows)))
    return from_lists([np.array(row, np.int32) for row in rows], names)


def lists(held: Histories) -> list[list[int]]:
    return [held[place].tolist() for place in range(len(held))]


ABC = catalogue("a", "b", "c")


def test_a_history_is_one_shoppers_rows_in_time_order() -> None:
    rows: list[Row] = [("x", "c", 3), ("y", "a", 5), ("x", "a", 1), ("y", "b", 4), ("x", "b", 2)]
    held = group(events([*rows, ("y", "a", 0)]), ABC)
    assert held.shoppers == ("x", "y")
    assert lists(held) == [[0, 1, 2], [0, 1, 0]]
    assert (str(held.items.dtype), str(held.offsets.dtype)) == ("int32", "int64")


def test_events_at_one_time_keep_the_order_of_their_items_names() -> None:
    held = group(events([("x", "c", 1), ("x", "a", 1), ("x", "b", 0)]), ABC)
    assert lists(held) == [[1, 0, 2]]


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.sampled_from("abc"), st.sampled_from([0.0, 1.0])),
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_rows_changes_nothing(rows: list[Row], shuffle: random.Random) -> None:
    there = group(events(rows), ABC, min_length=1)
    shuffle.shuffle(rows)
    back = group(events(rows), ABC, min_length=1)
    assert lists(there) == lists(back)
    assert there.shoppers == back.shoppers


def test_items_the_catalogue_lacks_are_left_out_before_lengths_are_counted() -> None:
    rows: list[Row] = [("x", "a", 1), ("x", "nix", 2), ("x", "b", 3), ("x", "c", 4)]
    short: list[Row] = [("y", "a", 1), ("y", "nix", 2), ("y", "b", 3)]
    held = group(events(rows + short), ABC, min_length=3)
    assert held.shoppers == ("x",)
    assert lists(held) == [[0, 1, 2]]


def test_each_event_keeps_its_day_where_every_one_has_one() -> None:
    rows: list[Row] = [("x", "b", 2), ("y", "a", 5), ("x", "a", 1), ("y", "c", 4), ("x", "c", 3)]
    days = pl.Series("day", [20, 50, 10, 40, 30], pl.Int32)
    held = group(events(rows).with_columns(days), ABC, min_length=2)
    assert held.days is not None
    assert held.days.tolist() == [10, 20, 30, 40, 50]
    taken = held.take(np.array([1, 0]))
    assert taken.days is not None
    assert taken.days.tolist() == [40, 50, 10, 20, 30]
    less = held.without_last(1)
    assert less.days is not None
    assert (less.days.tolist(), lists(less)) == ([10, 20, 40], [[0, 1], [2]])
    some = days.replace(40, None)
    assert group(events(rows).with_columns(some), ABC, min_length=2).days is None


@given(ragged, st.data())
def test_only_some_events_leave_every_shopper_where_they_were(
    rows: list[list[int]], data: st.DataObject
) -> None:
    held = histories(rows)
    count = len(held.items)
    kept = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    flags = iter(kept)
    expected = [[item for item in row if next(flags)] for row in rows]
    less = held.only(np.array(kept, bool))
    assert lists(less) == expected
    assert (less.shoppers, less.days) == (held.shoppers, None)


def test_no_rows_are_no_histories() -> None:
    held = group(events([]), ABC)
    assert (len(held), held.shoppers, lists(held)) == (0, (), [])
    assert held.offsets.tolist() == [0]


@given(ragged)
def test_offsets_cut_the_items_into_the_rows_they_came_from(rows: list[list[int]]) -> None:
    held = histories(rows)
    assert lists(held) == rows
    assert held.lengths.tolist() == [len(row) for row in rows]
    assert held.offsets[0] == 0
    assert held.offsets[-1] == len(held.items) == sum(map(len, rows))
    assert (np.diff(held.offsets) >= 0).all()
    assert len(held) == len(held.shoppers)
    assert (str(held.items.dtype), str(held.offsets.dtype)) == ("int32", "int64")


@given(ragged, st.data())
def test_taking_keeps_shopper_and_history_together(
    rows: list[list[int]], data: st.DataObject
) -> None:
    held = histories(rows)
    places = data.draw(st.lists(st.sampled_from(range(len(rows))))) if rows else []
    taken = held.take(np.array(places, np.int64))
    assert lists(taken) == [rows[place] for place in places]
    assert taken.shoppers == tuple(held.shoppers[place] for place in places)


@given(long_enough, st.integers(0, 3))
def test_every_history_gives_up_its_last_events(rows: list[list[int]], count: int) -> None:
    held = histories(rows)
    assert lists(held.without_last(count)) == [row[: len(row) - count] for row in rows]
    assert held.without_last(count).shoppers == held.shoppers
    assert held.last(count).tolist() == [row[-1 - count] for row in rows]


@pytest.mark.parametrize("count", [2, 3])
def test_a_history_that_would_be_left_empty_is_refused_without_naming_its_shopper(
    count: int,
) -> None:
    with pytest.raises(DataError) as caught:
        histories([[1, 2, 3, 4], [5, 6]]).without_last(count)
    said = str(caught.value)
    assert said == f"a History of 2 events cannot give up {count}; " + (
        f"keep Histories of at least {count + 1} events"
    )


def test_leave_one_out_by_hand() -> None:
    held = histories([[0, 1, 2, 3, 4], [9, 8, 7, 6]])
    expected: dict[Part, tuple[list[list[int]], list[int]]] = {
        "test": ([[0, 1, 2, 3], [9, 8, 7]], [4, 6]),
        "validation": ([[0, 1, 2], [9, 8]], [3, 7]),
    }
    for part, (contexts, targets) in expected.items():
        asked = question(held, part)
        assert lists(asked.contexts) == contexts
        assert asked.targets.tolist() == targets
        assert asked.targets.dtype == np.int32


def test_the_training_part_holds_neither_held_out_event_and_needs_two_others() -> None:
    part = training_part(histories([[0, 1, 2, 3, 4], [9, 8, 7], [5, 6, 7, 8]]))
    assert lists(part) == [[0, 1, 2], [5, 6]]
    assert part.shoppers == ("shopper-0", "shopper-2")


def test_the_last_event_of_a_history_is_never_that_of_the_shopper_before() -> None:
    held = histories([[1, 2, 3], [4]])
    assert held.last().tolist() == [3, 4]
    with pytest.raises(DataError):
        held.last(1)


def test_a_shopper_whose_target_stands_in_the_context_is_left_out() -> None:
    # The first has seen its test item, the second its validation item, the third neither.
    held = histories([[5, 1, 2, 5], [1, 7, 7, 3], [1, 2, 3, 4]])
    test, validation = question(held, "test"), question(held, "validation")
    assert test.contexts.shoppers == ("shopper-1", "shopper-2")
    assert test.targets.tolist() == [3, 4]
    assert validation.contexts.shoppers == ("shopper-0", "shopper-2")
    assert validation.targets.tolist() == [2, 3]


def test_another_shoppers_context_leaves_nobody_out() -> None:
    asked = question(histories([[1, 2, 3, 4], [4, 5, 6, 1]]), "test")
    assert asked.targets.tolist() == [4, 1]


def test_everybody_may_be_left_out() -> None:
    asked = question(histories([[1, 1, 1]]), "test")
    assert (len(asked.contexts), asked.targets.tolist()) == (0, [])


@given(long_enough, st.sampled_from(sorted(LENGTHS)))
def test_a_question_shows_nothing_of_its_target_or_of_what_came_after(
    rows: list[list[int]], part: Part
) -> None:
    back = LENGTHS[part]
    asked = question(histories(rows), part)
    kept = {
        int(name.removeprefix("shopper-")): place
        for place, name in enumerate(asked.contexts.shoppers)
    }
    for shopper, row in enumerate(rows):
        context, target = row[:-back], row[-back]
        assert (shopper in kept) == (target not in context)
        if shopper in kept:
            assert asked.contexts[kept[shopper]].tolist() == context
            assert asked.targets[kept[shopper]] == target


@pytest.mark.parametrize("part", sorted(LENGTHS))
def test_a_history_too_short_for_its_part_is_refused(part: Part) -> None:
    enough = list(range(LENGTHS[part] + 1))
    assert len(question(histories([enough]), part).targets) == 1
    with pytest.raises(DataError, match="keep Histories of at least"):
        question(histories([enough, enough[:-1]]), part)


def test_a_catalogue_knows_the_place_of_each_item() -> None:
    assert len(ABC) == 3
    assert ABC.position == {"a": 0, "b": 1, "c": 2}


def test_a_catalogues_digest_is_that_of_its_items_and_texts() -> None:
    others = [
        replace(ABC, items=("a", "b", "d")),
        replace(ABC, texts=(*ABC.texts[:2], "another text")),
        Catalogue(ABC.items[::-1], ABC.texts[::-1]),
        Catalogue(ABC.items[:2], ABC.texts[:2]),
    ]
    assert len({held.digest for held in [ABC, *others]}) == 5
    assert replace(ABC, attributes={"price": (1.0, 2.0, None)}).digest == ABC.digest


def test_a_character_that_moves_from_item_to_text_changes_the_digest() -> None:
    assert Catalogue(("ab",), ("c",)).digest != Catalogue(("a",), ("bc",)).digest


def test_a_catalogue_with_a_text_too_few_has_no_digest() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Catalogue(("a", "b"), ("one text",)).digest


def test_one_list_of_positions_makes_no_copy_of_another_history() -> None:
    rows: list[NDArray[np.int32]] = [np.array([1, 2], np.int32), np.array([3], np.int32)]
    held = from_lists(rows, ("x", "y"))
    rows[0][0] = 9
    assert lists(held) == [[1, 2], [3]]
