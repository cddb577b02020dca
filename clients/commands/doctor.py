"""`atoll-client doctor`: is this platform ready, and what is the next step?"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from clients import membership
from clients.ledger import entries
from clients.membership import Membership, home_of, load
from clients.platform import frozen_parts
from clients.readiness import pairs_for, policy_of, privacy_line
from shared import doctor as both
from shared.audit_log import verify
from shared.channel import NAME, split
from shared.doctor import Check, tried
from shared.enrolment import hello
from shared.errors import AtollError, ConfigError, IdentityError
from shared.proxy import connected, route
from shared.tables.config import PlatformConfig, load_platform
from shared.tables.table import read_platform
from shared.trust import authorities

EXAMPLE = "Example: atoll-client doctor -p boutique.toml"
KEYS = ("node.key", "signing.key")
SECONDS = 5.0  # to reach the coordinator
SOON = 7 * 24 * 3600.0  # before the end of the coordinator's certificate, to ask about it


def doctor(
    platform: Annotated[
        Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
    ],
    home: Annotated[
        Path | None,
        typer.Option(help="Its folder after joining; left out, NAME.atoll beside the file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check tables, files, keys, the way to the coordinator, clock, ledger and machine."""
    both.end(list(checks(platform, home, now=time.time)), as_json=as_json)


def checks(platform: Path, home: Path | None, *, now: both.Clock) -> Iterator[Check]:
    """Everything, in the order in which to mend it."""
    yield from both.machine(platform.parent)
    yield both.gpu()
    config: PlatformConfig | None = None
    try:
        config = load_platform(platform)
        yield Check("platform file", True, f"{platform} describes {config.name}")
    except AtollError as fault:
        yield both.wrong("platform file", fault)
    if config is not None:
        yield from _platform(config, platform)
    place = home or (None if config is None else home_of(platform, config.name))
    if place is None:
        yield Check("membership", None, "not looked at: its folder is not known")
        return
    try:
        member = load(place)
    except AtollError as fault:
        yield both.wrong("membership", fault)
        return
    yield from _member(member, config, platform)
    yield from _server(member, now)


def _platform(config: PlatformConfig, platform: Path) -> Iterator[Check]:
    """What the platform's file names, and whether its promise holds of its tables."""
    shoppers: int | None = None
    try:
        report = read_platform(config).report
    except AtollError as fault:
        yield both.wrong("tables", fault)
    else:
        shoppers = report.shoppers
        told = f"{report.events:,} events of {shoppers:,} shoppers, {report.items:,} items"
        yield Check("tables", True, told)
    yield tried("backbone", lambda: frozen_parts(config)[0].digest)
    if (named := config.policy) is not None and named.pairs is not None:
        yield tried("pairs", lambda: pairs_for(named).digest)
    try:
        policy = policy_of(config, platform)
        if shoppers is None:
            yield Check("privacy", None, "not compared with the tables", "mend them first")
        else:
            line = privacy_line(policy, shoppers)
            yield Check("privacy", None if policy.plan is None else True, line)
    except AtollError as fault:
        yield both.wrong("privacy", fault)
    if config.policy is None or config.policy.plan is None:
        yield Check("ledger", None, "none: nothing is counted without a Plan")
    else:
        kept = config.policy
        yield tried("ledger", lambda: f"{len(entries(kept))} entries, verified")


def _member(member: Membership, config: PlatformConfig | None, platform: Path) -> Iterator[Check]:
    """What joining has left here."""
    if config is not None and config.name != member.name:
        told = f"joined as {member.name}, but {platform} says {config.name}"
        yield Check("membership", False, told, "set the name back, or join anew")
    else:
        yield Check("membership", True, f"{member.name} at {member.server}")
    yield both.private(member.home, KEYS)
    yield tried("node key", lambda: f"P-{member.node_key().curve.key_size}")
    audit = member.home / "audit.jsonl"
    yield tried(
        "audit log",
        lambda: f"{verify(audit).count} lines, whole" if audit.exists() else "empty yet",
    )
    yield both.port(
        "health",
        member.health,
        ours=both.running(member.home),
        todo=f"set health in {member.home / 'client.toml'} to another HOST:PORT, or stop what"
        " listens there",
    )


def _server(member: Membership, now: both.Clock) -> Iterator[Check]:
    """The way to the coordinator, a step at a time; a step that fails ends it."""
    steps = (
        ("trust", lambda: _trust(member, now())),
        ("reach", lambda: _reach(member)),
        ("certificate", lambda: _certificate(member, now())),
    )
    for name, step in steps:
        found = tried(name, step)
        yield found
        if not found.ok:
            yield Check("coordinator", None, "not asked", "mend the above first")
            return
    try:
        theirs = hello(member.server, roots=member.roots())
    except AtollError as fault:
        yield Check("clock", None, fault.what, fault.todo)
    else:
        yield both.clock(theirs=theirs, mine=now())
    try:
        reply = membership.ask(member, None, now=now())
    except AtollError as fault:
        yield Check("coordinator", False, fault.what, fault.todo)
        return
    yield Check("coordinator", True, f"{member.name} is admitted")
    own = version("atoll")
    todo = "" if reply.server == own else "use the same version on both sides"
    told = f"{own} here, {reply.server} there"
    yield Check("versions", True if reply.server == own else None, told, todo)


def _trust(member: Membership, now: float) -> str:
    """The CAs that are trusted here."""
    cas = authorities(member.roots(), where=member.home / "ca.pem")
    at = datetime.fromtimestamp(now, UTC)
    good = [ca for ca in cas if ca.not_valid_before_utc <= at <= ca.not_valid_after_utc]
    if not good:
        raise IdentityError(
            "no CA here is valid now",
            where=member.home / "ca.pem",
            todo="check this machine's clock; if it is right, join anew",
        )
    return f"{len(cas)} CA, until {max(ca.not_valid_after_utc for ca in good):%Y-%m-%d}"


def _reach(member: Membership) -> str:
    """Whether the coordinator's port answers."""
    host, port = split(member.server)
    way = route(host)
    try:
        with connected(host, port, timeout=SECONDS) as connection:
            if way.host:
                return f"{member.server}, {way}"
            direct = f", {way}" if str(way) else ""
            return f"{member.server} is {connection.getpeername()[0]}{direct}"
    except (socket.gaierror, UnicodeError):  # not found, or no name by its form
        raise ConfigError("no such host", where=member.server, todo=NAME) from None
    except OSError as fault:
        why = fault.strerror or str(fault) or type(fault).__name__
        raise ConfigError(
            f"{member.server} cannot be reached ({why})",
            todo="check the address, the network and whether the coordinator is up",
        ) from None


def _certificate(member: Membership, now: float) -> str:
    """The coordinator's certificate, by the CAs that are trusted here and for its host."""
    host, port = split(member.server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody yet, checks the host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=member.roots().decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            connected(host, port, timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            until = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
            spoken = secured.version()
    except ssl.SSLCertVerificationError as fault:
        raise IdentityError(
            f"the one at {member.server} is not trusted ({fault.verify_message})",
            todo="check the address and this machine's clock, and ask the coordinator",
        ) from None
    except OSError as fault:  # ssl.SSLError is one
        why = fault.strerror or str(fault) or type(fault).__name__
        raise ConfigError(
            f"no TLS at {member.server} ({why})", todo="check the address and the port"
        ) from None
    day = datetime.fromtimestamp(until, UTC)
    soon = ", soon: have the coordinator run atoll-server rotate" if until - now < SOON else ""
    return f"trusted, {spoken}, until {day:%Y-%m-%d}{soon}"
