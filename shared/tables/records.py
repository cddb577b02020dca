"""The records of a text table with their bytes, numbered as the reader numbers its rows.

    file ─unpack→ lines as bytes ─┐
    bytes as UTF-8, Detected ─────┴─zip→ lines outside quotes end a record → number, bytes

The reader decodes a table and writes its escapes anew, and neither adds or removes a line. So the
lines that it sees say where a record ends, and the lines of the file say which bytes it has.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from shared.tables.config import EventTable
from shared.tables.detect import detect
from shared.tables.layout import contains
from shared.tables.sources import GZIP_MAGIC, Source, opened

_LONG = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


def is_packed(path: Path) -> bool:
    """Whether a file is gzipped."""
    with path.open("rb") as raw:
        return raw.read(2) == GZIP_MAGIC


def records_of(table: EventTable) -> Iterator[tuple[int, bytes]]:
    """Each record of a text file, unpacked, with its line end.

    Args:
        table: of one file.

    Yields:
        Its number, from 1 at the first row of data, and its bytes. The number is 0 for a byte order
        mark, for the header and for lines that the reader does not count.

    Raises:
        DataError: the file cannot be read.
        ValueError: the bytes of a record cannot be told for certain.
    """
    source = opened(table.path, table.dialect.encoding)
    seen, quote, header = source.data, "", table.format != "jsonl"
    same = not source.encoding
    if header:
        found = detect(source, table)
        seen, quote, same = found.data, found.quote, same and found.same
    with _unpacked(table.path) as file:
        mark, lines, returns = _lines(file, source)
        if mark:
            yield 0, mark
        if same and not returns:
            yield from _grouped(((line, line) for line in lines), quote, header=header)
        else:
            pairs = zip(io.BytesIO(seen.tobytes()), lines, strict=True)
            yield from _grouped(pairs, quote, header=header)


def _grouped(
    pairs: Iterable[tuple[bytes, bytes]], quote: str, *, header: bool
) -> Iterator[tuple[int, bytes]]:
    """Records of lines: each as the reader sees it, and its bytes in the file."""
    number, record, mark, inside = -1 if header else 0, b"", quote.encode(), 0
    for line, raw in pairs:
        record += raw
        inside ^= line.count(mark) % 2 if mark else 0
        if inside:
            continue  # a quoted field goes on in the next line
        blank = not line.strip(b"\r\n") if header else not line.strip()
        if blank and (number < 0 or not header):
            yield 0, record
        else:
            number += 1
            yield number, record
        record = b""
    if record:
        yield number + 1, record


def _unpacked(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if is_packed(path) else path.open("rb")


def _lines(file: BinaryIO, source: Source) -> tuple[bytes, Iterable[bytes], bool]:
    """Byte order mark, lines behind it, and whether these end as old Macintosh programs do it."""
    if source.encoding:
        raw = file.read()
        name = _codec(raw, source.encoding)
        text = raw.decode(name)
        mark = text[: text.startswith("\ufeff")]
        return mark.encode(name), _encoded(raw, text[len(mark) :], name), False
    mark_size = len(codecs.BOM_UTF8) if source.mark else 0
    mark_bytes, first = file.read(mark_size), file.readline()
    if b"\n" not in first and b"\r" in first and contains(source.data, b"\n"):
        return mark_bytes, re.findall(rb"[^\r]*\r|[^\r]+\Z", first), True
    file.seek(mark_size)
    return mark_bytes, file, False


def _codec(raw: bytes, encoding: str) -> str:
    """A codec that adds no byte order mark of its own."""
    name = codecs.lookup(encoding).name
    if name not in _LONG:
        return name
    little, big = _LONG[name]
    is_big = raw.startswith(big) or (sys.byteorder == "big" and not raw.startswith(little))
    return f"{name}-{'be' if is_big else 'le'}"


def _encoded(raw: bytes, text: str, name: str) -> Iterator[bytes]:
    """The lines of a text, whose bytes are the last ones of a file.

    Raises:
        ValueError: the codec would write a line in other bytes than the file has.
    """
    place = len(raw) - len(text.encode(name))
    for part in io.StringIO(text, newline="\n"):
        line = part.encode(name)
        if raw[place : place + len(line)] != line:
            raise ValueError("a line has other bytes")
        place += len(line)
        yield line
    if place != len(raw):
        raise ValueError("bytes are left over")
