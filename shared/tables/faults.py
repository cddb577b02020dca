"""The first bad row of a table that cannot be read, by its number and never by its content.

Rows are counted from 1 at the first row of data. Polars' own messages quote rows, and a row is a
shopper's, so none of them is passed on.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence

from shared.errors import DataError
from shared.tables.detect import Detected
from shared.tables.layout import Misfit
from shared.tables.sources import Source

_MEND = "mend or remove the row"


def separated_fault(source: Source, found: Detected, section: str) -> DataError | None:
    """What is wrong with a separated table, or None if every row can be split into its fields.

    Args:
        source: of the table.
        found: how it is split.
        section: of the platform's TOML file, for the next step.
    """
    if isinstance(found.layout, Misfit):
        row, field, what = found.layout.row, found.layout.field, found.layout.what
        named = f"row {row}, column {_name(found.header, field)}" if row else "the header"
        todo = (
            'write each quote within quotes twice, or set quote = "" in '
            f"[{section}] if no field is in quotes"
        )
        return DataError(f"{named} {what}", where=source.path, todo=todo)
    text = found.data.tobytes().decode("utf-8", "surrogateescape").lstrip("\r\n")
    for number, fault in _records(io.StringIO(text, newline=""), found):
        if fault:
            named = f"row {number}" if number else "the header"
            todo = _MEND
            if "UTF-8" in fault:
                todo = f'save the file as UTF-8, or set encoding in [{section}], as "cp1252"'
            joined = "," if fault.startswith(" column") else ""
            return DataError(f"{named}{joined}{fault}", where=source.path, todo=todo)
    return None


def _records(lines: Iterable[str], found: Detected) -> Iterator[tuple[int, str]]:
    """Each row's number, the header being 0, and its fault or nothing."""
    reader = csv.reader(
        lines,
        delimiter=found.separator,
        quotechar=found.quote or None,
        quoting=csv.QUOTE_MINIMAL if found.quote else csv.QUOTE_NONE,
        strict=True,
    )
    width, number = len(found.header), -1
    try:
        for number, fields in enumerate(reader):
            if not fields or (len(fields) < width and not any(map(str.strip, fields))):
                continue
            bad = next((at for at, it in enumerate(fields) if _undecoded(it)), None)
            if bad is not None and number and bad < width:
                yield number, f" column {_name(found.header, bad)} is not UTF-8"
            elif bad is not None:
                yield number, " is not UTF-8"
            if len(fields) != width:
                yield number, f" has {len(fields)} fields, the header {width}"
    except csv.Error:
        yield number + 1, " cannot be split into fields: look for an unclosed quote"


def _name(header: Sequence[str], field: int) -> str:
    return repr(header[field]) if field < len(header) else f"number {field + 1}"


def objects_fault(source: Source, names: Sequence[str] = ()) -> DataError | None:
    """What is wrong with a table of JSON Lines, or None.

    Args:
        source: of the table.
        names: keys of the outermost object that must occur once and hold one value.
    """
    lines = io.TextIOWrapper(
        io.BytesIO(source.data.tobytes()), "utf-8", errors="surrogateescape", newline="\n"
    )
    for number, line in enumerate(lines, start=1):
        if line.strip() and (fault := _object_fault(line, names)):
            todo = "save the file as UTF-8" if "UTF-8" in fault else _MEND
            return DataError(f"row {number}{fault}", where=source.path, todo=todo)
    return None


def _object_fault(line: str, names: Sequence[str]) -> str:
    if _undecoded(line):
        return " is not UTF-8"
    try:
        # int() refuses NaN and Infinity, which Python's reader would let pass.
        pairs = json.loads(line, parse_constant=int, object_pairs_hook=_Pairs)
    except RecursionError:
        return " is nested too deeply"
    except ValueError:
        return " is not a JSON object"
    if not isinstance(pairs, _Pairs):
        return " is not a JSON object"
    for name in names:
        values = [value for key, value in pairs if key == name]
        if len(values) > 1:
            return f" has the key {name!r} twice"
        if any(isinstance(value, list) for value in values):
            kind = "an object" if isinstance(values[0], _Pairs) else "a list"
            return f", key {name!r} holds {kind}, not one value"
    return ""


class _Pairs(list[tuple[str, object]]):
    """A JSON object with all its keys, so that one that occurs twice is seen."""


def _undecoded(text: str) -> bool:
    return re.search("[\udc80-\udcff]", text) is not None
