"""The files of a Ledger: SQLite's, which is only ever added to, and the head file, kept apart.

    lock, then  ledger ─commit, fsync→  head ─fsync→  only now does a method of the Ledger return

Whatever the disk or SQLite has against it becomes a LedgerError of one line.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from clients.chain import (
    RESTORE,
    Asked,
    Entry,
    check_known,
    genesis,
    text_of,
    verified,
)
from shared.errors import LedgerError
from shared.files import sync, temporary
from shared.locking import transaction
from shared.signing import canonical, digest
from shared.strict_parsing import json_file
from shared.update import Noise, Receipt

UTF8 = "Could not decode to UTF-8"  # how sqlite3 reports text that is none
DAMAGE = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"}  # the file; all others, the machine

SCHEMA = (
    "CREATE TABLE meta (id TEXT NOT NULL, noise TEXT NOT NULL)",
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, text TEXT NOT NULL, hash TEXT NOT NULL)",
    # What was released last for each purpose, for retries; its SHA-256 is in the chain.
    "CREATE TABLE answers (purpose TEXT PRIMARY KEY, number INTEGER NOT NULL, payload BLOB)",
)


def locked(path: Path) -> int:
    """A handle that keeps every other writer out until it is closed, or its process ends."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        os.close(handle)
        if isinstance(fault, BlockingIOError):
            raise LedgerError(
                "is in use by another process", where=path, todo="stop one of the two"
            ) from None
        raise
    return handle


def connected(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to a file that is there, in which nothing is written without a transaction."""
    if not path.exists():
        raise LedgerError("is missing", where=path, todo="put the newest copy back")
    mode = "rw" if write else "ro"
    base = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    base.execute("PRAGMA synchronous = FULL")
    return base


def create(path: Path, noise: Noise) -> None:
    """Make an empty ledger of this noise; it is there as a whole or not at all."""
    part = temporary(path)
    try:
        part.touch(mode=0o600)  # nobody else may read it
        with closing(connected(part, write=True)) as base:
            if base.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise LedgerError("cannot be kept safe there", where=path, todo="use a local disk")
            with transaction(base):
                for statement in SCHEMA:
                    base.execute(statement)
                base.execute("INSERT INTO meta VALUES (?, ?)", (os.urandom(32).hex(), noise))
        part.rename(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def contents(
    base: sqlite3.Connection, path: Path, *, head: Receipt | None, receipt: Receipt | None = None
) -> tuple[str, str, list[Entry]]:
    """A ledger's noise, genesis and entries, once everything has been verified.

    Args:
        base: connection to it.
        path: of it, for errors.
        head: what its head file knows.
        receipt: what the server knows.

    Raises:
        LedgerError: it is damaged or edited, older than is known, or has lost its head file.
    """
    if base.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise LedgerError("is damaged", where=path, todo=RESTORE)
    meta = base.execute("SELECT id, noise FROM meta").fetchall()
    if len(meta) != 1:
        raise LedgerError("is damaged", where=path, todo=RESTORE)
    identity, noise = map(str, meta[0])
    start = genesis(identity, noise)
    rows = base.execute("SELECT number, text, hash FROM entries ORDER BY number")
    found = verified(rows, start=start, where=path)
    if found and head is None:
        raise LedgerError(
            "its head file is missing, so nobody can tell whether this is the newest copy",
            where=path,
            todo="put the head file back",
        )
    for by, known in (("its head file", head), ("the server", receipt)):
        if known is not None:
            check_known(found, start=start, known=known, by=by, where=path)
    return noise, start, found


@contextmanager
def read(path: Path, head: Path) -> Iterator[tuple[sqlite3.Connection | None, list[Entry]]]:
    """A ledger's entries, verified, for whoever only reads and takes no lock.

    Yields:
        A connection to it and its entries; None and none, if there is no ledger yet.

    Raises:
        LedgerError: as `contents`, or it cannot be read.
    """
    with in_one_line(path):
        known, place = read_head(head), path.resolve()
        if known is None and not place.exists():
            yield None, []
            return
        with closing(connected(place, write=False)) as base:
            base.execute("BEGIN")  # entries and payloads of one moment, whatever is released now
            yield base, contents(base, place, head=known)[2]


def add(
    base: sqlite3.Connection, entry: Entry, *, after: Receipt, payload: bytes | None, path: Path
) -> None:
    """Commit an entry, and the payload that it released.

    Raises:
        LedgerError: the ledger does not end where the writer left it.
    """
    with transaction(base):
        last = base.execute("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1")
        if last.fetchone() != ((after.count, after.head) if after.count else None):
            raise LedgerError("was changed by something else", where=path, todo=RESTORE)
        row = (entry.number, text_of(entry), entry.hash)
        base.execute("INSERT INTO entries VALUES (?, ?, ?)", row)
        if payload is not None:
            answer = (entry.asked.purpose, entry.number, payload)
            base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", answer)


def answer(
    base: sqlite3.Connection | None,
    entries: Sequence[Entry],
    asked: Asked,
    *,
    dataset: str,
    path: Path,
) -> bytes | None:
    """What was released for this very request, if it was the last of its purpose.

    Args:
        base: connection to the ledger; None is one without entries.
        entries: of it, verified.
        asked: the request.
        dataset: that it has to be of.
        path: of the ledger, for errors.

    Raises:
        LedgerError: the payload is gone, or another.
    """
    releases = (entry for entry in reversed(entries) if entry.kind == "release")
    last = next((entry for entry in releases if entry.asked.purpose == asked.purpose), None)
    if base is None or last is None or last.asked != asked or last.dataset != dataset:
        return None
    query = "SELECT payload FROM answers WHERE number = ?"
    row = base.execute(query, (last.number,)).fetchone()
    if row is None or not isinstance(row[0], bytes) or digest(row[0]) != last.payload:
        raise LedgerError(
            f"the payload of entry {last.number} was edited or removed",
            where=path,
            todo=RESTORE,
        )
    return row[0]


def read_head(path: Path) -> Receipt | None:
    """What the head file knows; None if there is no file.

    Raises:
        LedgerError: it cannot be read, or is no head file.
    """
    with in_one_line(path):
        try:
            fields = json_file(path, largest=1024)
        except FileNotFoundError:
            return None
        except ValueError:
            fields = None
    if isinstance(fields, dict) and set(fields) == {"count", "head"}:
        count, head = fields["count"], fields["head"]
        if type(count) is int and isinstance(head, str):
            return Receipt(count, head)
    raise LedgerError("is no head file, or damaged", where=path, todo="put the newest copy back")


def write_head(path: Path, receipt: Receipt) -> None:
    """Replace the head file, or the file that a link by its name leads to; then it is on the disk.

    Raises:
        LedgerError: it cannot be written; the one before is left.
    """
    with in_one_line(path):
        path = Path(os.path.realpath(path))  # else a file would take the place of the link
        part = path.with_name(f".{path.name}.part")  # one writer, so one name
        part.unlink(missing_ok=True)  # of a crash, with whatever mode it has
        # As the ledger: nobody else may read how much was released.
        with open(part, "x", encoding="ascii", opener=_for_its_owner) as file:
            file.write(canonical(asdict(receipt)).decode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Whatever SQLite or the machine says against the file, as a LedgerError."""
    try:
        yield
    except UnicodeDecodeError as fault:  # SQLite names what is damaged, in its bytes
        raise LedgerError("is damaged (not UTF-8)", where=path, todo=RESTORE) from fault
    except sqlite3.Error as fault:
        why = str(fault)
        if getattr(fault, "sqlite_errorname", None) in DAMAGE or UTF8 in why:
            why = UTF8 if UTF8 in why else why  # what the text holds is not repeated
            raise LedgerError(f"is damaged ({why})", where=path, todo=RESTORE) from fault
        raise _unwritable(path, why) from fault
    except UnicodeError as fault:
        raise LedgerError(f"is damaged ({UTF8})", where=path, todo=RESTORE) from fault
    except OSError as fault:
        raise _unwritable(path, fault.strerror or str(fault)) from fault


def _unwritable(path: Path, why: str) -> LedgerError:
    return LedgerError(
        f"cannot be read or written ({why})",
        where=path,
        todo="free some space, or make its folder writable",
    )
