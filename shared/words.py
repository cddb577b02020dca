"""Texts → TF-IDF vectors: which words two texts share, weighed by how rare they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

Words = sparse.csr_array[np.float32, tuple[int, int]]


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
