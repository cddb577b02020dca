"""`atoll-client compare`: what others' adapters and sums are worth here, and what to serve with."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from clients import beside, derived_files
from clients.commands.recommend import AsJson, Coordinator, File, Sums, Unsigned, loaded, vouched
from clients.compare import ALONE, ON, OWN, SUMS, Comparison, Line
from clients.compare import compare as compared
from clients.platform import open_platform
from shared import terminal
from shared.adapter import Adapter, save_adapter
from shared.errors import ConfigError
from shared.metrics import worded
from shared.tables.config import load_platform
from shared.tables.report import ReadReport
from shared.training import Recipe

EXAMPLE = (
    "Example: atoll-client compare -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors"
)
AT_HOME = (ALONE, ON)


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
        dropped = opened.rows.report.dropped()
        terminal.print_json({"platform": config.name, **found_out, "dropped": dropped})
    else:
        terminal.console.print(comparison_table(told, config.name))
        how = ["--sums", str(sums)] if told.listens else []
        how += ["--coordinator", str(coordinator)] if coordinator else []
        for line in [
            *dropped_lines(opened.rows.report),
            *advice(told, platform, how=how, unsigned=unsigned, out=out),
        ]:
            terminal.console.print(line, highlight=False, soft_wrap=True, markup=False)
    if out is not None and told.best in AT_HOME:
        opened.check_erasures()
        made = told.adapter
        derived_files.register(config, "adapter", out, digest=made.digest, time=time.time())
        save_adapter(made, out, private=True)


def dropped_lines(report: ReadReport) -> list[str]:
    """Which rows the figures leave out, and what looks wrong with them."""
    dropped = report.dropped()
    told = [f"Rows left out: {', '.join(dropped)}."] if dropped else []
    return [*told, *(f"Warning: {what}." for what in report.warnings())]


def named(path: Path) -> str:
    """What a line calls an adapter: its path, told apart from our own lines."""
    return f"./{path}" if not (path.suffix or path.is_absolute()) else str(path)


def once(states: dict[str, Adapter]) -> dict[str, Adapter]:
    """Each adapter by the first of its names."""
    first = {adapter.digest: name for name, adapter in reversed(states.items())}
    return {name: adapter for name, adapter in states.items() if first[adapter.digest] == name}


def comparison_table(told: Comparison, name: str) -> Table:
    """A Comparison for people."""
    table = Table(
        title=terminal.cell(f"{name}: the last items of {told.shoppers:,} shoppers"),
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
    )
    for heading in ("", "validation", "NDCG@10", "over alone", "95 % interval"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for line in told.lines:
        style = "bold" if line.name == told.best else ""
        label = short(line.name, told)
        if line.name in AT_HOME:
            better = line.kept.startswith("epoch")
            label += f", {line.kept}" if better else ", none better"
        cells = [label, *(f"{it:.4f}" for it in (line.validation, line.ndcg))]
        table.add_row(*(terminal.cell(it, style) for it in (*cells, *over(told, line))))
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
    serves = f"{shlex.join(words)} --shopper SHOPPER"
    if told.best in AT_HOME and kept is None:
        serves = f"an adapter {told.best} here, at home; --out FILE keeps it"
    lines = [f"What its validation part chose to serve with: {serves}"]
    best = told.line(told.best)
    if out is not None and kept is None:
        lines.append(f"Nothing that was trained here is better, so {out} was not written.")
    compared = sum(it.gain is not None for it in told.lines)
    if not compared:
        return [*lines, "Nothing of others was given: --adapter and --sums name it."]
    if best.gain is None:
        return [*lines, "Nothing of others did better."]
    verdict = worded(best.gain.difference, best.gain.p)
    gain, interval = over(told, best)
    sure = f"p {best.gain.p:.2g} among {compared} comparison{'s' if compared > 1 else ''}"
    return [*lines, f"On last items: {gain} ({interval}) over {told.alone}, {verdict} ({sure})."]
