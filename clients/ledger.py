"""The durable record of what a platform's Plan has spent: reserve, train, release or abandon.

    answered ─None→ reserve ─train→ release ─→ may leave
       └ the same payload again         └ abandon: nothing left

A crash can only make the ledger count too much, by one reservation: what may be spent is on the
disk before training, and what is spent is on the disk before it leaves. `clients.chain` finds out
an edited ledger or an old copy.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from clients.allowance import allowance_of, check_fits, sums_charge
from clients.allowance import rounds_left as left_of
from clients.balance import Balance, balance_of
from clients.chain import Asked, Entry, receipt_of, sealed
from clients.ledger_file import (
    add,
    answer,
    connected,
    contents,
    create,
    in_one_line,
    locked,
    read,
    read_head,
    write_head,
)
from shared.accounting import Charge
from shared.errors import LedgerError
from shared.plan import Plan
from shared.signing import digest
from shared.tables.policy import Policy
from shared.update import Noise, Receipt

__all__ = ["Asked", "Balance", "Entry", "Ledger", "answered", "balance", "entries"]

BACKWARDS = 60.0  # seconds that a clock may be set back: time servers correct less
AHEAD = 3600.0  # seconds; a larger lead of the entries means that the clock was ahead before
EARLIEST = 1_767_225_600.0  # 2026-01-01 UTC: a clock before it is wrong, whatever entries say
log = logging.getLogger("atoll.client")


class Ledger:
    """The one writer of a ledger: open it, use it from one thread at a time, close it.

    What a method wrote is on the disk when it returns. When one fails, the disk is whole but may
    be one entry ahead of memory: the Ledger then refuses all but close; open it again.
    """

    def __init__(
        self, policy: Policy, plan: Plan, *, noise: Noise, clock: Callable[[], float]
    ) -> None:
        self._policy, self._plan, self._noise, self._clock = policy, plan, noise, clock
        self._path = policy.ledger.resolve()
        self._lock: int | None = None
        self._base: sqlite3.Connection | None = None
        self._start = ""
        self._entries: list[Entry] = []
        self._whole = False

    @classmethod
    def open(
        cls,
        policy: Policy,
        *,
        noise: Noise,
        receipt: Receipt | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Ledger:
        """Take the ledger, made if there is none; a crashed process' reservation is abandoned.

        Args:
            policy: with a Plan.
            noise: of all its releases; a ledger takes one kind for ever.
            receipt: what the server remembers of it.
            clock: seconds since 1970.

        Raises:
            LedgerError: it is in use, damaged, edited, older than its head file or the receipt
                knows, of the other kind of noise, or cannot be written.
            ValueError: the policy protects nothing.
        """
        made = cls(policy, _plan(policy), noise=noise, clock=clock)
        try:
            with in_one_line(made._path):
                made._take(receipt)
        except BaseException:
            made.close()
            raise
        return made

    def _take(self, receipt: Receipt | None) -> None:
        self._lock = locked(self._path)
        head = read_head(self._policy.head)
        if not (head or receipt or self._path.exists()):
            create(self._path, self._noise)
        self._base = connected(self._path, write=True)
        noise, self._start, self._entries = contents(
            self._base, self._path, head=head, receipt=receipt
        )
        if noise != self._noise:
            raise self._refused(
                f"is of {noise} noise, not {self._noise}", "keep the two in files of their own"
            )
        if head != self.receipt:  # it is new, or a crash came between the two files
            write_head(self._policy.head, self.receipt)
        self._whole = True
        if self._entries and self._entries[-1].kind == "reserve":
            self.abandon(self._entries[-1].number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; an open reservation stays until the next who opens it abandons it."""
        self._whole = False
        if self._base is not None:
            with suppress(sqlite3.Error):  # all that counts is on the disk
                self._base.close()
        if self._lock is not None:
            os.close(self._lock)
        self._base = self._lock = None

    @property
    def receipt(self) -> Receipt:
        """What the server is to remember."""
        return receipt_of(self._entries, self._start)

    def balance(self) -> Balance:
        """Of the policy's data set, under its Plan."""
        return balance_of(self._entries, policy=self._policy)

    def answered(self, asked: Asked) -> bytes | None:
        """What was released for this very request, if it was the last of its purpose.

        Raises:
            LedgerError: the payload is not the one that was released.
        """
        base, dataset = self._usable(), self._policy.dataset
        with in_one_line(self._path):
            return answer(base, self._entries, asked, dataset=dataset, path=self._path)

    def reserve(self, asked: Asked, charge: Charge) -> int:
        """Take a charge out of the allowance, before training.

        Args:
            asked: the request.
            charge: one whole round of the Plan, or one release of sums or of metrics.

        Returns:
            The number of the reservation.

        Raises:
            BudgetError: the allowance does not hold it any more; nothing is written.
            LedgerError: another reservation is open, the clock was set back, the run began under
                another Plan, or it cannot be written.
        """
        self._usable()
        if self._entries and self._entries[-1].kind == "reserve":
            number = self._entries[-1].number
            raise self._refused(f"reservation {number} is open", "release or abandon it first")
        now = self._clock()
        self._check_clock(now)
        self._check_run(asked)
        dataset, plan = self._policy.dataset, self._plan
        found = check_fits(asked, charge, self._entries, policy=self._policy, where=self._path)
        made = Entry(
            number=len(self._entries) + 1,
            kind="reserve",
            of=None,
            dataset=dataset,
            unit=plan.unit,
            asked=asked,
            charge=charge,
            plan=plan.public(),
            noise=self._noise,
            time=now,
            payload=None,
            before=self.receipt.head,
            allowance=found.total,
        )
        self._append(sealed(made))
        return made.number

    def _check_clock(self, now: float) -> None:
        """Refuse a clock that was set back; one that was ahead before does not lock the ledger.

        No charge depends on it: times are for whoever reads the report.
        """
        latest = max((entry.time for entry in self._entries), default=now)
        if math.isfinite(now) and latest - now > AHEAD and now >= EARLIEST:
            log.warning("%s has entries from %.0f s ahead of the clock", self._path, latest - now)
            return
        if not latest - BACKWARDS <= now < math.inf:
            raise self._refused(
                f"the clock is {latest - now:.0f} s behind the latest entry", "set the clock right"
            )

    def _check_run(self, asked: Asked) -> None:
        """A run goes on under the Plan that it began with."""
        mine = (asked.run, asked.purpose)
        of_run = (e for e in reversed(self._entries) if (e.asked.run, e.asked.purpose) == mine)
        last, plan = next(of_run, None), self._plan.public()
        if last is not None and dict(last.plan) != plan:
            names = ", ".join(name for name in plan if last.plan.get(name) != plan[name])
            raise self._refused(
                f"the Plan changed in mid-run ({names})", "undo that, or wait for the next run"
            )

    def release(self, number: int, payload: bytes) -> None:
        """Count a reservation as spent; when this returns, and not before, the payload may leave.

        Raises:
            LedgerError: the reservation is not open, or it cannot be written.
        """
        self._end(number, payload)

    def abandon(self, number: int) -> None:
        """Give a reservation back: nothing has left the platform for it, and nothing will.

        Raises:
            LedgerError: the reservation is not open, or it cannot be written.
        """
        self._end(number, None)

    def _end(self, number: int, payload: bytes | None) -> None:
        self._usable()
        opened = self._entries[-1] if self._entries else None
        if opened is None or opened.kind != "reserve" or opened.number != number:
            raise self._refused(f"reservation {number} is not open", "reserve first")
        made = replace(
            opened,
            number=number + 1,
            kind="abandon" if payload is None else "release",
            of=number,
            time=self._clock(),
            payload=None if payload is None else digest(payload),
            before=opened.hash,
        )
        self._append(sealed(made), payload)

    def _append(self, entry: Entry, payload: bytes | None = None) -> None:
        """One entry more: in the ledger, then in memory, then in the head file."""
        base, after = self._usable(), self.receipt
        self._whole = False
        with in_one_line(self._path):
            add(base, entry, after=after, payload=payload, path=self._path)
        self._entries.append(entry)
        write_head(self._policy.head, self.receipt)
        self._whole = True

    def _usable(self) -> sqlite3.Connection:
        if self._base is None or not self._whole:
            raise self._refused("is closed, or a write to it has failed", "open it again")
        return self._base

    def _refused(self, what: str, todo: str) -> LedgerError:
        return LedgerError(what, where=self._path, todo=todo)


def entries(policy: Policy) -> list[Entry]:
    """Everything in the policy's ledger, verified; none if there is no ledger yet.

    Only reads, and takes no lock: the platform may be training meanwhile.

    Raises:
        LedgerError: it is damaged, edited, older than its head file knows, or cannot be read.
    """
    with read(policy.ledger, policy.head) as (_base, found):
        return found


def answered(policy: Policy, asked: Asked) -> bytes | None:
    """As `Ledger.answered`, for whoever only reads, and takes no lock.

    Raises:
        LedgerError: as `entries`, or the payload is not the one that was released.
    """
    with read(policy.ledger, policy.head) as (base, found):
        return answer(base, found, asked, dataset=policy.dataset, path=policy.ledger)


def balance(policy: Policy) -> Balance:
    """Of the policy's data set, under its Plan, as `entries` reads it.

    Raises:
        LedgerError: as `entries`.
        ValueError: the policy protects nothing.
    """
    return balance_of(entries(policy), policy=policy)


def rounds_left(policy: Policy, *, sums: bool = False) -> int:
    """How many more rounds, or releases of sums, the policy's data set can pay for.

    A function of the platform's file and of how much was released: of no row.

    Raises:
        LedgerError: as `entries`.
        ValueError: the policy protects nothing.
    """
    plan, charge = _plan(policy), sums_charge(policy)
    found = allowance_of(entries(policy), policy=policy)
    if not sums:
        return left_of(found, plan)
    return 0 if charge is None else max(0, min(found.sums, found.left(charge)))


def _plan(policy: Policy) -> Plan:
    if policy.plan is None:
        raise ValueError("a ledger needs a Plan")
    return policy.plan
