"""`atoll-client recommend` and `compare`: what a platform ranks with, and how well it would."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clients import beside
from clients.compare import ALONE, ON, OWN, SUMS, Comparison, Line
from clients.compare import compare as compared
from clients.membership import home_of
from clients.platform import Platform, open_platform
from clients.recommend import Slate, history_of
from clients.recommend import recommend as recommended
from clients.train import check_adapter
from shared import manifest, terminal
from shared.adapter import Adapter, load_adapter, save_adapter
from shared.errors import ConfigError
from shared.metrics import worded
from shared.tables.config import PlatformConfig, load_platform
from shared.tasks import next_item
from shared.training import Recipe

RECOMMEND = (
    "Example: atoll-client recommend -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors --history kiosk-00168,kiosk-00282"
)
COMPARE = (
    "Example: atoll-client compare -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors"
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
AT_HOME = (ALONE, ON)
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
            help="Item identifiers, the latest last, with commas between.", show_default=False
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
    if (history is None) == (shopper is None):
        raise ConfigError("need either --history or --shopper", todo="give exactly one of them")
    config = load_platform(platform)
    if sums is not None and not memory:
        raise ConfigError("--sums stand beside own memory", todo="leave --no-memory out")
    files = [it for it in (adapter, sums) if it is not None]
    vouched(files, config, platform, coordinator=coordinator, unsigned=unsigned)
    with terminal.showing(quiet=as_json) as progress:
        opened = open_platform(config, progress=progress)
    state = opened.untrained if adapter is None else loaded(opened, adapter)
    if history is not None:
        items = [item.strip() for item in history.split(",") if item.strip()]
    else:
        items = history_of(opened, str(shopper))
    recall = beside.remembered(opened, sums) if memory else None
    slate = recommended(opened, state, items, count=count, beside=recall)
    if as_json:
        terminal.console.print_json(json.dumps([asdict(line) for line in slate.lines]))
        return
    terminal.console.print(slate_table(slate, opened.config.name))


def compare(
    platform: File,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Adapter file; may be given several times.", show_default=False),
    ] = None,
    sums: Sums = None,
    epochs: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Train at home too, for so many; 0 is sooner, and flatters."
        ),
    ] = 10,
    learning_rate: Annotated[
        float, typer.Option(help="Of training at home, above 0, at most 1.")
    ] = Recipe.learning_rate,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep an adapter that was trained here, on bare rows: not to leave.",
            show_default=False,
        ),
    ] = None,
    coordinator: Coordinator = None,
    unsigned: Unsigned = False,
    as_json: AsJson = False,
) -> None:
    """Say what others' adapters and sums are worth on own shoppers, and what to serve with.

    Nothing leaves, and nothing is spent. The validation part chooses; the gain, over the best that
    there is alone, is told of each shopper's last item, which chose nothing.
    """
    if not 0 < learning_rate <= 1:
        raise ConfigError(
            f"--learning-rate {learning_rate:g} is out of range",
            todo="give one above 0 and at most 1",
        )
    if out is not None and not epochs:
        raise ConfigError("--out keeps what is trained here", todo="leave --epochs 0 out")
    if out is not None and out.exists():
        raise ConfigError("is there already", where=out, todo="name another file")
    if out is not None and not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
        todo = "name a file in a folder that is there and may be written to"
        raise ConfigError("no such folder, or a closed one", where=out.parent, todo=todo)
    adapters = list(dict.fromkeys(adapter or ()))
    config = load_platform(platform)
    files = [*adapters, *([sums] if sums else [])]
    vouched(files, config, platform, coordinator=coordinator, unsigned=unsigned)
    with terminal.showing(quiet=as_json) as progress:
        opened = open_platform(config, progress=progress)
        states = once({named(path): loaded(opened, path) for path in adapters})
        progress("how loudly each signal speaks", 0, 1)
        alone, found = beside.weighed(opened, *beside.known(opened, sums))
        progress("how loudly each signal speaks", 1, 1)
        told = compared(
            opened,
            alone,
            found,
            states,
            recipe=Recipe(epochs=epochs, learning_rate=learning_rate),
            sums=sums is not None,
            progress=progress,
        )
    if as_json:
        found_out = {name: it for name, it in asdict(told).items() if name != "adapter"}
        terminal.console.print_json(json.dumps({"platform": config.name, **found_out}))
    else:
        terminal.console.print(comparison_table(told, config.name))
        how = ["--sums", str(sums)] if told.listens else []
        how += ["--coordinator", str(coordinator)] if coordinator else []
        for line in advice(told, platform, how=how, unsigned=unsigned, out=out):
            terminal.console.print(line, highlight=False, soft_wrap=True, markup=False)
    if out is not None and told.best in AT_HOME:
        save_adapter(told.adapter, out, private=True)


def named(path: Path) -> str:
    """What a line calls an adapter: its path, told apart from our own lines."""
    return f"./{path}" if not (path.suffix or path.is_absolute()) else str(path)


def once(states: dict[str, Adapter]) -> dict[str, Adapter]:
    """Each adapter by the first of its names."""
    first = {adapter.digest: name for name, adapter in reversed(states.items())}
    return {name: adapter for name, adapter in states.items() if first[adapter.digest] == name}


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


def comparison_table(told: Comparison, name: str) -> Table:
    """A Comparison for people."""
    table = Table(
        title=Text(f"{name}: the last items of {told.shoppers:,} shoppers"),
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
    )
    for heading in ("", "validation", "NDCG@10", "over alone", "95 % interval"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for line in told.lines:
        style = "bold" if line.name == told.best else ""
        label = f"{line.name}, {line.kept}" if line.name in AT_HOME else short(line.name, told)
        cells = [label, *(f"{it:.4f}" for it in (line.validation, line.ndcg))]
        table.add_row(*(Text(it, style) for it in (*cells, *over(told, line))))
    return table


def short(name: str, told: Comparison) -> str:
    """The last part of a path, where no other line has the same."""
    last = Path(name).name
    return name if sum(Path(line.name).name == last for line in told.lines) > 1 else last


def over(told: Comparison, line: Line) -> tuple[str, str]:
    """A gain and its interval, in per cent of what it is over."""
    base = told.line(told.alone).ndcg
    if line.gain is None:
        return "", ""
    if not base:
        return "–", "–"
    ends = (line.gain.difference, *line.gain.ci95)
    gain, low, high = (f"{100 * it / base:+.1f}".replace("-", "−") for it in ends)
    return f"{gain} %", f"{low} to {high}"


def advice(
    told: Comparison,
    platform: Path,
    *,
    how: Sequence[str] = (),
    unsigned: bool = False,
    out: Path | None = None,
) -> list[str]:
    """What to serve with, and what that is worth.

    Args:
        told: the Comparison.
        platform: its file.
        how: further words of the command that ranks so.
        unsigned: whether an adapter without a manifest was taken.
        out: where what was trained here is kept.
    """
    kept = out if told.best in AT_HOME else None
    words = ["atoll-client", "recommend", "-p", str(platform), *how]
    if kept is not None:
        words += ["--adapter", str(kept), "--unsigned"]
    elif told.best not in (OWN, SUMS, *AT_HOME):
        words += ["--adapter", told.best, *(["--unsigned"] if unsigned else [])]
    serves = shlex.join(words)
    if told.best in AT_HOME and kept is None:
        serves = f"an adapter {told.best} here, at home; --out FILE keeps it"
    lines = [f"By its validation part it serves best with: {serves}"]
    best = told.line(told.best)
    if out is not None and kept is None:
        lines.append(f"Nothing that was trained here is better, so {out} was not written.")
    if best.gain is None:
        return [*lines, "Nothing of others is better there."]
    verdict = worded(best.gain.difference, best.gain.p)
    gain, interval = over(told, best)
    sure = f"p {best.gain.p:.3f} among {sum(it.gain is not None for it in told.lines)} comparisons"
    return [
        *lines,
        f"On last items: {gain} ({interval}) over the best it has alone, {verdict} ({sure}).",
    ]


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
            f"{line.learnt:+.2f}" if abs(line.learnt) >= 0.005 else "0",
            f"{escape(reason.text)} [dim]{reason.share:+.2f}[/]",
        )
    return table
