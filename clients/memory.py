"""Private memory: what a platform's own rows say of its items. It never leaves.

    Histories ─of→ Memory ─plus, minus→ Memory ─similar, next, popularity, lately→ clients/recall.py

A Memory is a sum over Histories, in whole numbers. So a new day is added and an erased shopper is
taken out, both exactly, and what is left is as if it had been counted anew.

Nothing made of a Memory may steer a training whose Update leaves under a Plan: the features that it
gives one shopper are other shoppers' rows, and clipping by History bounds only the shopper's own
(docs/decisions/0019-memory-stays-at-home.md).

    B  Histories      N  items
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shared.events import Histories

REACH = 50  # events of a History that are paired, the last ones: pairs grow with its square
STEPS = 3  # events after an item that count as following it
UNIT = 6  # of `following`: 6, 3 and 2 for the next three, so that 1/gap stays a whole number
LAST = 5  # events at the end of a context that speak
DECAY = 0.7  # weight of an event over that of the event after it
LATELY = 28  # days before that of asking: whole weeks, for Saturdays
DAYS = 1_200_000  # since 1970 that a table may hold: to the year 5255
SHRINKAGE = 5.0  # Histories added to an item's count, so that rare pairs do not win by luck

Counts = sparse.csr_array[np.int32, tuple[int, int]]
Weights = sparse.csr_array[np.float32, tuple[int, int]]


@dataclass(frozen=True)
class Memory:
    """Counts over Histories.

    Attributes:
        together: [N, N] Histories with both items within their last REACH events; symmetric, its
            diagonal is the number of Histories with the item.
        following: [N, N] row before column: UNIT / gap for each time the column's item came `gap`
            events after the row's, up to STEPS, within the last REACH events.
        rows: [N] int64, rows of each item.
        daily: [N, DAYS] rows of each item by day, those whose day is known.
    """

    together: Counts
    following: Counts
    rows: NDArray[np.int64]
    daily: Counts

    @classmethod
    def of(cls, histories: Histories, *, items: int) -> Self:
        """Count these Histories over a Catalogue of N items."""
        owner, item, _ = latest(histories, REACH)
        ones = np.ones(len(item), np.int32)
        holds = sparse.csr_array((ones, (owner, item)), shape=(len(histories), items))
        holds.data[:] = 1  # an item met twice in a History counts once
        following = sparse.csr_array((items, items), dtype=np.int32)
        for gap in range(1, STEPS + 1):
            one_shopper = owner[gap:] == owner[:-gap]
            pairs = item[:-gap][one_shopper], item[gap:][one_shopper]
            weights = np.full(len(pairs[0]), UNIT // gap, np.int32)
            following = following + sparse.csr_array((weights, pairs), shape=(items, items))
        days = histories.days
        return cls(
            together=sparse.csr_array(holds.T @ holds),
            following=sparse.csr_array(following),
            rows=np.bincount(histories.items, minlength=items).astype(np.int64),
            daily=undated(items) if days is None else by_day(histories.items, days, count=items),
        )

    def plus(self, other: Self) -> Self:
        """The Memory of both."""
        return type(self)(
            sparse.csr_array(self.together + other.together),
            sparse.csr_array(self.following + other.following),
            self.rows + other.rows,
            sparse.csr_array(self.daily + other.daily),
        )

    def minus(self, other: Self) -> Self:
        """The Memory without Histories that are in it.

        Raises:
            ValueError: they are not: a count would fall below zero.
        """
        together = sparse.csr_array(self.together - other.together)
        following = sparse.csr_array(self.following - other.following)
        rows = self.rows - other.rows
        daily = sparse.csr_array(self.daily - other.daily)
        if min(it.min(initial=0) for it in (together.data, following.data, rows, daily.data)) < 0:
            raise ValueError("these Histories are not in this Memory")
        for counts in (together, following, daily):
            counts.eliminate_zeros()
        return type(self)(together, following, rows, daily)

    def updated(self, before: Histories, after: Histories) -> Self:
        """After new rows: `before` and `after` are the Histories of the shoppers they belong to.

        Raises:
            ValueError: `before` is not in this Memory.
        """
        items = len(self.rows)
        return self.minus(type(self).of(before, items=items)).plus(
            type(self).of(after, items=items)
        )

    @cached_property
    def similar(self) -> Weights:
        """[N, N] together / (√(n_i + 5) · √(n_j + 5)), no item its own neighbour.

        n_i is the number of Histories with item i. Item-based top-N recommendation (Deshpande &
        Karypis, ACM TOIS 22(1), 2004) with shrinkage in the norm.
        """
        return self._normed(self.together, unit=1)

    @cached_property
    def next(self) -> Weights:
        """[N, N] what came after an item: Σ 1/gap, in the same norm."""
        return self._normed(self.following, unit=UNIT)

    @cached_property
    def popularity(self) -> NDArray[np.float32]:
        """[N] log(1 + rows)."""
        return np.log1p(self.rows).astype(np.float32)

    def lately(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] log(1 + rows of the LATELY days before the day of each context's last event).

        Each context has an event. One whose days are not known is asked on the day after the latest
        row.
        """
        count, known = len(self.rows), self._by_day
        if contexts.days is None:
            days = np.full(len(contexts), self.daily.indices.max(initial=-1) + 1)
        else:
            days = contexts.days[contexts.offsets[1:] - 1]
        each, place = np.unique(np.clip(days, 0, DAYS), return_inverse=True)
        found = np.zeros((len(each), count), np.float32)
        for row, day in enumerate(each):
            part = slice(known.indptr[max(0, day - LATELY)], known.indptr[day])
            found[row] = np.bincount(known.indices[part], known.data[part], minlength=count)
        return np.asarray(np.log1p(found)[place], np.float32)

    @cached_property
    def _by_day(self) -> sparse.csc_array[np.int32]:
        return sparse.csc_array(self.daily)

    def _normed(self, counts: Counts, *, unit: int) -> Weights:
        held = self.together.diagonal() + SHRINKAGE
        norm = (1 / np.sqrt(unit * held)).astype(np.float32)
        others = counts.astype(np.float32)
        others.setdiag(0)
        others.eliminate_zeros()
        scale = sparse.diags_array(norm)
        return sparse.csr_array(scale @ others @ scale)


def by_day(items: NDArray[np.int32], days: NDArray[np.int32], *, count: int) -> Counts:
    """[count, DAYS] rows of each item by day; a day before 1970 counts as the first."""
    ones = np.ones(len(items), np.int32)
    places = items, np.clip(days, 0, DAYS - 1)
    return sparse.csr_array((ones, places), shape=(count, DAYS))


def undated(count: int) -> Counts:
    """[count, DAYS] of rows whose days are not known."""
    nothing = np.zeros(0, np.int32)
    return by_day(nothing, nothing, count=count)


def recency_weights(contexts: Histories, *, items: int) -> Weights:
    """[B, N] DECAY^k at the item of each of the LAST events, k = 0 the latest; repeats add up."""
    owner, item, age = latest(contexts, LAST)
    weights = (DECAY**age).astype(np.float32)
    return sparse.csr_array((weights, (owner, item)), shape=(len(contexts), items))


def latest(
    histories: Histories, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """(History, item, events after it) of each of the last `count` events of every History."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    age = histories.offsets[1:][owner] - 1 - np.arange(len(histories.items))
    kept = age < count
    return owner[kept], histories.items[kept], age[kept]
