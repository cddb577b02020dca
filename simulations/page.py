"""The report as one HTML file: no script, no font, no image and no address outside it.

It reads from the top: what the run shows, in a sentence and a table; then figures; then every
number; then how the numbers were made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from simulations.findings import (
    COLUMNS,
    NONE,
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
    scorer_rows,
    scorers,
    size,
    validated,
    verdict,
)
from simulations.plots import (
    cost_by_round,
    gain_by_length,
    interval_mark,
    scorer_bars,
    validation_by_round,
)

_SCORERS = {
    "popularity": "items by how many of this platform's shoppers took them; the same for everyone",
    "tfidf": "likeness of item texts, by their words",
    "prior": "the frozen Backbone, untrained: likeness of item texts, by their meaning",
    "itemknn": "items that this platform's shoppers took together",
    "local": "an Adapter trained on this platform's rows alone",
    "federated": "one Adapter that all platforms trained together; no rows moved",
    "personalised": "the federated Adapter, trained further on this platform's rows alone",
    "pooled": "an Adapter trained on all rows together, as if they could be shared: a yardstick",
}
_MARKS = dict(zip(VERDICTS, (("▲", "shared"), ("▼", "own"), ("○", "muted")), strict=True))
_STRESSED = ("Negative transfer:", "<strong>Negative transfer:</strong>")
# The browser itself then asks nothing of any network, not even for an icon.
_CLOSED = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
    '<link rel="icon" href="data:,">'
)
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))


def render_html(metrics: Mapping[str, Any]) -> str:
    """The whole page. The same metrics give the same bytes."""
    title = _text(metrics["title"])
    run = f"Atoll {metrics['atoll']} · scenario {metrics['scenario']} · seed {metrics['seed']}"
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    body = [
        f'<p class="kicker">{_text(run)}</p>\n<h1>{title}</h1>',
        f'<p class="lead">{_text(headline(metrics))}</p>',
        _summary(metrics),
        f"<p>{_text(negative_transfer(metrics)).replace(*_STRESSED)}</p>",
        *_figures(metrics),
        "<h2>All figures</h2>",
        "<p>The best of each column is bold. <i>Coverage</i> is the share of the catalogue that "
        "stands in at least one shopper's first ten; <i>kept</i> is the state that did best on "
        "validation.</p>",
        *(_full_table(metrics, name) for name in metrics["platforms"]),
        _glossary(metrics),
        _provenance(metrics),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{_CLOSED}\n"
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


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
        mark = interval_mark(*compared[name], reach) if name in compared else ""
        scores = [figure(ndcg(platform, scorer)) for scorer in ("local", "federated")]
        coloured = f'<span class="{colour}">{sign} {_text(told.verdict)}</span>'
        change = (_text(told.relative), mark, *scores, told.difference, told.ci95, _text(told.p))
        rows.append((_text(name), coloured, *change, f"{platform['shoppers']:,}"))
    caption = (
        "<b>Federated against local training</b>, NDCG@10 of each shopper's last item. The marks "
        "show the change and its 95 % interval; the upright line is no change."
    )
    columns = (
        *("platform", "verdict", "change", "its interval", "local", "federated"),
        *("difference", "95 % interval", "p", "shoppers"),
    )
    return _table("Federated against local", caption, columns, rows, words=("verdict",))


def _figures(metrics: Mapping[str, Any]) -> Iterable[str]:
    platforms = metrics["platforms"]
    shown = scorers(metrics, list(platforms.values()))
    yield _panels(
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
    yield _panels(
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
    yield _panels(
        "Round by round",
        "Validation NDCG@10 of the shared Adapter; round 0 is untrained (broken line). The ring is "
        'the round that was kept. <span class="own">✕</span> the platform\'s reply was refused, '
        "○ none came. Each platform has its own scale.",
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
    unit, scale = next((it for it in _UNITS if most >= it[1]), _UNITS[-1])
    total = f"{_bytes(down)} down, {_bytes(up)} up and {seconds:,.1f} seconds"
    parts = [("bytes_down", scale), ("bytes_up", scale)]
    traffic = cost_by_round(trained, parts, f"Traffic a round, in {unit}")
    time = cost_by_round(trained, [("seconds", 1.0)], "Seconds a round")
    return _panels(
        "What a round costs",
        f"All platforms together; {_text(total)} in {count(len(trained), 'round')}. "
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
    rows = [[*map(_text, key), ", ".join(at)] for key, at in found.items()]
    columns = ("platform", "reply", "reason", "rounds")
    caption = "<b>Replies that were refused or did not come</b>; the rounds went on without them."
    return _table("Refused and missing replies", caption, columns, rows, words=columns[1:])


def _full_table(metrics: Mapping[str, Any], name: str) -> str:
    platform = metrics["platforms"][name]
    rows = [
        [f"<strong>{_text(text)}</strong>" if best else _text(text) for text, best in row]
        for row in scorer_rows(metrics, platform)
    ]
    caption = f"<b>{_text(name)}</b> · {size(platform)}"
    return _table(name, caption, COLUMNS, rows, words=("kept",), kind=' class="full"')


def _glossary(metrics: Mapping[str, Any]) -> str:
    used = scorers(metrics, list(metrics["platforms"].values()))
    return "<h2>The scorers</h2>\n" + _list(
        {name: _text(_SCORERS[name]) for name in used if name in _SCORERS}
    )


def _provenance(metrics: Mapping[str, Any]) -> str:
    backbone = metrics["backbone"]
    size_of = f"{backbone['trainable']:,} trainable numbers, {backbone['adapter_bytes']:,} bytes"
    versions = {"atoll": metrics["atoll"], **metrics.get("versions", {})}
    facts = {
        "scenario": _text(metrics["scenario"]),
        "seed": str(metrics["seed"]),
        "started": _text(metrics["started"]),
        "took": f"{metrics['seconds']:,.1f} seconds",
        "machine": _text(metrics["machine"]),
        "versions": _text(", ".join(f"{k} {v}" for k, v in versions.items())),
        "encoder": _text(backbone["encoder"]),
        "Adapter": size_of,
        "Backbone digest": f"<code>{_text(backbone['digest'])}</code>",
    }
    for name, platform in metrics["platforms"].items():
        facts[f"{name} catalogue"] = f"<code>{_text(platform['catalogue_digest'])}</code>"
    return f"<h2>How this was made</h2>\n<p>{_text(PROTOCOL)}</p>\n{_list(facts)}"


def _panels(
    title: str, caption: str, panels: Mapping[str, str], note: Callable[[str], str] | None = None
) -> str:
    """A section of small figures side by side; nothing where there are none."""
    if not panels:
        return ""
    figures = []
    for name, svg in panels.items():
        more = f' <span class="muted">{_text(note(name))}</span>' if note else ""
        figures.append(
            f"<figure>\n<figcaption><b>{_text(name)}</b>{more}</figcaption>\n{svg}\n</figure>"
        )
    inner = "\n".join(figures)
    return f'<h2>{title}</h2>\n<p>{caption}</p>\n<div class="panels">\n{inner}\n</div>'


def _table(
    label: str,
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[str],
    kind: str = "",
) -> str:
    """A table in its own scrolling box; cells and caption are HTML, `words` are set to the left."""
    kinds = [' class="text"' if name in words else "" for name in columns]
    head = "".join(
        f'<th scope="col"{kind}>{_text(name)}</th>'
        for name, kind in zip(columns, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        lines.append(f'<tr><th scope="row"><span>{row[0]}</span></th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(label)}">'
    return (
        f"{box}\n<table{kind}>\n<caption><span>{caption}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _list(facts: Mapping[str, str]) -> str:
    items = "\n".join(f"<dt>{_text(name)}</dt><dd>{fact}</dd>" for name, fact in facts.items())
    return f"<dl>\n{items}\n</dl>"


def _bytes(value: float) -> str:
    unit, scale = next((it for it in _UNITS if value >= it[1]), _UNITS[-1])
    return f"{value / scale:,.1f} {unit}"


def _text(value: str) -> str:
    """Text for HTML, its percent signs tied to their numbers."""
    return escape(value).replace(" %", "&nbsp;%")
