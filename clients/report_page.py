"""What the privacy report says in words, and its page: one HTML file that asks nothing elsewhere.

    figures ─words→ sentences and fields        signed document ─render→ the page

Sentences are facts too, and signed. Nobody is called protected whose noise was simulated, whose
platform says unprotected or whose audit failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from itertools import accumulate
from typing import Any

from clients.plain_sentence import plain_sentence
from clients.report_articles import NO_ADVICE, articles
from shared.plan import large_delta

Facts = Mapping[str, Any]
EPSILONS = ("spent", "reserved", "set_aside")  # of the budget; shown rounded up
UNSTATED = "to be stated by the controller"
SECTIONS = {  # in the page's order, each with a note
    "what_is_done": "",
    "data_categories": "The kinds of columns that are read.",
    "plan": "Public numbers, from the platform's own file.",
    "budget": "For all rounds of all runs. ε is rounded up, what is left of it down. Set aside is "
    "what the Plan keeps from the start for sums and metrics, and what earlier Plans kept.",
    "releases": "All that left. Noise is over an L2 norm (Laplace: L1), ε of all so far.",
    "other_data_sets": "Releases of other data sets in this Ledger; their budgets are their own.",
    "shopper_on_several_platforms": "If each of k platforms released what this one did: ε of all "
    "at the same δ; the sum k·ε at k·δ; and that sum if each spends such a budget to its end.",
    "audit": "An audit can refute a claim; it cannot prove one.",
    "refused_requests": "Reservations given up, and requests refused before one was made.",
    "model_lineage": "Digests of the Backbone, and of the Adapters that came in.",
    "retention": "What is kept where.",
    "what_erasure_does_and_does_not_undo": "",
    "what_the_claim_does_not_cover": "",
    "erasures": "What atoll-client erase has recorded; the records lie beside the erasure list.",
    "GDPR_Articles_17_30_and_35": f"Erasure, records of processing, impact assessment. {NO_ADVICE}",
    "PIPL_Articles_47_55_and_56": "Deletion, and what an impact assessment asks for.",
    "NIST_SP_800-226": "What its evaluation of a guarantee asks for, by topic.",
    "statement": "What only people can state.",
}
COLUMNS = {
    "shopper": "identifier of a shopper: joins the shopper's events, is not trained on",
    "item": "identifier of an item",
    "order": "order of a shopper's events",
    "time": "time of an event",
    "kind": "kind of an event: view, click, cart, purchase, rating",
    "value": "value of an event",
}
_WARNINGS = {
    "unprotected": "UNPROTECTED: the platform's file says unprotected = true. What leaves it holds "
    "no noise, no Ledger is kept, and its shoppers are not protected.",
    "simulated noise": "SIMULATED NOISE: the noise came from a seed, and whoever has the seed can "
    "take it away. Nobody is protected; the figures below are a rehearsal's.",
    "audit failed": "AUDIT FAILED: the attached audit refutes its claim. Do not rely on the "
    "figures below until the cause is found.",
    "over budget": "OVER BUDGET: more is spent or reserved than the platform's file allows.",
}


def words(found: Facts) -> dict[str, Any]:
    """The sentences and fields that go with the figures."""
    plan, budget, audit, noise = (found[it] for it in ("plan", "budget", "audit", "noise"))
    holds = {
        "unprotected": plan is None,
        "simulated noise": noise == "simulated",
        "audit failed": audit is not None
        and not (
            all(check["passed"] for check in audit["checks"])
            and audit["lower_bound"]["epsilon"] <= audit["claim"]["epsilon"]
        ),
        "over budget": budget is not None
        and float(budget["spent"]) + float(budget["reserved"]) > budget["epsilon"] + 1e-9,
    }
    status = "protected" if found["releases"] else "nothing released"
    status = next((it for it in _WARNINGS if holds[it]), status)
    claim = "No claim is made."
    if status in ("protected", "over budget"):
        claim = (
            f"A shopper's whole History on {found['platform']} is protected by (ε, δ)-differential "
            "privacy against everyone outside the platform, over all rounds and runs: ε is at most "
            f"{eps(budget['spent'])} at δ = {budget['delta']:.6g}, of a budget of "
            f"{eps(budget['epsilon'])}."
        )
    elif status == "nothing released":
        claim = "Nothing of this data set has been released."
    bounded = status in ("protected", "over budget", "nothing released")
    plain, of_all = "No promise is made.", "No promise is made."
    if bounded and budget is not None:
        of_all = plain_sentence(float(budget["epsilon"]), budget["delta"])
        plain = "Nothing has left this platform yet, so nothing can be concluded from it."
    if bounded and budget is not None and found["releases"]:
        plain = plain_sentence(float(budget["spent"]), budget["delta"])
    large = large_delta(budget["delta"]) if budget is not None else None
    wait = found["answer_seconds"]
    told: dict[str, Any] = {
        "status": status,
        "claim": claim,
        "in_plain_words": plain,
        "in_plain_words_once_the_budget_is_spent": of_all,
        "figures": {
            "spent": eps(budget["spent"]) if bounded and budget is not None else "none",
            "budget": eps(budget["epsilon"]) if bounded and budget is not None else "none",
        },
        "warnings": [
            *(text for it, text in _WARNINGS.items() if holds[it]),
            *([] if large is None else [large]),
        ],
        "what_is_done": {
            "purpose": "To improve a recommender that several platforms train together without "
            "moving rows, and to rank items for this platform's shoppers on its own machine.",
            "unit_of_privacy": "shopper: one shopper's History, all events under one identifier",
            "neighbouring_relation": "add or remove one shopper's whole History (unbounded)",
            "threat_model": "The adversary is everyone outside the platform, the server and the "
            "other platforms included, together, with all that was ever released. "
            "Trusted are the platform's own machine and its operator.",
            "noise": noise,
            "randomness": {
                "none": "None: no noise is added.",
                "simulated": "SIMULATED: a seeded generator, fit for rehearsals only.",
            }.get(
                noise,
                "ChaCha20 under a key from the operating system, for noise and sampling; sum and "
                "noise are rounded to one grid, against attacks on floating point (docs/decisions)",
            ),
            "accounting": found["accounting"],
        },
        "audit": audit or "no audit attached; run atoll-sim audit",
        "data_categories": {
            **{f"events: {it}": COLUMNS[it] for it in found["columns"]["events"]},
            **{f"items: {it}": "of the Catalogue, public" for it in found["columns"]["items"]},
        },
        "retention": [
            "Ledger, under a Plan: for ever. Charges, Plans, times, digests; no personal data.",
            "Last reply of each purpose: in the Ledger, until the next one takes its place.",
            "Erasure list: keyed hashes of erased identifiers, for as long as old exports exist.",
            "Rows: not copied, but read from the platform's tables; the cache holds no rows.",
            "This report: three years at least, by the controller (PIPL Article 56).",
        ],
        "what_erasure_does_and_does_not_undo": [
            "atoll-client erase takes a shopper's rows out of the table where that is allowed,"
            " deletes caches and models made from rows, and lists the shopper by a keyed hash: no"
            " later round, count or model uses the rows, whatever table is put in place.",
            "Releases already made are not undone: "
            + (
                "their influence is bounded by ε." if bounded else "nothing bounds their influence."
            ),
            "A Ledger keeps the budget as spent, and has nothing of the shopper to delete.",
            "Other copies of the rows, and backups, are the platform's to delete.",
        ],
        "what_the_claim_does_not_cover": [
            "The Catalogue: item texts are assumed to be public.",
            "That the platform took part or answered. Failure of the platform's own machine.",
            f"Timing beyond answer_seconds: replies leave at multiples of {wait:g} s."
            if wait
            else "Timing: replies leave at once (answer_seconds is 0).",
            "What the platform publishes by other ways; a shopper under several identifiers.",
        ],
    }
    return {**told, **articles(found, told)}


def render(document: Facts) -> str:
    """The page of a signed document: every fact of it. The same document gives the same bytes."""
    told = document["facts"]
    title = f"Privacy report of {told['platform']}"
    kicker = f"Atoll {told['atoll']} · data set {told['dataset']} · made {told['made']}"
    seal = {name: value for name, value in document.items() if name != "facts"}
    body = [
        f'<p class="kicker">{_text(kicker)}</p>\n<h1>{_text(title)}</h1>',
        *(f'<p class="banner">{_text(warning)}</p>' for warning in told["warnings"]),
        f'<p class="lead">{_text(told["claim"])}</p>\n{_bar(told["budget"])}',
        '<h2>In plain words</h2>\n<p class="plain">' + _text(told["in_plain_words"]) + "</p>",
        f'<p class="note">Once the whole budget is spent: '
        f"{_text(told['in_plain_words_once_the_budget_is_spent'])}</p>",
        *(
            f"<h2>{_title(name)}</h2>\n<p>{_text(note)}</p>\n{_shown(name, told[name])}"
            for name, note in SECTIONS.items()
        ),
        "<h2>Signature</h2>\n<p>By Ed25519, of the JSON beside this page; digest is SHA-256 of its "
        "facts, fingerprint of the key. Compare it with one had from the platform by another way. "
        "<code>atoll-client report --verify privacy-report.json</code> prints both.</p>",
        _shown("signature", seal),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f'<link rel="icon" href="data:,">\n<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n'
        "</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def eps(value: float | str) -> str:
    """An ε, rounded up at the fourth decimal: never told below what it is."""
    return value if isinstance(value, str) else f"{math.ceil(value * 1e4 - 1e-6) / 1e4:.4f}"


def _bar(budget: Facts | None) -> str:
    """Spent, reserved and left of the budget."""
    if budget is None:
        return ""
    names = ("spent", "reserved", "set_aside")
    totals = list(accumulate(float(budget[name]) for name in names))
    scale = 1000 / max(totals[-1], budget["epsilon"])
    ends = (0.0, *(min(1000.0, total * scale) for total in totals), 1000.0)
    bars = legend = ""
    for name, low, high in zip((*names, "left"), ends, ends[1:], strict=False):
        bars += f'<rect class="{name}" x="{low:.2f}" width="{high - low:.2f}" height="24"/>'
        amount = f"{name.replace('_', ' ')} {_shown(name, budget[name])}"
        legend += f'<span><b class="{name}">■</b> {amount}</span> '
    return (
        '<svg class="bar" viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" '
        f'aria-label="budget">{bars}</svg>\n<p class="legend">{legend}</p>'
    )


def _shown(name: str, value: Any) -> str:
    """A fact: fields as a list of terms, records as a table; ε rounded up, what is left down."""
    if isinstance(value, Mapping) and value:
        rows = (f"<dt>{_title(k)}</dt><dd>{_shown(k, v)}</dd>" for k, v in value.items())
        return "<dl>\n" + "\n".join(rows) + "\n</dl>"
    if isinstance(value, list) and value and "article" in value[0]:
        return _articles(value)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        head = "".join(f'<th scope="col">{_title(k)}</th>' for k in value[0])
        cells = ("".join(f"<td>{_shown(k, v)}</td>" for k, v in row.items()) for row in value)
        body = "\n".join(f"<tr>{row}</tr>" for row in cells)
        return (
            f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )
    if isinstance(value, list) and value:
        return "<ul>\n" + "\n".join(f"<li>{_text(line)}</li>" for line in value) + "\n</ul>"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float) and name == "left":
        return f"{math.floor(value * 1e4 + 1e-6) / 1e4:.4f}"
    if isinstance(value, float):
        return eps(value) if "epsilon" in name or name in EPSILONS else f"{value:.6g}"
    return _text(value) if value or value == 0 else "none"


def _articles(rows: list[Mapping[str, str]]) -> str:
    """Long texts in columns, which stand below each other on a narrow screen."""
    heads = {
        "article": "Article or topic",
        "asks": "What it asks",
        "evidence": "What this report shows",
        "controller": "What the controller adds",
    }
    head = "".join(f'<th scope="col">{title}</th>' for title in heads.values())
    body = "\n".join(
        "<tr>"
        + "".join(f'<td data-head="{title}">{_text(row[k])}</td>' for k, title in heads.items())
        + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="articles">\n{top}\n<tbody>\n{body}\n</tbody></table>'


def _title(name: str) -> str:
    symbol = _TITLES.get(name, name)
    plain = symbol.replace("epsilon", "ε").replace("delta", "δ").replace("_", " ")
    return _text(plain[0].upper() + plain[1:] if plain.isascii() and len(plain) > 1 else plain)


def _text(value: object) -> str:
    return escape(str(value))


_TITLES = {
    "sampling_rate": "rate q",
    "GDPR_Articles_17_30_and_35": "GDPR, Articles 17, 30 and 35",
    "PIPL_Articles_47_55_and_56": "PIPL, Articles 47, 55 and 56",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --muted: #5c636b; --rule: #dfe2e5;
  --paper: #fefefe; --alarm: #b3261e; --spent: #0072b2; --reserved: #c44601;
  --set-aside: #8a6d00; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --muted: #a2a9b1;
  --rule: #33373c; --paper: #141618; --alarm: #ff8a80; --spent: #56b4e9; --reserved: #f08a4b;
  --set-aside: #d9b84a; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 64rem; margin: auto; padding: 2rem 1.25rem 4rem; overflow-wrap: anywhere; }
* { box-sizing: border-box; } h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .8rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; break-after: avoid; }
p { margin: 0 0 .6rem; max-width: 48em; } .lead { font-size: 1.12rem; }
.kicker, h2 + p, dt, th, .legend { color: var(--muted); font-size: .88rem; }
.banner { max-width: 60em; padding: .7rem; font-weight: 700; color: var(--alarm); border: solid }
.bar { display: block; width: 100%; height: 24px; outline: 1px solid; fill: currentColor; }
.spent { color: var(--spent); } .left { color: var(--rule); } .reserved { color: var(--reserved); }
.set_aside { color: var(--set-aside); }
.legend span { margin-right: 1.2rem; display: inline-block; } tr, dd, li { break-inside: avoid; }
dl { display: grid; grid-template-columns: minmax(9rem, 17rem) 1fr; gap: .35rem 1.2rem;
  margin: .4rem 0; font-size: .92rem; } dd { margin: 0; min-width: 0; }
dl dl { margin: 0; font-size: 1em; } ul { margin: .3rem 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; }
th, td { padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); } td:last-child { white-space: normal; min-width: 8rem; }
th { font-weight: 400; } main > dl:last-of-type { white-space: pre-line; }
.articles { width: 100%; table-layout: fixed; } .articles td { white-space: normal; }
.articles :is(th, td):first-child { width: 19%; } .articles td:first-child { font-weight: 600; }
h2 + p.plain { color: var(--ink); font-size: 1rem; }
.articles tr { break-inside: avoid; } .note { color: var(--muted); font-size: .92rem; }
@media (max-width: 700px) { .articles, .articles tbody, .articles tr, .articles td { display: block;
  width: auto; } .articles thead { display: none; } .articles td { border: 0; padding: .15rem 0; }
  .articles td:first-child { width: auto; font-size: 1rem; } .articles tr { padding: .5rem 0;
  border-bottom: 1px solid var(--rule); } .articles td + td::before { content: attr(data-head) ": ";
  color: var(--muted); } }
@media (max-width: 600px) { dl { display: block; } dt { margin-top: .5rem; } }
"""
