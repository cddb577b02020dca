"""The bytes of a separated table: where its records end, and whether its quotes fit.

    bytes ─blocks→ quotes outside and inside, separators, line ends → Layout, or a Misfit

A reader that meets a quote where none may stand guesses, and may swallow rows without a word. So
each quote is checked first: one that opens stands at the start of a field, one that closes at its
end, and one within a quoted field is doubled (RFC 4180). The numbers of records and separators then
say how many rows a reader must find, and whether each has all its fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 22  # bytes looked at in one step, so that memory stays small
_LF, _CR = 10, 13

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """What a separated table holds under one reading.

    Attributes:
        records: lines outside quotes, with the header and blank lines.
        blank: lines that hold nothing.
        separators: outside quotes.
        quotes: quote characters.
    """

    records: int
    blank: int
    separators: int
    quotes: int

    def even(self, width: int) -> bool:
        """Whether the records that are not blank can all have `width` fields."""
        return self.separators == (self.records - self.blank) * (width - 1)


@dataclass(frozen=True)
class Misfit:
    """The first quote that does not fit.

    Attributes:
        row: its record, 0 being the header.
        field: its place in the record, from 0.
        what: the fault, as the end of a sentence.
    """

    row: int
    field: int
    what: str


def contains(data: Bytes, piece: bytes) -> bool:
    """Whether these bytes stand somewhere in the data."""
    more = len(piece) - 1
    return any(
        piece in data[start : start + BLOCK + more].tobytes()
        for start in range(0, len(data), BLOCK)
    )


def layout_of(data: Bytes, separator: str, quote: str) -> Layout | Misfit:
    """Counts records and separators, and checks every quote.

    Args:
        data: [bytes] the table as UTF-8, without a byte order mark.
        separator: ASCII.
        quote: ASCII; "" if none.
    """
    sep, mark = ord(separator), ord(quote) if quote else -1
    ends = breaks = blank = separators = quotes = 0
    last_quote = -2  # place of the quote before
    line_start = 0  # place behind the last line end
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        places = np.flatnonzero(block == mark) + start if quote else np.zeros(0, np.int64)
        if len(places):
            bad = _misplaced(data, places, quotes % 2, last_quote, sep, mark)
            if bad >= 0:
                return _misfit(data, bad, separator, quote)
        outside = _outside(block, places - start, quotes % 2)
        lines = np.flatnonzero((block == _LF) & outside if outside is not None else block == _LF)
        parted = block == sep
        separators += int(np.count_nonzero(parted if outside is None else parted & outside))
        if len(lines):
            blank += _blank(data, lines + start, line_start)
            line_start = int(lines[-1]) + start + 1
            breaks += len(lines)
        quotes += len(places)
        last_quote = int(places[-1]) if len(places) else last_quote
    if quotes % 2:
        return _misfit(data, last_quote, separator, quote, open_end=True)
    ends = int(line_start < len(data))  # a last line without a line end
    if ends and not bytes(data[line_start : line_start + 2]).strip(b"\r"):
        blank += int(len(data) - line_start <= 2)
    return Layout(breaks + ends, blank, separators, quotes)


def _misplaced(
    data: Bytes, places: NDArray[np.int64], inside: int, before: int, sep: int, mark: int
) -> int:
    """The place of the first quote that may not stand where it does, or -1."""
    numbers = np.arange(len(places)) + inside
    opening = numbers % 2 == 0
    left = data[np.maximum(places - 1, 0)]
    right = data[np.minimum(places + 1, len(data) - 1)]
    previous = np.concatenate([[before], places[:-1]])
    starts = (places == 0) | (left == sep) | (left == _LF) | (places == previous + 1)
    stops = (places == len(data) - 1) | (right == sep) | (right == _LF) | (right == mark)
    returns = (right == _CR) & (
        (places >= len(data) - 2) | (data[np.minimum(places + 2, len(data) - 1)] == _LF)
    )
    bad = np.flatnonzero(~np.where(opening, starts, stops | returns))
    return int(places[bad[0]]) if len(bad) else -1


def _outside(block: Bytes, places: NDArray[np.int64], inside: int) -> NDArray[np.bool_] | None:
    """[bytes] whether each stands outside quotes; None if all do."""
    if not len(places):
        return np.zeros(len(block), bool) if inside else None
    toggled = np.zeros(len(block), np.uint8)
    toggled[places] = 1
    toggled[0] ^= inside
    return np.asarray(np.bitwise_xor.accumulate(toggled) == 0)


def _blank(data: Bytes, lines: NDArray[np.int64], line_start: int) -> int:
    """How many of these lines, named by the places of their ends, hold nothing."""
    starts = np.concatenate([[line_start], lines[:-1] + 1])
    lengths = lines - starts
    returned = (lengths == 1) & (data[starts] == _CR)
    return int(np.count_nonzero((lengths == 0) | returned))


def _misfit(
    data: Bytes, place: int, separator: str, quote: str, *, open_end: bool = False
) -> Misfit:
    """Names the record and field of a quote; all quotes before it fit."""
    mark, sep = re.escape(quote.encode()), separator.encode()
    head = bytes(data[:place])
    rest = re.sub(mark + b"[^" + mark + b"]*" + mark, b"", head)
    closing = quote.encode() in rest  # an open quote is left over
    rest = rest.partition(quote.encode())[0]
    what = "has a quote inside a field that is not quoted"
    if open_end:
        what = "has a quote that is not closed"
    elif closing:
        what = "has a quote within quotes that is not doubled, or one that is not closed"
    return Misfit(rest.count(b"\n"), rest.rpartition(b"\n")[2].count(sep), what)


def without_backslashes(data: bytes, separator: str, quote: str) -> bytes:
    r"""The same table with `\"` in quoted fields written as `""`, and `\\` as one backslash.

    Spark, Hive and MySQL write so. What stands outside quoted fields is left as it is.
    """
    mark, sep = re.escape(quote.encode()), re.escape(separator.encode())
    field = re.compile(
        b"(?<![^"
        + sep
        + b"\n])"
        + mark
        + rb"((?:[^\\"
        + mark
        + rb"]|\\.|"
        + mark * 2
        + b")*+)"
        + mark,
        re.DOTALL,
    )
    pair = re.compile(rb"\\(" + mark + rb"|\\)")

    def written(found: re.Match[bytes]) -> bytes:
        inner = pair.sub(lambda it: quote.encode() * 2 if it[1] != b"\\" else b"\\", found[1])
        return quote.encode() + inner + quote.encode()

    return field.sub(written, data)
