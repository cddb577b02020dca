"""Files that were made from shoppers' rows, outside the cache: which they are, and where.

    compare --out, pairs --out ─register→ NAME.derived ─→ erase deletes them, or names them

A file is known by the digest of its contents, so that another file that took its place is not
deleted, and one that was moved can be named with `atoll-client erase --model`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from shared.adapter import load_adapter
from shared.errors import AtollError, DataError
from shared.pairs import load_pairs
from shared.signing import canonical, write_private
from shared.strict_parsing import json_file
from shared.tables.config import PlatformConfig

FORMAT = "atoll derived files 1"
LARGEST = 2**26  # bytes of a register; each file needs some 200
DerivedKind = Literal["adapter", "pairs"]


@dataclass(frozen=True)
class DerivedFile:
    """One file that was made from shoppers' rows.

    Attributes:
        kind: an adapter that was trained here, or a list of exact pairs.
        path: of it; relative to the register, so that the folder can be moved.
        digest: of its contents, as its kind counts it.
        time: when it was made, seconds since 1970.
    """

    kind: DerivedKind
    path: str
    digest: str
    time: float


def register_path(config: PlatformConfig) -> Path:
    """The platform's register of derived files: beside its erasure list."""
    erased = config.events.erased
    if erased is None:
        return config.events.path.with_name(f"{config.name}.derived")
    return erased.with_suffix(".derived")


def load_register(config: PlatformConfig) -> list[DerivedFile]:
    """All that were made, the first one first.

    Raises:
        DataError: the register is damaged.
    """
    path = register_path(config)
    try:
        told = json_file(path, largest=LARGEST)
        if told.pop("format") != FORMAT:
            raise ValueError
        return [DerivedFile(**fields) for fields in told.pop("files")]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        todo = "put the newest copy back: without it nobody knows which models to erase"
        raise DataError("the register of derived files is damaged", where=path, todo=todo) from None


def save_register(config: PlatformConfig, files: Sequence[DerivedFile]) -> None:
    """Replace the register; it is on the disk when this returns.

    Raises:
        ConfigError: it cannot be written.
    """
    told = {"format": FORMAT, "files": [asdict(file) for file in files]}
    write_private(register_path(config), canonical(told) + b"\n")


def register(
    config: PlatformConfig, kind: DerivedKind, path: Path, *, digest: str, time: float
) -> None:
    """Write down that a file is made; call it before the file is written.

    Raises:
        DataError: the register is damaged.
        ConfigError: it cannot be written.
    """
    place = os.path.relpath(path.resolve(), register_path(config).parent.resolve())
    files = [file for file in load_register(config) if file.path != place]
    save_register(config, [*files, DerivedFile(kind, place, digest, time)])


def location(config: PlatformConfig, file: DerivedFile) -> Path:
    """Where a derived file was written."""
    return Path(os.path.abspath(register_path(config).parent / file.path))


def digest_of(path: Path) -> tuple[DerivedKind, str] | None:
    """What kind of derived file lies at a path, and its digest; None if it is neither kind."""
    try:
        return "adapter", load_adapter(path).digest
    except AtollError:
        pass
    try:
        return "pairs", load_pairs(path).digest
    except AtollError:
        return None
