"""What is new in a bundle, for somebody who decides whether it may run: every line, none hidden.

    files before, files after ─compare→ Change, Change, …        each safe to print

The author of the code may be the one to fear, so nothing here trusts it: what steers a terminal is
spelled out, only a line feed ends a line, work has a bound, and a file that Python would read
otherwise than it is shown carries a note.
"""

from __future__ import annotations

import difflib
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from shared.bundle import CONTENT
from shared.printable import printable

# Lines for which difflib looks for what moved where: its worst case grows with their square and
# more, 0.1 s at LINES. Beyond, all that was is shown as gone and all that is as new.
LINES, ALL_LINES = 4_000, 60_000
NEITHER = "the two differ only in how their last line ends"


@dataclass(frozen=True)
class Change:
    """What became of one file.

    Attributes:
        name: of the file, safe to print, as are all lines.
        kind: added, removed or changed.
        added: lines that are new.
        removed: lines that are gone.
        lines: a unified diff without its two headings.
        notes: why reading the lines may not be enough.
    """

    name: str
    kind: Literal["added", "removed", "changed"]
    added: int
    removed: int
    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()


def compare(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[Change]:
    """Every file that differs, by name; the bundle's own list of digests aside."""
    found, left = [], ALL_LINES
    for name in sorted({*before, *after} - {CONTENT}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        kind: Literal["added", "removed", "changed"] = "changed"
        if old is None or new is None:
            kind = "added" if old is None else "removed"
        was, now = _lines(old), _lines(new)
        size = len(was) + len(now)
        left -= size
        diff = _near(was, now) if size <= LINES and left >= 0 else _whole(was, now)
        lines = tuple(map(_shown, diff))
        found.append(
            Change(
                name=printable(name),
                kind=kind,
                added=sum(line.startswith("+") for line in lines),
                removed=sum(line.startswith("-") for line in lines),
                lines=lines,
                notes=tuple(_notes(name, new, same=was == now and kind == "changed")),
            )
        )
    return found


def summary(changes: list[Change]) -> str:
    """The counts, in one line."""
    kinds = [change.kind for change in changes]
    told = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("changed", "added", "removed"))
    added, removed = (sum(getattr(it, name) for it in changes) for name in ("added", "removed"))
    return f"{len(changes)} files differ: {told}; lines +{added} -{removed}"


def _near(was: list[str], now: list[str]) -> Iterator[str]:
    """A unified diff with three lines around each change."""
    for place, line in enumerate(difflib.unified_diff(was, now, lineterm="", n=3)):
        if place > 1:  # the two headings name files, and the caller has the name
            yield line


def _whole(was: list[str], now: list[str]) -> Iterator[str]:
    """All lines before, all lines after."""
    yield f"@@ -1,{len(was)} +1,{len(now)} @@"
    yield from (f"-{line}" for line in was)
    yield from (f"+{line}" for line in now)


def _lines(content: bytes | None) -> list[str]:
    """The lines, with nothing lost; a carriage return is no end of one, and so will be seen."""
    text = (content or b"").decode(errors="surrogateescape")
    return text.removesuffix("\n").split("\n") if text else []


def _shown(line: str) -> str:
    """A line as it is shown: only now, since two that look alike may differ."""
    return printable(line.encode(errors="surrogateescape").decode(errors="backslashreplace"))


def _notes(name: str, content: bytes | None, *, same: bool) -> Iterator[str]:
    """What a reader of the lines could not see in them."""
    if same:
        yield NEITHER
    if content is None:
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
        yield "not UTF-8: bytes are shown as \\x.."
    if not all(mark.isprintable() or mark in "\t\r\n\f\ufeff" for mark in text):
        yield "holds characters that draw nothing, shown as \\x.. or \\u...."
    if b"\r" in content.replace(b"\r\n", b""):
        yield "a carriage return, shown as \\r, ends a line for Python"
    if b"\f" in content:
        yield "a form feed, shown as \\x0c, starts a line's indentation anew for Python"
    if name.endswith(".py"):
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        except (SyntaxError, ValueError):
            encoding = "one that Python does not know"
        if encoding not in ("utf-8", "utf-8-sig"):
            yield f"declares the encoding {printable(encoding)}: Python reads other text than this"
