"""The report of a comparison: metrics.json, table.md and report.html, and a table for the terminal.

All hold the same figures: simulations/findings.py words them, simulations/page.py sets the page.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from shared.errors import ConfigError
from shared.terminal import cell
from simulations.columns import fit
from simulations.findings import (
    COLUMNS,
    NONE,
    PRIVACY,
    PRIVACY_COLUMNS,
    PROTOCOL,
    headline,
    negative_transfer,
    privacy_rows,
    scorer_rows,
    scorers,
    size,
    trained_alone,
    verdict,
)
from simulations.page import render_html

__all__ = ["render_html", "table_markdown", "terminal_table", "write_report"]

_STYLES = {"gain": "green", "loss": "bold red"}
_LABELS = 16  # characters of the column of scorers, at most
_ROOMY = 13  # of a platform's column, at most, where its name is shorter


def table_markdown(metrics: Mapping[str, Any]) -> str:
    """table.md: a table for each platform, the best in bold, then federated against local."""
    parts = [f"# {_plain(metrics['title'])}", _plain(headline(metrics))]
    for name, platform in metrics["platforms"].items():
        lines = [f"## {_plain(name)}", "", f"{size(platform)}.", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * 6 + " --- |"]
        for row in scorer_rows(metrics, platform):
            cells = [f"**{text}**" if best else _plain(text) for text, best in row]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    lines = ["## Federated against local, NDCG@10", ""]
    for name, platform in metrics["platforms"].items():
        told = verdict(platform)
        figures = f", {told.relative} ({told.difference}, 95 % interval {told.ci95}, p {told.p})"
        stressed = "loss, **negative transfer**" if told.verdict == "loss" else told.verdict
        lines.append(f"- {_plain(name)}: {stressed}{'' if told.difference == NONE else figures}")
    parts.append("\n".join(lines))
    if rows := privacy_rows(metrics):
        lines = ["## What privacy costs", "", "| " + " | ".join(PRIVACY_COLUMNS) + " |"]
        lines += ["| --- |" + " ---: |" * (len(PRIVACY_COLUMNS) - 1)]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
        parts += ["\n".join(lines), _plain(PRIVACY)]
    return "\n\n".join([*parts, _plain(negative_transfer(metrics)), PROTOCOL]) + "\n"


def terminal_table(metrics: Mapping[str, Any], *, width: int = 80) -> Table:
    """NDCG@10 by scorer and platform, with the change from local to federated.

    Platforms that do not fit side by side stand in bands, one under the other.

    Args:
        metrics: as of metrics.json.
        width: of the terminal, in characters.
    """
    platforms = list(metrics["platforms"].items())
    columns = fit([name for name, _ in platforms], available=width - _LABELS)
    table = Table(
        title=cell(f"{metrics['title']}: NDCG@10"),
        caption=cell(headline(metrics)),
        show_header=False,
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(min_width=12, max_width=_LABELS)
    for _ in range(columns.side_by_side):
        table.add_column(
            justify="right",
            overflow="fold",
            min_width=columns.width,
            max_width=max(columns.width, _ROOMY),
        )
    for some in columns.bands(platforms):
        names, band = zip(*some, strict=True)
        table.add_row("", *(cell(columns.folded(name), "bold") for name in names), end_section=True)
        known = [{row[0][0]: row[3] for row in scorer_rows(metrics, it)} for it in band]
        for scorer in scorers(metrics, band):
            cells = [rows.get(scorer, (NONE, False)) for rows in known]
            table.add_row(
                cell(re.sub(r"^\w+ ε", "  under ε", scorer)),
                *(cell(text, "bold" if best else "") for text, best in cells),
            )
        table.add_section()
        told = [verdict(it) for it in band]
        styles = [_STYLES.get(it.verdict, "") for it in told]
        changes = [(it.relative, it.verdict) for it in told]
        labels = () if trained_alone(metrics) else ("sharing", "")
        for label, row in zip(labels, zip(*changes, strict=True), strict=False):
            table.add_row(label, *(cell(*it) for it in zip(row, styles, strict=True)))
        table.add_section()
    return table


def write_report(metrics: Mapping[str, Any], folder: Path) -> Path:
    """Writes metrics.json, table.md and report.html, each whole or not at all.

    Numbers that are not finite become null in metrics.json, because JSON has none.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: the folder cannot be made or written.
    """
    page = folder / "report.html"
    texts = {
        folder / "metrics.json": json.dumps(_finite(metrics), indent=1, ensure_ascii=False) + "\n",
        folder / "table.md": table_markdown(metrics),
        page: render_html(metrics),
    }
    waiting: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
            waiting.append((Path(name), path))
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(name).chmod(0o644)  # mkstemp lets only its user read; a report is to be shown
        for written, path in waiting:
            written.replace(path)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written ({error.strerror})",
            where=folder,
            todo="choose a folder that can be written and has room",
        ) from error
    finally:
        for written, _ in waiting:
            written.unlink(missing_ok=True)
    return page


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*<>\[\]|&#])", r"\\\1", " ".join(text.split()))


def _finite(value: Any) -> Any:
    """The same value with null for each number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
