"""Take rows out of a table's file and leave every other byte as it is.

    read_text ─row numbers of the shoppers→ file without these lines ─read_text→ the other rows?
                                    └ yes: it takes the file's place     └ no: one line, no change

Which rows are a shopper's is the reader's own answer. Text files (CSV, TSV, JSONL, gzipped or not)
are copied line by line; Parquet is written again with the same columns and values. Before a new
file takes the old one's place it is read again, and has to give exactly the rows that were to stay.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from shared.errors import DataError
from shared.files import replacing
from shared.tables.config import EventTable
from shared.tables.scan import EMPTY, read_text
from shared.tables.sources import GZIP_MAGIC

BY_HAND = "remove these rows where the table is made, and run this again"


@dataclass(frozen=True)
class Removal:
    """What was taken out of a file.

    Attributes:
        rows: how many.
        before: SHA-256 of the file that was there, hex.
        after: SHA-256 of the file that is there now, hex.
    """

    rows: int
    before: str
    after: str


def rows_of(table: EventTable, matches: Callable[[str], bool]) -> pl.DataFrame:
    """The rows of some shoppers: their numbers in the file and the identifiers.

    Args:
        table: where the rows are.
        matches: asked once for each shopper of the table.

    Returns:
        Columns `row`, from 1 at the first row of data, and `shopper`.

    Raises:
        DataError: as of `read_text`.
    """
    rows = read_text(table).rows
    names = rows["shopper"].drop_nulls().unique().to_list()
    return rows.filter(pl.col("shopper").is_in([name for name in names if matches(name)])).select(
        "row", "shopper"
    )


def remove_rows(table: EventTable, matches: Callable[[str], bool]) -> Removal:
    """Take the rows of some shoppers out of a table's file, in one step.

    Guarantee: the file is either as it was, or holds every other row and none of these. Mode and,
    where allowed, owner stay.

    Args:
        table: where the rows are; a link to a file is followed.
        matches: asked once for each shopper of the table.

    Raises:
        DataError: it cannot be read, it changed meanwhile, or the rows cannot be taken out alone.
        ConfigError: it cannot be written.
    """
    table = replace(table, path=table.path.resolve())
    state = _state(table.path)
    before = sha256_of(table.path)
    numbers = set(rows_of(table, matches)["row"].to_list())
    if not numbers:
        return Removal(0, before, before)
    with replacing(table.path) as part:
        part.touch(0o600)
        if table.format == "parquet":
            _write_parquet(table.path, part, numbers)
        else:
            _write_text(table, part, numbers)
        _check(table, part, numbers)
        shutil.copymode(table.path, part)
        with contextlib.suppress(PermissionError):  # only root may give a file away
            os.chown(part, table.path.stat().st_uid, table.path.stat().st_gid)
        after = sha256_of(part)
        if _state(table.path) != state:
            todo = "wait until the export has ended, and run this again"
            raise DataError("changed while it was read", where=table.path, todo=todo)
    return Removal(len(numbers), before, after)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _write_text(table: EventTable, part: Path, numbers: Collection[int]) -> None:
    """Copy the header and every record but these, byte by byte."""
    with table.path.open("rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC
    with gzip.open(table.path) if packed else table.path.open("rb") as source:
        stay = (
            record for number, record in _records(source, table.format) if number not in numbers
        )
        with part.open("wb") as target:
            if not packed:
                target.writelines(stay)
                return
            # No name and no time in it: the same rows give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as plain:
                plain.writelines(stay)


def _records(lines: Iterable[bytes], form: str) -> Iterator[tuple[int, bytes]]:
    """Each record's number as the reader counts, and its bytes with their line end.

    The header is 0, and so are blank lines in JSONL, which the reader does not count.
    """
    number, record = 0 if form == "jsonl" else -1, b""
    for line in lines:
        record += line
        if form == "csv" and record.count(b'"') % 2:
            continue  # a quoted field goes on in the next line
        if form == "jsonl" and not record.strip():
            yield 0, record
        else:
            number += 1
            yield number, record
        record = b""
    if record:
        yield number + 1, record


def _write_parquet(path: Path, part: Path, numbers: Collection[int]) -> None:
    """The same columns, types, values and notes without these rows."""
    notes = {
        name: text
        for name, text in pl.read_parquet_metadata(path).items()
        if name != "ARROW:schema"  # written anew with the file
    }
    name = _free_name(pl.scan_parquet(path, glob=False).collect_schema().names())
    frame = pl.scan_parquet(path, glob=False).with_row_index(name, offset=1)
    frame.filter(~pl.col(name).is_in(list(numbers))).drop(name).sink_parquet(part, metadata=notes)


def _check(table: EventTable, part: Path, numbers: Collection[int]) -> None:
    """Read the new file as the old one is read; the other rows have to be there, and no more."""
    old = read_text(table)
    wanted = old.rows.filter(~pl.col("row").is_in(list(numbers)))
    try:
        if not wanted.is_empty():
            new = read_text(replace(table, path=part))
            same = new.blank == old.blank and new.rows.drop("row").equals(wanted.drop("row"))
        elif table.format == "parquet":
            same = pl.scan_parquet(part, glob=False).select(pl.len()).collect().item() == 0
        else:
            _refuse_rows(replace(table, path=part))
            same = True
        if table.format == "parquet":
            same = same and _other_columns(table.path, part, numbers)
    except (DataError, pl.exceptions.PolarsError):
        same = False
    if not same:
        raise DataError("rows cannot be taken out of it alone", where=table.path, todo=BY_HAND)


def _refuse_rows(table: EventTable) -> None:
    """A file from which all rows were taken has nothing left but its header."""
    try:
        read_text(table)
    except DataError as fault:
        if fault.what == EMPTY:
            return
        raise
    raise DataError("still has rows", where=table.path, todo=BY_HAND)


def _other_columns(path: Path, part: Path, numbers: Collection[int]) -> bool:
    """Whether the columns that nobody reads are the same too."""
    old = pl.scan_parquet(path, glob=False)
    name = _free_name(old.collect_schema().names())
    kept = old.with_row_index(name, offset=1).filter(~pl.col(name).is_in(list(numbers))).drop(name)
    return kept.collect().equals(pl.scan_parquet(part, glob=False).collect())


def _free_name(names: Collection[str]) -> str:
    name = "row"
    while name in names:
        name += "_"
    return name
