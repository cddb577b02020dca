"""What can be said of two items, from a platform's own rows and from its public texts.

    Memory              ─→ similar, next       taken together; what came next
    Memory, near texts  ─→ likewise, onward    the same of something alike
    similar, similar    ─→ twice               taken with something that was taken with it
    texts               ─→ words               how many rare words two titles share

Most pairs of a small platform were never met. What is alike, and what stands one step further, says
something of them all the same.

    N  items
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import Memory, Weights
from shared.words import Texts

KEPT = 100  # items that an item says something of, the strongest, in what is derived
BLOCK = 1024  # items of which what is derived is found at a time

OWN = ("similar", "next", "likewise", "onward", "twice")


@dataclass(frozen=True)
class Signals:
    """A Memory and texts, as pairs of items.

    Attributes:
        memory: of rows that hold no target.
        texts: of the same Catalogue.
    """

    memory: Memory
    texts: Texts

    @cached_property
    def pairs(self) -> Mapping[str, Weights]:
        """[N, N] by name, those of OWN: what the row's item says of the column's; 0 or more."""
        similar, following, near = self.memory.similar, self.memory.next, self.texts.near
        together, after = _strongest(similar), _strongest(following)
        return {
            "similar": similar,
            "next": following,
            "likewise": _through((near, together), (together, near)),
            "onward": _through((near, after), (after, near)),
            "twice": _through((together, together)),
        }


def indicator(pairs: Weights) -> Weights:
    """1 wherever a pair has a value; the places are shared with it, not copied."""
    ones = np.ones(len(pairs.data), np.float32)
    return sparse.csr_array((ones, pairs.indices, pairs.indptr), shape=pairs.shape)


def at(pairs: Weights, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """The values at these places, which are of one shape."""
    if not rows.size:
        return np.zeros(rows.shape, np.float32)
    return np.asarray(pairs[rows.ravel(), columns.ravel()], np.float32).reshape(rows.shape)


def _through(*steps: tuple[Weights, Weights]) -> Weights:
    """The strongest of the sum of these products, of which no more than a block is ever whole."""
    items = steps[0][0].shape[0]
    blocks = []
    for start in range(0, items, BLOCK):
        part = slice(start, start + BLOCK)
        whole = steps[0][0][part] @ steps[0][1]
        for first, second in steps[1:]:
            whole = whole + first[part] @ second
        blocks.append(_strongest(whole, start=start))
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


def _strongest(pairs: Weights, *, start: int = 0) -> Weights:
    """The KEPT highest of each row, none of an item with itself.

    Args:
        pairs: of the rows from item `start` on.
        start: 0 where it is all of them.
    """
    found = sparse.csr_array(pairs, copy=True)
    rows = start + np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    found.data[found.indices == rows] = 0
    found.eliminate_zeros()
    weak = np.zeros(found.nnz, bool)
    for start, stop in zip(found.indptr[:-1], found.indptr[1:], strict=True):
        if stop - start > KEPT:
            order = np.argpartition(found.data[start:stop], stop - start - KEPT)
            weak[start + order[: stop - start - KEPT]] = True
    found.data[weak] = 0
    found.eliminate_zeros()
    found.sort_indices()
    return found
