"""Who may take part: open invites and admitted platforms, in SQLite, for several processes at once.

    invite ─secret→ platform ─JoinRequest→ admit ─→ admitted at every call ─→ evict
                                    restored ─→ suspended ─confirm↗            └ at once, for ever

Of a secret only its SHA-256 is kept. An evicted platform's keys never come back; its name may be
invited again, with new keys. Each thread has a connection of its own, so that a look is quick.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.enrolment import NAME, JoinRequest, check_proofs, node_key_from, node_public
from shared.errors import ConfigError, IdentityError

SECONDS = 600  # that an invite is open, unless it says otherwise: time for a call or a mail
LONGEST = 7 * 24 * 3600  # seconds; a secret that lies about for longer gets into wrong hands
BUSY = 10.0  # seconds to wait for another process that writes

SCHEMA = """
CREATE TABLE IF NOT EXISTS invites (
    secret TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, expires REAL NOT NULL, used REAL);
CREATE TABLE IF NOT EXISTS platforms (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, node_key BLOB NOT NULL UNIQUE,
    signing_key TEXT NOT NULL UNIQUE, joined REAL NOT NULL, evicted REAL, seen REAL, ca TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS live ON platforms (name) WHERE evicted IS NULL;
CREATE TABLE IF NOT EXISTS restores (accepted REAL NOT NULL);
CREATE TABLE IF NOT EXISTS suspended (platform INTEGER PRIMARY KEY);
"""
_CONFIRMED = "id NOT IN (SELECT platform FROM suspended)"
# SQLite's own words name what is damaged, in its bytes, which need not be UTF-8.
FAULTS = (sqlite3.Error, UnicodeDecodeError)
_ENROLLED = (
    "SELECT name, node_key, signing_key, (SELECT count(*) FROM platforms AS other"
    " WHERE other.name = platforms.name AND other.id < platforms.id)"
    " FROM platforms WHERE evicted IS NULL AND "
)


@dataclass(frozen=True)
class Enrolled:
    """An admitted platform.

    Attributes:
        name: of the platform.
        node_key: public, P-384, as Flower sends it.
        signing_key: public, Ed25519, 64 hexadecimal digits.
        records: the name under which its checkpoints are kept: its own, unless an evicted platform
            had that, whose audit log was another.
    """

    name: str
    node_key: bytes
    signing_key: str
    records: str


@dataclass(frozen=True)
class Member:
    """A platform that is or was admitted; times in seconds since 1970, None for never."""

    name: str
    node_key: bytes
    signing_key: str
    joined: float
    evicted: float | None
    last_seen: float | None
    ca_seen: str | None  # fingerprint of the CAs that it trusts
    suspended: bool = False  # admitted in a backup, and not confirmed since


class Enrolment:
    """The store. A method has written what it says when it returns."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._own = threading.local()

    def invite(self, name: str, *, seconds: int = SECONDS) -> bytes:
        """A secret with which this platform may join, once, for so long.

        An open invite of the same name is closed by it.

        Raises:
            IdentityError: the name is taken.
            ConfigError: it is no platform's name, or it is not open for a sensible time.
        """
        if not re.fullmatch(NAME, name):
            raise ConfigError(
                f"{name!r} is no platform's name",
                todo="use up to 64 letters, digits, '-' and '_'",
            )
        if not 1 <= seconds <= LONGEST:
            raise ConfigError(
                f"an invite cannot be open for {seconds} seconds", todo=f"give 1 to {LONGEST}"
            )
        secret = secrets.token_bytes(16)
        with self._writing() as base:
            if base.execute(f"{_ENROLLED} name = ?", (name,)).fetchone():
                raise _taken(name)
            row = (_hash(secret), name, self._clock() + seconds)
            base.execute("INSERT OR REPLACE INTO invites VALUES (?, ?, ?, NULL)", row)
        return secret

    def check_token(self, token: bytes) -> None:
        """Whether an invite with this secret is open.

        Raises:
            IdentityError: it is unknown, used or expired.
        """
        query = "SELECT name, expires, used FROM invites WHERE secret = ?"
        self._open_invite(self._found(query, _hash(token)))

    def _open_invite(self, rows: list[tuple[Any, ...]]) -> str:
        """The name in a row of `invites`. Raises: IdentityError if it is not open."""
        if not rows:
            raise _refused("the token is unknown, or a newer one has taken its place")
        name, expires, used = rows[0]
        if used is not None:
            raise _refused("the token was used already")
        if self._clock() >= expires:
            raise _refused("the token has expired")
        return str(name)

    def admit(self, request: JoinRequest) -> None:
        """Let a platform in, and close its invite: both, or neither.

        Raises:
            IdentityError: the token is unknown, used, expired or another platform's; the name is
                taken; a key was here before, or its proof does not hold.
        """
        check_proofs(request)
        node_key = node_public(node_key_from(request.node_key.encode()))
        secret, now = _hash(bytes.fromhex(request.token)), self._clock()
        with self._writing() as base:
            query = "SELECT name, expires, used FROM invites WHERE secret = ?"
            name = self._open_invite(base.execute(query, (secret,)).fetchall())
            if name != request.name:
                raise IdentityError(
                    f"the token is not for a platform named {request.name!r}",
                    todo="set the name in the platform's file to the one that was invited",
                )
            if base.execute(f"{_ENROLLED} name = ?", (name,)).fetchone():
                raise _taken(name)
            row = (name, node_key, request.signing_key, now)
            try:
                base.execute(
                    "INSERT INTO platforms (name, node_key, signing_key, joined)"
                    " VALUES (?, ?, ?, ?)",
                    row,
                )
            except sqlite3.IntegrityError:
                raise IdentityError("a key of it was here before", todo="make new keys") from None
            base.execute("UPDATE invites SET used = ? WHERE secret = ?", (now, secret))

    def platforms(self) -> list[Member]:
        """All that are or were admitted, in the order of their joining."""
        columns = f"name, node_key, signing_key, joined, evicted, seen, ca, NOT {_CONFIRMED}"
        rows = self._found(f"SELECT {columns} FROM platforms ORDER BY id")
        return [replace(Member(*row[:7]), suspended=bool(row[7])) for row in rows]

    def evict(self, name: str) -> None:
        """Shut a platform out; it holds from the next call on, in every process.

        Raises:
            IdentityError: none of this name is admitted.
        """
        with self._writing() as base:
            query = "UPDATE platforms SET evicted = ? WHERE name = ? AND evicted IS NULL"
            if base.execute(query, (self._clock(), name)).rowcount != 1:
                raise _unknown(name)

    def member(self, name: str) -> Member | None:
        """The platform of this name that is not evicted."""
        return next((it for it in self.platforms() if it.name == name and it.evicted is None), None)

    def live(self, signing_key: str) -> str | None:
        """The name of the platform with this key, if it is not evicted."""
        query = "SELECT name FROM platforms WHERE signing_key = ? AND evicted IS NULL"
        rows = self._found(query, signing_key)
        return str(rows[0][0]) if rows else None

    def accept_restored(self, confirmed: Sequence[str], *, after: float = 0.0) -> list[str]:
        """Take this store for the right one; whoever is not confirmed by name is suspended.

        Tokens that were open are closed: one may have been used after the backup.

        Args:
            confirmed: platforms that are to go on.
            after: the moment of acceptance is not before this one, seconds since 1970.

        Returns:
            The names of those that are suspended.

        Raises:
            IdentityError: one of those named is not admitted; nothing is changed then.
        """
        with self._writing() as base:
            query = "SELECT id, name FROM platforms WHERE evicted IS NULL ORDER BY id"
            live = base.execute(query).fetchall()
            for name in confirmed:
                if name not in (known for _, known in live):
                    raise _unknown(name)
            left = [(number, name) for number, name in live if name not in confirmed]
            # Tokens of the backup may have been used since, by a platform that was evicted then.
            base.execute("DELETE FROM invites WHERE used IS NULL")
            base.execute("DELETE FROM suspended")
            base.executemany("INSERT INTO suspended VALUES (?)", [(number,) for number, _ in left])
            base.execute("INSERT INTO restores VALUES (?)", (max(after, self._clock()),))
        return [name for _, name in left]

    def accepted(self) -> float:
        """When a restored store was accepted last, seconds since 1970; 0 if never."""
        return float(self._found("SELECT coalesce(max(accepted), 0.0) FROM restores")[0][0])

    def confirm(self, name: str) -> None:
        """Let a suspended platform take part again.

        Raises:
            IdentityError: none of this name is suspended.
        """
        with self._writing() as base:
            query = (
                "DELETE FROM suspended WHERE platform IN"
                " (SELECT id FROM platforms WHERE name = ? AND evicted IS NULL)"
            )
            if base.execute(query, (name,)).rowcount != 1:
                raise IdentityError(
                    f"no platform {name!r} is suspended", todo="see who is: platforms"
                )

    def suspended(self, name: str) -> bool:
        """Whether the platform of this name waits to be confirmed."""
        query = f"SELECT 1 FROM platforms WHERE name = ? AND evicted IS NULL AND NOT {_CONFIRMED}"
        return bool(self._found(query, name))

    def admitted(self, node_key: bytes) -> Enrolled | None:
        """The platform with this node key, as of this moment; some ten microseconds."""
        return self._enrolled("node_key = ?", node_key)

    def whose(self, node_key: bytes) -> str | None:
        """What a log calls the platform that this node key is or was of; None if nobody's."""
        query = f"SELECT name, evicted, {_CONFIRMED} FROM platforms WHERE node_key = ?"
        for name, evicted, confirmed in self._found(query, node_key):
            if evicted is not None:
                return f"evicted {name}"
            return str(name) if confirmed else f"suspended {name}"
        return None

    def named(self, name: str) -> Enrolled | None:
        """The admitted platform of this name, as of this moment."""
        return self._enrolled("name = ?", name)

    def seen(self, name: str, *, ca: str) -> None:
        """Note that an admitted platform was here, and which CAs it trusts."""
        with self._writing() as base:
            query = "UPDATE platforms SET seen = ?, ca = ? WHERE name = ? AND evicted IS NULL"
            base.execute(query, (self._clock(), ca, name))

    def _enrolled(self, condition: str, value: str | bytes) -> Enrolled | None:
        rows = self._found(f"{_ENROLLED} {_CONFIRMED} AND {condition}", value)
        if not rows:
            return None
        name, node_key, signing_key, before = rows[0]
        records = f"{name}-{signing_key[:8]}" if before else name
        return Enrolled(name, node_key, signing_key, records)

    def _found(self, query: str, *values: str | bytes) -> list[tuple[Any, ...]]:
        try:
            return self._reading().execute(query, values).fetchall()
        except FAULTS as fault:
            raise self._unusable(fault) from fault

    def _reading(self) -> sqlite3.Connection:
        """This thread's connection; a process that was forked off makes its own."""
        found: tuple[int, sqlite3.Connection] | None = getattr(self._own, "base", None)
        if found is None or found[0] != os.getpid():
            found = self._own.base = os.getpid(), self._opened()
        return found[1]

    def _opened(self) -> sqlite3.Connection:
        try:
            if not self._path.exists():
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            base = sqlite3.connect(
                self._path, isolation_level=None, timeout=BUSY, check_same_thread=False
            )
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")
            base.executescript(SCHEMA)
        except (*FAULTS, OSError) as fault:
            raise self._unusable(fault) from fault
        return base

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All of the body, or nothing; nobody else writes meanwhile."""
        base = self._reading()
        try:
            base.execute("BEGIN IMMEDIATE")
            yield base
            base.execute("COMMIT")
        except FAULTS as fault:
            raise self._unusable(fault) from fault
        finally:
            if base.in_transaction:
                base.execute("ROLLBACK")

    def _unusable(self, fault: Exception) -> IdentityError:
        return IdentityError(
            f"cannot be read or written ({fault})",
            where=self._path,
            todo="free some space, or put it back from a backup",
        )


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _unknown(name: str) -> IdentityError:
    return IdentityError(f"no platform {name!r} is admitted", todo="see who is: platforms")


def _refused(what: str) -> IdentityError:
    return IdentityError(what, todo="ask the coordinator for a new one")


def _taken(name: str) -> IdentityError:
    return IdentityError(
        f"a platform {name!r} is admitted already", todo="use another name, or evict that one"
    )
