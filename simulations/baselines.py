"""Scorers that need no training: what a platform would have without a federation.

    Popularity   how many rows an item has, the same for every History
    TfIdf        words that the texts of the last events share with an item's text
    ItemKnn      how often an item stands in one History with the last events

Fitted on what there is on the day of the test, `shared.events.to_date`: all but the event that
tests. The contexts of a Question are read, never remembered.

    B  shoppers in a block      N  items      D  words
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import Memory, recency_weights
from shared.catalogue import Catalogue
from shared.events import Histories
from shared.words import words_of


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
        """Weigh the words of its texts, as shared/words.py does."""
        vectors = words_of(catalogue.texts)
        return cls(vectors, sparse.csr_array(vectors.T))

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] inner product of the last events' weighted sum and each item's vector."""
        queries = recency_weights(contexts, items=self.vectors.shape[0]) @ self.vectors  # [B, D]
        return (queries @ self.columns).toarray()


@dataclass(frozen=True)
class ItemKnn:
    """Items that stand in one History with the last events; the Memory's co-visitation alone.

    Attributes:
        similar: [N, N] as `clients.memory.Memory.similar`.
    """

    similar: sparse.csr_array[np.float32, tuple[int, int]]

    @classmethod
    def fit(cls, train: Histories, *, items: int) -> Self:
        """Count each pair once per History."""
        return cls(Memory.of(train, items=items).similar)

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] weighted sum of the last events' rows of `similar`."""
        return (recency_weights(contexts, items=self.similar.shape[0]) @ self.similar).toarray()
