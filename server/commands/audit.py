"""`atoll-server audit`: what the coordinator did, and what it holds of the platforms' logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shared.audit_commands import held_in, show_home, verify_home

cli = typer.Typer(
    help="What this server did: a log in which no line changes unseen.", no_args_is_help=True
)

Home = Annotated[Path, typer.Option(help="The server's folder.")]
HOME = Path("atoll-server")


@cli.command(epilog="Example: atoll-server audit verify --known kiosk-holds.jsonl")
def verify(
    home: Home = HOME,
    known: Annotated[
        Path | None,
        typer.Option(
            help="What a platform exported: its `atoll-client audit held --out`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Find any line of the log that was edited, removed, put in, moved or cut off."""
    verify_home(home, known)


@cli.command(epilog="Example: atoll-server audit show --last 50")
def show(
    home: Home = HOME,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many lines.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON lines.")] = False,
) -> None:
    """Print the last lines of the log."""
    show_home(home, last, as_json=as_json)


@cli.command(epilog="Example: atoll-server audit held kiosk --out server-holds-of-kiosk.jsonl")
def held(
    name: Annotated[
        str | None, typer.Argument(help="A platform; left out, all.", show_default=False)
    ] = None,
    home: Home = HOME,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the platform to verify against.", show_default=False),
    ] = None,
) -> None:
    """List whose audit logs are known here, or export what is held of a platform's."""
    held_in(home, name, out)
