"""What a platform sells: items, their text and attributes. Public by stated assumption.

A Catalogue is the only thing of a platform that a loss may share between Histories. Nothing in it
may be derived from shoppers' rows: no popularity, no co-visitation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Catalogue:
    """A platform's items, sorted by identifier.

    Attributes:
        items: [N] identifiers, unique.
        texts: [N] what the text encoder reads, never empty.
        attributes: further columns (category, brand, price, image), each [N], may hold None.
    """

    items: tuple[str, ...]
    texts: tuple[str, ...]
    attributes: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def position(self) -> dict[str, int]:
        """Catalogue position of each identifier."""
        return {item: place for place, item in enumerate(self.items)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over identifiers and texts, as hexadecimal."""
        state = hashlib.sha256()
        for item, text in zip(self.items, self.texts, strict=True):
            for part in (item, text):
                data = part.encode()
                state.update(len(data).to_bytes(8, "little") + data)
        return state.hexdigest()
