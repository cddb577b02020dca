"""What the strategies' comparison found, in words and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from shared.terminal import cell as shown
from simulations.columns import fit
from simulations.findings import NONE, count, figure, percent
from simulations.strategies.comparison import FEWEST, FEWEST_PLATFORMS
from simulations.strategies.every import LOCAL

MARKS = {"gain": "▲", "loss": "▼"}
STYLES = {"gain": "green", "loss": "red"}


def terminal_table(found: Mapping[str, Any], *, width: int = 80) -> Table:
    """NDCG@10 by strategy and platform; ▲ and ▼ are sure against local, by Holm's method.

    Platforms that do not fit side by side stand in bands, one under the other.

    Args:
        found: as of strategies.json.
        width: of the terminal, in characters.
    """
    platforms = list(found["platforms"].items())
    labels = max([12, *(len(strategy) for strategy in found["strategies"])])
    columns = fit([name for name, _ in platforms], available=width - labels)
    table = Table(
        title=shown(f"{found['title']}: NDCG@10 by strategy"),
        caption=shown(headline(found)),
        show_header=False,
        box=SIMPLE,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(min_width=labels)
    for _ in range(columns.side_by_side):
        table.add_column(justify="right", overflow="fold", min_width=columns.width)
    for some in columns.bands(platforms):
        names, band = zip(*some, strict=True)
        heads = [shown(columns.folded(name), "bold") for name in names]
        table.add_row("", *heads, end_section=True)
        for strategy, told in found["strategies"].items():
            cells = [cell(platform, strategy) for platform in band]
            table.add_row(shown(strategy, "dim" if told["leaves"] == "rows" else ""), *cells)
            if strategy == LOCAL:
                table.add_section()
        table.add_section()
        for label in ("nearness", "expected"):
            means = [mean_of(platform, label) for platform in band]
            table.add_row(label, *(shown(figure(it, "+.2f")) for it in means))
        gains = [mean_of(platform, "gain") for platform in band]
        table.add_row("sharing", *(shown(percent(it)) for it in gains))
        table.add_section()
    return table


def cell(platform: Mapping[str, Any], strategy: str) -> Text:
    """A strategy's figure on a platform, with its mark; the best that can be had is bold."""
    row = platform["strategies"].get(strategy)
    if row is None:
        return shown(NONE)
    verdict = row.get("against_local", {}).get("verdict", "")
    best = "bold " if strategy == platform["best"] else ""
    mark = MARKS.get(verdict, " ")
    return shown(f"{figure(row['ndcg@10'])} {mark}", f"{best}{STYLES.get(verdict, '')}".strip())


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
            "How the transfer score agrees with the gains is not judged: that needs the strategy"
            f" federated on {FEWEST_PLATFORMS} platforms and {FEWEST} figures over platforms and"
            f" seeds; there are {count(transfer['points'], 'figure')} of"
            f" {count(len(found['platforms']), 'platform')}."
        )
    return (
        f"Before training, for ε = {transfer['epsilon']:g}, the score ranked the gains of federated"
        f" over local with Spearman's ρ = {figure(known['expected'], '.2f')}"
        f" (nearness alone {figure(known['nearness'], '.2f')}), over {transfer['points']} platforms"
        " and seeds."
    )
