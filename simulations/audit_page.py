"""The audit as one HTML file, in the manner of the comparison's report: no script, no address.

It reads from the top: whether the claims stand; each check; the curves; a shopper rebuilt from an
Update, or not; what an audit cannot tell; how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from simulations.audits.checks import RATES, allowed_tpr
from simulations.html import document, listing, panels, table, text
from simulations.plots import INK, MUTED, OTHER, OWN, SHARED, panel

_STYLE = ".told td { white-space: normal; } .told td:last-child { min-width: 13em; }\n"
_FLOOR = 1e-3  # the lowest rate that a curve is drawn at
_CHECKS = {
    "one run": "Canaries, made-up shoppers whose gradients are longer than the clip and nearly at "
    "right angles, are put in by fair coins. The auditor sees every noised sum of one training and "
    "guesses the coins; too many right guesses refute the claim (arXiv 2305.08846).",
    "sampling": "How often each record was drawn and how many at once, against the binomials of "
    "Poisson sampling. Shuffled batches, or batches of one size, are far too regular.",
    "ledger": "The ledger is reopened before every round and trained on until it refuses. What "
    "left is accounted anew by Opacus' PRV accountant: the ledger may not say less.",
    "membership": "A likelihood-ratio test on the final Adapter, fitted to shadow runs on random "
    "halves of the shoppers (arXiv 2112.03570), against what (ε, δ) allows any test.",
    "inversion": "From the Update of one step on one History, the public Backbone and the "
    "Catalogue, the shopper's items are rebuilt by matching gradients.",
}


def render_audit(result: Mapping[str, Any]) -> str:
    """The whole page. The same result gives the same bytes."""
    audits = result["audits"]
    run = f"Atoll {result['atoll']} · audit · seed {result['seed']} · simulated noise"
    body = [
        f'<p class="kicker">{text(run)}</p>\n<h1>Privacy audit</h1>',
        f'<p class="lead">{text(_verdict(audits))}</p>',
        _every_check(audits),
        listing({name: text(told) for name, told in _CHECKS.items()}),
        panels(
            "One run: what could be refuted",
            'The outline is the claim. <span class="shared">Blue</span> is the largest ε that the '
            "auditor's guesses refute with 95 % confidence; beyond the claim it is "
            '<span class="own">orange</span>.',
            {"ε, claimed and at least": _bounds(audits)},
        ),
        panels(
            "Membership: who was trained on",
            'True against false positives, both on logarithms. <span class="own">Orange</span> is '
            'training without a Plan, <span class="shared">blue</span> under it. The broken line '
            "is the most that (ε, δ) allows any attacker, the grey one is chance. Below 1 % a "
            "curve rests on a few shoppers.",
            {f"ε = {it['claim']['epsilon']:g}": _curves(it) for it in audits},
        ),
        _rates(audits),
        *_examples(audits),
        "<h2>What an audit cannot tell</h2>",
        *(f"<p>{text(line)}</p>" for line in audits[0]["limits"]),
        _provenance(result),
    ]
    return document("Privacy audit", body, style=_STYLE)


def _verdict(audits: Sequence[Mapping[str, Any]]) -> str:
    red = [
        f"{check['name']} at ε = {it['claim']['epsilon']:g}"
        for it in audits
        for check in it["checks"]
        if not check["passed"]
    ]
    if red:
        return f"Red: {', '.join(red)}. The claim must not be relied on until the cause is found."
    bounds = " and ".join(
        f"{it['lower_bound']['epsilon']:.2f} where ε = {it['claim']['epsilon']:g} is claimed"
        for it in audits
    )
    return (
        f"Every check is green. The auditor, who sees all that the guarantee covers, could refute "
        f"an ε below {bounds}, with 95 % confidence: no claim is refuted."
    )


def _every_check(audits: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for name in _CHECKS:
        for found in audits:
            check = next(it for it in found["checks"] if it["name"] == name)
            kind, sign = ("shared", "● green") if check["passed"] else ("own", "✕ red")
            sign = f'<span class="{kind}">{sign}</span>'
            rows.append((name, f"{found['claim']['epsilon']:g}", sign, text(check["told"])))
    delta = audits[0]["claim"]["delta"]
    caption = f"<b>Checks</b>, for claims at δ = {delta:g}; the unit is one shopper's History."
    columns = ("check", "ε", "", "what was found")
    return table(
        "Checks", caption, columns, rows, words=("", "what was found"), kind=' class="told"'
    )


def _bounds(audits: Sequence[Mapping[str, Any]]) -> str:
    pairs = [(it["claim"]["epsilon"], it["lower_bound"]["epsilon"]) for it in audits]

    def draw(axes: Axes) -> None:
        for place, (claim, least) in enumerate(pairs):
            colour = SHARED if least <= claim else OWN
            axes.barh(place, claim, height=0.62, facecolor="none", edgecolor=MUTED, linewidth=0.9)
            axes.barh(place, least, height=0.62, facecolor=colour)
            axes.text(max(claim, least) + 0.05, place, f"{least:.2f}", va="center", ha="left")
        axes.set_yticks(range(len(pairs)), [f"ε = {claim:g}" for claim, _ in pairs], color=INK)
        axes.set_ylim(len(pairs) - 0.5, -0.6)
        axes.grid(axis="x")
        axes.spines["left"].set_color(MUTED)
        axes.spines["bottom"].set_visible(False)

    told = ", ".join(f"{least:.2f} of {claim:g}" for claim, least in pairs)
    title = f"Largest refuted epsilon of the claim: {told}"
    return panel(draw, title, height=30 + 26 * len(pairs), left=56, right=44, bottom=22)


def _curves(found: Mapping[str, Any]) -> str:
    member, claim = found["membership"], found["claim"]
    rates = np.geomspace(_FLOOR, 1, 200)
    allowed = [allowed_tpr(float(rate), claim["epsilon"], claim["delta"]) for rate in rates]

    def draw(axes: Axes) -> None:
        axes.plot(rates, rates, color=OTHER, linewidth=1.2)
        axes.plot(rates, allowed, color=INK, linewidth=1.1, dashes=(4, 3))
        for kind, colour in (("unprotected", OWN), ("protected", SHARED)):
            false, true = np.maximum(np.array(member[kind]["roc"]), _FLOOR).T
            axes.plot(np.append(false, 1.0), np.append(true, true[-1]), color=colour)
        for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            axis.set_minor_locator(NullLocator())
        axes.set_xlim(_FLOOR, 1)
        axes.set_ylim(_FLOOR, 1.15)
        axes.set_xlabel("false positives")
        axes.set_ylabel("true positives")
        axes.grid(axis="both")

    told = ", ".join(
        f"{kind} {member[kind]['tpr_at_0.01']:.3f}" for kind in ("unprotected", "protected")
    )
    title = f"Membership at epsilon {claim['epsilon']:g}: true positives at 1 % false: {told}"
    return panel(draw, title, height=260, left=62)


def _rates(audits: Sequence[Mapping[str, Any]]) -> str:
    keys = [*(f"tpr_at_{rate:g}" for rate in RATES), "advantage"]

    def row(name: str, rates: Mapping[str, float]) -> tuple[str, ...]:
        return (name, *(f"{rates[key]:.3f}" for key in keys))

    rows = [row("without a Plan", audits[0]["membership"]["unprotected"])]
    for found in audits:
        title = f"ε = {found['claim']['epsilon']:g}"
        rows.append(row(title, found["membership"]["protected"]))
        rows.append(row(f"{title} allows", found["membership"]["allowed"]))
    first = audits[0]["membership"]
    caption = (
        f"<b>Membership</b> of {first['targets']} shoppers in {first['runs']} runs each: true "
        "positives at 1 and 10 % false ones, and the largest difference of the two."
    )
    columns = ("training", "at 1 %", "at 10 %", "advantage")
    return table("Membership", caption, columns, rows, words=())


def _examples(audits: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = audits[0]["inversion"]
    told = "; ".join(
        f"{it['inversion']['protected']:.0%} under ε = {it['claim']['epsilon']:g}" for it in audits
    )
    lead = (
        f"Of {shares['items']} items of {shares['histories']} shoppers, an Update without a Plan "
        f"gives away {shares['unprotected']:.0%}; {told}. Guessing gives {shares['chance']:.1%}. "
        "Below is one of them, of made-up items; what was rightly found is bold."
    )
    columns = {"what the shopper took": shares["example"]["taken"]}
    columns["from an Update without a Plan"] = shares["example"]["unprotected"]
    for found in audits:
        title = f"under ε = {found['claim']['epsilon']:g}"
        columns[title] = found["inversion"]["example"]["protected"]
    taken = set(shares["example"]["taken"])
    rows = []
    for place, titles in enumerate(zip(*columns.values(), strict=True)):
        cells = [text(titles[0])]
        for title in titles[1:]:
            cells.append(f"<strong>{text(title)}</strong>" if title in taken else text(title))
        rows.append([str(place + 1), *cells])
    shown = table(
        "Inversion",
        "<b>One shopper's items</b>, in the order of the History.",
        ("", *columns),
        rows,
        words=tuple(columns),
    )
    return ["<h2>Inversion: a shopper rebuilt</h2>", f"<p>{text(lead)}</p>", shown]


def _provenance(result: Mapping[str, Any]) -> str:
    facts = {
        "seed": str(result["seed"]),
        "started": text(result["started"]),
        "took": f"{result['seconds']:,.1f} seconds",
        "machine": text(result["machine"]),
        "versions": text(
            ", ".join(
                f"{k} {v}" for k, v in {"atoll": result["atoll"], **result["versions"]}.items()
            )
        ),
    }
    for found in result["audits"]:
        numbers = found["plan"]
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:.5g}"
            for name, value in numbers.items()
            if isinstance(value, (int, float))
        )
        facts[f"Plan, ε = {found['claim']['epsilon']:g}"] = text(told)
    return f"<h2>How this was made</h2>\n{listing(facts)}"
