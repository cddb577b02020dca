"""What one side signs of its audit log, and what the other keeps, so that neither can rewrite it.

    its log ─checkpoint→ count, head, time, signature ─keep→ FOLDER/NAME.jsonl ─of→ audit verify

A head is the hash of the last line, which holds the hash of the line before it, and so on: whoever
knows one head knows whether any line up to it was changed. What `keep` cannot see by itself is a
log that was rewritten and then grew past the count kept before: for that, the log's owner verifies
it against what the other side exported. The files here are as safe as this machine: each line is
signed, so none can be made up, but lines can be deleted by whoever may write here.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import AuditError
from shared.files import made_folder, sync
from shared.locking import locked, write_at
from shared.signing import canonical, check, sign

PURPOSE = "checkpoint"
NONE = "0" * 64  # the head of a log without a line
LONGEST = 1024  # bytes of one checkpoint's line; real ones have some 300
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # a platform's name, safe as a file's
_HEAD = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Checkpoint:
    """What an audit log was at one moment, signed by its owner.

    Attributes:
        count: lines in it.
        head: hash of the last one, 64 hex; zeros if there is none.
        time: of the checkpoint, seconds since 1970.
        signature: Ed25519's of purpose "checkpoint" over the three above, 128 hex.
    """

    count: int
    head: str
    time: float
    signature: str

    def as_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """A checkpoint of what came as JSON; its signature is not checked here.

        Keys other than the four are left alone: a message may carry more.

        Raises:
            AuditError: that is none.
        """
        count, head = fields.get("count"), fields.get("head")
        time, signature = fields.get("time"), fields.get("signature")
        if (
            type(count) is int
            and 0 <= count < 2**63
            and isinstance(head, str)
            and _HEAD.fullmatch(head)
            and (count > 0 or head == NONE)
            and isinstance(time, float)
            and math.isfinite(time)
            and isinstance(signature, str)
        ):
            return cls(count, head, time, signature)
        raise AuditError("is no checkpoint of an audit log", todo="ask its sender for another")

    @property
    def body(self) -> bytes:
        """What is signed."""
        return canonical({"count": self.count, "head": self.head, "time": self.time})

    def signed(self, key: Ed25519PrivateKey) -> Self:
        """The same with a signature."""
        return replace(self, signature=sign(key, PURPOSE, self.body))

    def check(self, public: str, where: str | Path | None = None) -> None:
        """Whether the owner of this key signed it.

        Raises:
            IdentityError: not.
        """
        check(public, PURPOSE, self.body, self.signature, where=where)


class Checkpoints:
    """What this side knows of the others' audit logs: one file a name, only ever added to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Of whom something is kept."""
        return sorted(path.stem for path in self.folder.glob("*.jsonl"))

    def keep(self, name: str, checkpoint: Checkpoint, public: str) -> None:
        """Add what another side told of its log; on the disk when this returns.

        The same count and head again add nothing. Several processes may keep.

        Args:
            name: whose log it is: a platform's name, or the coordinator's.
            checkpoint: as it came.
            public: the key that is known as theirs, 64 hex.

        Raises:
            IdentityError: the signature does not hold.
            AuditError: the log went back or is another one than the one known, or this cannot be
                written.
        """
        path = self._path(name)
        Checkpoint.from_dict(checkpoint.as_dict())  # of the right form, whoever made it
        checkpoint.check(public, where=name)
        made_folder(self.folder)
        with locked(path, write=True) as handle:
            self.folder.chmod(0o700)
            size = os.fstat(handle).st_size
            start = max(0, size - 2 * LONGEST)
            *whole, _torn = os.pread(handle, size - start, start).split(b"\n")
            if start and not whole:  # longer than any of ours
                raise _damaged(path, "its end")
            if whole:
                last = _parsed(whole[-1], path, "its last line")
                if _refuses(last, checkpoint, path):
                    return
            # A half-written line is of a checkpoint that nobody was told is kept: written over.
            write_at(handle, size - len(_torn), canonical(checkpoint.as_dict()) + b"\n")
            if not whole:
                sync(path.parent)

    def of(self, name: str) -> list[Checkpoint]:
        """What is kept of one side, the oldest first; empty if there is nothing.

        Raises:
            AuditError: the file is damaged.
        """
        path = self._path(name)
        return list(read_checkpoints(path)) if path.exists() else []

    def last(self, name: str) -> Checkpoint | None:
        """The newest that is kept of one side; None if there is none.

        Raises:
            AuditError: the file cannot be read, or is damaged.
        """
        path = self._path(name)
        if not path.exists():
            return None
        with locked(path, write=False) as handle:
            size = os.fstat(handle).st_size
            start = max(0, size - 2 * LONGEST)
            *whole, _torn = os.pread(handle, size - start, start).split(b"\n")
        if not whole:
            if start:
                raise _damaged(path, "its end")
            return None
        return _parsed(whole[-1], path, "its last line")

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise AuditError(f"{name[:80]!r} is nobody's name", todo="give a platform's name")
        return self.folder / f"{name}.jsonl"


def read_checkpoints(path: Path) -> Iterator[Checkpoint]:
    """The checkpoints of a file, kept here or exported by the other side; signatures unchecked.

    Raises:
        AuditError: it cannot be read, or a line is none.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST):
                number += 1
                if line.endswith(b"\n"):
                    yield _parsed(line[:-1], path, f"line {number}")
                elif len(line) == LONGEST:
                    raise _damaged(path, f"line {number}")
    except OSError as fault:
        raise AuditError(
            f"cannot be read ({fault.strerror})", where=path, todo="name a file of checkpoints"
        ) from None


def _refuses(last: Checkpoint, new: Checkpoint, path: Path) -> bool:
    """Whether a checkpoint tells nothing new.

    Raises:
        AuditError: the log went back, or is another one.
    """
    todo = "ask its operator what became of it; keep this file, it is the evidence"
    if new.count < last.count:
        raise AuditError(
            f"the log went back to {new.count} lines, {last.count} were known",
            where=path.stem,
            todo=todo,
        )
    if new.count == last.count and new.head != last.head:
        raise AuditError(
            f"line {new.count} of the log is another than the one known", where=path.stem, todo=todo
        )
    return new.count == last.count


def _parsed(line: bytes, path: Path, place: str) -> Checkpoint:
    try:
        return Checkpoint.from_dict(json.loads(line))
    except (ValueError, RecursionError, AttributeError, AuditError):
        raise _damaged(path, place) from None


def _damaged(path: Path, place: str) -> AuditError:
    return AuditError(f"{place} is no checkpoint", where=path, todo="compare it with a backup")
