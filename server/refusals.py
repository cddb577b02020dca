"""Who was turned away: told once an hour, however often it tries again.

    refusal ─told→ "" the first time, None until the hour is over, then how often it came meanwhile

Whoever is refused tries again, for ever and as fast as it likes, and an address costs nothing. So
neither a log nor the disk may grow with how often somebody calls, nor with how many do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import unquote

from server.enrolment import Enrolment
from shared.audit_log import AuditLog
from shared.channel import plain
from shared.errors import AtollError

log = logging.getLogger("atoll.server")

HOUR = 3600.0  # seconds in which the same refusal is told once
MOST = 100  # different refusals that are told in an hour; 100 lines of both logs are some 50 kB


class Refusals:
    """The refusals of this hour.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._hour = 0
        self._now, self._before = dict[tuple[str, ...], int](), dict[tuple[str, ...], int]()

    def told(self, *what: str) -> str | None:
        """Count a refusal: what to add to the line about it, or None if none is to be written.

        Args:
            what: that tells this refusal from others: who, from where, why.
        """
        with self._lock:
            self._turn()
            if what not in self._now and len(self._now) >= MOST:
                return None
            self._now[what] = self._now.get(what, 0) + 1
            if self._now[what] > 1:
                return None
            more = self._before.get(what, 1) - 1
            words = f"; {more} times more in the hour before" if more else ""
            last = f"; others are not told of before the next hour, {MOST} were"
            return words + (last if len(self._now) == MOST else "")

    def _turn(self) -> None:
        hour = int(self._clock() // HOUR)
        if hour != self._hour:
            self._before = self._now if hour == self._hour + 1 else {}
            self._hour, self._now = hour, {}


class TurnedAway:
    """Tells both logs of calls that were turned away, once an hour for each owner and address.

    The key came unproven, so it says whose it is and not who called.
    """

    def __init__(self, enrolment: Enrolment, audit: AuditLog) -> None:
        self.enrolment, self.audit, self.refusals = enrolment, audit, Refusals()

    def __call__(self, method: str, host: str, key: bytes) -> None:
        """Args: host: address of who called. key: of its node, as it says."""
        owner = self.enrolment.whose(key)
        if (more := self.refusals.told(host, owner or "")) is None:
            return
        whose = f"the key of {owner}" if owner else "a key that nobody enrolled"
        log.warning("turned away at %s: %s with %s%s", method, host, whose, more)
        with suppress(AtollError):  # the caller is refused whether this disk is full or not
            self.audit.add("turned away", peer=host, platform=owner or "", why=whose + more)


def host_of(peer: str) -> str:
    """An address without its port: ipv4:1.2.3.4:5 is 1.2.3.4."""
    return plain(unquote(peer).partition(":")[2].rpartition(":")[0], 60) or "unknown"
