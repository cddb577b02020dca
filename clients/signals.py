"""What can be said of two items, from a platform's own rows and from its public texts.

    Memory              ─→ similar, next       taken together; what came next
    Memory, near texts  ─→ likewise, onward    the same of something alike
    similar, similar    ─→ twice               taken with something that was taken with it
    texts               ─→ words               how many rare words two titles share

Most pairs of a small platform were never met. What is alike, and what stands one step further, says
something of them all the same.

    N  items      W  width of a text vector      D  words
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import Memory, Weights
from shared.words import Words, words_of

NEAREST = 10  # texts that count as alike
KEPT = 100  # items that an item says something of, the strongest, in what is derived
BLOCK = 512  # items whose nearest texts are found at a time

OWN = ("similar", "next", "likewise", "onward", "twice")


@dataclass(frozen=True)
class Texts:
    """What a Catalogue's texts say of two items.

    Attributes:
        near: [N, N] cosines of each item's NEAREST other texts, those above 0.
        words: [N, D] unit vectors of TF-IDF.
    """

    near: Weights
    words: Words

    @classmethod
    def of(cls, vectors: NDArray[np.float32], texts: Sequence[str]) -> Texts:
        """Of a Catalogue: [N, W] unit vectors, and N texts."""
        return cls(_near(vectors), words_of(texts))


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
        strongest = _strongest(similar)
        return {
            "similar": similar,
            "next": following,
            "likewise": _strongest(near @ similar + similar @ near),
            "onward": _strongest(near @ following + following @ near),
            "twice": _strongest(strongest @ strongest),
        }


def indicator(pairs: Weights) -> Weights:
    """1 wherever a pair has a value; the places are shared with it, not copied."""
    ones = np.ones(len(pairs.data), np.float32)
    return sparse.csr_array((ones, pairs.indices, pairs.indptr), shape=pairs.shape)


def at(pairs: Weights, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """The values at these places, which are of one shape."""
    return np.asarray(pairs[rows.ravel(), columns.ravel()], np.float32).reshape(rows.shape)


def _near(vectors: NDArray[np.float32]) -> Weights:
    items = len(vectors)
    count = min(NEAREST, items - 1)
    rows, columns, values = [], [], []
    for start in range(0, items, BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors.T
        own = np.arange(start, start + len(cosines))
        cosines[np.arange(len(cosines)), own] = -np.inf
        best = np.argpartition(-cosines, max(count - 1, 0), axis=1)[:, :count]
        rows.append(np.repeat(own, count))
        columns.append(best.ravel())
        values.append(np.take_along_axis(cosines, best, axis=1).ravel())
    said = np.concatenate(values).astype(np.float32)
    kept = said > 0
    places = np.concatenate(rows)[kept], np.concatenate(columns)[kept]
    return sparse.csr_array((said[kept], places), shape=(items, items))


def _strongest(pairs: Weights) -> Weights:
    """The KEPT highest of each row, none of an item with itself."""
    found = sparse.csr_array(pairs, copy=True)
    rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
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
