"""`atoll-server doctor`: is this coordinator ready, and what is the next step?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from server import authority
from server.commands.enrolment import not_ready
from server.enrolment import Enrolment, Member
from server.home import ServerHome, load_home
from server.release import current
from server.restored import STEP, Guard
from shared import doctor as both
from shared.audit_log import AuditLog, verify
from shared.backbone import load_backbone
from shared.channel import split
from shared.doctor import Check, tried
from shared.errors import AtollError, AuditError, IdentityError
from shared.pairs import load_pairs
from shared.signing import public_of, signing_key
from shared.trust import authorities, certificates, hosts_of

EXAMPLE = "Example: atoll-server doctor --json"
KEYS = ("ca.key", "server.key", "signing.key")
LEAF_SOON = timedelta(days=30)  # before its end, to renew the server's certificate
CA_SOON = timedelta(days=365)  # and the CA, which every platform has to fetch
UNSEEN = 600.0  # seconds; a platform that is up comes every minute


def doctor(
    home: Annotated[Path, typer.Option(help="The coordinator's folder.")] = Path("atoll-server"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check certificates, keys, ports, backbone, release, platforms and machine; change nothing."""
    settings = load_home(home)
    both.end(list(checks(settings, now=time.time())), as_json=as_json)


def checks(settings: ServerHome, *, now: float) -> Iterator[Check]:
    """Everything, in the order in which to mend it."""
    home = settings.path
    yield from both.machine(home)
    yield both.private(home, KEYS)
    yield tried("certificate", lambda: _certificate(home, now))
    yield tried("ca", lambda: _ca(home, now))
    yield tried("hosts", lambda: _hosts(settings))
    yield tried("signing key", lambda: public_of(signing_key(_there(home / "signing.key"))))
    up = both.running(home)
    yield both.port("port", settings.listen, ours=up)
    yield both.port("health", settings.health, ours=up)
    yield tried("backbone", lambda: load_backbone(settings.backbone).digest)
    if (listed := settings.pairs) is not None:
        yield tried("pairs", lambda: load_pairs(listed).digest)
    yield tried("release", lambda: current(home).digest)
    yield tried("audit log", lambda: _audit(home))
    yield tried("restored", lambda: _restored(settings))
    yield from _platforms(home, now)


def _certificate(home: Path, now: float) -> str:
    """What is right with the server's certificate."""
    leaf = certificates(authority.credentials(home)[1])[0]
    authority.issuer(home)
    at = datetime.fromtimestamp(now, UTC)
    if at < leaf.not_valid_before_utc:
        raise IdentityError(
            f"the server's is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            todo="set this machine's clock",
        )
    return _lasts("the server's", leaf.not_valid_after_utc, at, LEAF_SOON, "atoll-server rotate")


def _ca(home: Path, now: float) -> str:
    cas = authorities(authority.ca_bundle(home))
    at = datetime.fromtimestamp(now, UTC)
    step = "atoll-server rotate --ca"
    return _lasts("the CA's", cas[-1].not_valid_after_utc, at, CA_SOON, step)


def _lasts(whose: str, until: datetime, at: datetime, soon: timedelta, step: str) -> str:
    if until - at < soon:
        verb = "expired on" if until <= at else "expires on"
        raise IdentityError(f"{whose} {verb} {until:%Y-%m-%d}", todo=step)
    return f"good until {until:%Y-%m-%d}, {(until - at).days} days"


def _hosts(settings: ServerHome) -> str:
    """The hosts of the certificate, and whether the one it listens on is among them."""
    names = hosts_of(authority.leaf_of(settings.path))
    host = split(settings.listen, lowest=0)[0]
    if host not in ("0.0.0.0", "::", *names):
        raise IdentityError(
            f"the certificate is for {', '.join(names)}, not for {host}, where it listens",
            todo=f"atoll-server rotate --host {host}",
        )
    return ", ".join(names)


def _audit(home: Path) -> str:
    path = home / "audit.jsonl"
    return f"{verify(path).count} lines, whole" if path.exists() else "empty yet"


def _restored(settings: ServerHome) -> str:
    """Whether the audit log is the latest that this machine, or a platform, knows of."""
    home = settings.path
    if not (home / "platforms.sqlite").exists():  # looking would make it
        return "nobody was invited yet"
    enrolment = Enrolment(home / "platforms.sqlite")
    missing = Guard(settings, enrolment, AuditLog(home / "audit.jsonl")).look()
    if missing is not None:
        raise AuditError(f"put back from a backup: {missing}", todo=STEP)
    if settings.witness is None:
        return "no, by what platforms have shown; server.toml names no witness"
    return "no, by its witness and by what platforms have shown"


def _there(path: Path) -> Path:
    if not path.exists():
        raise IdentityError("is missing", where=path, todo="put it back from a backup")
    return path


def _platforms(home: Path, now: float) -> Iterator[Check]:
    """Who is admitted, who was not seen for a while, and who keeps a CA's rotation from its end."""
    path = home / "platforms.sqlite"
    if not path.exists():  # looking would make it
        yield _nobody()
        return
    try:
        members = [it for it in Enrolment(path).platforms() if it.evicted is None]
        bundle = authority.ca_bundle(home)
    except AtollError as fault:
        yield Check("platforms", False, fault.what, fault.todo)
        return
    if waiting := [it.name for it in members if it.suspended]:
        told = f"{', '.join(waiting)} suspended since a restore"
        yield Check("suspended", None, told, "atoll-server confirm NAME, or evict NAME")
    unseen = [_last(it, now) for it in members if now - (it.last_seen or 0.0) > UNSEEN]
    if not members:
        yield _nobody()
    elif unseen:
        todo = "have its operator run atoll-client doctor"
        yield Check("platforms", None, f"{len(members)} admitted; {', '.join(unseen)}", todo)
    else:
        yield Check("platforms", True, f"{len(members)} admitted, all seen within ten minutes")
    if len(authorities(bundle)) > 1:
        behind = not_ready(members, bundle)
        told = f"under way; no trust in the new CA yet: {', '.join(behind) or 'nobody'}"
        todo = "atoll-server rotate --ca --finish" if not behind else "wait for them"
        yield Check("ca rotation", None, told, todo)


def _nobody() -> Check:
    return Check("platforms", None, "none is admitted", "atoll-server invite NAME")


def _last(member: Member, now: float) -> str:
    if member.last_seen is None:
        return f"{member.name} was never seen"
    return f"{member.name} was not seen for {(now - member.last_seen) / 60:.0f} minutes"
