"""What a comparison found, in words and in figures ready to print.

Every form of the report (terminal, Markdown, page) takes its text from here, so that they cannot
differ. The metrics are the mapping that simulations/compare.py makes; scorers are those it names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulations.reading import served_as

COLUMNS = ("scorer", "n", "HR@10", "NDCG@10", "95 % interval", "MRR", "coverage", "kept")
VERDICTS = ("gain", "loss", "no clear difference")
NONE = "–"
PROTOCOL = (
    "Leave-one-out: each shopper's last item is the test, the one before it the validation. Every "
    "scorer ranks the full catalogue, with the shopper's seen items masked. Intervals are 95 % "
    "bootstrap over shoppers; federated is compared with local on the same shoppers, paired, and p "
    "is Holm's, over all comparisons with local of the report."
)
PRIVACY_COLUMNS = (
    *("platform", "ε", "NDCG@10", "no Plan", "over local", "95 % interval", "p", "served"),
    *("spent", "δ", "σ", "q", "steps", "b of sums"),
)
PRIVACY = (
    "Each platform trained under a Plan of its own: neighbours differ by one shopper's whole "
    "History, ε is for all rounds together and against everyone outside the platform. The "
    "number of shoppers, which a real platform keeps to itself, was taken as public, and the "
    "noise was drawn from a seed so that figures can be repeated: nobody is protected by this "
    "run. Which round a platform keeps is chosen at home and told to nobody, so it costs "
    "nothing. The p of each comparison is Holm's, over all comparisons with local of this report."
)


@dataclass(frozen=True)
class Verdict:
    """Federated against local on one platform, in NDCG@10, as text; dashes for what is unknown."""

    verdict: str
    relative: str
    difference: str
    ci95: str
    p: str


def number(value: object) -> float:
    """The value as a float; NaN for anything that is not a finite number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def interval(ends: object) -> tuple[float, float]:
    """Both ends of an interval; NaN where there are not two."""
    pair = list(ends) if isinstance(ends, (list, tuple)) else []
    return (number(pair[0]), number(pair[1])) if len(pair) == 2 else (math.nan, math.nan)


def figure(value: object, form: str = ".4f") -> str:
    """A number as text with a true minus sign, or a dash."""
    known = number(value)
    return NONE if math.isnan(known) else f"{known:{form}}".replace("-", "−")


def percent(value: object) -> str:
    """A fraction as a signed percentage, of 100 and more without a digit after the point."""
    known = 100 * number(value)
    return figure(known, "+.0f" if abs(known) >= 100 else "+.1f") + (
        "" if math.isnan(known) else " %"
    )


def span(ends: object, form: str = ".4f") -> str:
    """An interval as text, or a dash."""
    low, high = interval(ends)
    return NONE if math.isnan(low + high) else f"{figure(low, form)} to {figure(high, form)}"


def count(value: int, noun: str) -> str:
    """A count and its noun, in the plural where it is not one."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def size(platform: Mapping[str, Any]) -> str:
    """How many shoppers, items and events a platform has, and which rows were left out."""
    nouns = ("shopper", "item", "event")
    kept = ", ".join(count(platform[f"{noun}s"], noun) for noun in nouns)
    dropped = platform.get("dropped")
    return f"{kept}; left out: {', '.join(dropped)}" if dropped else kept


def scorers(metrics: Mapping[str, Any], platforms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The scorers that any of these platforms has, in the run's order, unlisted ones last."""
    found = dict.fromkeys(scorer for platform in platforms for scorer in platform["scorers"])
    listed = [scorer for scorer in metrics["scorers"] if scorer in found]
    return listed + [scorer for scorer in found if scorer not in listed]


def ndcg(platform: Mapping[str, Any], scorer: str) -> float:
    """A scorer's NDCG@10 on a platform's test; NaN where it has none."""
    return number(platform["scorers"].get(scorer, {}).get("ndcg@10"))


def validated(row: Mapping[str, Any], name: str) -> float:
    """A platform's validation NDCG@10 after a round; NaN where it has none."""
    return number(row.get("validation", {}).get(name, {}).get("ndcg@10"))


def kept_round(platform: Mapping[str, Any]) -> int | None:
    """The round whose Adapter was kept; 0 is the untrained one."""
    kept = platform["scorers"].get("federated", {}).get("kept") or ""
    found = re.fullmatch(r"round (\d+)", kept)
    return 0 if kept in ("untrained", "sums") else int(found[1]) if found else None


def scorer_rows(
    metrics: Mapping[str, Any], platform: Mapping[str, Any]
) -> list[list[tuple[str, bool]]]:
    """A platform's table: per scorer the text of COLUMNS, each with whether it is the best there.

    Figures that are equal as printed are equally best.
    """
    rows = []
    known = [(scorer, platform["scorers"][scorer]) for scorer in scorers(metrics, [platform])]
    best = {}
    for key in ("hr@10", "ndcg@10", "mrr"):
        values = [number(row.get(key)) for _, row in known]
        top = max((value for value in values if value > 0), default=None)
        best[key] = figure(top) if top else ""
    for scorer, row in known:
        hit, gain, rank = ((text := figure(row.get(key)), text == top) for key, top in best.items())
        cells = [(scorer, False), (f"{row['n']:,}", False), hit, gain]
        cells += [(span(row.get("ci95", {}).get("ndcg@10")), False), rank]
        cells += [(figure(row.get("coverage"), ".3f"), False), (row.get("kept") or NONE, False)]
        rows.append(cells)
    return rows


def privacy_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """By platform and ε the text of PRIVACY_COLUMNS."""
    rows = []
    for name, platform in metrics["platforms"].items():
        for run in metrics.get("privacy", []):
            plan, reached = run["platforms"][name], ndcg(platform, run["scorer"])
            told = platform.get("against_local", {}).get(run["scorer"], {})
            local = ndcg(platform, "local")
            ends = [end / local if local > 0 else math.nan for end in interval(told.get("ci95"))]
            rows.append(
                [
                    name,
                    f"{run['epsilon']:g}",
                    figure(reached),
                    figure(ndcg(platform, "federated")),
                    percent(told.get("relative")),
                    f"{percent(ends[0])} to {percent(ends[1])}",
                    figure(told.get("p_holm"), ".3f"),
                    figure(ndcg(platform, served_as(run["scorer"]))),
                    figure(plan["spent"], ".3f"),
                    f"{plan['delta']:.2g}",
                    figure(plan["noise_multiplier"], ".3f"),
                    figure(plan["sampling_rate"], ".3f"),
                    f"{run['rounds']} × {plan['steps']}",
                    figure(plan.get("sums_noise"), ".3f"),
                ]
            )
    return rows


def verdict(platform: Mapping[str, Any]) -> Verdict:
    """Federated against local on one platform."""
    found = platform.get("federated_vs_local") or {"verdict": "not compared"}
    p = number(found.get("p_holm", found.get("p")))
    return Verdict(
        verdict=found["verdict"],
        relative=percent(found.get("relative")),
        difference=figure(found.get("difference"), "+.4f"),
        ci95=span(found.get("ci95"), "+.4f"),
        p=NONE if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
    )


def trained_alone(metrics: Mapping[str, Any]) -> bool:
    """Whether the run had one platform, which was trained without a federation."""
    platforms = list(metrics["platforms"].values())
    scorers = platforms[0].get("scorers", {}) if len(platforms) == 1 else {}
    return "local" in scorers and "federated" not in scorers


def headline(metrics: Mapping[str, Any]) -> str:
    """In plain words: on how many platforms sharing helped or hurt, and which it hurt."""
    told = {name: verdict(platform) for name, platform in metrics["platforms"].items()}
    helped, hurt, unclear = (
        [name for name, it in told.items() if it.verdict == kind] for kind in VERDICTS
    )
    total = len(helped) + len(hurt) + len(unclear)
    if trained_alone(metrics):
        return "One platform: it was trained alone, and nothing was federated."
    if not total:
        return "This run did not compare federated with local training."
    named = f" ({'; '.join(f'{name}, {told[name].relative}' for name in hurt)})" if hurt else ""
    ending = f" and made no clear difference for {len(unclear)}" if unclear else ""
    middle = f"{',' if unclear else ' and'} hurt {len(hurt) or 'none'}{named}"
    told_of = f"Sharing helped {len(helped)} of {count(total, 'platform')}{middle}{ending}."
    return told_of + _under_plans(metrics)


def _under_plans(metrics: Mapping[str, Any]) -> str:
    runs = metrics.get("privacy", [])
    if not runs:
        return ""
    by_run = [
        [it["against_local"][run["scorer"]]["verdict"] for it in metrics["platforms"].values()]
        for run in runs
    ]
    helped, hurt = ([told.count(kind) for told in by_run] for kind in VERDICTS[:2])
    budgets = " / ".join(f"{run['epsilon']:g}" for run in runs)
    return f" Under ε = {budgets} it helped {_each(helped)} and hurt {_each(hurt)}."


def _each(counts: Sequence[int]) -> str:
    return " / ".join(map(str, counts)) if any(counts) else "none"


def negative_transfer(metrics: Mapping[str, Any]) -> str:
    """A sentence that names each platform the federated Adapter made worse than its own."""
    told = {name: verdict(platform) for name, platform in metrics["platforms"].items()}
    if not any(it.verdict in VERDICTS for it in told.values()):
        return "Nothing was federated, so no transfer is judged."
    found = [
        f"{name} ({it.difference}, 95 % interval {it.ci95})"
        for name, it in told.items()
        if it.verdict == "loss"
    ]
    if not found:
        among = " without a Plan" if metrics.get("privacy") else ""
        return f"No platform shows negative transfer{among}."
    return (
        f"Negative transfer: {'; '.join(found)}. The federated Adapter ranks worse there than the "
        "one the platform trained alone."
    )
