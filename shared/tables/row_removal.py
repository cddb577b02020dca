"""Take rows out of a table's files and leave every other byte as it is.

    read_text ─row numbers of the shoppers→ file without these records ─read_text→ the other rows?
                                    └ yes: it takes the file's place     └ no: one line, no change

Which rows are a shopper's is the reader's own answer. Text files (CSV, TSV, JSONL, gzipped or not)
are copied record by record; Parquet is written again with the same columns and values. Of a folder
of part files, those that hold such rows are written again. Before new files take the place of the
old ones they are read again, and have to give exactly the rows that were to stay.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import polars as pl

from shared.errors import AtollError, DataError
from shared.files import replacing
from shared.tables.config import EventTable
from shared.tables.erasure_list import spellings_of
from shared.tables.records import is_packed, records_of
from shared.tables.scan import EMPTY, TextTable, free_name, read_text
from shared.tables.sources import files_of, without_panic_text

BY_HAND = "remove these rows where the table is made, and run this again"
Matches = Callable[[str], bool]


@dataclass(frozen=True)
class Removal:
    """What was taken out of a table.

    Attributes:
        rows: how many, as the reader counts: an element of a list that is exploded is one.
        before: SHA-256 of the table that was there, hex, as of `sha256_of_table`.
        after: the same of the table that is there now.
    """

    rows: int
    before: str
    after: str


@dataclass(frozen=True)
class _Part:
    """One file of a table and what is to be taken out of it.

    Attributes:
        table: of this file alone.
        old: what the reader finds in it.
        mine: rows to be taken out.
    """

    table: EventTable
    old: TextTable
    mine: pl.DataFrame

    @property
    def numbers(self) -> set[int]:
        """Of the records that hold these rows."""
        return set(self.mine["row"].to_list())


def rows_of(table: EventTable, matches: Matches) -> pl.DataFrame:
    """The rows of some shoppers: their numbers in the table and the identifiers as written.

    Args:
        table: where the rows are.
        matches: asked for each shopper of the table, as `spellings_of` asks.

    Returns:
        Columns `row`, from 1 at the first row of data, and `shopper`.

    Raises:
        DataError: as of `read_text`.
    """
    rows = read_text(table).rows
    names = spellings_of(matches, _names(rows), table.normalise)
    return rows.filter(pl.col("shopper").is_in(names)).select("row", "shopper")


def row_counts(table: EventTable) -> dict[str, int]:
    """How many rows each shopper has, by the identifier as it is written.

    Raises:
        DataError: as of `read_text`.
    """
    counts = read_text(table).rows["shopper"].drop_nulls().value_counts()
    return dict(zip(counts["shopper"].to_list(), counts["count"].to_list(), strict=True))


def remove_rows(table: EventTable, matches: Matches) -> Removal:
    """Take the rows of some shoppers out of a table, each file in one step.

    Guarantee: if this returns, each file holds every other row and none of these; if it refuses,
    each is as it was. Mode and, where allowed, owner stay.

    Args:
        table: where the rows are; a link to a file is followed.
        matches: asked for each shopper of the table, as `spellings_of` asks.

    Raises:
        DataError: it cannot be read, it changed meanwhile, or the rows cannot be taken out alone.
        ConfigError: it cannot be written.
    """
    table = replace(table, path=table.path.resolve())
    state = _state(table)
    before = sha256_of_table(table)
    parts = _parts(table, matches)
    if not parts:
        return Removal(0, before, before)
    written: dict[Path, Path] = {}
    with ExitStack() as stack:
        for part in parts:
            new = stack.enter_context(replacing(part.table.path))
            new.touch(0o600)
            _write(part, new)
            _check(part, new)
            shutil.copymode(part.table.path, new)
            with contextlib.suppress(PermissionError):  # only root may give a file away
                owner = part.table.path.stat()
                os.chown(new, owner.st_uid, owner.st_gid)
            written[part.table.path] = new
        after = sha256_of_table(table, written)
        if _state(table) != state:
            todo = "wait until the export has ended, and run this again"
            raise DataError("changed while it was read", where=table.path, todo=todo)
    return Removal(sum(part.mine.height for part in parts), before, after)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_table(table: EventTable, instead: Mapping[Path, Path] = MappingProxyType({})) -> str:
    """SHA-256 of a table's file, hex; of a folder, of what `sha256sum` prints of its part files.

    Args:
        table: to be read.
        instead: files that are read in place of some of its own.
    """
    digests = [(it.name, sha256_of(instead.get(it.resolve(), it))) for it in files_of(table)]
    if not table.path.is_dir():
        return digests[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _state(table: EventTable) -> list[tuple[str, int, int, int]]:
    found = [(it.name, it.stat()) for it in files_of(table)]
    return [(name, it.st_ino, it.st_size, it.st_mtime_ns) for name, it in found]


def _names(rows: pl.DataFrame) -> list[str]:
    return rows["shopper"].drop_nulls().unique().to_list()


def _parts(table: EventTable, matches: Matches) -> list[_Part]:
    """The files of a table that hold rows to be taken out.

    Raises:
        DataError: an order holds rows of other shoppers too.
    """
    whole = read_text(table)
    names = spellings_of(matches, _names(whole.rows), table.normalise)
    parts, files = [], files_of(table)
    for file in files:
        one = replace(table, path=file.resolve())
        old = whole if len(files) == 1 else _read(one)
        if old is None:
            continue
        mine = old.rows.filter(pl.col("shopper").is_in(names))
        if mine.is_empty():
            continue
        parts.append(_Part(one, old, mine))
        inside = old.rows.filter(pl.col("row").is_in(parts[-1].numbers))
        if inside.height > mine.height:
            what = f"a list {table.explode!r} has rows of other shoppers too"
            raise DataError(
                f"{what}: rows cannot be taken out of it alone", where=file, todo=BY_HAND
            )
    return parts


def _read(table: EventTable) -> TextTable | None:
    """A part file; None if it has no row."""
    try:
        return read_text(table)
    except DataError as fault:
        if fault.what == EMPTY:
            return None
        raise


def _write(part: _Part, new: Path) -> None:
    """The file without these records."""
    path, numbers = part.table.path, part.numbers
    if part.table.format == "parquet":
        with _read_as_parquet(path):
            _write_parquet(path, new, numbers)
        return
    try:
        stay = (record for number, record in records_of(part.table) if number not in numbers)
        with new.open("wb") as target:
            if not is_packed(path):
                target.writelines(stay)
                return
            # No name and no time in it: the same rows give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as plain:
                plain.writelines(stay)
    except ValueError:
        raise _not_alone(path) from None


@contextmanager
def _read_as_parquet(path: Path) -> Iterator[None]:
    """Turns what Polars raises, or a panic of its code, into one line."""
    try:
        with without_panic_text():
            yield
    except (AtollError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:
        what = "cannot be read as parquet: a column is damaged, or of a kind that is not supported"
        raise DataError(what, where=path, todo=BY_HAND) from None


def _write_parquet(path: Path, part: Path, numbers: Collection[int]) -> None:
    """The same columns, types, values and notes without these rows."""
    notes = {
        name: text
        for name, text in pl.read_parquet_metadata(path).items()
        if name != "ARROW:schema"  # written anew with the file
    }
    name = free_name(pl.scan_parquet(path, glob=False).collect_schema().names())
    frame = pl.scan_parquet(path, glob=False).with_row_index(name, offset=1)
    frame.filter(~pl.col(name).is_in(list(numbers))).drop(name).sink_parquet(part, metadata=notes)


def _check(part: _Part, new: Path) -> None:
    """Read the new file as the old one is read; the other rows have to be there, and no more."""
    table, old = part.table, part.old
    wanted = old.rows.filter(~pl.col("row").is_in(part.numbers))
    parquet = table.format == "parquet"
    try:
        if not wanted.is_empty():
            read = read_text(replace(table, path=new))
            same = read.blank == old.blank and read.rows.drop("row").equals(wanted.drop("row"))
        elif parquet:
            same = pl.scan_parquet(new, glob=False).select(pl.len()).collect().item() == 0
        else:
            _refuse_rows(replace(table, path=new))
            same = True
        if parquet:
            with _read_as_parquet(table.path):
                same = same and _other_columns(table.path, new, part.numbers)
    except (DataError, pl.exceptions.PolarsError):
        same = False
    if not same:
        raise _not_alone(table.path)


def _not_alone(path: Path) -> DataError:
    return DataError("rows cannot be taken out of it alone", where=path, todo=BY_HAND)


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
    name = free_name(old.collect_schema().names())
    kept = old.with_row_index(name, offset=1).filter(~pl.col(name).is_in(list(numbers))).drop(name)
    return kept.collect().equals(pl.scan_parquet(part, glob=False).collect())
