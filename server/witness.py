"""What an audit log stands at, kept outside the folder that a backup holds.

    audit line ─→ FOLDER/KEY/audit.head: the newest checkpoint      evict ─→ evictions.json

A backup that is put back takes the log and its head file back together, and the log holds. This
file stays where it was, so the log is then found to be shorter than it, or another.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from server.home import FILE, ServerHome, load_home
from shared.audit_lines import Entry, Value, parsed
from shared.audit_log import AuditLog
from shared.checkpoints import NONE, Checkpoint
from shared.errors import AtollError, AuditError, IdentityError
from shared.evictions import Eviction, Evictions
from shared.files import made_folder, replacing
from shared.locking import locked
from shared.signing import canonical, public_of, signing_key
from shared.strict_parsing import json_file

log = logging.getLogger("atoll.server")


class LineHashes:
    """The hash of each line of an audit log, read as the log grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._hashes = list[bytes]()
        self._offset = 0  # bytes read, of whole lines
        self.last_time: float | None = None

    def count(self) -> int:
        """Lines in it now."""
        with self._lock:
            self._read()
            return len(self._hashes)

    def holds(self, count: int, head: str) -> bool:
        """Whether the log has so many lines at least, and this hash at the last of them.

        Raises:
            AuditError: a line of it was edited, or it cannot be read.
        """
        if count == 0:
            return head == NONE
        with self._lock:
            if count > len(self._hashes):
                self._read()
            return count <= len(self._hashes) and self._hashes[count - 1].hex() == head

    def _read(self) -> None:
        if not self.path.exists():
            return
        with locked(self.path, write=False), self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                entry = parsed(line[:-1])
                if entry is None:
                    number = len(self._hashes) + 1
                    raise AuditError(
                        f"line {number} was edited, or is none of this log",
                        where=self.path,
                        todo="keep the file as evidence, and compare it with a backup",
                    )
                self._hashes.append(bytes.fromhex(entry.hash))
                self._offset += len(line)
                self.last_time = entry.time


class Witness:
    """The newest checkpoint of an audit log and all evictions, kept outside the home.

    Args:
        folder: for this coordinator alone.
        key: gives its signing key.
    """

    def __init__(self, folder: Path, key: Path) -> None:
        self.folder, self._key = folder, key
        self.path = folder / "audit.head"
        self.evictions = Evictions(folder / "evictions.json")

    def read(self) -> Checkpoint | None:
        """The checkpoint; None if there is none yet.

        Raises:
            AuditError: it cannot be read, is damaged, or is not this coordinator's.
        """
        return read_mark(self.path, public_of(signing_key(self._key)))

    def advance(self, entry: Entry, log: AuditLog) -> None:
        """Keep what the log stands at, unless what is kept is no part of that log.

        Raises:
            AtollError: it cannot be read or written.
        """
        self._ready()
        with locked(self.folder / ".lock", write=True):
            kept = self.read()
            follows = kept is not None and (
                (kept.count, kept.head) == (entry.number - 1, entry.before)
                or (kept.count < entry.number and LineHashes(log.path).holds(kept.count, kept.head))
            )
            if kept is None or follows:
                self._write(entry.number, entry.hash, entry.time)

    def replace(self, checkpoint: Checkpoint) -> None:
        """Keep this one, whatever was kept before.

        Raises:
            AtollError: it cannot be written.
        """
        self._ready()
        with locked(self.folder / ".lock", write=True):
            write_mark(self.path, checkpoint)

    def keep_later(self, checkpoint: Checkpoint) -> None:
        """Keep this one if it is later than the one that is kept.

        Raises:
            AtollError: it cannot be read or written.
        """
        kept = self.read()
        if kept is None or kept.count < checkpoint.count:
            self.replace(checkpoint)

    def evicted(self, name: str, public: str, time: float) -> None:
        """Keep that a platform was evicted.

        Raises:
            AtollError: it cannot be read or written.
        """
        self._ready()
        key = signing_key(self._key)
        with locked(self.folder / ".lock", write=True):
            self.evictions.keep([Eviction(name, public, time).signed(key)], public_of(key))

    def _write(self, count: int, head: str, time: float) -> None:
        write_mark(self.path, Checkpoint(count, head, time, "").signed(signing_key(self._key)))

    def _ready(self) -> None:
        made_folder(self.folder)
        self.folder.chmod(0o700)


def read_mark(path: Path, public: str) -> Checkpoint | None:
    """The checkpoint in a file; None if there is no such file.

    Args:
        path: of it.
        public: the key of its owner, 64 hex.

    Raises:
        AuditError: it cannot be read, is damaged, or is not signed by that key.
    """
    try:
        mark = Checkpoint.from_dict(json_file(path))
        mark.check(public)
    except FileNotFoundError:
        return None
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise AuditError(
            f"cannot be read ({why})", where=path, todo="mend its rights or its disk"
        ) from None
    except (ValueError, AttributeError, AuditError, IdentityError):
        raise AuditError(
            "is no checkpoint of this coordinator",
            where=path,
            todo="find out who wrote it; name another folder as witness in server.toml",
        ) from None
    return mark


def write_mark(path: Path, mark: Checkpoint) -> None:
    """Write a checkpoint to a file of its own.

    Raises:
        ConfigError: it cannot be written.
    """
    with replacing(path, private=True) as part:
        part.write_bytes(canonical(mark.as_dict()) + b"\n")


class WitnessedLog(AuditLog):
    """The coordinator's audit log; its witness follows each line.

    Where the witness cannot be written the line is in the log nevertheless: platforms hold
    checkpoints too, and a full disk must not keep an eviction from being written down.
    """

    def __init__(self, path: Path, witness: Witness) -> None:
        super().__init__(path)
        self.witness = witness
        self._warned = False

    def add(self, event: str, **fields: Value) -> Entry:
        """Add a line, see `AuditLog.add`."""
        entry = super().add(event, **fields)
        try:
            self.witness.advance(entry, self)
        except (AtollError, OSError) as fault:
            if not self._warned:
                log.warning("the audit log's witness was not written: %s", fault)
            self._warned = True
        return entry


def witness_of(settings: ServerHome) -> Witness | None:
    """The witness that server.toml names; None where it names none."""
    if settings.witness is None:
        return None
    path = settings.path / "signing.key"
    return Witness(settings.witness / public_of(signing_key(path))[:16], path)


def server_log(home: Path) -> AuditLog:
    """The audit log of a coordinator's folder, with its witness if the folder is complete."""
    path = home / "audit.jsonl"
    if not (home / FILE).is_file() or not (home / "signing.key").is_file():
        return AuditLog(path)
    witness = witness_of(load_home(home))
    return AuditLog(path) if witness is None else WitnessedLog(path, witness)
