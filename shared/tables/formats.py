"""Which format a table's file has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from shared.errors import ConfigError

TableFormat = Literal["csv", "tsv", "parquet", "jsonl"]


def format_of(path: str, given: TableFormat | None, where: str) -> TableFormat:
    """The format that is given or that the suffix says; only text may be gzipped.

    Raises:
        ConfigError: neither says one, or a Parquet file is gzipped.
    """
    suffixes = Path(path).suffixes
    gz = suffixes[-1:] == [".gz"]
    suffix = suffixes[-2:-1] if gz else suffixes[-1:]
    found = given or "".join(suffix).removeprefix(".")
    if found not in ("csv", "tsv", "parquet", "jsonl"):
        raise ConfigError(
            f"the suffix of path {path!r} names no table format",
            where=where,
            todo='write format = "csv", "tsv", "parquet" or "jsonl"',
        )
    if gz and found == "parquet":
        raise ConfigError(
            f"path {path!r} is a gzipped Parquet file",
            where=where,
            todo="unpack it: Parquet packs its own columns",
        )
    return cast(TableFormat, found)
