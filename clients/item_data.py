"""What follows from a catalogue alone: one copy for all platforms of a process that sell the same.

    catalogue, encoder, device ─→ ItemData: identifiers, texts, vectors, text similarity
    list of pairs, catalogue   ─→ Places

Channels of one owner sell one catalogue, and a simulation opens each platform again for every
federation. With a copy for each, memory grows by items × platforms; with one, by items + platforms.
Nothing here is derived from rows, so sharing it tells no platform anything of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.sums import Places
from shared.catalogue import Catalogue
from shared.interning import Interned
from shared.pairs import Pairs, load_pairs
from shared.words import Texts


@dataclass(frozen=True, eq=False)
class ItemData:
    """A catalogue and what was made of it.

    Attributes:
        catalogue: N items.
        table: [N, W] unit vectors of their texts, on the device.
    """

    catalogue: Catalogue
    table: Tensor

    @cached_property
    def texts(self) -> Texts:
        """What the texts of two items say of each other."""
        return Texts.of(self.table.cpu().numpy(), self.catalogue.texts)


_items: Interned[ItemData] = Interned()
_pairs: Interned[Pairs] = Interned()
_places: Interned[Places] = Interned()


def item_data(
    catalogue: Catalogue,
    *,
    encoder: str,
    encoding: str,
    device: torch.device,
    vectors: Callable[[], NDArray[np.float32]],
) -> ItemData:
    """The ItemData of a catalogue, made where no platform of this process holds it.

    Args:
        catalogue: as it was read; attributes count too, which no digest covers.
        encoder: digest of the text encoder.
        encoding: kind of device that encodes, on which the last digits of a vector depend.
        device: where the vectors are put.
        vectors: makes them, [N, W].
    """
    key = (catalogue.digest, encoder, encoding, str(device))

    def make() -> ItemData:
        return ItemData(catalogue, torch.from_numpy(vectors()).to(device))

    found = _items.get(key, make)
    if found.catalogue == catalogue:
        return found
    return ItemData(catalogue, found.table)  # other attributes of the same items and texts


def places(path: Path, catalogue: Catalogue) -> Places:
    """Where a catalogue's items stand in a list of pairs.

    Raises:
        PairsError: the list cannot be read.
    """
    read = load_pairs(path)
    pairs = _pairs.get(read.digest, lambda: read)
    return _places.get((pairs.digest, catalogue.digest), lambda: Places(pairs, catalogue.position))
