"""`atoll-client audit`: what this platform did, and what it holds of the coordinator's log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.commands.approvals import AsJson, Home, Platform, home_given
from shared import audit_commands

cli = typer.Typer(
    help="What this platform did: a log in which no line changes unseen.", no_args_is_help=True
)


@cli.command(epilog="Example: atoll-client audit verify -p boutique.toml")
def verify(
    platform: Platform = None,
    home: Home = None,
    known: Annotated[
        Path | None,
        typer.Option(
            help="What the coordinator exported: its `atoll-server audit held NAME --out`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Find any line of the log that was edited, removed, put in, moved or cut off."""
    audit_commands.verify_home(home_given(platform, home), known)


@cli.command(epilog="Example: atoll-client audit show -p boutique.toml --last 50")
def show(
    platform: Platform = None,
    home: Home = None,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many lines.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the last lines of the log."""
    audit_commands.show_home(home_given(platform, home), last, as_json=as_json)


@cli.command(epilog="Example: atoll-client audit held -p boutique.toml --out kiosk-holds.jsonl")
def held(
    name: Annotated[
        str | None,
        typer.Argument(help="Whose; left out, the coordinator's.", show_default=False),
    ] = None,
    platform: Platform = None,
    home: Home = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the coordinator to verify against.", show_default=False),
    ] = None,
) -> None:
    """Say how far the coordinator's audit log is known here, or export what is held of it."""
    audit_commands.held_in(home_given(platform, home), name, out)
