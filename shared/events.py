"""A shopper's rows in time order: row ─read→ Event ─group→ History.

Events are columns (polars), because platforms have many. A History is one shopper's Events in time
order and the unit of privacy; Histories holds all of a platform's, flat:

    items    [E]    catalogue position of each event's item
    days     [E]    the day of each event, where the platform knows times
    offsets  [S+1]  History s is items[offsets[s] : offsets[s+1]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.catalogue import Catalogue
from shared.errors import DataError

# One row of a platform. `order` sorts a shopper's events: a position, or else seconds since 1970.
# `day`, since 1970 in UTC, is null where the platform gives no times; `kind` and `value` may be.
EVENT_SCHEMA: dict[str, type[pl.DataType]] = {
    "shopper": pl.String,
    "item": pl.String,
    "order": pl.Float64,
    "day": pl.Int32,
    "kind": pl.String,
    "value": pl.Float64,
}

MIN_LENGTH = 3  # events: one to test on, one to validate on, one to rank from

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Histories:
    """All Histories of one platform.

    Attributes:
        shoppers: [S] the platform's own identifiers; they never leave it.
        items: [E] int32 catalogue positions, each History's in time order.
        offsets: [S+1] int64.
        days: [E] int32 since 1970; None where they are not known.
    """

    shoppers: tuple[str, ...]
    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    days: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[S] events of each History."""
        return np.diff(self.offsets)

    def take(self, indices: NDArray[np.int64]) -> Histories:
        """The Histories at these positions, in this order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        begin = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        event = np.arange(len(begin)) + begin
        days = None if self.days is None else self.days[event]
        shoppers = tuple(self.shoppers[i] for i in indices)
        return Histories(shoppers, self.items[event], offsets, days)

    def only(self, kept: NDArray[np.bool_]) -> Histories:
        """Every History with those of its events [E] that are kept."""
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64)
        days = None if self.days is None else self.days[kept]
        return Histories(self.shoppers, self.items[kept], offsets, days)

    def without_last(self, count: int) -> Histories:
        """Every History less its last `count` events; each must be longer than that."""
        self._longer_than(count)
        lengths = self.lengths
        place = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], lengths)
        return self.only(place < np.repeat(lengths - count, lengths))

    def _longer_than(self, count: int) -> None:
        shortest = int(self.lengths.min(initial=count + 1))
        if shortest <= count:
            raise DataError(
                f"a History of {shortest} events cannot give up {count}",
                todo=f"keep Histories of at least {count + 1} events",
            )

    def last(self, back: int = 0) -> NDArray[np.int32]:
        """[S] the item `back` events before each History's last; each must be longer than that."""
        self._longer_than(back)
        return self.items[self.offsets[1:] - 1 - back]


def from_lists(rows: list[NDArray[np.int32]], shoppers: tuple[str, ...]) -> Histories:
    """Histories out of one array of catalogue positions per shopper, whose days are not known."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
    return Histories(shoppers, items, offsets)


def group(events: pl.DataFrame, catalogue: Catalogue, *, min_length: int = MIN_LENGTH) -> Histories:
    """One History per shopper, in time order, of at least `min_length` events.

    Args:
        events: columns EVENT_SCHEMA. Events of one shopper with equal `order` keep the order of
            their item's name, then of their day, so that the result does not depend on the order of
            the rows. Days are kept if every event has one.
        catalogue: events of items it lacks are left out (the reader counts and reports them).
        min_length: Histories shorter than this are left out.
    """
    position = pl.DataFrame(
        {"item": catalogue.items, "position": np.arange(len(catalogue.items), dtype=np.int32)},
        schema={"item": pl.String, "position": pl.Int32},
    )
    known = events.join(position, on="item", how="inner").sort("shopper", "order", "item", "day")
    rows = (
        known.group_by("shopper", maintain_order=True)
        .agg("position", "day")
        .filter(pl.col("position").list.len() >= min_length)
    )
    lengths = rows["position"].list.len().to_numpy().astype(np.int64)
    items = rows["position"].explode().drop_nulls().to_numpy().astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    days = rows["day"].explode().drop_nulls().to_numpy().astype(np.int32)
    known_days = days if len(days) == len(items) else None
    return Histories(tuple(rows["shopper"].to_list()), items, offsets, known_days)


def training_part(histories: Histories) -> Histories:
    """Every History less the events that validate and test, if that leaves two to learn from."""
    rest = histories.without_last(2)
    return rest.take(np.flatnonzero(rest.lengths >= 2))


def to_date(histories: Histories) -> Histories:
    """Every History less the event that tests: what there is on the day before it."""
    return histories.without_last(1)


@dataclass(frozen=True)
class Question:
    """One part of the leave-one-out split: from `contexts`, find `targets` in the Catalogue.

    Attributes:
        contexts: [S] Histories up to the event before the target.
        targets: [S] int32 catalogue position of the event to be found.
    """

    contexts: Histories
    targets: NDArray[np.int32]

    def take(self, indices: NDArray[np.int64]) -> Question:
        """The same of the shoppers at these positions."""
        return Question(self.contexts.take(indices), self.targets[indices])

    def spaced(self, most: int) -> Question:
        """The same of so many shoppers at most, evenly spaced among them all."""
        if len(self.contexts) <= most:
            return self
        some = np.linspace(0, len(self.contexts) - 1, most).astype(np.int64)
        return self.take(some)


def question(histories: Histories, part: Part) -> Question:
    """Leave-one-out: the last event tests, the one before it validates, the rest trains.

    A shopper whose target already stands in the context is left out, because seen items are masked.
    """
    back = {"test": 1, "validation": 2}[part]
    contexts = histories.without_last(back)
    targets = histories.last(back - 1)
    owner = np.repeat(np.arange(len(contexts)), contexts.lengths)
    seen = np.zeros(len(contexts), dtype=bool)
    np.logical_or.at(seen, owner, contexts.items == targets[owner])
    kept = np.flatnonzero(~seen)
    return Question(contexts.take(kept), targets[kept])
