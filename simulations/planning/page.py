"""plan.html: what joining is worth by the federation's size, drawn; in the report's manner.

It reads from the top: where it starts to pay; the drawing; every figure; what this assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from simulations.html import document, listing, panels, table, text
from simulations.planning.findings import by_case, kinds, label, line, lines, percent, told
from simulations.planning.joining import Asked, Point
from simulations.plots import FOURTH, INK, MUTED, OWN, SHARED, THIRD, panel

COLOURS = (INK, SHARED, OWN, THIRD, FOURTH)  # of the lines: no noise, and each ε
CLASSES = ("", "shared", "own", "third", "fourth")
APART = 15  # CSS pixels between two names at the ends of lines
HEIGHT = 250  # CSS pixels of a drawing


def render_plan(
    points: Sequence[Point], asked: Asked, *, assumes: Sequence[str], facts: Mapping[str, Any]
) -> str:
    """The whole page. The same figures give the same bytes."""
    head = f"Atoll {facts['atoll']} · plan · {facts['ground']} · seed {asked.seed}"
    body = [
        f'<p class="kicker">{text(head)}</p>\n<h1>Where it starts to pay</h1>',
        '<p class="lead">What a platform gains by joining a federation that sums what goes '
        "together, against staying alone.</p>",
        *(f"<p>{text(it)}</p>" for it in told(points, asked)),
        _drawings(points, asked),
        "<h2>All figures</h2>",
        _figures(points, asked),
        "<h2>What this assumes</h2>",
        *(f"<p>{text(it)}</p>" for it in assumes),
        f"<h2>How this was made</h2>\n{listing(_made(facts))}",
    ]
    return document("Where it starts to pay", body)


def _drawings(points: Sequence[Point], asked: Asked) -> str:
    names = [
        f'<span class="{kind}">{text(label(epsilon))}</span>' if kind else text(label(epsilon))
        for kind, epsilon in zip(CLASSES, lines(asked), strict=False)
    ]
    caption = (
        "NDCG@10 over staying alone, by the shoppers of the whole federation, which stand on "
        f"logarithms; bands are 95 % intervals over draws. Lines: {', '.join(names)}. Each drawing "
        "has its own scale."
    ).replace("95 %", "95&nbsp;%")
    drawn = {f"a platform of {kind}": _drawing(points, kind, asked) for kind in kinds(points)}
    return panels("The gain by the federation's size", caption, drawn)


def _drawing(points: Sequence[Point], kind: str, asked: Asked) -> str:
    every = {epsilon: line(points, kind, epsilon) for epsilon in lines(asked)}
    sizes = [it.case.everyone for it in next(iter(every.values()))]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xlim(sizes[0] / 1.12, sizes[-1] * 1.12)
        ends = {}
        for colour, (epsilon, found) in zip(COLOURS, every.items(), strict=False):
            low, high, gain = (
                [100 * value for value in values]
                for values in zip(*((it.low, it.high, it.gain) for it in found), strict=True)
            )
            axes.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
            if len(sizes) == 1:
                axes.vlines(sizes, low, high, colour, linewidth=1.6)
            style = (0, (4, 2)) if epsilon is None else "-"
            axes.plot(sizes, gain, color=colour, marker="o", ms=3.6, linestyle=style)
            ends[label(epsilon)] = (gain[-1], colour)
        axes.axhline(0, color=MUTED, linewidth=1.0)
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g} %"))
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.set_xlabel("shoppers of the federation")
        _name(axes, ends)

    last = "; ".join(f"{label(it)} {percent(found[-1].gain)}" for it, found in every.items())
    title = f"A platform of {kind}: gain over staying alone in {sizes[-1]:,} shoppers: {last}"
    return panel(draw, title, height=HEIGHT, left=52, right=62)


def _name(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Each line's name at its end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    apart = APART * (high - low) / (HEIGHT - 46)
    place = float("-inf")
    for name, (value, colour) in sorted(ends.items(), key=lambda it: it[1][0]):
        place = max(value, place + apart)
        axes.annotate(
            name,
            (1, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def _figures(points: Sequence[Point], asked: Asked) -> str:
    rows = []
    for found in by_case(points):
        case = found[0].case
        cells = [_gain(it) for it in found]
        rows.append((f"{case.mine:,}", f"{case.everyone:,}", f"{found[0].alone:.4f}", *cells))
    caption = (
        "<b>NDCG@10 over staying alone</b>, with half the width of its 95&nbsp;% interval. "
        '<span class="shared">▲</span> the interval is above zero, <span class="own">▼</span> '
        "below it."
    )
    columns = ("yours", "everyone's", "alone", *(label(it) for it in lines(asked)))
    return table("Gains", caption, columns, rows, words=())


def _gain(point: Point) -> str:
    sign = ""
    if point.low > 0:
        sign = ' <span class="shared">▲</span>'
    elif point.high < 0:
        sign = ' <span class="own">▼</span>'
    return text(f"{percent(point.gain)} ± {100 * point.half:.1f}") + sign


def _made(facts: Mapping[str, Any]) -> dict[str, str]:
    ground = (
        f"{facts['ground']}: {facts['shoppers']:,} shoppers, {facts['items']:,} items, "
        f"{facts['pairs']:,} pairs"
    )
    return {
        "shoppers": text(ground),
        "draws": str(facts["draws"]),
        "seed": str(facts["seed"]),
        "started": text(facts["started"]),
        "took": f"{facts['seconds']:,.1f} seconds",
        "machine": text(facts["machine"]),
        "versions": text(", ".join(f"{name} {it}" for name, it in facts["versions"].items())),
    }


def _short(value: float) -> str:
    """1,000 as 1k: six sizes have to stand below a telephone's column."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
