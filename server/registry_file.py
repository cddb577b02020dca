"""The registry on disk: SQLite rows that are only ever added to, and the tensors they name.

    FOLDER/registry.sqlite                            versions, promotions, runs, receipts
    FOLDER/rounds/0007/adapter.safetensors            what platforms will be sent next
                       moments.safetensors            the server optimizer's memory

    part ─fsync→ rename ─fsync→ row ─commit, fsync→ only now is there a version

So a row names files that are whole, and files without a row are nobody's: the next writer sweeps
them away. Whatever the disk or SQLite has against it becomes an error of one line.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from shared.errors import RoundError
from shared.files import made_folder, sync, unwritable
from shared.locking import transaction

DAMAGE = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"}  # the file; all others, the machine
STALE = 60.0  # seconds after which nobody is still making a registry
PARTS = re.compile(r"\.?\d{4,}(-\d+)?(\.[0-9a-f]{8})?")  # names that a record gives

_ADDED_TO = """
CREATE TRIGGER {table}_stay BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} are only added to'); END;
CREATE TRIGGER {table}_last BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} are only added to'); END;
CREATE TRIGGER {table}_once BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})
BEGIN SELECT RAISE(ABORT, '{table} are only added to'); END;
"""  # the last one because INSERT OR REPLACE deletes without asking the second

SCHEMA = """
CREATE TABLE runs (number INTEGER PRIMARY KEY, name TEXT NOT NULL, settings TEXT);
CREATE TABLE versions (
  version INTEGER PRIMARY KEY,
  run TEXT NOT NULL,
  round INTEGER NOT NULL,
  place TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL UNIQUE,
  adapter TEXT NOT NULL,
  parents TEXT NOT NULL,
  participants TEXT NOT NULL,
  metrics TEXT NOT NULL,
  manifest TEXT NOT NULL,
  signature TEXT NOT NULL,
  report TEXT NOT NULL
);
CREATE INDEX versions_by_round ON versions (run, round);
CREATE TABLE promotions (
  number INTEGER PRIMARY KEY,
  version INTEGER NOT NULL REFERENCES versions,
  kind TEXT NOT NULL CHECK (kind IN ('promote', 'rollback')),
  time REAL NOT NULL,
  who TEXT NOT NULL,
  why TEXT NOT NULL
);
CREATE TABLE receipts (platform TEXT PRIMARY KEY, count INTEGER NOT NULL, head TEXT NOT NULL);
""" + "".join(
    _ADDED_TO.format(table=table, key=key)
    for table, key in (("versions", "version"), ("promotions", "number"))
)


class RegistryFile:
    """The database and the folder of tensors beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "registry.sqlite"
        self.rounds = folder / "rounds"
        self._swept = False

    def exists(self) -> bool:
        """Whether there is a registry; none is made by asking.

        Raises:
            RoundError: what is there was left by a version of Atoll that kept no database.
        """
        if self.path.exists():
            return True
        if next(self.rounds.glob("*/round.json"), None) is not None:
            raise RoundError(
                "holds rounds of an earlier version of Atoll, which had no registry.sqlite",
                where=self.rounds.parent,
                todo="use another folder",
            )
        return False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to a registry that is there.

        Raises:
            RoundError: it is damaged.
            ConfigError: it cannot be opened.
        """
        with in_one_line(self.path), closing(_connected(self.path)) as base:
            yield base

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of the body on the disk, or nothing; the registry is made if there is none.

        Raises:
            RoundError: it is damaged.
            ConfigError: it cannot be written.
        """
        if not self.exists():
            self._create()
        try:
            with self.reading() as base, transaction(base):
                yield base
        except BaseException:
            self._swept = False  # the row may be lost whose files are there
            raise

    def save(self, name: str, write: Callable[[Path], None]) -> None:
        """Make the folder `name` of a version from what `write` puts into one; call in `writing`.

        Raises:
            ConfigError: it cannot be written; then nothing of it is left.
        """
        final = self.rounds / name
        part = self.rounds / f".{name}.{uuid.uuid4().hex[:8]}"
        made_folder(part)
        try:
            write(part)
            for path in (*part.iterdir(), part):
                sync(path)
            shutil.rmtree(final, ignore_errors=True)  # no row names it: a killed writer's
            os.rename(part, final)
            for path in (self.rounds, self.rounds.parent):
                sync(path)
        except (OSError, SafetensorError) as fault:
            raise unwritable(final, fault) from fault
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def sweep(self, base: sqlite3.Connection) -> None:
        """Remove what a killed writer left; call in `writing`, so that nobody else writes now."""
        if self._swept or not self.rounds.is_dir():
            return
        known = {place for (place,) in base.execute("SELECT place FROM versions")}
        self._swept = True
        for path in self.rounds.iterdir():
            if path.name not in known and PARTS.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - STALE:
                    path.unlink()

    def forget(self, name: str) -> None:
        """Remove a folder whose row does not come to be; call in `writing`, before it is left."""
        shutil.rmtree(self.rounds / name, ignore_errors=True)

    def clear(self) -> None:
        """Remove the whole registry."""
        # The log first: a new database must not find the old one's.
        for path in (*(Path(f"{self.path}{end}") for end in ("-wal", "-shm")), self.path):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.rounds, ignore_errors=True)
        for name in ("settings.json", "standing.json"):  # of versions that kept no database
            (self.path.parent / name).unlink(missing_ok=True)
        self._swept = False

    def _create(self) -> None:
        folder = made_folder(self.path.parent)
        part = folder / f".{self.path.name}.{uuid.uuid4().hex[:8]}"
        try:
            with in_one_line(self.path), closing(_connected(part, make=True)) as base:
                base.execute("PRAGMA journal_mode = WAL")
                base.executescript(f"BEGIN; {SCHEMA} COMMIT;")
                base.execute("INSERT INTO runs VALUES (1, ?, NULL)", (uuid.uuid4().hex,))
            sync(part)
            # Unlike a rename, a link replaces nobody's registry.
            with suppress(FileExistsError):
                os.link(part, self.path)
            for path in (folder, folder.parent):
                sync(path)
        except OSError as fault:
            raise unwritable(self.path, fault) from fault
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                Path(f"{part}{end}").unlink(missing_ok=True)


def _connected(path: Path, *, make: bool = False) -> sqlite3.Connection:
    mode = "rwc" if make else "rw"
    if not make and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        mode = "ro&immutable=1"  # a copy that nobody may write to, so nobody does
    base = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30)
    base.isolation_level = None
    try:
        # A commit has returned only when it is on the disk.
        base.execute("PRAGMA synchronous = FULL")
    except BaseException:
        base.close()
        raise
    return base


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Whatever SQLite says against the file, as an error of ours."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as fault:
        # Without a name it could not decode what it read.
        if getattr(fault, "sqlite_errorname", "SQLITE_CORRUPT") in DAMAGE:
            raise damaged(path, str(fault)) from fault
        raise unwritable(path, fault) from fault


def damaged(path: Path, why: str) -> RoundError:
    """The error for a registry that cannot be read."""
    return RoundError(
        f"cannot be read ({why[:200]})",
        where=path,
        todo="restore it from a backup, or use another folder",
    )
