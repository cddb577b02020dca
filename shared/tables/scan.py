"""One table as text: its mapped columns by role, or one line that says why not.

    files ─bytes, Layout→ Polars ─→ columns named after their roles, all text, with a row number
      └─ refused ─walk→ the first bad row, by its number

Rows are counted from 1 at the first row of data, through all parts of a table of several files.
What a reader finds is counted against the records that the bytes hold, so no row is lost silently.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from shared.errors import AtollError, ColumnError, DataError
from shared.tables.config import EventTable, ItemTable
from shared.tables.detect import Detected, detect
from shared.tables.faults import objects_fault, separated_fault
from shared.tables.layout import BLOCK, Layout
from shared.tables.nested import as_text, inner, outermost, paths, reach
from shared.tables.sources import Source, files_of, opened, whole, without_panic_text

EMPTY = "the table is empty"  # no row of data, or blank ones only
MAX_LISTED = 20  # columns; a message is one line
MAX_NAME = 60  # characters of a column's name in it
_UUID = 16  # bytes
_REWRITE = "write the file anew, or correct its format in the platform's TOML"

# A name that only a row of data would hold: a number, a date, or bytes that are not UTF-8.
_DATA_LIKE = re.compile(r"\ufffd|\x00|(^|[,;|\t])\s*[+-]?\d[\d.:TZ +-]*\s*($|[,;|\t])")

Table = EventTable | ItemTable


@dataclass(frozen=True)
class TextTable:
    """A table's mapped columns as text.

    Attributes:
        rows: columns `row` and the roles of `table.columns`; text is stripped, null where nothing
            or a null word stands. A Parquet date or time comes as seconds since 1970.
        blank: rows that were left out because they hold nothing.
        words: what was detected of the way it is written.
    """

    rows: pl.DataFrame
    blank: int
    words: tuple[str, ...] = ()


def read_text(table: Table) -> TextTable:
    """Reads the mapped columns of a table, of one file or of a folder of part files.

    Raises:
        DataError: no such file, not in its format, not UTF-8, cut short, a row with too many or too
            few fields, a quote out of place, or no rows.
        ColumnError: a column is missing, occurs twice, or holds lists or objects.
    """
    parts: list[pl.DataFrame] = []
    words: list[str] = []
    before = empty = 0
    files = files_of(table)
    for path in files:
        try:
            with _ours(table, path):
                rows, height, found = _part(table, path)
        except DataError as fault:
            if fault.what == EMPTY and len(files) > 1:
                continue  # writers leave such parts, and so does an erasure
            raise
        rows = rows.with_columns(pl.col("row").cast(pl.UInt32) + before) if before else rows
        before += height
        filled = rows.filter(~pl.all_horizontal(pl.exclude("row").is_null()))
        empty += rows.height - filled.height
        parts.append(filled)
        words += [it for it in found if it not in words]
    if all(part.is_empty() for part in parts):
        raise _empty(table.path)
    whole = parts[0] if len(parts) == 1 else pl.concat(parts)
    if len(files) > 1:
        words.append(f"{len(files)} part files")
    return TextTable(whole, empty, tuple(words))


@contextmanager
def _ours(table: Table, path: Path) -> Iterator[None]:
    """Turns whatever a reader raises into one of our errors; Polars may panic on damaged bytes."""
    try:
        yield
    except (AtollError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:
        what = f"cannot be read as {table.format}"
        if table.format == "parquet":
            what += ": damaged, cut short or another format"
        raise DataError(what, where=path, todo=_REWRITE) from None


def _part(table: Table, path: Path) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    """One file's mapped columns, how many rows it holds, and what was detected."""
    if table.format == "parquet":
        with without_panic_text():
            frame = pl.scan_parquet(path, glob=False)
            kinds = dict(frame.collect_schema())
            rows = _select(frame, kinds, table, path, everything=False)
        return rows, _height(rows), ()
    source = opened(path, table.dialect.encoding)
    if not len(source.data):
        raise _empty(path)
    if table.format == "jsonl":
        return _objects(table, source)
    return _separated(table, source)


def _height(rows: pl.DataFrame) -> int:
    last = rows["row"].max()
    return last if isinstance(last, int) else 0


def _separated(table: Table, source: Source) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    found = detect(source, table)
    if isinstance(table, EventTable) and not _is_blank(found):
        # Before any other message: these name columns, which may be values of the first row.
        _some_mapped(table, found.header, source.path)
    _once(found.header, table, source.path)
    section = _section(table)
    same = source.same and found.same
    try:
        frame = pl.scan_csv(
            source.path if same else whole(found.data),
            separator=found.separator,
            quote_char=found.quote or None,
            infer_schema=False,
            glob=False,
        )
        frame = _stripped(frame, table)
        kinds = dict(frame.collect_schema())
        if isinstance(found.layout, Layout) or not set(table.columns.values()) <= set(kinds):
            rows = _select(frame, kinds, table, source.path, everything=True)
            if found.even and rows.height == _expected(found):
                return rows, rows.height, found.words
    except (pl.exceptions.PolarsError, OSError):
        rows = None
    if _is_blank(found):
        raise _empty(source.path)
    if fault := separated_fault(source, found, section):
        raise fault
    if rows is None or rows.height != _expected(found):
        what = f"cannot be read as {table.format}: its rows cannot be told apart for certain"
        raise DataError(what, where=source.path, todo=_REWRITE)
    return rows, rows.height, found.words  # lines of spaces alone


def _stripped(frame: pl.LazyFrame, table: Table) -> pl.LazyFrame:
    """The table without the spaces around the names of its mapped columns."""
    names, wanted = frame.collect_schema().names(), set(table.columns.values())
    spaced = {name: name.strip() for name in names if name not in wanted}
    return frame.rename({name: it for name, it in spaced.items() if it in wanted - {*names}})


def _expected(found: Detected) -> int:
    """How many rows a reader must find: every record but the header and blank lines before it."""
    assert isinstance(found.layout, Layout)
    head = found.data[:BLOCK].tobytes()
    return found.layout.records - 1 - head[: len(head) - len(head.lstrip(b"\r\n"))].count(b"\n")


def _is_blank(found: Detected) -> bool:
    return not bytes(found.data[:BLOCK]).strip() and len(found.data) <= BLOCK


def _once(header: tuple[str, ...], table: Table, path: Path) -> None:
    """Refuses a mapped column that occurs twice."""
    for role, column in table.columns.items():
        if header.count(column) > 1:
            todo = f"name its columns apart, or map another as columns.{role}"
            raise ColumnError(f"the column {column!r} occurs twice", where=path, todo=todo)


def _objects(table: Table, source: Source) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    """JSON Lines; Polars reads a path with wildcards, so these are escaped."""
    same = source.same and not source.mark
    place: str | bytes = glob.escape(str(source.path)) if same else whole(source.data)
    names = [*table.columns.values(), *([table.explode] if table.explode else [])]
    try:
        kinds = dict(pl.scan_ndjson(place, infer_schema_length=None).collect_schema())
        used = {outermost(name, kinds) for name in names}
        text = {
            name: as_text(kind) if name in used else pl.String() for name, kind in kinds.items()
        }
        frame = pl.scan_ndjson(place, schema=text)
        rows = _select(frame, text, table, source.path, everything=False)
    except (pl.exceptions.PolarsError, OSError):
        fault = objects_fault(source)
        if fault is None and not source.data.tobytes().strip():
            fault = _empty(source.path)
        if fault is None:
            raise
        raise fault from None
    plain = [name for name in table.columns.values() if name in kinds]
    if _doubtful(source, rows, table, plain) and (fault := objects_fault(source, plain)):
        raise fault
    return rows, _height(rows), (f"encoding {source.encoding}",) if source.encoding else ()


def _doubtful(source: Source, rows: pl.DataFrame, table: Table, plain: list[str]) -> bool:
    """Whether a key may occur twice in a row, or a value may be a list or an object as text."""
    for role, name in table.columns.items():
        if name not in plain:
            continue
        if rows[role].str.contains(r"^[\[{].*[\]}]$").any():
            return True
        key = b'"' + name.encode() + b'"'
        if _count(source, key) > len(rows) - rows[role].null_count():
            return True
    return False


def _count(source: Source, piece: bytes) -> int:
    """How often these bytes occur."""
    more, total = len(piece) - 1, 0
    for start in range(0, len(source.data), BLOCK):
        total += source.data[start : start + BLOCK + more].tobytes().count(piece)
    return total


def _select(
    frame: pl.LazyFrame,
    kinds: Mapping[str, pl.DataType],
    table: Table,
    path: Path,
    *,
    everything: bool,
) -> pl.DataFrame:
    """The mapped columns as text, by role, with the number of the row.

    Args:
        frame: of the table.
        kinds: its columns.
        table: which columns are mapped to which roles, and which list is opened.
        path: of the file, for errors.
        everything: read every column: a row with too many fields passes unseen otherwise.
    """
    kinds = dict(kinds)
    number = free_name(kinds)
    frame = frame.with_row_index(number, offset=1)
    if table.explode:
        frame, kinds = _exploded(frame, kinds, table, path)
    text = []
    for role, column in table.columns.items():
        place = reach(column, kinds)
        if place is None or place[1].is_nested():
            raise _unfit(table, role, kinds, path, None if place is None else place[1])
        value, kind = place
        if kind == pl.Binary:
            value = _bytes_as_text(frame, value, column, path)
        text.append(_text(value, kind, table.dialect.null_words).alias(role))
    flags = pl.QueryOptFlags(projection_pushdown=not everything)
    return frame.select(pl.col(number).alias("row"), *text).collect(optimizations=flags)


def free_name(names: Collection[str]) -> str:
    """A name for the column of row numbers that no column of the table has."""
    name = "row"
    while name in names:
        name += "_"
    return name


def _exploded(
    frame: pl.LazyFrame, kinds: dict[str, pl.DataType], table: Table, path: Path
) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    """One row for each element of a list; a row whose list is empty stays, without its values."""
    assert table.explode is not None
    name = table.explode
    if isinstance(table, EventTable):
        _some_mapped(table, kinds, path)
    place = reach(name, kinds)
    held = None if place is None else inner(place[1])
    if place is None or held is None:
        what = f"no list {name!r} to explode; the columns are {_listed(_names(table, kinds))}"
        todo = f"mend explode in [{_section(table)}] of the platform's TOML"
        raise ColumnError(what, where=path, todo=todo)
    frame = frame.with_columns(place[0].alias(name)).explode(name, empty_as_null=True)
    return frame, {**kinds, name: held}


def _bytes_as_text(frame: pl.LazyFrame, value: pl.Expr, column: str, path: Path) -> pl.Expr:
    """A column of bytes as text: as UTF-8, or as UUIDs where each value has 16 bytes.

    Raises:
        ColumnError: it is neither.
    """
    held = frame.select(value.alias("bytes")).collect().to_series()
    try:
        held.cast(pl.String)
    except pl.exceptions.PolarsError:
        if not (held.bin.size() == _UUID).all():
            raise ColumnError(
                f"column {column!r} holds bytes ({held.dtype}) that are no text and no UUID",
                where=path,
                todo="write the column as text",
            ) from None
        code = value.bin.encode("hex")
        ends = [(0, 8), (8, 4), (12, 4), (16, 4), (20, 12)]
        return pl.concat_str([code.str.slice(*end) for end in ends], separator="-")
    return value.cast(pl.String)


def _text(value: pl.Expr, kind: pl.DataType, null_words: tuple[str, ...]) -> pl.Expr:
    if kind in (pl.Date, pl.Datetime):
        value = value.dt.epoch("us") / 1e6
    value = value.cast(pl.String).str.strip_chars()
    return pl.when(~value.is_in(null_words)).then(value)


def _unfit(
    table: Table,
    role: str,
    kinds: Mapping[str, pl.DataType],
    path: Path,
    kind: pl.DataType | None,
) -> ColumnError:
    """A mapped column that is missing, or that holds lists or objects."""
    column = table.columns[role]
    todo = f"mend columns.{role} in the platform's TOML"
    if kind is not None:
        # The keys of an object in JSON may be shoppers.
        keyed = _may_be_keys_of_shoppers(table) and "Struct" in str(kind)
        shown = kind.base_type().__name__ if keyed else kind
        what = f"column {column!r} holds {shown}, not one value a row"
        if isinstance(kind, pl.Struct) and not keyed and (below := paths({column: kind})):
            todo = f"map one of its values, as columns.{role} = {below[0]!r}"
        return ColumnError(what, where=path, todo=todo)
    if any(_DATA_LIKE.search(name) for name in kinds):
        raise _no_header(kinds, table, column, path)
    if isinstance(table, EventTable):
        _some_mapped(table, kinds, path)
    there = _names(table, kinds)
    near = get_close_matches(column, there, n=1)
    nearest = f", nearest {_short(near[0])!r}" if near else ""
    what = f"no column {column!r}{nearest}; the columns are {_listed(there)}"
    return ColumnError(what, where=path, todo=todo)


def _some_mapped(table: EventTable, names: Collection[str], path: Path) -> None:
    """Refuses a table of events that has none of the mapped columns, without naming what it has.

    Its first row may be one of data, and its names identifiers of shoppers.
    """
    wanted = [*table.columns.values(), *([table.explode] if table.explode else [])]
    outer = {name.split(".")[0] for name in wanted} | {*wanted}
    if outer.isdisjoint(names):
        raise _no_header(names, table, wanted[0], path)


def _no_header(names: Collection[str], table: Table, column: str, path: Path) -> ColumnError:
    """Says that the first row may be one of data; to list it could name a shopper."""
    kind = "the first row" if table.format in ("csv", "tsv") else "the file"
    what = f"no mapped column is in {kind}, which may be data"
    if any(_DATA_LIKE.search(name) for name in names):
        what = "the first row is data or not UTF-8"
    todo = f"name the columns there, or mend columns in [{_section(table)}] of the platform's TOML"
    return ColumnError(f"no column {column!r}: {what}", where=path, todo=todo)


def _may_be_keys_of_shoppers(table: Table) -> bool:
    return isinstance(table, EventTable) and table.format == "jsonl"


def _names(table: Table, kinds: Mapping[str, pl.DataType]) -> list[str]:
    """The columns that a message may list: those inside objects not where these may be data."""
    return list(kinds) if _may_be_keys_of_shoppers(table) else paths(kinds)


def _section(table: Table) -> str:
    return "events" if isinstance(table, EventTable) else "items"


def _listed(names: list[str]) -> str:
    return ", ".join(_short(name) for name in names[:MAX_LISTED]) + (
        ", …" if len(names) > MAX_LISTED else ""
    )


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _empty(path: Path) -> DataError:
    return DataError(EMPTY, where=path, todo="give a table that has rows")
