"""One table as text: its mapped columns by role, or one line that says why not.

    file ─polars, lazily→ columns named after their roles, all text, with a row number
      └─ refused ─walk→ the first bad row, by its number

Rows are counted from 1 at the first row of data. Polars' own messages quote rows, and a row is a
shopper's, so none of them is passed on.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TextIO

import polars as pl

from shared.errors import ColumnError, DataError
from shared.tables.config import EventTable, ItemTable

SEPARATORS = {"csv": ",", "tsv": "\t"}
MISSING = ("", "nan", "null", "<na>", "\\n")  # in lower case, as pandas, Polars and SQL write it
EMPTY = "the table is empty"  # no row of data, or blank ones only
MAX_LISTED = 20  # columns; a message is one line
GZIP_MAGIC = b"\x1f\x8b"

# A name that only a row of data would hold: a number, a date, or bytes that are not UTF-8.
_DATA_LIKE = re.compile(r"\ufffd|\x00|(^|[,;|\t])\s*[+-]?\d[\d.:TZ +-]*\s*($|[,;|\t])")


def read_text(table: EventTable | ItemTable) -> tuple[pl.DataFrame, int]:
    """A table's mapped columns as text, and how many of its rows were blank.

    Returns:
        Columns `row` and the roles of `table.columns`; text is stripped, null where nothing stands.
        A Parquet date or time comes as seconds since 1970.

    Raises:
        DataError: no such file, not in its format, not UTF-8, cut short, a row with too many
            fields, or no rows.
        ColumnError: no such column, or one of lists.
    """
    if not table.path.is_file():
        todo = "mend its path where it is named"
        raise DataError("no such file", where=table.path, todo=todo)
    try:
        frame = _scan(table)
        kinds = frame.collect_schema()
        for role, column in table.columns.items():
            if column not in kinds or kinds[column].is_nested():
                raise _unfit(table, role, kinds)
        text = [_text(column, kinds[column]).alias(role) for role, column in table.columns.items()]
        # A row with too many fields passes unseen unless Polars reads every column.
        flags = pl.QueryOptFlags(projection_pushdown=table.format not in SEPARATORS)
        rows = frame.select(text).with_row_index("row", offset=1).collect(optimizations=flags)
    except (pl.exceptions.PolarsError, OSError):
        raise _fault(table) from None
    filled = rows.filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    if filled.is_empty():
        raise _empty(table)
    return filled, rows.height - filled.height


def _scan(table: EventTable | ItemTable) -> pl.LazyFrame:
    if table.format == "parquet":
        return pl.scan_parquet(table.path, glob=False)
    if table.format == "jsonl":
        names = pl.scan_ndjson(table.path, infer_schema_length=None).collect_schema().names()
        return pl.scan_ndjson(table.path, schema=dict.fromkeys(names, pl.String))
    return pl.scan_csv(
        table.path,
        separator=SEPARATORS[table.format],
        quote_char='"' if table.format == "csv" else None,  # in TSV a quote is an inch sign
        infer_schema=False,
        glob=False,
    )


def _text(column: str, kind: pl.DataType) -> pl.Expr:
    read = pl.col(column)
    if kind in (pl.Date, pl.Datetime):
        read = read.dt.epoch("us") / 1e6
    read = read.cast(pl.String).str.strip_chars()
    return pl.when(~read.str.to_lowercase().is_in(MISSING)).then(read)


def _unfit(table: EventTable | ItemTable, role: str, kinds: pl.Schema) -> ColumnError:
    """A mapped column that is missing, or that holds lists."""
    column = table.columns[role]
    todo = f"mend columns.{role} in the platform's TOML"
    if column in kinds:
        what = f"column {column!r} holds {kinds[column]}, not one value a row"
        return ColumnError(what, where=table.path, todo=todo)
    if any(_DATA_LIKE.search(name) for name in kinds):
        # To list these could quote the first row, and with it a shopper.
        what = f"no column {column!r}: the first row is data or not UTF-8"
        return ColumnError(what, where=table.path, todo="name the columns there")
    near = get_close_matches(column, kinds, n=1)
    nearest = f", nearest {near[0]!r}" if near else ""
    there = ", ".join(list(kinds)[:MAX_LISTED]) + (", …" if len(kinds) > MAX_LISTED else "")
    what = f"no column {column!r}{nearest}; the columns are {there}"
    return ColumnError(what, where=table.path, todo=todo)


def _empty(table: EventTable | ItemTable) -> DataError:
    return DataError(EMPTY, where=table.path, todo="give a table that has rows")


def _fault(table: EventTable | ItemTable) -> DataError:
    """Walks a table that Polars refused, to name its first bad row without quoting it."""
    what = f"cannot be read as {table.format}"
    todo = "write the file anew, or correct its format in the platform's TOML"
    if table.format == "parquet":
        what += ": damaged, cut short or another format"
        return DataError(what, where=table.path, todo=todo)
    walked = False
    try:
        with table.path.open("rb") as head:
            opened = gzip.open if head.read(2) == GZIP_MAGIC else open
        with opened(
            table.path, "rt", encoding="utf-8", errors="surrogateescape", newline=""
        ) as lines:
            walk = _objects(lines) if table.format == "jsonl" else _records(lines, table.format)
            for number, fault in walk:
                walked = True
                if fault:
                    what = f"row {number} {fault}" if number else f"the header {fault}"
                    return DataError(what, where=table.path, todo="mend or remove the row")
    except (EOFError, gzip.BadGzipFile, zlib.error):
        what, todo = "the gz file is cut short or damaged", "copy or write it anew"
    except OSError as error:
        what, todo = f"cannot be read ({error.strerror})", "make it readable"
    else:
        if not walked:
            return _empty(table)
    return DataError(what, where=table.path, todo=todo)


def _records(lines: TextIO, form: str) -> Iterator[tuple[int, str]]:
    """Each row's number, the header being 0, and its fault or nothing."""
    reader = csv.reader(
        lines,
        delimiter=SEPARATORS[form],
        quoting=csv.QUOTE_MINIMAL if form == "csv" else csv.QUOTE_NONE,
        strict=True,
    )
    width, number = 0, -1
    try:
        for number, fields in enumerate(reader):
            width = width or len(fields)
            if len(fields) > width:
                yield number, f"has {len(fields)} fields, the header {width}"
            yield number, _undecoded("".join(fields))
    except csv.Error:
        yield number + 1, "cannot be split into fields: look for an unclosed quote"


def _objects(lines: TextIO) -> Iterator[tuple[int, str]]:
    """Each row's number and its fault or nothing."""
    for number, line in enumerate(lines, start=1):
        fault = _undecoded(line)
        if line.strip() and not fault:
            try:
                # int() refuses NaN and Infinity, which Python's reader would let pass.
                good = isinstance(json.loads(line, parse_constant=int), dict)
            except ValueError:
                good = False
            fault = "" if good else "is not a JSON object"
        yield number, fault


def _undecoded(text: str) -> str:
    return "is not UTF-8" if re.search("[\udc80-\udcff]", text) else ""
