"""What happened on one side, in lines that are only ever added, each sealed with the one before it.

    random ─before→ line 1 ─hash→ before, line 2 ─hash→ … ─hash→ head ─→ LOG.head, checkpoints

A line is canonical JSON: number, time, event, its fields, `before` (the line before's hash; of the
first line, 32 random bytes) and `hash` (SHA-256 over the rest). What finds what:

- the chain alone: a byte edited, a line removed, put in or moved, anywhere but at the end;
- the head file beside the log: lines cut off the end, or added by something else. It is as safe as
  the log: whoever may write both can cut both, or write a new log throughout;
- checkpoints that the other side holds: those two as well, up to the newest of them. What was
  rewritten after it is found by nobody, so they go out every minute.

A crash may leave half a line. The next `add` moves it to `LOG.torn.NUMBER` and says so in an event
"torn"; half a line was never told to be written, and a whole one is counted by the head file. The
log says what was recorded, not that all was recorded, nor that the clock was right.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.audit_lines import (
    EVIDENCE,
    LONGEST,
    End,
    Entry,
    Value,
    checked,
    ending,
    parsed,
    sealed,
    walk,
)
from shared.checkpoints import NONE, Checkpoint, Checkpoints
from shared.errors import AuditError, ConfigError
from shared.files import replacing, sync
from shared.locking import locked, write_at
from shared.signing import canonical

__all__ = [
    "AuditLog",
    "Checkpoint",
    "Checkpoints",
    "Entry",
    "Value",
    "Verified",
    "entries",
    "verify",
]


@dataclass(frozen=True)
class Verified:
    """What a log that holds looks like.

    Attributes:
        count: lines.
        head: hash of the last, or zeros.
        known: lines up to which the other side's checkpoints vouch for it; 0 without any.
        torn: bytes of a half-written line after the last, which the next `add` sets aside.
    """

    count: int
    head: str
    known: int = 0
    torn: int = 0


@dataclass(frozen=True)
class _Head:
    count: int
    head: str


class AuditLog:
    """An audit log to add to, from several processes and threads.

    Args:
        path: of the log; made by the first `add`.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock

    def add(self, event: str, **fields: Value) -> Entry:
        """Add a line; it is on the disk when this returns.

        Args:
            event: what happened: lower case, at most 64 characters.
            fields: at most 32; text is cut at 500 characters.

        Raises:
            AuditError: an event or a value that no line takes, a log that ends otherwise than it
                was left, or a disk that refuses.
        """
        kept = checked(event, fields, self.path)
        with locked(self.path, write=True) as handle:
            size = os.fstat(handle).st_size
            end = ending(handle, size, self.path)
            known = _read_head(self.path)
            if known is None and size == 0:
                sync(self.path.parent)
                known = _write_head(self.path, None)
            _check_head(end.last, known, self.path)
            if known != _head_of(end.last):  # a crash came between the two: never two behind
                _write_head(self.path, end.last)
            if end.torn:
                end = self._repaired(handle, end)
            return self._append(handle, end, event, kept)[0]

    def checkpoint(self, key: Ed25519PrivateKey) -> Checkpoint:
        """What the log is now, signed for the other side to keep.

        Raises:
            AuditError: the log ends otherwise than it was left, or cannot be read.
        """
        last = None
        if self.path.exists() or _head_path(self.path).exists():
            with locked(self.path, write=False) as handle:
                last = ending(handle, os.fstat(handle).st_size, self.path).last
                _check_head(last, _read_head(self.path), self.path)
        now = _head_of(last)
        return Checkpoint(now.count, now.head, float(self.clock()), "").signed(key)

    def _append(
        self, handle: int, end: End, event: str, fields: Mapping[str, Value]
    ) -> tuple[Entry, End]:
        number = end.last.number + 1 if end.last else 1
        before = end.last.hash if end.last else os.urandom(32).hex()
        entry = sealed(Entry(number, float(self.clock()), event, fields, before))
        line = canonical(entry.as_dict()) + b"\n"
        write_at(handle, end.offset, line)
        _write_head(self.path, entry)
        return entry, End(entry, end.offset + len(line), b"")

    def _repaired(self, handle: int, end: End) -> End:
        """The end of the log after half a line was set aside, or a whole one got its line end."""
        number = end.last.number + 1 if end.last else 1
        entry = parsed(end.torn)
        if entry and entry.number == number and (not end.last or entry.before == end.last.hash):
            write_at(handle, end.offset, end.torn + b"\n")
            _write_head(self.path, entry)
            return End(entry, end.offset + len(end.torn) + 1, b"")
        aside = self.path.with_name(f"{self.path.name}.torn.{number}")
        with _our_error(), replacing(aside) as part:
            part.touch(mode=0o600)
            part.write_bytes(end.torn)
        told: dict[str, Value] = {
            "bytes": len(end.torn),
            "sha256": sha256(end.torn).hexdigest(),
            "file": aside.name,
        }
        return self._append(handle, end, "torn", told)[1]


def verify(path: Path, *, known: Sequence[Checkpoint] = (), public: str | None = None) -> Verified:
    """Read the whole log, a line at a time, and check all that can be; see the module's top.

    Args:
        path: of the log. Its head file is needed unless `known` is given.
        known: checkpoints of this log that the other side holds.
        public: key of this log's owner, 64 hex: then the signatures of `known` are checked, so
            that the other side cannot make any up.

    Raises:
        AuditError: names the line and the fault.
        IdentityError: a checkpoint that this side never signed.
    """
    heads: dict[int, str] = {}
    for checkpoint in known:
        if public is not None:
            checkpoint.check(public, where=f"checkpoint of {checkpoint.count} lines")
        if heads.setdefault(checkpoint.count, checkpoint.head) != checkpoint.head:
            what = f"two checkpoints of line {checkpoint.count} contradict each other"
            raise AuditError(what, where=path, todo=EVIDENCE)
    with locked(path, write=False) as handle:
        # What is added while this reads is left for the next time.
        size, head = os.fstat(handle).st_size, _read_head(path)
        end = ending(handle, size, path)
    last = None
    for last in walk(path, end.offset):
        if heads.get(last.number, last.hash) != last.hash:
            what = f"line {last.number} is not the one that the other side knows"
            raise AuditError(what, where=path, todo=EVIDENCE)
    now, most = _head_of(last), max(heads, default=0)
    if most > now.count:
        raise _cut(path, now.count, most, "the other side knows")
    if now != _head_of(end.last):
        raise AuditError("was changed while it was read", where=path, todo=EVIDENCE)
    if head is not None or not known:
        _check_head(last, head, path)
    return Verified(now.count, now.head, known=most, torn=len(end.torn))


def entries(path: Path) -> Iterator[Entry]:
    """The lines of a log, from the first, each checked against the one before it.

    Raises:
        AuditError: names the line and the fault, when it comes to it.
    """
    with locked(path, write=False) as handle:
        end = ending(handle, os.fstat(handle).st_size, path)
    yield from walk(path, end.offset)


def _head_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _head_of(last: Entry | None) -> _Head:
    return _Head(last.number, last.hash) if last else _Head(0, NONE)


def _write_head(path: Path, last: Entry | None) -> _Head:
    head = _head_of(last)
    with _our_error(), replacing(_head_path(path)) as part:
        part.touch(mode=0o600)
        part.write_bytes(canonical(asdict(head)) + b"\n")
    return head


def _read_head(path: Path) -> _Head | None:
    """What the head file knows; None if there is no such file."""
    place = _head_path(path)
    try:
        text = place.read_bytes()[:LONGEST]
        fields = json.loads(text)
        head = _Head(fields["count"], fields["head"])
        if canonical(asdict(head)) + b"\n" != text or type(head.count) is not int:
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise AuditError("the head file was edited", where=place, todo=EVIDENCE) from None
    return head


def _check_head(last: Entry | None, head: _Head | None, path: Path) -> None:
    """Refuse a log that does not end where its head file says; it may be one line further.

    Raises:
        AuditError: how it ends.
    """
    if head is None:
        what = "its head file is missing, so nobody can tell whether lines were cut off"
        raise AuditError(what, where=path, todo=EVIDENCE)
    now = _head_of(last)
    if head.count > now.count:
        raise _cut(path, now.count, head.count, "its head file knows")
    behind = last is not None and head == _Head(
        last.number - 1, last.before if head.count else NONE
    )
    if head != now and not behind:
        what = f"line {now.count} is not the one that its head file knows"
        raise AuditError(what, where=path, todo=EVIDENCE)


def _cut(path: Path, count: int, known: int, who: str) -> AuditError:
    return AuditError(f"was cut: it has {count} lines, {who} {known}", where=path, todo=EVIDENCE)


@contextmanager
def _our_error() -> Iterator[None]:
    try:
        yield
    except ConfigError as fault:
        raise AuditError(fault.what, where=fault.where, todo=fault.todo) from fault
