"""The report as one HTML file: no script, no font, no image and no address outside it.

It reads from the top: what the run shows, in a sentence and a table; then figures; then every
number; then how the numbers were made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulations.findings import (
    COLUMNS,
    NONE,
    PRIVACY,
    PRIVACY_COLUMNS,
    PROTOCOL,
    VERDICTS,
    count,
    figure,
    headline,
    interval,
    kept_round,
    ndcg,
    negative_transfer,
    number,
    privacy_rows,
    scorer_rows,
    scorers,
    size,
    trained_alone,
    validated,
    verdict,
)
from simulations.html import UNITS, breakable, bytes_told, document, listing, panels, table, text
from simulations.plots import (
    cost_by_round,
    gain_by_length,
    interval_mark,
    scorer_bars,
    validation_by_round,
)

_SCORERS = {
    "popularity": "items by how many of this platform's events are of them, repeats counted too; "
    "the same for everyone",
    "tfidf": "likeness of item texts, by their words",
    "prior": "the frozen Backbone, untrained: likeness of item texts, by their meaning",
    "memory": "the prior and what this platform's own rows say of its items; no Adapter is trained",
    "memory of train rows": "the same with train rows alone remembered, as published models have "
    "it; every other count here also holds the event before the test's, as on that day",
    "itemknn": "items that this platform's shoppers took together",
    "local": "an Adapter trained on this platform's rows alone, beside its own memory",
    "federated": "one Adapter that all platforms trained together, beside each one's own memory "
    "and, where sums were taken, what the others' shoppers took together; no rows moved",
    "personalised": "the federated Adapter, trained further on this platform's rows alone",
    "served": "what this platform would serve with: by its validation the best of local, federated "
    "and personalised, and not local where it listens to sums",
    "pooled": "an Adapter trained on all rows together, beside the memory of all, as if rows could "
    "be shared: a yardstick",
}
_MARKS = dict(zip(VERDICTS, (("▲", "shared"), ("▼", "own"), ("○", "muted")), strict=True))
_STRESSED = ("Negative transfer:", "<strong>Negative transfer:</strong>")


def render_html(metrics: Mapping[str, Any]) -> str:
    """The whole page. The same metrics give the same bytes."""
    title = text(metrics["title"])
    run = f"Atoll {metrics['atoll']} · scenario {metrics['scenario']} · seed {metrics['seed']}"
    body = [
        f'<p class="kicker">{text(run)}</p>\n<h1>{title}</h1>',
        f'<p class="lead">{text(headline(metrics))}</p>',
        "" if trained_alone(metrics) else _summary(metrics),
        f"<p>{text(negative_transfer(metrics)).replace(*_STRESSED)}</p>",
        *_figures(metrics),
        *_privacy(metrics),
        "<h2>All figures</h2>",
        "<p>The best of each column is bold. <i>Coverage</i> is the share of the catalogue that "
        "stands in at least one shopper's first ten; <i>kept</i> is the state that did best on "
        "validation.</p>",
        *(_full_table(metrics, name) for name in metrics["platforms"]),
        _glossary(metrics),
        _provenance(metrics),
    ]
    return document(metrics["title"], body)


def _summary(metrics: Mapping[str, Any]) -> str:
    compared: dict[str, tuple[float, tuple[float, float]]] = {}
    for name, platform in metrics["platforms"].items():
        found, base = platform.get("federated_vs_local"), ndcg(platform, "local")
        if found and base > 0:
            low, high = interval(found.get("ci95"))
            place = (number(found.get("difference")) / base, (low / base, high / base))
            if math.isfinite(place[0] + low + high):
                compared[name] = place
    ends = [end for middle, both in compared.values() for end in (middle, *both)]
    reach = (min([0.0, *ends]), max([0.0, *ends]))
    rows = []
    for name, platform in metrics["platforms"].items():
        told = verdict(platform)
        sign, colour = _MARKS.get(told.verdict, ("", "muted"))
        mark = interval_mark(*compared[name], reach, colour) if name in compared else ""
        scores = [figure(ndcg(platform, scorer)) for scorer in ("local", "federated")]
        coloured = f'<span class="{colour}">{sign} {text(told.verdict)}</span>'
        change = (text(told.relative), mark, *scores, told.difference, told.ci95, text(told.p))
        rows.append((breakable(name), coloured, *change, f"{platform['shoppers']:,}"))
    caption = (
        "<b>Federated against local training</b>, NDCG@10 of each shopper's last item. The marks "
        "show the change and its 95 % interval; the upright line is no change. A verdict goes by "
        "p, which is Holm's over all comparisons with local here; intervals are not corrected."
    )
    columns = (
        *("platform", "verdict", "change", "its interval", "local", "federated"),
        *("difference", "95 % interval", "p", "shoppers"),
    )
    return table("Federated against local", caption, columns, rows, words=("verdict",))


def _figures(metrics: Mapping[str, Any]) -> Iterable[str]:
    platforms = metrics["platforms"]
    shown = scorers(metrics, list(platforms.values()))
    yield panels(
        "Every scorer on every platform",
        "NDCG@10 with 95 % intervals over shoppers. "
        '<span class="shared">Blue</span> shares across platforms, <span class="own">orange</span> '
        "trains alone, grey trains no Adapter; <i>pooled</i> is an outline, as no platform can "
        "have it. Each platform has its own scale.",
        {
            name: scorer_bars(name, shown, platform)
            for name, platform in platforms.items()
            if platform["scorers"]
        },
        note=lambda name: size(platforms[name]),
    )
    yield panels(
        "Who gains: by length of the History",
        "Federated minus local NDCG@10 for shoppers with so many events before the test, with 95 % "
        "intervals. Above zero, sharing helps. A hollow mark's interval holds zero.",
        {
            name: gain_by_length(name, platform["gain_by_length"])
            for name, platform in platforms.items()
            if platform.get("gain_by_length")
        },
    )
    rounds = metrics.get("rounds") or []
    seen = [it for it in platforms if any(not math.isnan(validated(row, it)) for row in rounds)]
    yield panels(
        "Round by round",
        "Validation NDCG@10 of the shared Adapter without any memory; round 0 is untrained (broken "
        "line). The ring is the round that was kept, by what it reached with memory. "
        '<span class="own">✕</span> the reply was refused, ○ none came. Each platform has its own '
        "scale.",
        {name: validation_by_round(name, rounds, kept_round(platforms[name])) for name in seen},
    )
    yield _refusals(rounds)
    yield _cost(rounds)


def _cost(rounds: Sequence[Mapping[str, Any]]) -> str:
    trained = [row for row in rounds if row["round"] > 0]
    if not trained:
        return ""
    down, up = (sum(row[key] for row in trained) for key in ("bytes_down", "bytes_up"))
    seconds = sum(row["seconds"] for row in trained)
    most = max(row["bytes_down"] + row["bytes_up"] for row in trained)
    unit, scale = next((it for it in UNITS if most >= it[1]), UNITS[-1])
    total = f"{bytes_told(down)} down, {bytes_told(up)} up and {seconds:,.1f} seconds"
    parts = [("bytes_down", scale), ("bytes_up", scale)]
    traffic = cost_by_round(trained, parts, f"Traffic a round, in {unit}")
    time = cost_by_round(trained, [("seconds", 1.0)], "Seconds a round")
    return panels(
        "What a round costs",
        f"All platforms together; {text(total)} in {count(len(trained), 'round')}. "
        '<span class="shared">Blue</span> goes down to the platforms, grey comes up from them.',
        {f"Traffic, {unit}": traffic, "Time, seconds": time},
    )


def _refusals(rounds: Sequence[Mapping[str, Any]]) -> str:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rounds:
        at = str(row["round"])
        for name, reason in row.get("refused", {}).items():
            found.setdefault((name, "refused", reason), []).append(at)
        for name in row.get("missing", []):
            found.setdefault((name, "missing", NONE), []).append(at)
    if not found:
        return ""
    rows = [[*map(text, key), ", ".join(at)] for key, at in found.items()]
    columns = ("platform", "reply", "reason", "rounds")
    caption = "<b>Replies that were refused or did not come</b>; the rounds went on without them."
    return table("Refused and missing replies", caption, columns, rows, words=columns[1:])


def _full_table(metrics: Mapping[str, Any], name: str) -> str:
    platform = metrics["platforms"][name]
    rows = [
        [f"<strong>{text(cell)}</strong>" if best else text(cell) for cell, best in row]
        for row in scorer_rows(metrics, platform)
    ]
    caption = f"<b>{text(name)}</b> · {size(platform)}"
    return table(name, caption, COLUMNS, rows, words=("kept",), kind=' class="full"')


def _privacy(metrics: Mapping[str, Any]) -> list[str]:
    """What each platform's Plan was, what it spent, and what is left of the gain."""
    rows = privacy_rows(metrics)
    if not rows:
        return []
    caption = "<b>Federations under Plans</b>, noise simulated"
    return [
        "<h2>What privacy costs</h2>",
        f"<p>{text(PRIVACY)}</p>",
        table("Privacy", caption, PRIVACY_COLUMNS, [[*map(text, row)] for row in rows], words=()),
    ]


def _glossary(metrics: Mapping[str, Any]) -> str:
    used = scorers(metrics, list(metrics["platforms"].values()))
    known = {name: _SCORERS[name] for name in used if name in _SCORERS}
    if any(name.startswith("federated ε=") for name in used):
        known["federated ε=…"] = "the same under Plans, one shopper's whole History protected"
    if any(name.startswith("served ε=") for name in used):
        known["served ε=…"] = "what it would serve with, where others send what their Plans let out"
    return "<h2>The scorers</h2>\n" + listing({name: text(it) for name, it in known.items()})


def _provenance(metrics: Mapping[str, Any]) -> str:
    backbone = metrics["backbone"]
    size_of = f"{backbone['trainable']:,} trainable numbers, {backbone['adapter_bytes']:,} bytes"
    versions = {"atoll": metrics["atoll"], **metrics.get("versions", {})}
    facts = {
        "scenario": text(metrics["scenario"]),
        "seed": str(metrics["seed"]),
        "started": text(metrics["started"]),
        "took": f"{metrics['seconds']:,.1f} seconds",
        "machine": text(metrics["machine"]),
        "versions": text(", ".join(f"{k} {v}" for k, v in versions.items())),
        "encoder": text(backbone["encoder"]),
        "Adapter": size_of,
        "Backbone digest": f"<code>{text(backbone['digest'])}</code>",
    }
    for name, platform in metrics["platforms"].items():
        facts[f"{name} catalogue"] = f"<code>{text(platform['catalogue_digest'])}</code>"
    return f"<h2>How this was made</h2>\n<p>{text(PROTOCOL)}</p>\n{listing(facts)}"
