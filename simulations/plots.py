"""The report's plots: each function draws one small panel and gives it as inline SVG.

matplotlib draws in the light page's colours below; `_inline` then puts the page's CSS variable in
place of each, so one drawing serves a light and a dark page. Text stays text, in the page's font.
A panel is as wide as a telephone's column; report.css sets panels side by side where there is room.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from simulations.findings import figure, interval, number, validated

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# A colour of report.css's light page, and the variable that holds it there. The first two hues are
# Okabe and Ito's, which colour-blind readers can tell apart; grey is all that is only context.
INK, MUTED, RULE, PAPER = "#1c1e21", "#5c636b", "#dfe2e5", "#fefefe"
SHARED, OWN, OTHER = "#0072b2", "#c44601", "#a9b0b7"
THIRD, FOURTH = "#00795a", "#9a4f96"  # further lines of one drawing
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    SHARED: "--shared",
    OWN: "--own",
    OTHER: "--other",
    THIRD: "--third",
    FOURTH: "--fourth",
}
_WIDTH = 340  # CSS pixels, which are the points of the drawing
_FONT = 11  # CSS pixels
_RIGHT = 10  # CSS pixels right of the axes
_SETTINGS: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout on every machine
    "font.size": _FONT,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
}


def scorer_bars(name: str, scorers: Sequence[str], platform: Mapping[str, Any]) -> str:
    """One platform's NDCG@10 by scorer, as bars with 95 % intervals and the value beside each."""
    rows = [(scorer, platform["scorers"].get(scorer, {})) for scorer in scorers]
    left = min(130, 16 + 6.3 * max(map(len, scorers)))

    right = 54
    beside = 1 + right / (_WIDTH - left - right)  # the page's edge, in widths of the axes

    def draw(axes: Axes) -> None:
        for place, (scorer, row) in enumerate(rows):
            value = number(row.get("ndcg@10"))
            family = scorer.split()[0]
            colour = SHARED if family in {"federated", "personalised", "served"} else OTHER
            colour = OWN if family == "local" else colour
            hollow = family == "pooled"  # no platform can have it: drawn as an outline
            face, edge = ("none", MUTED) if hollow else (colour, colour)
            axes.barh(place, value, height=0.62, facecolor=face, edgecolor=edge, linewidth=0.9)
            axes.hlines(place, *interval(row.get("ci95", {}).get("ndcg@10")), INK, linewidth=1.2)
            axes.text(
                beside,
                place,
                figure(value),
                transform=axes.get_yaxis_transform(),
                va="center",
                ha="right",
            )
        axes.set_yticks(range(len(rows)), [scorer for scorer, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.set_xlim(0, axes.get_xlim()[1])
        axes.grid(axis="x")
        _ticks(axes, "x", 4)
        axes.spines["left"].set_color(MUTED)
        axes.spines["bottom"].set_visible(False)

    best = max(rows, key=lambda row: row[1].get("ndcg@10") or 0.0)[0]
    title = f"{name}: NDCG@10 by scorer, with 95 % intervals; highest is {best}"
    return panel(draw, title, height=30 + 21 * len(rows), left=left, right=right, bottom=22)


def gain_by_length(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Federated minus local NDCG@10 by History length; hollow where the interval holds zero."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for place, row in enumerate(rows):
            low, high = interval(row.get("ci95"))
            colour = SHARED if low > 0 else OWN if high < 0 else MUTED
            face = PAPER if colour == MUTED else colour
            axes.vlines(place, low, high, colour, linewidth=1.6)
            axes.plot(
                place, number(row.get("difference")), "o", ms=6, mfc=face, mec=colour, mew=1.4
            )
        labels = [f"{str(row['length']).replace('-', '–')}\n{row['n']:,}" for row in rows]
        axes.set_xticks(range(len(rows)), labels)
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.text(-0.03, -0.145, "n", transform=axes.transAxes, color=MUTED, ha="right", va="top")
        axes.grid(axis="y")
        _ticks(axes, "y", 5)

    lengths = ", ".join(f"{row['length']} {number(row.get('difference')):+.4f}" for row in rows)
    return panel(draw, f"{name}: federated minus local NDCG@10 by History length: {lengths}")


def validation_by_round(name: str, rounds: Sequence[Mapping[str, Any]], kept: int | None) -> str:
    """One platform's validation NDCG@10 over rounds; refused and missing replies marked below."""
    at = [int(row["round"]) for row in rounds]
    values = [validated(row, name) for row in rounds]
    refused = [row["round"] for row in rounds if name in row.get("refused", {})]
    missing = [row["round"] for row in rounds if name in row.get("missing", [])]
    known = [value for value in values if math.isfinite(value)]

    def draw(axes: Axes) -> None:
        axes.plot(at, values, color=SHARED, marker="o", ms=3.2 if len(at) <= 20 else 0)
        middle, half = (max(known) + min(known)) / 2, (max(known) - min(known)) / 2
        half = max(half, 0.05 * abs(middle), 1e-4)  # a flat line shall look flat
        axes.set_ylim(middle - 1.55 * half, middle + 1.2 * half)
        if at[0] == 0 and math.isfinite(values[0]):  # the untrained state
            axes.axhline(values[0], color=MUTED, linewidth=0.8, dashes=(3, 3))
        if kept in at and math.isfinite(values[at.index(kept)]):
            axes.plot(kept, values[at.index(kept)], "o", ms=8.5, mfc="none", mec=INK, mew=1.3)
        strip: dict[str, Any] = {
            "transform": axes.get_xaxis_transform(),
            "linestyle": "none",
            "clip_on": False,
        }
        axes.plot(refused, [0.05] * len(refused), marker="x", ms=5.5, mew=1.7, color=OWN, **strip)
        axes.plot(
            missing, [0.05] * len(missing), marker="o", ms=5, mfc=PAPER, mec=MUTED, mew=1.2, **strip
        )
        axes.set_xlabel("round")
        axes.grid(axis="y")
        _ticks(axes, "y", 5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))

    title = (
        f"{name}: validation NDCG@10 over {len(rounds)} rounds, {known[0]:.4f} to {known[-1]:.4f}"
    )
    return panel(draw, f"{title}; {len(refused)} replies refused, {len(missing)} missing")


def cost_by_round(
    rounds: Sequence[Mapping[str, Any]], parts: Sequence[tuple[str, float]], title: str
) -> str:
    """One bar a round, stacked of `parts`: a key of the round and what to divide it by."""
    at = [int(row["round"]) for row in rounds]

    def draw(axes: Axes) -> None:
        floor = [0.0] * len(rounds)
        colours = (SHARED, OTHER) if len(parts) == 2 else (MUTED,)
        for colour, (key, scale) in zip(colours, parts, strict=True):
            heights = [number(row.get(key, 0)) / scale for row in rounds]
            axes.bar(at, heights, 0.72, floor, color=colour)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        axes.set_xlabel("round")
        axes.set_xlim(min(at) - 0.6, max(at) + 0.6)
        axes.grid(axis="y")
        _ticks(axes, "y", 5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))

    return panel(draw, title)


def interval_mark(
    middle: float, ends: tuple[float, float], span: tuple[float, float], colour: str
) -> str:
    """A dot and its interval beside the line of no change, for a table's cell of `span` units."""
    scale = 120 / ((span[1] - span[0]) or 1.0)
    zero, dot, low, high = (5 + (value - span[0]) * scale for value in (0.0, middle, *ends))
    return (
        '<svg class="mark" viewBox="0 0 130 24" aria-hidden="true">'
        f'<path class="zero" d="M{zero:.1f} 0V24"/>'
        f'<g class="{colour}"><path d="M{low:.1f} 12H{high:.1f}"/>'
        f'<circle cx="{dot:.1f}" cy="12" r="3.6"/></g></svg>'
    )


def _ticks(axes: Axes, axis: str, count: int) -> None:
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(MaxNLocator(nbins=count))
    chosen.set_major_formatter(ScalarFormatter(useOffset=False))


def panel(
    draw: Callable[[Axes], None],
    title: str,
    *,
    height: float = 190,
    left: float = 52,
    right: float = _RIGHT,
    bottom: float = 38,
) -> str:
    """A small drawing as inline SVG; all lengths are CSS pixels."""
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": title}):
        figure = Figure(figsize=(_WIDTH / 72, height / 72))
        wide, high = _WIDTH - left - right, height - bottom - 8
        axes = figure.add_axes((left / _WIDTH, bottom / height, wide / _WIDTH, high / height))
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        draw(axes)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """The drawing less what the page has already: prolog, name spaces, fonts, size, style."""
    view = re.search(r'viewBox="([^"]+)"', svg)
    body = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", svg[svg.index("<defs>") :], flags=re.S
    )
    used = set(re.findall(r"#(\w+)", body))
    body = re.sub(r' id="([^"]+)"', lambda it: it[0] if it[1] in used else "", body)
    body = re.sub(r" font-family: [^;]+;| ?transform=\"rotate\(-0 [^\"]*\"", "", body)
    body = re.sub(r"\s+", " ", body.replace("xlink:href", "href")).replace("> <", "><")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    label = escape(title)
    box = view[1] if view else ""
    head = f'<svg class="plot" role="img" aria-label="{label}" viewBox="{box}">'
    return f"{head}<title>{label}</title>{body.strip()}"
