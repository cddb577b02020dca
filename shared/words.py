"""What two texts say of each other: how near they are, and which words they share.

vectors [N, W] ─→ near: each text's nearest others
texts          ─→ words: TF-IDF, a shared word weighed by how rare it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

Words = sparse.csr_array[np.float32, tuple[int, int]]

NEAREST = 10  # texts that count as alike
BLOCK = 512  # texts whose nearest are found at a time


def words_of(texts: Sequence[str]) -> Words:
    """[N, D] a vector of length 1 for each text, 0 where it holds no word.

    Words are weighed by scikit-learn's defaults, a count c within a text as 1 + log c. Where no
    text holds a word of two letters or more, D is 1 and every vector is 0.
    """
    vectors: Words
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    try:
        vectors = sparse.csr_array(vectorizer.fit_transform(texts))
    except ValueError:  # scikit-learn's answer to an empty vocabulary
        vectors = sparse.csr_array(np.zeros((len(texts), 1), np.float32))
    return vectors


@dataclass(frozen=True)
class Texts:
    """What a Catalogue's texts say of two items.

    Attributes:
        near: [N, N] cosines of each item's NEAREST other texts, those above 0.
        words: [N, D] unit vectors of TF-IDF.
    """

    near: Words
    words: Words

    @classmethod
    def of(cls, vectors: NDArray[np.float32], texts: Sequence[str]) -> Texts:
        """Of a Catalogue: [N, W] unit vectors, and N texts."""
        return cls(_near(vectors), words_of(texts))


def _near(vectors: NDArray[np.float32]) -> Words:
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
