"""What the strategies' comparison found, in words and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from simulations.findings import NONE, figure, percent
from simulations.strategies.every import LOCAL

MARKS = {"gain": "▲", "loss": "▼"}
STYLES = {"gain": "green", "loss": "red"}


def terminal_table(found: Mapping[str, Any]) -> Table:
    """NDCG@10 by strategy and platform; ▲ and ▼ are sure against local, by Holm's method."""
    platforms = found["platforms"]
    table = Table(
        title=Text(f"{found['title']}: NDCG@10 by strategy"),
        caption=Text(headline(found)),
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(min_width=12)
    for name in platforms:
        table.add_column(Text(name, "bold"), justify="right", overflow="fold")
    for strategy, told in found["strategies"].items():
        cells = [cell(platform, strategy) for platform in platforms.values()]
        table.add_row(Text(strategy, "dim" if told["leaves"] == "rows" else ""), *cells)
        if strategy == LOCAL:
            table.add_section()
    table.add_section()
    for label, key in (("nearness", "nearness"), ("expected", "expected")):
        means = [mean_of(platform, key) for platform in platforms.values()]
        table.add_row(label, *(Text(figure(it, "+.2f")) for it in means))
    gains = [mean_of(platform, "gain") for platform in platforms.values()]
    table.add_row("sharing", *(Text(percent(it)) for it in gains))
    return table


def cell(platform: Mapping[str, Any], strategy: str) -> Text:
    """A strategy's figure on a platform, with its mark; the best that can be had is bold."""
    row = platform["strategies"].get(strategy)
    if row is None:
        return Text(NONE)
    verdict = row.get("against_local", {}).get("verdict", "")
    best = "bold " if strategy == platform["best"] else ""
    mark = MARKS.get(verdict, " ")
    return Text(f"{figure(row['ndcg@10'])} {mark}", f"{best}{STYLES.get(verdict, '')}".strip())


def mean_of(platform: Mapping[str, Any], key: str) -> float | None:
    """The mean over seeds of what is known of a platform's scores."""
    known = [it[key] for it in platform["scores"] if it[key] is not None]
    return sum(known) / len(known) if known else None


def headline(found: Mapping[str, Any]) -> str:
    """Which wins where, in a sentence."""
    wins: dict[str, list[str]] = {}
    for name, platform in found["platforms"].items():
        wins.setdefault(platform["best"], []).append(name)
    told = "; ".join(f"{strategy} on {', '.join(names)}" for strategy, names in wins.items())
    return f"Best that a platform can have: {told}."


def foretold(found: Mapping[str, Any]) -> str:
    """How the score before training agreed with the gains after it."""
    transfer = found["transfer"]
    known = transfer["rank_correlation"]
    if known["expected"] is None:
        return (
            "The transfer score was not set beside a gain: that needs federated and two platforms."
        )
    return (
        f"Before training, for ε = {transfer['epsilon']:g}, the score ranked the gains of federated"
        f" over local with Spearman's ρ = {figure(known['expected'], '.2f')}"
        f" (nearness alone {figure(known['nearness'], '.2f')}), over {transfer['points']} platforms"
        " and seeds."
    )
