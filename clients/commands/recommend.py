"""`atoll-client recommend`: what comes next; and what whoever ranks with files has to check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clients import beside
from clients.membership import home_of
from clients.platform import Platform, open_platform
from clients.recommend import Slate, history_of
from clients.recommend import recommend as recommended
from clients.train import check_adapter
from shared import manifest, terminal
from shared.adapter import Adapter, load_adapter
from shared.errors import ConfigError
from shared.tables.config import PlatformConfig, load_platform
from shared.tables.dialect import normalised_key
from shared.tasks import next_item

UNHEARD = (
    "These sums do not serve your own shoppers better, so they were left out: atoll-client compare"
    " --sums says more."
)
EXAMPLE = (
    "Example: atoll-client recommend -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors --history kiosk-00168,kiosk-00282"
)

File = Annotated[
    Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
]
Sums = Annotated[
    Path | None,
    typer.Option(
        help="File of the sums that the platforms took; left out, own memory alone.",
        show_default=False,
    ),
]
Coordinator = Annotated[
    Path | None,
    typer.Option(
        help="File of the coordinator's key; left out, coordinator.pub of the platform's home.",
        show_default=False,
    ),
]
Unsigned = Annotated[bool, typer.Option("--unsigned", help="Take an adapter without a manifest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def recommend(
    platform: File,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter file; left out, the untrained prior.", show_default=False),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            help="Item identifiers, the latest last, with commas between; --item takes one"
            " that holds a comma.",
            show_default=False,
        ),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(
            help="One item identifier, taken as it is, in place of --history; may be given"
            " several times, the latest last.",
            show_default=False,
        ),
    ] = None,
    shopper: Annotated[
        str | None,
        typer.Option(help="A known shopper, in place of --history.", show_default=False),
    ] = None,
    sums: Sums = None,
    memory: Annotated[
        bool, typer.Option(help="Use what the platform's own rows say of items.")
    ] = True,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Items to rank.")] = 10,
    coordinator: Coordinator = None,
    unsigned: Unsigned = False,
    as_json: AsJson = False,
) -> None:
    """Rank the catalogue for a shopper, known or new, and say what drove each item."""
    if sum(it is not None for it in (history, item or None, shopper)) != 1:
        raise ConfigError(
            "need either --history or --shopper, or --item", todo="give exactly one of them"
        )
    config = load_platform(platform)
    if sums is not None and not memory:
        raise ConfigError("--sums stand beside own memory", todo="leave --no-memory out")
    files = [it for it in (adapter, sums) if it is not None]
    vouched(files, config, platform, coordinator=coordinator, unsigned=unsigned)
    with terminal.showing(quiet=as_json) as progress:
        opened = open_platform(config, progress=progress)
    state = opened.untrained if adapter is None else loaded(opened, adapter)
    if shopper is not None:
        items = history_of(opened, normalised_key(shopper, config.events.normalise))
    else:
        given = item or [it for it in str(history).split(",") if it.strip()]
        items = [normalised_key(it, config.items.normalise) for it in given]
    recall, listens = beside.remembered(opened, sums) if memory else (None, False)
    slate = recommended(opened, state, items, count=count, beside=recall)
    if as_json:
        terminal.print_json([asdict(line) for line in slate.lines])
        return
    terminal.console.print(slate_table(slate, opened.config.name))
    if sums is not None and not listens:
        terminal.console.print(UNHEARD, highlight=False, soft_wrap=True)


def vouched(
    files: Sequence[Path],
    config: PlatformConfig,
    platform: Path,
    *,
    coordinator: Path | None,
    unsigned: bool,
) -> None:
    """Check these files against the coordinator's key, where the platform knows one.

    Raises:
        AtollError: as of `manifest.check_file` and `manifest.read_public`.
    """
    key = coordinator or home_of(platform, config.name) / "coordinator.pub"
    if coordinator is not None or key.is_file():
        for file in files:
            manifest.check_file(file, manifest.read_public(key), unsigned=unsigned)


def loaded(platform: Platform, adapter: Path) -> Adapter:
    """An adapter file, of this platform's backbone.

    Raises:
        AdapterError: it cannot be read, is of another one, or has a value that none comes to.
    """
    found = load_adapter(adapter, backbone=platform.digest, task=next_item.NAME)
    check_adapter(found, platform)
    return found


def slate_table(slate: Slate, name: str) -> Table:
    """A Slate for people."""
    table = Table(title=f"{name}: what comes next", title_justify="left")
    for heading in ("", "item", "score", "learnt", "because of"):
        table.add_column(heading, justify="right" if heading in ("", "score", "learnt") else "left")

    def shown(text: str) -> str:
        return escape(terminal.encodable(text))

    for place, line in enumerate(slate.lines, start=1):
        reason = line.reasons[0]
        table.add_row(
            str(place),
            shown(line.text) + (f" [dim]{shown(line.item)}[/]" if line.item != line.text else ""),
            f"{line.score:.2f}",
            f"{line.learnt:+.2f}" if abs(line.learnt) >= 0.005 else "0",
            f"{shown(reason.text)} [dim]{reason.share:+.2f}[/]",
        )
    return table
