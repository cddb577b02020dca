"""Scorers that need no training: what a platform would have without a federation.

    Popularity   how many train rows an item has, the same for every History
    TfIdf        words that the texts of the last events share with an item's text
    ItemKnn      how often an item stands in one train History with the last events

Memory is of train rows only: fit on `histories.without_last(2)`, so that neither the validation nor
the test event is in it. The contexts of a Question are read, never remembered.

    B  shoppers in a block      N  items      D  words
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from shared.catalogue import Catalogue
from shared.events import Histories

LAST = 5  # events at the end of a context that speak
DECAY = 0.7  # weight of an event over that of the event after it
SHRINKAGE = 5.0  # Histories added to an item's count, so that rare pairs do not win by luck
REACH = 50  # events of a train History that are paired: pairs grow with its square


@dataclass(frozen=True)
class Popularity:
    """The items that most train rows hold.

    Attributes:
        counts: [N] train rows of each item.
    """

    counts: NDArray[np.float32]

    @classmethod
    def fit(cls, train: Histories, *, items: int) -> Self:
        """Count the rows of each of the N items."""
        return cls(np.bincount(train.items, minlength=items).astype(np.float32))

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] the counts, a read-only view repeated for each History."""
        return np.broadcast_to(self.counts, (len(contexts), len(self.counts)))


@dataclass(frozen=True)
class TfIdf:
    """Items whose words are those of the last events; reads texts only, no train row.

    Attributes:
        vectors: [N, D] TF-IDF of each item's text, of length 1 (0 where a text holds no word).
        columns: [D, N] the same, laid out for the product.
    """

    vectors: sparse.csr_array[np.float32, tuple[int, int]]
    columns: sparse.csr_array[np.float32, tuple[int, int]]

    @classmethod
    def fit(cls, catalogue: Catalogue) -> Self:
        """Weigh words by scikit-learn's defaults, a count c within a text as 1 + log c.

        Where no text holds a word of two letters or more, every score is 0.
        """
        vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
        try:
            vectors = sparse.csr_array(vectorizer.fit_transform(catalogue.texts))
        except ValueError:  # scikit-learn's answer to an empty vocabulary
            vectors = sparse.csr_array((len(catalogue), 1), dtype=np.float32)
        return cls(vectors, sparse.csr_array(vectors.T))

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] inner product of the last events' weighted sum and each item's vector."""
        queries = recency_weights(contexts, items=self.vectors.shape[0]) @ self.vectors  # [B, D]
        return (queries @ self.columns).toarray()


@dataclass(frozen=True)
class ItemKnn:
    """Items that stand in one History with the last events: co-visitation, normed by popularity.

        similar[i, j] = Histories with i and j / (√(n_i + 5) · √(n_j + 5))

    n_i is the number of Histories with item i. Item-based top-N recommendation (Deshpande &
    Karypis, ACM TOIS 22(1), 2004) with shrinkage in the norm.

    Attributes:
        similar: [N, N] symmetric, one number for each pair that some History holds; no item is its
            own neighbour.
    """

    similar: sparse.csr_array[np.float32, tuple[int, int]]

    @classmethod
    def fit(cls, train: Histories, *, items: int) -> Self:
        """Count each pair once per History, within its last REACH events."""
        owner, item, _ = _latest(train, REACH)
        ones = np.ones(len(item), dtype=np.float32)
        holds = sparse.csr_array((ones, (owner, item)), shape=(len(train), items))  # [S, N]
        holds.data[:] = 1.0  # an item met twice in a History counts once
        both = sparse.csr_array(holds.T @ holds)  # [N, N], its diagonal is n
        norm = (1 / np.sqrt(both.diagonal() + SHRINKAGE)).astype(np.float32)
        both.setdiag(0)
        both.eliminate_zeros()
        scale = sparse.diags_array(norm)
        return cls(sparse.csr_array(scale @ both @ scale))

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] weighted sum of the last events' rows of `similar`."""
        return (recency_weights(contexts, items=self.similar.shape[0]) @ self.similar).toarray()


def recency_weights(
    contexts: Histories, *, items: int
) -> sparse.csr_array[np.float32, tuple[int, int]]:
    """[B, N] DECAY^k at the item of each of the LAST events, k = 0 the latest; repeats add up."""
    owner, item, age = _latest(contexts, LAST)
    weights = (DECAY**age).astype(np.float32)
    return sparse.csr_array((weights, (owner, item)), shape=(len(contexts), items))


def _latest(
    histories: Histories, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """(History, item, events after it) of each of the last `count` events of every History."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    age = histories.offsets[1:][owner] - 1 - np.arange(len(histories.items))
    kept = age < count
    return owner[kept], histories.items[kept], age[kept]
