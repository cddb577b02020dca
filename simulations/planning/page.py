"""plan.html: what joining is worth by the federation's size, drawn; in the report's manner.

It reads from the top: where it starts to pay; the drawing; every figure; what this assumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from simulations.findings import percent
from simulations.html import document, listing, panels, table, text
from simulations.planning.findings import by_case, kinds, label, line, lines, numbers, told
from simulations.planning.joining import Asked, Point
from simulations.plots import FOURTH, INK, MUTED, OWN, SHARED, THIRD, panel

COLOURS = (INK, SHARED, OWN, THIRD, FOURTH)  # of the lines: no noise, and each ε
CLASSES = ("", "shared", "own", "third", "fourth")
APART = 15  # CSS pixels between two names at the ends of lines
HEIGHT = 260  # CSS pixels of a drawing
WIDENED = 12.0  # per cent of gain up to which the upright scale is even
TICKS = (-300, -100, -30, -10, -3, 0, 3, 10, 30, 100, 300, 1000)  # per cent

CLEARLY = "<i>Clearly</i>: from there on no 95&nbsp;% interval reaches zero."


def render_plan(
    points: Sequence[Point], asked: Asked, *, assumes: Sequence[str], facts: Mapping[str, Any]
) -> str:
    """The whole page. The same figures give the same bytes."""
    head = f"Atoll {facts['atoll']} · plan · {facts['ground']} · seed {asked.seed}"
    body = [
        f'<p class="kicker">{text(head)}</p>\n<h1>Where it starts to pay</h1>',
        '<p class="lead">What a platform gains by joining a federation that sums what goes '
        "together, against staying alone.</p>",
        *(f"<p>{_tied(it)}</p>" for it in told(points, asked)),
        f"<p>{CLEARLY}</p>" if len(asked.cases) > 1 else "",
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
        f'<span class="{kind}">{_tied(label(epsilon))}</span>' if kind else label(epsilon)
        for kind, epsilon in zip(CLASSES, lines(asked), strict=False)
    ]
    caption = (
        "NDCG@10 over staying alone, by the shoppers of the whole federation, on a logarithm. "
        f"Lines: {', '.join(names)}; bands are 95&nbsp;% intervals over draws. The upright scale "
        "gives small gains more room than large ones, so that it shows where a line leaves zero."
    )
    drawn = {f"a platform of {kind}": _drawing(points, kind, asked) for kind in kinds(points)}
    return panels("The gain by the federation's size", caption, drawn)


def _drawing(points: Sequence[Point], kind: str, asked: Asked) -> str:
    every = {epsilon: line(points, kind, epsilon) for epsilon in lines(asked)}
    sizes = [it.case.everyone for it in next(iter(every.values()))]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xlim(sizes[0] / 1.12, sizes[-1] * 1.12)
        axes.set_yscale("asinh", linear_width=WIDENED)
        axes.axhline(0, color=MUTED, linewidth=1.0)
        for place, (epsilon, found) in enumerate(every.items()):
            _draw_line(axes, sizes, found, place=place, exact=epsilon is None)
        axes.grid(axis="y")
        low, high = axes.get_ylim()
        ticks = [it for it in TICKS if low <= it <= high and (abs(it) != 3 or high < 40)]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _per_cent(value)))
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.set_xlabel("shoppers of the federation")
        _name(axes, {label(it): 100 * found[-1].gain for it, found in every.items()})

    last = "; ".join(f"{label(it)} {percent(found[-1].gain)}" for it, found in every.items())
    title = f"A platform of {kind}: gain over staying alone in {sizes[-1]:,} shoppers: {last}"
    return panel(draw, title, height=HEIGHT, left=52, right=62)


def _draw_line(
    axes: Axes, sizes: Sequence[int], found: Sequence[Point], *, place: int, exact: bool
) -> None:
    colour = COLOURS[place]
    low, high, gain = (
        [100 * value for value in values]
        for values in zip(*((it.low, it.high, it.gain) for it in found), strict=True)
    )
    if len(sizes) == 1:  # no line and no band, so marks side by side
        beside = sizes[0] * 1.015 ** (place - 1.5)
        axes.vlines(beside, low, high, colour, linewidth=1.6)
        axes.plot(beside, gain[0], "o", color=colour, ms=4.5)
        return
    axes.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
    style = (0, (4, 2)) if exact else "-"
    axes.plot(sizes, gain, color=colour, marker="o", ms=3.6, linestyle=style)


def _name(axes: Axes, ends: Mapping[str, float]) -> None:
    """Each line's name at its end, moved apart where they would touch."""
    apart = APART / (HEIGHT - 46)
    place = float("-inf")
    colours = dict(zip(ends, COLOURS, strict=False))
    for name, value in sorted(ends.items(), key=lambda it: it[1]):
        pixel = axes.transData.transform((axes.get_xlim()[1], value))
        place = max(float(axes.transAxes.inverted().transform(pixel)[1]), place + apart)
        axes.annotate(
            name,
            (1, place),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colours[name],
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
        f"{numbers(facts['pairs'])} pairs"
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


def _tied(value: str) -> str:
    """Text for HTML in which no ε is parted from its number."""
    return text(value).replace("ε = ", "ε&nbsp;=&nbsp;")


def _per_cent(value: float) -> str:
    return f"{value:+g} %".replace("-", "−") if value else "0 %"


def _short(value: float) -> str:
    """1,000 as 1k: six sizes have to stand below a telephone's column."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
