"""`atoll-client`: what a platform's engineer types."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clients.platform import open_platform
from clients.recommend import Slate, history_of, recommend
from shared import terminal
from shared.adapter import load_adapter
from shared.errors import ConfigError
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from shared.tasks import next_item

cli = typer.Typer(
    name="atoll-client",
    help="A platform's side: read its rows, recommend with an adapter. Rows never leave it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PlatformFile = Annotated[
    Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@cli.callback()
def _client() -> None:
    """A platform's side: read its rows, recommend with an adapter. Rows never leave it."""


@cli.command(epilog="Example: atoll-client check -p runs/demo/platforms/kiosk.toml")
def check(platform: PlatformFile, as_json: AsJson = False) -> None:
    """Read the platform's tables and say what was kept, what was dropped and why."""
    config = load_platform(platform)
    report = read_platform(config).report
    if as_json:
        terminal.console.print_json(json.dumps({"platform": config.name, **asdict(report)}))
        return
    for line in report.lines():
        terminal.console.print(f"{config.name}: {line}", highlight=False, soft_wrap=True)


@cli.command(
    "recommend",
    epilog="Example: atoll-client recommend -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors --history kiosk-00168,kiosk-00282",
)
def recommend_command(
    platform: PlatformFile,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter file; left out, the untrained prior.", show_default=False),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            help="Item identifiers, the latest last, with commas between.", show_default=False
        ),
    ] = None,
    shopper: Annotated[
        str | None,
        typer.Option(help="A known shopper, in place of --history.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Items to rank.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Rank the catalogue for a shopper, known or new, and say what drove each item."""
    if (history is None) == (shopper is None):
        raise ConfigError("need either --history or --shopper", todo="give exactly one of them")
    with terminal.showing(quiet=as_json) as progress:
        opened = open_platform(load_platform(platform), progress=progress)
    state = opened.untrained
    if adapter is not None:
        state = load_adapter(adapter, backbone=opened.digest, task=next_item.NAME)
    if history is not None:
        items = [item.strip() for item in history.split(",") if item.strip()]
    else:
        items = history_of(opened, str(shopper))
    slate = recommend(opened, state, items, count=count)
    if as_json:
        terminal.console.print_json(json.dumps([asdict(line) for line in slate.lines]))
        return
    terminal.console.print(slate_table(slate, opened.config.name))


def slate_table(slate: Slate, name: str) -> Table:
    """A Slate for people."""
    table = Table(title=f"{name}: what comes next", title_justify="left")
    for heading in ("", "item", "score", "learnt", "because of"):
        table.add_column(heading, justify="right" if heading in ("", "score", "learnt") else "left")
    for place, line in enumerate(slate.lines, start=1):
        reason = line.reasons[0]
        table.add_row(
            str(place),
            escape(line.text) + (f" [dim]{escape(line.item)}[/]" if line.item != line.text else ""),
            f"{line.score:.2f}",
            f"{line.learnt:+.2f}",
            f"{escape(reason.text)} [dim]{reason.share:+.2f}[/]",
        )
    return table


def main() -> None:
    """Entry point."""
    terminal.run(cli)
