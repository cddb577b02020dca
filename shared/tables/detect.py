"""Which separator and quotes a table has: the one reading that fits all of it.

    header ─names of mapped columns→ separator      every quote ─Layout→ quote and escape
    or a first line `sep=;` as Excel writes it

Nothing is guessed from a sample: the header names the mapped columns under one separator only, and
a way of quoting fits if every quote of the file stands where it may and every row has all its
fields. Two ways that fit are refused.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import DataError
from shared.tables.config import EventTable, ItemTable
from shared.tables.layout import Bytes, Layout, Misfit, contains, layout_of, without_backslashes
from shared.tables.sources import Source

SEPARATORS = {"csv": ",", "tsv": "\t"}
_CANDIDATES = (",", ";", "\t", "|")
_NAMES = {"\t": "tab", " ": "space"}
_HEAD = 1 << 16  # bytes: no header is longer
_EXCEL = re.compile(rb'"?sep=([^\w"\r\n\x80-\xff])"?(?=\r?\n)')  # not part of the table


@dataclass(frozen=True)
class Detected:
    """How one file is split into fields.

    Attributes:
        separator, quote: of its fields; a quote of "" is none.
        header: the names of its columns, without spaces around them.
        data: [bytes] what is to be read, escapes of quotes written as doubled ones.
        same: whether that is what the source holds.
        layout: of `data`; a Misfit if a quote does not fit.
        words: what was detected and is not the format's default.
    """

    separator: str
    quote: str
    header: tuple[str, ...]
    data: Bytes
    same: bool
    layout: Layout | Misfit
    words: tuple[str, ...]

    @property
    def even(self) -> bool:
        """Whether every record can have all its fields."""
        return isinstance(self.layout, Layout) and self.layout.even(len(self.header))


def detect(source: Source, table: EventTable | ItemTable) -> Detected:
    """Finds separator, quote and escape of a separated table.

    Raises:
        DataError: two readings fit.
    """
    dialect = table.dialect
    data, declared = _without_separator_line(source.data)
    words = [f"encoding {source.encoding}"] if source.encoding and not dialect.encoding else []
    head = bytes(data[:_HEAD])
    separator = dialect.separator or declared or _separator(head, table, source.path)
    if separator != SEPARATORS[table.format] and not dialect.separator:
        words.append(f"separator {_NAMES.get(separator, repr(separator))}")
    quote = dialect.quote
    if quote is None:
        quote = '"'
        if table.format == "tsv" and not _tsv_is_quoted(data, head, separator, source.path):
            quote = ""
        elif table.format == "tsv":
            words.append("quotes")
    wanted = set(table.columns.values())
    names = header_of(head, separator, quote)
    header = tuple(name if name in wanted else name.strip() for name in names)
    layout = layout_of(data, separator, quote)
    same = True
    marked = isinstance(layout, Misfit) or layout.quotes > 0
    escape = b"\\" + quote.encode()
    if quote and marked and dialect.escape != "double" and contains(data, escape):
        data, layout, same = _escaped(data, separator, quote, len(header), layout, table, source)
        if not same and not dialect.escape:
            words.append("quotes escaped with backslashes")
    same = same and not declared
    return Detected(separator, quote, header, data, same, layout, tuple(words))


def _without_separator_line(data: Bytes) -> tuple[Bytes, str]:
    """The table with a blank line in place of Excel's `sep=;`, and the separator it names or ""."""
    found = _EXCEL.match(bytes(data[:_HEAD]))
    return (data[found.end() :], found[1].decode()) if found else (data, "")


def header_of(head: bytes, separator: str, quote: str) -> tuple[str, ...]:
    """The names in the first record."""
    text = head.decode("utf-8", "replace").lstrip("\r\n")
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    try:
        return tuple(next(reader, []))
    except csv.Error:
        return ()


def _separator(head: bytes, table: EventTable | ItemTable, path: Path) -> str:
    """The separator under which the header names every mapped column, or else most columns."""
    usual = SEPARATORS[table.format]
    wanted = set(table.columns.values())
    quote = '"' if table.dialect.quote is None else table.dialect.quote
    names = {it: header_of(head, it, quote) for it in (usual, *_CANDIDATES)}
    fits = [it for it, found in names.items() if wanted <= {name.strip() for name in found}]
    if len(fits) > 1 and all(len(names[it]) == 1 for it in fits):
        return usual  # one column: no separator is in the header
    if len(fits) > 1:
        shown = " and ".join(_NAMES.get(it, repr(it)) for it in fits)
        raise DataError(
            f"the header can be split at {shown}", where=path, todo="set the key separator"
        )
    return fits[0] if fits else max(names, key=lambda it: len(names[it]))


def _tsv_is_quoted(data: Bytes, head: bytes, separator: str, path: Path) -> bool:
    """Whether the quotes of a TSV file stand around fields; else they are part of the text.

    Raises:
        DataError: either may be.
    """
    if not contains(data, b'"'):
        return False
    quoted = layout_of(data, separator, '"')
    if isinstance(quoted, Misfit) or not quoted.even(len(header_of(head, separator, '"'))):
        return False
    bare = layout_of(data, separator, "")
    assert isinstance(bare, Layout)
    text = data.tobytes()
    within = b'""' in text.replace(b'\t""\t', b"").replace(b'\t""\n', b"")  # doubled in a field
    if head[:1] == b'"' or within or not bare.even(len(header_of(head, separator, ""))):
        return True
    row = text[: text.index(b'"')].count(b"\n")
    raise DataError(
        f"row {row} has a field in quotes, which may be part of its text or not",
        where=path,
        todo='set quote = \'"\' to take quotes off, or quote = "" to keep them',
    )


def _escaped(
    data: Bytes,
    separator: str,
    quote: str,
    width: int,
    doubled: Layout | Misfit,
    table: EventTable | ItemTable,
    source: Source,
) -> tuple[Bytes, Layout | Misfit, bool]:
    r"""The table where some quote follows a backslash: `\"` may be an escape or the end of a field.

    Returns:
        Data, its layout, and whether the data is what it was.

    Raises:
        DataError: both readings fit.
    """
    written = without_backslashes(data.tobytes(), separator, quote)
    other = np.frombuffer(written, np.uint8)
    layout = layout_of(other, separator, quote)
    if table.dialect.escape == "backslash":
        return other, layout, False
    fits = [isinstance(it, Layout) and it.even(width) for it in (doubled, layout)]
    if all(fits) and written != data.tobytes():
        row = data.tobytes().partition(b"\\" + quote.encode())[0].count(b"\n")
        raise DataError(
            f"row {row} has a backslash before a quote, which may escape it or not",
            where=source.path,
            todo='set escape = "backslash" or escape = "double"',
        )
    return (other, layout, False) if fits[1] and not fits[0] else (data, doubled, True)
