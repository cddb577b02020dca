"""A coordinator that was put back from a backup: found out by what lies outside its folder.

    audit line ─→ Witness: the newest checkpoint and all evictions, in another folder here
    platform ─the checkpoint it holds─→ Guard: later than our log, or another? → nobody is asked
    accept-restored ─→ members confirmed by name; evidence of before no longer counts

A restored folder is whole in itself, so nothing in it tells that it is old. What others hold does:
each checkpoint carries the coordinator's own signature, so none can be made up, and no platform can
keep another from showing its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.enrolment import Enrolment
from server.home import ServerHome
from server.witness import LineHashes, read_mark, witness_of, write_mark
from shared.audit_log import AuditLog
from shared.checkpoints import Checkpoint
from shared.errors import AtollError, AuditError
from shared.evictions import Eviction
from shared.signing import public_of, signing_key

log = logging.getLogger("atoll.server")

STEP = "atoll-server accept-restored, as the runbook says under restore"


@dataclass(frozen=True)
class Missing:
    """What the audit log lacks, as far as it is known.

    Attributes:
        have: lines that it has.
        have_time: of the last of them; None without any.
        later: the checkpoint that is not of this log.
        evicted: names of platforms that were evicted after the backup.
    """

    have: int
    have_time: float | None
    later: Checkpoint
    evicted: tuple[str, ...] = ()

    def __str__(self) -> str:
        count, until = self.later.count, when(self.later.time)
        if count > self.have:
            first = when(self.have_time) if self.have_time is not None else "its beginning"
            number = count - self.have
            lines = f"line {count}" if number == 1 else f"lines {self.have + 1} to {count}"
            what = (
                f"{lines} of the audit log {'is' if number == 1 else 'are'} missing: {number}"
                f" {'entry' if number == 1 else 'entries'}, written between {first} and {until}"
            )
        else:
            what = (
                f"line {count} of the audit log is another than the one of {until}: entries up to"
                " then are missing, and lines were added since"
            )
        return what + (f"; evicted meanwhile: {', '.join(self.evicted)}" if self.evicted else "")


class Guard:
    """Whether this coordinator may ask platforms: not while its audit log is known to lack lines.

    Args:
        settings: what server.toml says.
        enrolment: who may take part.
        audit: the coordinator's log.
        found: is called once when evidence comes, with what is missing in words.
    """

    def __init__(
        self,
        settings: ServerHome,
        enrolment: Enrolment,
        audit: AuditLog,
        *,
        found: Callable[[str], None] = lambda _what: None,
    ) -> None:
        home = settings.path
        self.enrolment, self.audit, self.found = enrolment, audit, found
        self.public = public_of(signing_key(home / "signing.key"))
        self.witness = witness_of(settings)
        self.kept = home / "later.head"  # evidence that platforms showed; survives a restart
        self.hashes = LineHashes(home / "audit.jsonl")
        self.shown = set[str]()  # platforms that have shown what they hold since the start
        self._missing: Missing | None = None
        self._lock = threading.Lock()

    def look(self) -> Missing | None:
        """What is missing by the evidence on this machine; None if nothing is known to be.

        Raises:
            AuditError: the evidence or the log cannot be read.
        """
        marks = [read_mark(self.kept, self.public)]
        if self.witness is not None:
            marks.append(self.witness.read())
        for mark in marks:
            if mark is not None:
                self._weigh(mark)
        return self.missing()

    def missing(self) -> Missing | None:
        """What is known to be missing, unless it was accepted meanwhile."""
        known = self._missing
        return None if known is None or self._accepted(known.later) else known

    def check(self) -> None:
        """Refuse to go on while something is missing.

        Raises:
            AuditError: it says what.
        """
        if (known := self.missing()) is not None:
            raise AuditError(f"put back from a backup: {known}", todo=STEP)

    def show(self, held: Mapping[str, Any] | None, evictions: Iterable[Mapping[str, Any]]) -> None:
        """Take in what somebody holds of this coordinator; it may be anybody.

        Args:
            held: a checkpoint of this coordinator's audit log, or None.
            evictions: statements.

        Raises:
            AuditError: one is none.
            IdentityError: the signature of one is not this coordinator's.
        """
        self.evict_again([Eviction.from_dict(fields) for fields in evictions])
        if held is None:
            return
        checkpoint = Checkpoint.from_dict(held)
        checkpoint.check(self.public)
        with self._lock:
            before = self.missing()
            if not self._weigh(checkpoint) or self.missing() == before:
                return
        self._keep(checkpoint)
        if before is None:
            what = str(self.missing())
            log.error("put back from a backup: %s; nobody is asked; next: %s", what, STEP)
            self.audit.add("restore found", what=what, have=self.hashes.count())
            self.found(f"refused: put back from a backup: {what}")

    def heard(self, name: str) -> bool:
        """Whether a platform has shown what it holds since the start, or never showed anything."""
        if name in self.shown:
            return True
        member = self.enrolment.member(name)
        return member is not None and member.last_seen is None

    def evict_again(self, statements: Iterable[Eviction]) -> list[str]:
        """Evict whom these statements name, where that was forgotten; the names of those.

        Raises:
            IdentityError: a statement is not this coordinator's.
        """
        names = list[str]()
        for statement in statements:
            if (name := self.enrolment.live(statement.signing_key)) is None:
                continue
            statement.check(self.public)
            self.enrolment.evict(name)
            self.audit.add("evicted again", platform=name, first=statement.time)
            log.warning("%s was evicted before, and is again", name)
            names.append(name)
            if self.witness is not None:
                with suppress(AtollError):  # platforms keep it too
                    self.witness.evicted(name, statement.signing_key, statement.time)
        return names

    def known_evictions(self) -> list[Eviction]:
        """The evictions that the witness keeps.

        Raises:
            AuditError: they cannot be read.
        """
        return [] if self.witness is None else self.witness.evictions.all()

    def accepted(self, checkpoint: Checkpoint) -> None:
        """From now on the log as it stands is the one that counts.

        Args:
            checkpoint: of it, signed.

        Raises:
            AtollError: the witness cannot be written.
        """
        self.kept.unlink(missing_ok=True)
        if self.witness is not None:
            self.witness.replace(checkpoint)

    def _weigh(self, mark: Checkpoint) -> bool:
        """Whether a checkpoint of this coordinator is evidence; if so it is remembered."""
        if self._accepted(mark) or self.hashes.holds(mark.count, mark.head):
            return False
        known = self._missing
        if known is None or self._accepted(known.later) or known.later.count < mark.count:
            have = self.hashes.count()
            since = self.hashes.last_time
            gone = [it.name for it in self.known_evictions() if since is None or it.time > since]
            self._missing = Missing(have, since, mark, tuple(gone))
        return True

    def _accepted(self, mark: Checkpoint) -> bool:
        return mark.time <= self.enrolment.accepted()

    def _keep(self, checkpoint: Checkpoint) -> None:
        """Write evidence down, here and outside; without a disk it still counts until the end."""
        try:
            write_mark(self.kept, checkpoint)
            if self.witness is not None:
                self.witness.keep_later(checkpoint)
        except (AtollError, OSError) as fault:
            log.error("the evidence of a restore was not written: %s", fault)


def when(seconds: float) -> str:
    """A moment for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
