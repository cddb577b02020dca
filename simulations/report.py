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
from rich.text import Text

from shared.errors import ConfigError
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
    verdict,
)
from simulations.page import render_html

__all__ = ["render_html", "table_markdown", "terminal_table", "write_report"]

_STYLES = {"gain": "green", "loss": "bold red"}
_BAND = 5  # platforms side by side in a terminal of 80 columns


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


def terminal_table(metrics: Mapping[str, Any]) -> Table:
    """NDCG@10 by scorer and platform, with the change from local to federated, for 80 columns.

    More than five platforms stand in bands, one under the other.
    """
    platforms = list(metrics["platforms"].items())
    bands = max(1, math.ceil(len(platforms) / _BAND))
    width = max(1, math.ceil(len(platforms) / bands))
    table = Table(
        title=Text(f"{metrics['title']}: NDCG@10"),
        caption=Text(headline(metrics)),
        show_header=False,
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(min_width=12, max_width=16)
    for _ in range(width):
        table.add_column(justify="right", overflow="fold", min_width=10, max_width=13)
    for start in range(0, len(platforms), width):
        names, band = zip(*platforms[start : start + width], strict=True)
        table.add_row("", *(Text(name, "bold") for name in names), end_section=True)
        known = [{row[0][0]: row[3] for row in scorer_rows(metrics, it)} for it in band]
        for scorer in scorers(metrics, band):
            cells = [rows.get(scorer, (NONE, False)) for rows in known]
            table.add_row(
                Text(re.sub(r"^\w+ ε", "  under ε", scorer)),
                *(Text(text, "bold" if best else "") for text, best in cells),
            )
        table.add_section()
        told = [verdict(it) for it in band]
        styles = [_STYLES.get(it.verdict, "") for it in told]
        changes = [(it.relative, it.verdict) for it in told]
        for label, row in zip(("sharing", ""), zip(*changes, strict=True), strict=True):
            table.add_row(label, *(Text(*cell) for cell in zip(row, styles, strict=True)))
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
