"""A line of an audit log: what it may hold, how it is sealed, and how a file of them is read.

    event, fields ─checked→ Entry ─sealed→ hash        file ─walk→ Entry, Entry, … or one line

A line is the canonical JSON of its Entry, to the byte, so it has one spelling and no other. Nothing
here writes; `shared/audit_log.py` says what is found by what.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from shared.errors import AuditError
from shared.signing import canonical
from shared.strict_parsing import LATEST

Value = str | int | float | bool

TEXT = 500  # characters of a field; what is longer ends in "…"
FIELDS = 32  # of one line
LONGEST = 256 * 1024  # bytes of a line; 32 fields of 500 characters, each 12 bytes escaped, fit
EVIDENCE = "keep log, head file and backups as evidence, and ask the other side for `audit held`"
_WORD = re.compile(r"[a-z][a-z0-9 _.-]{0,63}")
_OWN = ("number", "time", "event", "before", "hash")


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        number: from 1.
        time: seconds since 1970 on this side's clock.
        event: what happened, in a word or two.
        fields: what belongs to it.
        before: hash of the line before, 64 hex; random for the first.
        hash: SHA-256 of all of the above as canonical JSON, 64 hex.
    """

    number: int
    time: float
    event: str
    fields: Mapping[str, Value]
    before: str
    hash: str = ""

    def as_dict(self) -> dict[str, Value]:
        """The line, as it is written."""
        own: dict[str, Value] = {"number": self.number, "time": self.time, "event": self.event}
        return {**own, **self.fields, "before": self.before, "hash": self.hash}

    def line(self) -> bytes:
        """The same as it stands in the file, without the line's end."""
        return canonical(self.as_dict())


class End(NamedTuple):
    """How a file ends: its last whole line, where that stops, and what half a line comes after."""

    last: Entry | None
    offset: int  # bytes of whole lines
    torn: bytes


def checked(event: str, fields: Mapping[str, object], path: Path) -> dict[str, Value]:
    """The fields as a line takes them; text that is too long is cut.

    Raises:
        AuditError: the event, a name or a value is none that a line takes.
    """
    kept: dict[str, Value] = {}
    fault = "" if _WORD.fullmatch(event) else f"event {event[:70]!r} is not lower case and short"
    if len(fields) > FIELDS:
        fault = f"{len(fields)} fields are more than {FIELDS}"
    for name, value in fields.items():
        if name in _OWN or not _WORD.fullmatch(name):
            fault = f"field {name[:70]!r} has a name that no line takes"
        elif isinstance(value, str):
            kept[name] = str(value) if len(value) <= TEXT else f"{value[: TEXT - 1]}…"
        elif isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
            kept[name] = value
        elif isinstance(value, float) and math.isfinite(value):
            kept[name] = float(value)
        else:
            fault = f"field {name!r} is no text, truth value or finite number"
    if fault:
        raise AuditError(fault, where=path, todo="give plain values")
    return kept


def sealed(entry: Entry) -> Entry:
    """The entry with its hash."""
    fields = entry.as_dict()
    del fields["hash"]
    return replace(entry, hash=sha256(canonical(fields)).hexdigest())


def parsed(line: bytes) -> Entry | None:
    """The entry of a line, if it is one to the byte and its hash is right."""
    try:
        fields = json.loads(line)
        if canonical(fields) != line:
            return None
        entry = Entry(**{name: fields.pop(name) for name in _OWN}, fields=fields)
        if type(entry.number) is not int or type(entry.time) is not float:
            return None
        if not 0 <= entry.time <= LATEST:
            return None
        if sealed(entry) != entry or not isinstance(entry.event, str):
            return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return entry


def ending(handle: int, size: int, path: Path) -> End:
    """How the file with this handle ends, of which `size` bytes are looked at.

    Raises:
        AuditError: its last whole line is none.
    """
    for reach in (8192, 2 * LONGEST):
        start = max(0, size - reach)
        block = os.pread(handle, size - start, start)
        cut = block.rfind(b"\n") + 1
        begin = block.rfind(b"\n", 0, max(0, cut - 1)) + 1
        if start == 0 or begin > 0:
            break
    else:
        raise AuditError("does not end in a line", where=path, todo=EVIDENCE)
    last = parsed(block[begin : cut - 1]) if cut else None
    if cut and last is None:
        raise AuditError("its last line was edited", where=path, todo=EVIDENCE)
    return End(last, start + cut, block[cut:])


def walk(path: Path, size: int) -> Iterator[Entry]:
    """The lines in the first `size` bytes, one at a time; the last of them must be whole.

    Raises:
        AuditError: names the first line that is edited or does not follow.
    """
    before: Entry | None = None
    try:
        with path.open("rb") as file:
            number = 0
            while size > 0 and (line := file.readline(min(size, LONGEST))):
                size, number = size - len(line), number + 1
                entry = parsed(line[:-1]) if line.endswith(b"\n") else None
                if entry is None:
                    what = f"line {number} was edited, or is none of this log"
                    raise AuditError(what, where=path, todo=EVIDENCE)
                if entry.number != number or (before and entry.before != before.hash):
                    what = f"line {number} does not follow: lines were removed, put in or moved"
                    raise AuditError(what, where=path, todo=EVIDENCE)
                yield entry
                before = entry
    except OSError as fault:
        what = f"cannot be read ({fault.strerror})"
        raise AuditError(what, where=path, todo="mend its rights or its disk") from fault
