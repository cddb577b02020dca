"""What a ledger counts when its process is killed at any moment: never too little.

    child:  open → (reserve → train → release) or the payload again → send → … for ever
    parent: SIGKILL after a random time, then  what the ledger counts  against  what left

A child is a process of its own, forked, and killed with `kill -9`. Training is a fast stand-in.
What left is a file that the child adds to and syncs: the wire. A child that comes after a killed
one is asked what the wire has no answer to, as a server would ask again. It touches nothing but
ledger and wire, so it may be forked while the parent has threads.
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn, TypedDict

from clients.allowance import allowance_of
from clients.ledger import Asked, Entry, Ledger, entries
from shared.plan import Plan
from shared.tables.policy import Policy
from shared.text import Progress, silent

PHASES = ("open", "reserve", "train", "release", "send")
OPEN, RESERVE, TRAIN, RELEASE, SEND = range(len(PHASES))

KILLS_A_LEDGER = 50  # then a new one: the older, the longer it takes to verify
TRAINING = 0.002  # seconds; about what a reservation takes
PAYLOAD = 4096  # bytes
TIMED = 10  # cycles that are timed before the first kill
PATIENCE = 60.0  # seconds until a child that does nothing is a fault

# So much noise that the budget is no matter, and an accounting of few numbers.
PLAN = Plan(
    clip=1.0,
    noise_multiplier=1e4,
    sampling_rate=1.0,
    steps=1,
    expected_batch=1.0,
    epsilon=1.0,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=1.0,
)


class Figures(TypedDict):
    """What came of the kills.

    Attributes:
        kills: how many.
        under_counts: payloads that left and that a ledger did not count; 0 is the promise.
        max_over_count: reservations that a ledger counted though they had not left, after the
            worst of the kills; 1 at most is the promise.
        phases: kills by what the child was about.
    """

    kills: int
    under_counts: int
    max_over_count: int
    phases: dict[str, int]


@dataclass(frozen=True)
class Site:
    """A platform: its ledger, and the wire that its payloads leave by."""

    policy: Policy
    wire: Path

    @classmethod
    def make(cls, folder: Path) -> Site:
        """A platform that has sent nothing, in a new folder."""
        folder.mkdir()
        ledger, head, key = (folder / name for name in ("ledger", "head", "key"))
        policy = Policy(plan=PLAN, dataset="shop", ledger=ledger, head=head, key=key)
        (folder / "wire").touch()
        return cls(policy, folder / "wire")

    def send(self, payload: bytes) -> None:
        """From here on it has left."""
        with self.wire.open("ab", buffering=0) as wire:
            wire.write(sha256(payload).hexdigest().encode() + b"\n")
            os.fsync(wire.fileno())

    def left(self) -> list[str]:
        """SHA-256 of each payload that left, in order."""
        return self.wire.read_text("ascii").split()


class Child:
    """A process that answers requests until it is killed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._phase = mmap.mmap(-1, 1)  # one byte that both processes see
        started, start = os.pipe()
        parent = os.getpid()
        self._number = os.fork()
        if self._number == 0:
            self._live(start, parent)
        os.close(start)
        os.read(started, 1)
        os.close(started)

    def kill(self) -> str:
        """Kill it where it stands.

        Returns:
            The phase that it was in.

        Raises:
            RuntimeError: it had ended by itself.
        """
        os.kill(self._number, signal.SIGKILL)
        _, status = os.waitpid(self._number, 0)
        phase = PHASES[self._phase[0]]
        self._phase.close()
        if not os.WIFSIGNALED(status):
            raise RuntimeError(self._fault.read_text("utf-8"))
        return phase

    @property
    def _fault(self) -> Path:
        return self._site.wire.with_name("fault")

    def _live(self, start: int, parent: int) -> NoReturn:
        """Never returns into the parent's code, whatever happens."""
        try:
            gc.disable()  # the parent's things are not to be tidied up here
            os.write(start, b".")
            self._answer(parent)
        except BaseException:
            self._fault.write_text(traceback.format_exc(), "utf-8")
        finally:
            os._exit(1)

    def _answer(self, parent: int) -> None:
        """Requests one after another, as the ClientApp takes them."""
        phase, site = self._phase, self._site
        number = len(site.left())
        with Ledger.open(site.policy, noise="simulated") as ledger:
            while os.getppid() == parent:
                asked = Asked("update", run="bench", round=number, adapter="0" * 64)
                payload = ledger.answered(asked)
                if payload is None:
                    phase[0] = RESERVE
                    reservation = ledger.reserve(asked, PLAN.charge)
                    phase[0] = TRAIN
                    payload = _trained()
                    phase[0] = RELEASE
                    ledger.release(reservation, payload)
                phase[0] = SEND
                site.send(payload)
                number += 1


def _trained() -> bytes:
    """Never the same twice, as noise is not."""
    time.sleep(TRAINING)
    return os.urandom(PAYLOAD)


def measure(*, kills: int, seed: int, progress: Progress = silent) -> Figures:
    """Kill children at random moments; after each kill, compare the ledger with what left.

    Args:
        kills: how many.
        seed: of the moments; the machine's own timing adds to it.
        progress: told of every kill.

    Raises:
        RuntimeError: a child failed by itself.
    """
    moments = random.Random(seed)
    lost: set[str] = set()
    worst, phases = 0, Counter(dict.fromkeys(PHASES, 0))
    with TemporaryDirectory(prefix="atoll-ledger-") as name:
        folder = Path(name)
        span = _span(Site.make(folder / "timed"))
        site = Site.make(folder / "0")
        for kill in range(kills):
            if kill and kill % KILLS_A_LEDGER == 0:
                site = Site.make(folder / str(kill))
            child = Child(site)
            time.sleep(moments.uniform(0, span))
            phases[child.kill()] += 1
            missing, over = compare(entries(site.policy), site.left())
            lost |= missing
            worst = max(worst, over)
            progress("killing a platform", kill + 1, kills)
    return Figures(kills=kills, under_counts=len(lost), max_over_count=worst, phases=dict(phases))


def compare(entries: Sequence[Entry], left: Sequence[str]) -> tuple[set[str], int]:
    """A ledger against what left.

    Args:
        entries: of the ledger.
        left: SHA-256 of each payload that left.

    Returns:
        What left and is not counted as released; and how many reservations are counted, released
        or open, of which nothing left.
    """
    released = {entry.payload for entry in entries if entry.kind == "release" and entry.payload}
    is_open = bool(entries) and entries[-1].kind == "reserve"
    return set(left) - released, len(released - set(left)) + is_open


def _span(site: Site) -> float:
    """Seconds from a child's start to the end of its second cycle, measured.

    The allowance is computed first: a child inherits the costs that it consists of, and spends its
    time where a kill can do harm.
    """
    allowance_of([], policy=site.policy)
    begun = time.monotonic()
    child = Child(site)
    try:
        first = _until(site, 1) - begun
        cycle = (_until(site, 1 + TIMED) - begun - first) / TIMED
    finally:
        child.kill()
    return first + cycle


def _until(site: Site, sent: int) -> float:
    """The moment at which so many payloads have left."""
    limit = time.monotonic() + PATIENCE
    while len(site.left()) < sent and time.monotonic() < limit:
        time.sleep(1e-4)
    return time.monotonic()
