"""Shoppers who were erased, by a keyed hash: the reader drops their rows from then on.

    identifier ─keyed BLAKE2b→ 64 hex ─→ NAME.erased ─→ read_platform leaves these rows out

So an old export or a backup of the table never brings an erased shopper back. The list holds no
identifier. Whoever has the file can still test whether one given identifier is on it, because the
key lies in the same file: it stays pseudonymous personal data, readable by its owner alone.

Records of erasures lie in a folder beside the list (NAME.erasures). The list counts them, so that a
list that is missing or older than the records is refused instead of being read as "nobody".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from shared.errors import DataError
from shared.signing import canonical, digest, write_private
from shared.strict_parsing import json_value
from shared.tables.dialect import Normalisation, normalised_keys

FORMAT = "atoll erasure list 1"
LARGEST = 2**31  # bytes of a list; a million shoppers need some 90 MB
KEY_BYTES = 32  # as long as the hash: guessing the key is no easier than guessing the hash
HEX = re.compile(r"[0-9a-f]{64}")
RECORD = re.compile(r"erasure-(\d{4,9})\.json")
RESTORE = "put the newest copy back, so that no erased shopper is read again"


@dataclass(frozen=True)
class ErasureList:
    """Who was erased from one platform's tables.

    Attributes:
        key: of the hash, 64 hex; random, made with the list.
        shoppers: when each was put on the list, seconds since 1970, by the hash of the identifier.
        records: how many records of erasures were written.
        platform: its TOML file, relative to the list's folder; empty if not known.
    """

    key: str
    shoppers: Mapping[str, float] = field(default_factory=dict)
    records: int = 0
    platform: str = ""

    def hash_of(self, shopper: str) -> str:
        """The keyed hash of an identifier as the reader gives it: 64 hex digits."""
        key = bytes.fromhex(self.key)
        return blake2b(
            shopper.encode("utf-8", "surrogatepass"), key=key, digest_size=32
        ).hexdigest()

    def __contains__(self, shopper: str) -> bool:
        return bool(self.shoppers) and self.hash_of(shopper) in self.shoppers

    def with_shoppers(self, hashes: Iterable[str], time: float) -> ErasureList:
        """The list with more hashes; one that is on it keeps its time."""
        return replace(self, shoppers={**dict.fromkeys(hashes, time), **self.shoppers})

    @property
    def digest(self) -> str:
        """SHA-256 of who is on it; it changes whenever the reader has to read again."""
        return digest(canonical({"key": self.key, "shoppers": sorted(self.shoppers)}))


def new_list() -> ErasureList:
    """An empty list under a new key."""
    return ErasureList(os.urandom(KEY_BYTES).hex())


def records_folder(path: Path) -> Path:
    """Where the records of erasures of a list lie."""
    return path.with_name(f"{path.stem}.erasures")


def record_paths(path: Path) -> list[Path]:
    """The records beside a list, in the order of their numbers."""
    folder = records_folder(path)
    if not folder.is_dir():
        return []
    numbered = {int(m[1]): it for it in folder.iterdir() if (m := RECORD.fullmatch(it.name))}
    return [numbered[number] for number in sorted(numbered)]


def load_list(path: Path | None) -> ErasureList | None:
    """The list in a file; None where nobody was ever erased.

    Raises:
        DataError: it is damaged, or missing or older though records of erasures are there.
    """
    if path is None:
        return None
    newest = max((int(it.stem.partition("-")[2]) for it in record_paths(path)), default=0)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if newest:
            there = f"{records_folder(path).name} has {newest} records"
            what = f"the erasure list is missing, but {there}"
            raise DataError(what, where=path, todo=RESTORE) from None
        return None
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        todo = "make it readable for this user"
        raise DataError(f"cannot be read ({why})", where=path, todo=todo) from None
    found = _parsed(text)
    if found is None:
        raise DataError("the erasure list is damaged", where=path, todo=RESTORE)
    if newest > found.records:
        what = f"the erasure list is an old copy: it knows {found.records} of {newest} records"
        raise DataError(what, where=path, todo=RESTORE)
    return found


def list_in(path: Path) -> ErasureList | None:
    """The list in a file, whatever records are beside it; None if there is no whole one."""
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return None


def save_list(path: Path, found: ErasureList) -> None:
    """Replace the list in one step; it is on the disk when this returns.

    Raises:
        ConfigError: it cannot be written; the one before is left.
    """
    told = {"format": FORMAT, **asdict(found)}
    write_private(path, canonical({**told, "check": digest(canonical(told))}) + b"\n")


def spellings_of(
    matches: Callable[[str], bool], names: Sequence[str], how: tuple[Normalisation, ...] = ()
) -> list[str]:
    """Those of the identifiers that are, or are normalised to the same as, one that matches.

    So the rows of a shopper belong together however they are spelt, and a list that is older than
    the key `normalise` still counts.

    Args:
        matches: asked for each identifier as it is written, and as it is normalised.
        names: as the reader gives them, each once.
        how: they are normalised.
    """
    keys = normalised_keys(names, how) if how else names
    pairs = list(zip(names, keys, strict=True))
    found = {key for name, key in pairs if matches(name) or (key != name and matches(key))}
    return [name for name, key in pairs if key in found]


def without_erased(
    rows: pl.DataFrame, listed: ErasureList | None, how: tuple[Normalisation, ...] = ()
) -> tuple[pl.DataFrame, int]:
    """Rows of text without those of erased shoppers, and how many of these there were.

    Args:
        rows: with a column `shopper`, as `read_text` gives it.
        listed: who was erased; None or an empty list leaves all rows.
        how: identifiers are normalised.
    """
    if listed is None or not listed.shoppers:
        return rows, 0
    names = rows["shopper"].drop_nulls().unique().to_list()
    erased = spellings_of(listed.__contains__, names, how)
    if not erased:
        return rows, 0
    kept = rows.filter(~pl.col("shopper").is_in(erased).fill_null(False))
    return kept, rows.height - kept.height


def _parsed(text: bytes) -> ErasureList | None:
    try:
        told: dict[str, Any] = json_value(text, largest=LARGEST)
        check = told.pop("check")
        if told.pop("format") != FORMAT or check != digest(canonical({"format": FORMAT, **told})):
            return None
        shoppers = {str(name): float(time) for name, time in told.pop("shoppers").items()}
        found = ErasureList(shoppers=shoppers, **told)
        whole = HEX.fullmatch(found.key) and all(map(HEX.fullmatch, shoppers))
        return found if whole and _typed(found) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _typed(found: ErasureList) -> bool:
    return type(found.records) is int and isinstance(found.platform, str)
