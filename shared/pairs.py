"""Which items may be counted together: a public list that every party holds alike.

    items, vectors [M, W], words [M, D] ─near→ Pairs: each item with its nearest by text
    items, pairs that occur ─met→ Pairs of several channels whose owner hides no row from itself

A noised count costs the same noise whether anybody has the pair or not, and of the M²/2 pairs of
a catalogue nearly all are nobody's. Texts are public, and much of what shoppers put together lies
near by text: so noise is spent on those pairs alone. Nothing in a list made by `near` comes from a
row.

    M  items      P  pairs      W  width of a text vector      D  words
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shared.errors import PairsError
from shared.files import check_tensors, replacing
from shared.words import Words

FORMAT = "atoll-pairs-1"
NEAREST = 40  # by text, of each item: docs/log.md
A_SHOPPER = 10  # pairs that a large federation has noise for, about: docs/log.md
MOST_NEAREST = 1000
APART = 0.55  # of each item's nearest, those that are not listed from the other side too
BLOCK = 1024  # items whose nearest are sought at a time
ANEW = "fetch it anew from the coordinator"


@dataclass(frozen=True)
class Pairs:
    """Pairs of items, in rising order.

    Attributes:
        items: [M] identifiers that the parties have agreed on, sorted, unique.
        left: [P] int32 place of a pair's first item among them.
        right: [P] int32 place of its second, above the first's.
        nearness: [P] float32 how like their texts are, 2 at most; 0 where it is not known.
        directed: whether it is also counted which of the two came first. For rows that nobody
            protects.
    """

    items: tuple[str, ...]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    nearness: NDArray[np.float32]
    directed: bool = False

    def __len__(self) -> int:
        return len(self.left)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        state = hashlib.sha256(json.dumps([FORMAT, self.directed, list(self.items)]).encode())
        for column in (self.left, self.right, self.nearness):
            state.update(np.ascontiguousarray(column).tobytes())
        return state.hexdigest()

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """[P] left · M + right, rising: where a pair is looked up."""
        return self.left.astype(np.int64) * len(self.items) + self.right

    def find(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the pairs of these items are, in either order; -1 where they are not.

        Args:
            one: [K] places among the items; -1 is no item.
            other: [K] likewise.
        """
        low, high = np.minimum(one, other), np.maximum(one, other)
        wanted = low * len(self.items) + high
        place = np.searchsorted(self.keys, wanted)
        place[place == len(self)] = 0
        known = (low >= 0) & (self.keys[place] == wanted) if len(self) else np.zeros(len(low), bool)
        return np.where(known, place, -1)


def nearest_for(shoppers: int, items: int) -> int:
    """How many nearest of each item a federation of so many shoppers should list.

    NEAREST, or as many as make about A_SHOPPER pairs a shopper; at most MOST_NEAREST.

    Args:
        shoppers: of all platforms, a public number.
        items: of the list.
    """
    return min(MOST_NEAREST, max(NEAREST, round(A_SHOPPER * shoppers / (APART * items))))


def near(
    items: Sequence[str],
    vectors: NDArray[np.float32],
    words: Words | None = None,
    *,
    count: int = NEAREST,
) -> Pairs:
    """Each item with its `count` nearest by text: by meaning, and by words as well if given.

    Two cosines are added. Words know brands and model names, which meaning blurs (docs/log.md).

    Args:
        items: [M] identifiers, sorted, unique.
        vectors: [M, W] of length 1.
        words: [M, D] of length 1, or 0.
        count: nearest of each; all others where there are fewer.

    Raises:
        PairsError: fewer than two items.
        ValueError: count is below 1.
    """
    if len(items) < 2:
        raise PairsError("fewer than two items make no pair", todo="give a list of items")
    if count < 1:
        raise ValueError(f"{count} nearest of each item")
    count = min(count, len(items) - 1)
    found = []
    for start in range(0, len(items), BLOCK):
        likeness = vectors[start : start + BLOCK] @ vectors.T  # [B, M]
        if words is not None:
            likeness += (words[start : start + BLOCK] @ words.T).toarray()
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]  # [B, count]
        mine = np.repeat(start + rows, count)
        found.append(np.minimum(mine, best.ravel()) * len(items) + np.maximum(mine, best.ravel()))
    keys = np.unique(np.concatenate(found))
    left, right = np.divmod(keys, len(items))
    nearness = np.empty(len(keys), np.float32)
    for part in np.array_split(np.arange(len(keys)), 1 + len(keys) // 100_000):
        one, other = left[part], right[part]
        nearness[part] = np.einsum("pw,pw->p", vectors[one], vectors[other])
        if words is not None:
            nearness[part] += words[one].multiply(words[other]).sum(axis=1)
    return Pairs(tuple(items), _int32(left), _int32(right), nearness)


def met(items: Sequence[str], keys: NDArray[np.int64]) -> Pairs:
    """Pairs that occur, for rows that nobody protects.

    Args:
        items: [M] identifiers, sorted, unique.
        keys: left · M + right of each, in any order, repeated or not.
    """
    left, right = np.divmod(np.unique(keys), max(len(items), 1))
    nothing = np.zeros(len(left), np.float32)
    return Pairs(tuple(items), _int32(left), _int32(right), nothing, directed=True)


def save_pairs(pairs: Pairs, path: Path) -> None:
    """Write a safetensors file whose header holds the digest."""
    columns: dict[str, NDArray[Any]] = {
        "items": np.frombuffer(json.dumps(list(pairs.items)).encode(), np.uint8),
        "left": pairs.left,
        "right": pairs.right,
        "nearness": pairs.nearness,
    }
    header = {"format": FORMAT, "digest": pairs.digest, "directed": json.dumps(pairs.directed)}
    with replacing(path) as part:
        save_file(columns, part, metadata=header)


def load_pairs(path: Path) -> Pairs:
    """Read a file of pairs.

    Raises:
        PairsError: missing, something else, or damaged.
    """
    if not path.is_file():
        raise PairsError("no such file of pairs", where=path, todo="check the path")
    try:
        check_tensors(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise ValueError("of another format")
        pairs = Pairs(
            items=tuple(json.loads(columns["items"].tobytes())),
            left=columns["left"],
            right=columns["right"],
            nearness=columns["nearness"],
            directed=bool(json.loads(header["directed"])),
        )
        if pairs.digest != header["digest"]:
            raise ValueError("its contents are not those of its digest")
    # AttributeError: a type of number that numpy lacks.
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as fault:
        said = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise PairsError(f"no readable file of pairs ({said})", where=path, todo=ANEW) from fault
    if not _sound(pairs):
        raise PairsError("holds pairs that are none", where=path, todo=ANEW)
    return pairs


def _sound(pairs: Pairs) -> bool:
    if pairs.left.ndim != 1:
        return False
    count, shape = len(pairs.items), (len(pairs.left),)
    return (
        all(isinstance(item, str) for item in pairs.items)
        and list(pairs.items) == sorted(set(pairs.items))
        and pairs.left.dtype == pairs.right.dtype == np.int32
        and pairs.nearness.dtype == np.float32
        and pairs.left.shape == pairs.right.shape == pairs.nearness.shape == shape
        and bool(np.isfinite(pairs.nearness).all())
        and bool((pairs.left >= 0).all() and (pairs.left < pairs.right).all())
        and bool((pairs.right < count).all())
        and bool((np.diff(pairs.keys) > 0).all())
    )


def _int32(places: NDArray[np.int64]) -> NDArray[np.int32]:
    return places.astype(np.int32)
