"""`atoll-server up`: the port, the rounds and the health endpoint, in the foreground.

    home → SuperLink ─→ wait for platforms → ServerApp (rounds) → … until all rounds are recorded
                              ↑ a run that cannot go on waits, and is resumed from the registry

Killed at any moment, it goes on at its next start: rounds are whole or not there, nodes keep their
numbers, and a platform that is asked the same again answers with the same bytes.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from server import authority
from server.app import app as server_app
from server.config import one_round
from server.enrolment import Enrolment
from server.enrolment_service import handlers
from server.home import ServerHome, load_home, owners_alone
from server.refusals import TurnedAway
from server.registry import Registry
from server.release import current
from server.restored import Guard
from server.superlink import Config, SuperLink
from server.witness import server_log
from shared import logs
from shared.audit_log import AuditLog
from shared.checkpoints import Checkpoints
from shared.ending import Ending
from shared.errors import AtollError
from shared.health import Health, served
from shared.locking import alone
from shared.pairs import load_pairs
from shared.signing import signing_key

log = logging.getLogger("atoll.server")

FIRST, LONGEST = 5.0, 60.0  # seconds between two attempts of a run that cannot go on
LOOK = 0.2  # seconds between two looks at who is there
SHOW = 75.0  # seconds that a platform has to show its checkpoint; clients do it every minute
GRACE = 1.0  # seconds that calls under way have when the server ends
EXAMPLE = "Example: atoll-server up --home atoll-server"


class Stop(BaseException):
    """The process was told to end; no fault, and nothing may take it for one."""


def up(
    home: Annotated[Path, typer.Option(help="The server's folder.")] = Path("atoll-server"),
    once: Annotated[
        bool, typer.Option("--once", help="End when all rounds are recorded; else serve on.")
    ] = False,
) -> None:
    """Serve the platforms and run the rounds, in the foreground, until told to stop."""
    settings = load_home(home)
    if (home / "platforms.sqlite").exists():
        guard_of(settings, AuditLog(home / "audit.jsonl"), Health())
    current(home)  # without a release no platform could be asked anything
    if settings.pairs is not None:
        load_pairs(settings.pairs)
    logs.to_stderr()
    ending = Ending()
    try:
        with ending.listening(then=_stop), alone(home, "server"), ExitStack() as stack:
            serve(settings, stack, once=once)
    except Stop:
        log.info("stopped")
    ending.leave()


def serve(settings: ServerHome, stack: ExitStack, *, once: bool) -> None:
    """Everything between start and end; what is opened is closed by `stack`."""
    home, seen = settings.path, stamp(settings.path)
    owners_alone(home)
    audit = server_log(home)
    runs = Runs(audit)
    health = Health(role="server", state="starting", round=None)
    guard = guard_of(settings, audit, health)
    link = superlink_of(settings, audit, guard)
    stack.enter_context(served(settings.health, health))
    stack.callback(link.stop, GRACE)
    stack.callback(lambda: health.say(ready=False, state="stopping"))
    link.start()
    audit.add("started", port=link.port)
    stack.callback(lambda: audit.add("stopped"))
    log.info("serving", extra={"listen": settings.listen, "port": link.port})
    health.say(ready=True, state="serving", port=link.port)
    pause = FIRST
    while True:
        try:
            guard.check()
            if (now := stamp(home)) != seen:
                settings, seen, pause = load_home(home), now, FIRST
            if sums_left(settings):
                single = replace(settings, federation=one_round(settings.federation))
                run(single, link, runs, health, guard, sums=True)
            if rounds_left(settings):
                run(settings, link, runs, health, guard)
            if once:
                return
            health.say(ready=True, state="all rounds are recorded")
            pause = FIRST
            changed(home, seen, guard)
        except Exception as fault:  # whatever a run dies of, the platforms are served on
            ours = isinstance(fault, AtollError)
            log.error("%s; again in %.0f s", fault, pause, exc_info=not ours)
            said = str(fault) if ours else type(fault).__name__
            # The platforms that are here do not bring a round about as things stand.
            health.say(ready=False, state=said)
            with suppress(AtollError):  # a full disk may be what it died of
                runs.ended(said)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)


def guard_of(settings: ServerHome, audit: AuditLog, health: Health) -> Guard:
    """The guard against a folder that was put back from a backup.

    Raises:
        AuditError: this one was, by what this machine knows.
    """

    def found(what: str) -> None:
        health.say(ready=False, state=what)

    enrolment = Enrolment(settings.path / "platforms.sqlite")
    guard = Guard(settings, enrolment, audit, found=found)
    guard.look()
    guard.check()
    return guard


def superlink_of(settings: ServerHome, audit: AuditLog, guard: Guard | None = None) -> SuperLink:
    """The SuperLink of a home: its certificates, its platforms, its audit log."""
    home = settings.path
    key = signing_key(home / "signing.key")
    enrolment = Enrolment(home / "platforms.sqlite")

    def name_of(node_key: bytes) -> str | None:
        found = enrolment.admitted(node_key)
        return None if found is None else found.name

    service = handlers(
        enrolment,
        key=key,
        checkpoint=lambda: audit.checkpoint(key),
        keep=Checkpoints(home / "checkpoints").keep,
        ca_bundle=lambda: authority.ca_bundle(home),
        audit=audit,
        guard=guard,
    )
    return SuperLink(
        listen=settings.listen,
        database=home / "superlink.sqlite",
        credentials=lambda: authority.credentials(home),
        name_of=name_of,
        whose=enrolment.whose,
        refused=TurnedAway(enrolment, audit),
        handlers=[service],
    )


class Runs:
    """What the audit log is told of runs: an attempt that changes nothing adds no line.

    A run that cannot go on is begun again every few minutes. Of an attempt that comes to the same
    end without a round, neither beginning nor end is written; of any other, both are.
    """

    def __init__(self, audit: AuditLog) -> None:
        self.audit = audit
        self._begun: dict[str, str] | None = None  # not written yet
        self._why = ""  # of the last end; "" since the last round

    def begun(self, *, bundle: str, run: str) -> None:
        """A run begins; it is written at once, unless the last one ended without a round."""
        self._begun = {"bundle": bundle, "run": run}
        if not self._why:
            self._flush()

    def round(self, number: int, told: str) -> None:
        """A round was recorded."""
        self._flush()
        self._why = ""
        self.audit.add("round", round=number, told=told)

    def ended(self, why: str) -> None:
        """A run ended otherwise than with its last round, or could not begin."""
        if why != self._why:
            self._flush()
            self.audit.add("run ended", why=why)
        self._begun, self._why = None, why

    def _flush(self) -> None:
        if self._begun is not None:
            self.audit.add("run", **self._begun)
        self._begun = None


def run(
    settings: ServerHome,
    link: SuperLink,
    runs: Runs,
    health: Health,
    guard: Guard,
    *,
    sums: bool = False,
) -> None:
    """One run of the ServerApp, from the last recorded round; or the one that takes sums.

    Raises:
        RoundError: it cannot start or go on.
        AuditError: this coordinator was put back from a backup.
    """
    bundle = current(settings.path)
    wait_for(settings.platforms or settings.federation.quorum, link, health, guard)
    folder = settings.path / ("sums" if sums else "run")
    start = {"pairs": str(settings.pairs)} if sums else {"backbone": str(settings.backbone)}
    config: Config = {
        **asdict(settings.federation),
        **start,
        "folder": str(folder),
        "resume": bool(Registry(folder).rounds()),
        "signing": str(settings.path / "signing.key"),
    }
    with link.run(bundle, config) as (grid, context):
        grid.check = guard.check
        runs.begun(bundle=bundle.digest, run=str(context.run_id))
        done = Registry(folder).rounds()
        health.say(
            state="asking platforms whether they can take part",
            round=done[-1] if done else None,
            rounds=settings.federation.rounds,
        )
        watcher = Rounds(runs, health)
        log.addHandler(watcher)
        try:
            server_app(grid, context)
        finally:
            log.removeHandler(watcher)


class Rounds(logging.Handler):
    """Takes from the log lines of `server.rounds` what the audit log and health have to say."""

    def __init__(self, runs: Runs, health: Health) -> None:
        super().__init__()
        self.runs, self.health = runs, health

    def emit(self, record: logging.LogRecord) -> None:
        """Take the lines that say where a run is, and no others."""
        state: str | None = getattr(record, "state", None)
        number: int | None = getattr(record, "round", None)
        if number is not None:
            self.health.say(round=number)
            self.runs.round(number, record.getMessage())
        if state is not None:
            self.health.say(ready=bool(getattr(record, "goes_on", True)), state=state)


def wait_for(count: int, link: SuperLink, health: Health, guard: Guard) -> None:
    """Return when so many platforms are online that have shown what they hold of this log.

    So before anything is asked, as many platforms as a run begins with could have said that this
    coordinator was put back from a backup. One that never showed anything counts at once, and one
    that shows nothing for a while counts all the same: its own disk may be full.

    Raises:
        AuditError: it was.
    """
    before: list[str] | None = None
    since = dict[str, float]()
    while True:
        guard.check()
        now, online = time.monotonic(), link.online()
        since = {name: since.get(name, now) for name in online}
        here = [it for it in online if guard.heard(it) or now - since[it] > SHOW]
        if len(here) >= count:
            return
        if here != before:
            log.info("waiting for platforms: %d of %d are here", len(here), count)
            state = f"waiting for platforms: {len(here)} of {count}"
            health.say(ready=True, state=state)
            before = here
        time.sleep(LOOK)


def rounds_left(settings: ServerHome) -> bool:
    """Whether rounds are to be run."""
    done = Registry(settings.path / "run").rounds()
    return not done or done[-1] < settings.federation.rounds


def sums_left(settings: ServerHome) -> bool:
    """Whether sums are to be taken."""
    return settings.pairs is not None and 1 not in Registry(settings.path / "sums").rounds()


def changed(home: Path, seen: int, guard: Guard) -> None:
    """Return when server.toml is another than the one read; it may ask for more rounds.

    Args:
        home: the server's folder.
        seen: the stamp of what was read, so that a change made while rounds ran counts too.
        guard: against a folder that was put back from a backup.

    Raises:
        AuditError: this one was.
    """
    while stamp(home) == seen:
        guard.check()
        time.sleep(1.0)


def stamp(home: Path) -> int:
    """When server.toml was written last; 0 if it is gone."""
    try:
        return (home / "server.toml").stat().st_mtime_ns
    except OSError:
        return 0


def _stop() -> None:
    raise Stop
