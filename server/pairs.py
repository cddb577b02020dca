"""Make the list of pairs that sums are taken over, out of public item tables or of channels' lists.

item tables ─one item for each identifier→ texts ─encode→ vectors ─near→ Pairs
lists of channels whose rows nobody protects ─together→ Pairs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.catalogue import Catalogue
from shared.errors import PairsError
from shared.pairs import Pairs, met, near
from shared.text import Progress, find_encoder, item_table, silent
from shared.words import words_of


def union(catalogues: Sequence[Catalogue]) -> Catalogue:
    """Every item once; where two name it alike and describe it differently, as the first does."""
    texts: dict[str, str] = {}
    for catalogue in catalogues:
        for item, text in zip(catalogue.items, catalogue.texts, strict=True):
            texts.setdefault(item, text)
    items = tuple(sorted(texts))
    return Catalogue(items, tuple(texts[item] for item in items))


def listed(
    catalogues: Sequence[Catalogue],
    *,
    encoder: str,
    nearest: int,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Pairs:
    """Each item of these catalogues with its nearest by text.

    Args:
        catalogues: public.
        encoder: name of the text encoder.
        nearest: of each item.
        cache: folder of item vectors.
        progress: called while texts are read.

    Raises:
        PairsError: fewer than two items.
    """
    everything = union(catalogues)
    vectors = item_table(everything, find_encoder(encoder), cache=cache, progress=progress)
    return near(everything.items, vectors, words_of(everything.texts), count=nearest)


def together(lists: Sequence[Pairs]) -> Pairs:
    """One list out of several that channels made of their own rows.

    Of several, a pair stays whose items two of them sell: another tells nobody anything. Where
    nothing is sold twice none is left, and how loudly signals speak is all that is shared.

    Raises:
        PairsError: one of them was made from texts.
    """
    if not all(pairs.directed for pairs in lists):
        raise PairsError(
            "a list made from texts is none of a channel's own",
            todo="name lists that atoll-client pairs wrote",
        )
    items = tuple(sorted({item for pairs in lists for item in pairs.items}))
    position = {item: place for place, item in enumerate(items)}
    places = [np.array([position[item] for item in it.items], np.int64) for it in lists]
    sold = np.zeros((len(lists), len(items)), bool)
    for row, place in zip(sold, places, strict=True):
        row[place] = True
    # Both are sorted alike, so the smaller stays the smaller.
    left = np.concatenate([place[it.left] for it, place in zip(lists, places, strict=True)])
    right = np.concatenate([place[it.right] for it, place in zip(lists, places, strict=True)])
    if len(lists) > 1:
        of_two = (sold[:, left] & sold[:, right]).sum(axis=0) > 1
        left, right = left[of_two], right[of_two]
        twice = sold.sum(axis=0) > 1
        left, right = (np.cumsum(twice)[side] - 1 for side in (left, right))
        items = tuple(item for item, kept in zip(items, twice, strict=True) if kept)
    return met(items, left * len(items) + right)
