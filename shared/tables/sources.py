"""The files of a table and their bytes: one file, or a folder of parts as Spark writes it.

    path ─files_of→ files      file ─opened→ bytes as UTF-8, and what a reader may open instead

A path is literal: brackets and stars in it are part of a name. Bytes are mapped into memory, and
copied only where the file is compressed or not in UTF-8.
"""

from __future__ import annotations

import codecs
import gzip
import mmap
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import DataError
from shared.tables.config import EventTable, ItemTable
from shared.tables.layout import BLOCK, Bytes, contains

GZIP_MAGIC = b"\x1f\x8b"
# Behind the format in a part's name. Those that cannot be unpacked are refused, not skipped.
_PACKED = (".gz", ".bz2", ".zst", ".xz", ".lz4", ".snappy", ".deflate", ".zip")
_LONG_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Source:
    """One file of a table.

    Attributes:
        path: of the file.
        data: [bytes] what it holds as UTF-8, unpacked, without a byte order mark.
        same: whether a reader that opens the path finds these bytes, but for the mark.
        encoding: that was decoded; "" for UTF-8.
        mark: whether the file starts with a byte order mark, which `data` lacks.
    """

    path: Path
    data: Bytes
    same: bool
    encoding: str = ""
    mark: bool = False


def files_of(table: EventTable | ItemTable) -> list[Path]:
    """The files of a table, in the order of their names.

    Raises:
        DataError: there is none, or its folder holds other folders.
    """
    path = table.path
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError("no such file", where=path, todo="mend its path where it is named")
    try:
        inside = sorted(it for it in path.iterdir() if it.name[0] not in "._")
    except OSError as fault:
        todo = "make it readable"
        raise DataError(f"cannot be read ({fault.strerror})", where=path, todo=todo) from None
    if any(it.is_dir() for it in inside):
        todo = "write the table without partitions, or name one folder of part files"
        raise DataError("the folder holds other folders", where=path, todo=todo)
    parts = [it for it in inside if _is_part(it, table.format)]
    if not parts:
        todo = "mend the path, or its format in the platform's TOML"
        raise DataError(
            f"no such file: a folder without .{table.format} files", where=path, todo=todo
        )
    return parts


def _is_part(path: Path, form: str) -> bool:
    """Whether a file of a folder belongs to its table; backups as `a.csv.bak` do not."""
    name = path.with_suffix("") if path.suffix in _PACKED else path
    return name.suffix == f".{form}"


def opened(path: Path, encoding: str | None) -> Source:
    """A file's bytes as UTF-8.

    Args:
        path: of the file.
        encoding: of its text; None is UTF-8, or what its byte order mark says.

    Raises:
        DataError: it cannot be read, unpacked or decoded.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return Source(path, np.zeros(0, np.uint8), True)
            # Unmapped when the last view on it is gone.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _source(path, mapped, encoding)
    except OSError as fault:
        raise DataError(
            f"cannot be read ({fault.strerror or type(fault).__name__})",
            where=path,
            todo="make it readable",
        ) from None


def _source(path: Path, mapped: mmap.mmap, encoding: str | None) -> Source:
    raw: bytes | mmap.mmap = mapped
    if mapped[:2] == GZIP_MAGIC:
        raw = _unpacked(path)
    name = encoding or _LONG_MARKS.get(raw[:4]) or _MARKS.get(raw[:2]) or "utf-8"
    if codecs.lookup(name).name not in ("utf-8", "utf-8-sig", "ascii"):
        data = np.frombuffer(_decoded(raw[:], name, path), np.uint8)
        return Source(path, data, False, name)
    data = np.frombuffer(raw, np.uint8)
    mark = raw[:3] == codecs.BOM_UTF8
    if mark:
        data = data[3:]
    if not contains(data[:BLOCK], b"\n") and contains(data, b"\r") and not contains(data, b"\n"):
        # The line ends of old Macintosh programs.
        return Source(path, np.where(data == ord("\r"), ord("\n"), data).astype(np.uint8), False)
    return Source(path, data, raw is mapped, mark=mark)


def whole(data: Bytes) -> bytes:
    """The data as one object, copied only if it is a part of another."""
    held: object = data.base
    return held if isinstance(held, bytes) and len(held) == len(data) else data.tobytes()


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(
            "the gz file is cut short or damaged", where=path, todo="copy or write it anew"
        ) from None


def _decoded(raw: bytes, encoding: str, path: Path) -> bytes:
    try:
        return raw.decode(encoding).lstrip("\ufeff").encode()
    except UnicodeError as fault:
        where = fault.start if isinstance(fault, UnicodeDecodeError) else 0
        row = raw[:where].count(b"\n")
        raise DataError(
            f"row {row} is not {encoding}", where=path, todo="correct the key encoding"
        ) from None


_redirecting = threading.Lock()


@contextmanager
def without_panic_text() -> Iterator[None]:
    """Keeps what a panic of Polars' own code prints off standard error.

    A damaged Parquet file can make Polars panic. It then writes a trace on standard error, whose
    words may come from the rows, and raises an exception that is no Exception. What others write
    meanwhile is passed on once the body has ended, if it ends well.
    """
    with _redirecting, tempfile.TemporaryFile() as kept:
        try:
            before = os.dup(2)
        except OSError:  # no standard error is open
            yield
            return
        os.dup2(kept.fileno(), 2)
        quiet = False
        try:
            yield
        except BaseException as fault:
            quiet = not isinstance(fault, Exception)
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            if not quiet and (text := kept.read()):
                os.write(2, text)
