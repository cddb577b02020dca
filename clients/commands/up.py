"""`atoll-client up`: a platform's node, checkpoints and health endpoint, in the foreground.

main thread: SuperNode.serve        one thread: every minute, what the audit logs stand at
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from clients.approvals import Approvals
from clients.link import linked
from clients.membership import Membership, exchange_checkpoint, home_of, load
from clients.readiness import able
from clients.supernode import SuperNode
from clients.workers import Config
from shared import logs
from shared.audit_log import AuditLog
from shared.channel import split
from shared.ending import Ending
from shared.errors import AtollError, ConfigError
from shared.files import made_folder
from shared.health import Health, served
from shared.locking import alone
from shared.proxy import route
from shared.tables.config import load_platform

log = logging.getLogger("atoll.client")

EVERY = 60.0  # seconds between two exchanges of checkpoints
LOOK = 0.25  # seconds between two looks at whether to end
EXAMPLE = "Example: atoll-client up -p boutique.toml"


def up(
    platform: Annotated[
        Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
    ],
    home: Annotated[
        Path | None,
        typer.Option(help="Its folder after joining; left out, NAME.atoll beside the file."),
    ] = None,
    simulated_noise: Annotated[
        int | None, typer.Option(hidden=True, help="A seed: protects nobody, for tests alone.")
    ] = None,
) -> None:
    """Answer the server with approved code, in the foreground, until told to stop."""
    logs.to_stderr()
    config = load_platform(platform)
    member = load(home or home_of(platform, config.name))
    if member.name != config.name:
        raise ConfigError(
            f"joined as {member.name!r}, the platform's file says {config.name!r}",
            where=member.home,
            todo="set the name back, or join anew",
        )
    able(config, platform)
    node: Config = {
        "platform": str(platform.resolve()),
        "coordinator": member.coordinator,
    }
    if simulated_noise is not None:
        node["simulated-noise"] = simulated_noise
    stop = threading.Event()
    ending = Ending(stop.set)
    with ending.listening(), alone(member.home, "client"), ExitStack() as stack:
        serve(member, node, stack, stop, erased=config.events.erased)
    ending.leave()


def serve(
    member: Membership,
    config: Config,
    stack: ExitStack,
    stop: threading.Event,
    *,
    erased: Path | None = None,
) -> None:
    """Everything between start and end; what is opened is closed by `stack`."""
    audit = AuditLog(member.home / "audit.jsonl")
    health = Health(role="client", platform=member.name, state="starting")
    stack.enter_context(telling(member, health))  # first: a port that is taken ends it here
    node = SuperNode(
        connect=lambda: linked(
            member.server,
            roots=member.roots(),
            key=member.node_key(),
            lost=lambda: log.warning("the server no longer takes this node's signs of life"),
        ),
        approvals=Approvals(member.home / "approvals"),
        scratch=made_folder(member.home / "running"),
        config=config,
        audit=audit,
        health=health,
        stop=stop,
        way=str(route(split(member.server)[0])),
        erased=erased,
    )
    if node.way:
        log.info("the server is reached %s", node.way)
    audit.add("started")
    stack.callback(lambda: audit.add("stopped"))
    checkpoints = threading.Thread(target=exchange, args=(member, audit, node), daemon=True)
    checkpoints.start()
    try:
        node.serve()
    finally:
        node.stop.set()
        checkpoints.join(0.5)
    log.info("stopped")


@contextmanager
def telling(member: Membership, health: Health) -> Iterator[int]:
    """The health endpoint; yields its port.

    Raises:
        ConfigError: another has it, often the client of another platform on this machine.
    """
    with ExitStack() as stack:
        try:
            port = stack.enter_context(served(member.health, health))
        except ConfigError as fault:
            raise ConfigError(
                f"health = {member.health!r}: {fault.what}",
                where=member.home / "client.toml",
                todo='set health there to another HOST:PORT, or to "" for none',
            ) from fault
        yield port


def exchange(member: Membership, audit: AuditLog, node: SuperNode) -> None:
    """Tell the server what the log stands at, keep what it says of its own, and its new CAs."""
    while not node.stop.is_set():
        node.begun.clear()
        try:
            if exchange_checkpoint(member, audit):
                log.info("the server has new certificates; connecting anew")
                audit.add("certificates renewed")
                node.renew.set()
                continue  # so that the coordinator knows at once that they are trusted
        except AtollError as fault:
            log.warning("no checkpoint: %s", fault)
        until = time.monotonic() + EVERY
        # At once after each connection: a server that has just begun waits for it.
        while not (node.stop.is_set() or node.begun.wait(LOOK) or time.monotonic() > until):
            pass
