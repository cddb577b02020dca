"""`atoll-client join`: become one of a federation, with the coordinator's token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients import membership
from shared.audit_log import AuditLog
from shared.channel import split, with_port
from shared.proxy import route
from shared.terminal import console, stderr
from shared.token import Token

EXAMPLE = "Example: atoll-client join atoll1.… --server atoll.example.org -p boutique.toml"


def join(
    token: Annotated[
        str,
        typer.Argument(
            help="As the coordinator gave it, or - to read it from standard input.",
            show_default=False,
        ),
    ],
    server: Annotated[
        str, typer.Option(help="HOST[:PORT] of the coordinator.", show_default=False)
    ],
    platform: Annotated[
        Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
    ],
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder to make; left out, NAME.atoll beside the file.", show_default=False
        ),
    ] = None,
    health: Annotated[
        str,
        typer.Option(
            help='HOST:PORT at which `up` tells its health, "" for none; several clients on one'
            " machine need one each."
        ),
    ] = membership.HEALTH,
) -> None:
    """Join a federation: make this platform's keys, here, and have the coordinator let it in."""
    with_port(health, "--health")
    if way := str(route(split(server)[0])):
        stderr.print(f"{server} is reached {way}", highlight=False, markup=False, soft_wrap=True)
    word = typer.get_text_stream("stdin").read() if token == "-" else token
    made = membership.join(
        Token.read(word), server, platform_file=platform, home=home, health=health
    )
    AuditLog(made.home / "audit.jsonl").add(
        "joined", server=made.server, coordinator=made.coordinator
    )
    for line in (
        f"{made.name} has joined {made.server}",
        f"coordinator's signing key {made.coordinator}",
        str(made.home),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    option = f" --home {made.home}" if home is not None else ""
    stderr.print(
        f"next: atoll-client doctor -p {platform}{option}, atoll-client up -p {platform}{option}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
