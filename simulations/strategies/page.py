"""The strategies' page, in the manner of the comparison's report: no script, nothing fetched.

It reads from the top: which strategy wins where; warnings, and whether they were right; each
platform drawn; every number; what each strategy is; how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from simulations.findings import figure, interval, percent, span
from simulations.html import breakable, document, listing, panels, shortened, table, text
from simulations.plots import INK, MUTED, OWN, PAPER, SHARED, panel
from simulations.strategies.telling import MARKS, foretold, headline, mean_of

_STYLE = (
    ".warn { border-left: 3px solid var(--own); padding-left: .8rem; }\n"
    ".unsure { visibility: hidden; }\n"  # as wide as a mark, so that figures stand in line
)
_COLOURS = {"gain": "shared", "loss": "own"}
_UNSURE = '<span class="unsure" aria-hidden="true">▲</span>'
_HOW = (
    "Leave-one-out: each shopper's last item is the test, the one before it the validation. "
    "Validation chose the epoch or round of each strategy; the test part was read once for each "
    "state kept. Each platform's own memory stands beside every row, local too. Differences from "
    "local are over the same shoppers, with 95 % bootstrap intervals; p is Holm's over the whole "
    "table, all platforms and strategies together."
)


def render_strategies(found: Mapping[str, Any]) -> str:
    """The whole page. The same findings give the same bytes."""
    seeds = ("seed " if len(found["seeds"]) == 1 else "seeds ") + ", ".join(
        map(str, found["seeds"])
    )
    run = f"Atoll {found['atoll']} · strategies · scenario {found['scenario']} · {seeds}"
    platforms = found["platforms"]
    body = [
        f'<p class="kicker">{text(run)}</p>\n<h1>{text(found["title"])}: which transfer pays</h1>',
        f'<p class="lead">{text(headline(found))}</p>',
        _wins(found),
        "<h2>Told before training</h2>",
        f"<p>{text(foretold(found))}</p>",
        *(f'<p class="warn">{text(line)}</p>' for line in found["transfer"]["warnings"]),
        _scores(found),
        panels(
            "Score and gain",
            "Each mark is a platform under one seed: what the score expected before training, "
            "against what federated came to over local. A hollow mark was told to be contrary.",
            {"Expected, and the gain of sharing": _scatter(platforms)} if _known(platforms) else {},
        ),
        panels(
            "Every strategy against local",
            "Difference in NDCG@10 with its 95 % interval; the upright line is local. "
            '<span class="shared">Blue</span> is a sure gain and <span class="own">orange</span> a '
            "sure loss by Holm's method; hollow is neither. Names in brackets would need pooled "
            "rows. Each platform has its own scale.",
            {name: _differences(name, platform, found) for name, platform in platforms.items()},
            note=lambda name: f"{platforms[name]['shoppers']:,} shoppers tested",
        ),
        "<h2>All figures</h2>",
        *(_full(name, platform) for name, platform in platforms.items()),
        "<h2>The strategies</h2>",
        listing(
            {
                name: f"{text(it['told'])}. <i>Leaves: {text(it['leaves'])}.</i>"
                for name, it in found["strategies"].items()
            }
        ),
        _provenance(found),
    ]
    return document(f"{found['title']}: strategies", body, style=_STYLE)


def _wins(found: Mapping[str, Any]) -> str:
    platforms = found["platforms"]
    rows = []
    for strategy, told in found["strategies"].items():
        label = f"[{strategy}]" if told["leaves"] == "rows" else strategy
        rows.append((text(label), *(_cell(it, strategy) for it in platforms.values())))
    caption = (
        "<b>NDCG@10 by strategy and platform.</b> ▲ sure gain and ▼ sure loss against local; the "
        "best that a platform can have is bold. Those in brackets would need everyone's rows."
    )
    return table("Strategies", caption, ("strategy", *platforms), rows, words=())


def _cell(platform: Mapping[str, Any], strategy: str) -> str:
    row = platform["strategies"][strategy]
    verdict = row.get("against_local", {}).get("verdict", "")
    value = figure(row["ndcg@10"])
    if strategy == platform["best"]:
        value = f"<strong>{value}</strong>"
    if verdict not in MARKS:
        return f"{value} {_UNSURE}"
    return f'{value} <span class="{_COLOURS[verdict]}">{MARKS[verdict]}</span>'


def _scores(found: Mapping[str, Any]) -> str:
    rows = []
    for name, platform in found["platforms"].items():
        for it in platform["scores"]:
            colour = {"near": "shared", "contrary": "own"}.get(it["verdict"], "muted")
            told = f'<span class="{colour}">{text(it["verdict"])}</span>'
            rows.append(
                (
                    breakable(name),
                    str(it["seed"]),
                    told,
                    figure(it["nearness"], "+.2f"),
                    figure(it["certainty"], "+.1f"),
                    figure(it["expected"], "+.2f"),
                    text(percent(it["gain"])),
                )
            )
    caption = (
        "<b>The transfer score</b>, from one noised release of each platform. <i>Nearness</i> is a "
        "cosine of laws, <i>z</i> its standard errors from none, <i>expected</i> whether the "
        "others know a platform's law better than its own rows do; <i>gain</i> came afterwards."
    )
    columns = ("platform", "seed", "told", "nearness", "z", "expected", "gain")
    return table("Transfer score", caption, columns, rows, words=("told",))


def _known(platforms: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name, it)
        for name, platform in platforms.items()
        for it in platform["scores"]
        if it["gain"] is not None
    ]


def _scatter(platforms: Mapping[str, Any]) -> str:
    points = _known(platforms)

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for _name, it in points:
            contrary = it["verdict"] == "contrary"
            colour = OWN if contrary else SHARED
            face = PAPER if contrary else colour
            axes.plot(it["expected"], 100 * it["gain"], "o", ms=6, mfc=face, mec=colour, mew=1.4)
        for name, platform in platforms.items():
            spot = mean_of(platform, "expected"), mean_of(platform, "gain")
            if None not in spot:
                axes.annotate(
                    shortened(name),
                    (spot[0] or 0.0, 100 * (spot[1] or 0.0)),
                    xytext=(0, 11),
                    textcoords="offset points",
                    ha="center",
                    color=INK,
                )
        axes.margins(0.18)
        axes.set_xlabel("expected before training")
        axes.set_ylabel("gain, %")

    told = ", ".join(
        f"{name} {it['expected']:+.2f} {100 * it['gain']:+.0f} %" for name, it in points
    )
    return panel(draw, f"expected score and gain of sharing: {told}", height=230)


def _differences(name: str, platform: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    rows = [
        (f"[{it}]" if found["strategies"][it]["leaves"] == "rows" else it, row["against_local"])
        for it, row in platform["strategies"].items()
        if "against_local" in row
    ]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for place, (_label, it) in enumerate(rows):
            colour = {"gain": SHARED, "loss": OWN}.get(it["verdict"], MUTED)
            face = PAPER if colour == MUTED else colour
            axes.hlines(place, *interval(it["ci95"]), colour, linewidth=1.6)
            axes.plot(it["difference"], place, "o", ms=5.5, mfc=face, mec=colour, mew=1.4)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x")

    best = platform["best"]
    title = f"{name}: difference of each strategy from local in NDCG@10; best is {best}"
    left = min(150, 16 + 6.3 * max(len(label) for label, _ in rows)) if rows else 52
    return panel(draw, title, height=34 + 19 * len(rows), left=left, bottom=24)


def _full(name: str, platform: Mapping[str, Any]) -> str:
    rows = []
    for strategy, row in platform["strategies"].items():
        it = row.get("against_local", {})
        p = it.get("p_holm")
        rows.append(
            (
                text(strategy),
                figure(row["ndcg@10"]),
                figure(row["validation"]),
                figure(it.get("difference"), "+.4f"),
                span(it.get("ci95"), "+.4f"),
                text(percent(it.get("relative"))) if it else "–",
                "–" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}",
                text(", ".join(row["kept"])),
            )
        )
    caption = f"<b>{text(name)}</b> · {platform['shoppers']:,} shoppers tested"
    columns = ("strategy", "NDCG@10", "validation", "over local", "95 % interval", "change", "p")
    return table(name, caption, (*columns, "kept, by seed"), rows, words=("kept, by seed",))


def _provenance(found: Mapping[str, Any]) -> str:
    versions = {"atoll": found["atoll"], **found["versions"]}
    facts = {
        "scenario": text(found["scenario"]),
        "seeds": ", ".join(map(str, found["seeds"])),
        "took": f"{found['seconds']:,.0f} seconds",
        "versions": text(", ".join(f"{name} {it}" for name, it in versions.items())),
        "transfer score": f"ε = {found['transfer']['epsilon']:g} a platform, simulated noise",
    }
    return f"<h2>How this was made</h2>\n<p>{text(_HOW)}</p>\n{listing(facts)}"
