"""Of several processes one at a time: in a folder, in a file, in a database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import AtollError, AuditError, ConfigError
from shared.files import unwritable


@contextmanager
def alone(home: Path, what: str) -> Iterator[None]:
    """Keep a second process out of a folder while the body runs; a killed one keeps nobody out.

    Args:
        home: the folder.
        what: the one that works there, for the error: server, client.

    Raises:
        ConfigError: one is running, or the folder may not be written to.
    """
    try:
        handle = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as fault:
        raise unwritable(home, fault) from fault
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another {what} is running on it", where=home, todo="stop that one first"
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, write: bool, error: type[AtollError] = AuditError) -> Iterator[int]:
    """A handle of the file while no other process, or thread, holds one to write.

    Args:
        path: of it; made for its owner alone if it is missing and `write` is set.
        write: to change it; otherwise others may read at the same time.
        error: what is raised.

    Raises:
        AuditError: whatever the disk has against it, or against what the body does.
    """
    doing = "written" if write else "read"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
            yield handle
        finally:
            os.close(handle)
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise error(
            f"cannot be {doing} ({why})", where=path, todo="make room for it or mend its rights"
        ) from fault


@contextmanager
def transaction(base: sqlite3.Connection) -> Iterator[None]:
    """All of the body on the disk, or nothing; no other process writes meanwhile."""
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
        base.execute("COMMIT")
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def write_at(handle: int, offset: int, content: bytes) -> None:
    """Write, end the file there, and bring it to the disk.

    What was beyond is gone only after the new content stands, so there is no moment at which
    neither is there. If the disk is full, the file ends at `offset` again.
    """
    done = 0
    try:
        while done < len(content):
            done += os.pwrite(handle, content[done:], offset + done)
        os.ftruncate(handle, offset + len(content))
    except OSError:
        os.ftruncate(handle, offset)
        raise
    os.fsync(handle)
