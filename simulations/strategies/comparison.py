"""Every strategy on every platform, over one or more seeds; which wins where, and was it foreseen.

    seed ─prepare→ platforms ─scores, strategies→ Kept ─test, once→ NDCG@10 of each shopper
    seeds ─together→ differences from `local` with intervals, p by Holm over the whole table

Validation chooses epochs and rounds, and in the row `chosen` the strategy too: what a platform can
do that must not look at its test part. Those for which rows would have to meet are not on offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shared import metrics
from simulations.findings import figure
from simulations.strategies.every import FEDERATED, LOCAL, STRATEGIES
from simulations.strategies.meeting import Meeting
from simulations.transfer_score import EPSILON, Score, scores

CHOSEN = "chosen"  # by validation, among those that a platform can have
# Points of a rank correlation, at least: of four even a perfect order is by chance one time in
# twelve (two-sided, 2/4!), of five one time in sixty. Seeds of two platforms are two heaps.
FEWEST, FEWEST_PLATFORMS = 5, 3
CHOICE = "of these, the one that is best on own validation"


@dataclass(frozen=True)
class Reading:
    """One strategy on one platform under one seed.

    Attributes:
        kept: which state validation chose.
        validation: its mean NDCG@10 there.
        values: [S] NDCG@10 of each shopper of the test part.
    """

    kept: str
    validation: float
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Sitting:
    """All that one seed gave.

    Attributes:
        seed: of the world, or of the orders where tables are given.
        readings: by platform, by strategy.
        scores: by platform, made before anything was trained.
    """

    seed: int
    readings: Mapping[str, Mapping[str, Reading]]
    scores: Mapping[str, Score]


def sit(meeting: Meeting, names: Sequence[str]) -> Sitting:
    """Score, train and read one seed.

    Args:
        meeting: the platforms.
        names: strategies, as of `every.chosen`.
    """
    foreseen = scores(meeting.platforms, seed=meeting.seed)
    for name in names:
        meeting.progress(f"seed {meeting.seed}: {name}", 0, 1)
        meeting.of(name, STRATEGIES[name].run)
        meeting.progress(f"seed {meeting.seed}: {name}", 1, 1)
    readings = {
        platform.config.name: read(platform.config.name, meeting, names)
        for platform in meeting.platforms
    }
    return Sitting(meeting.seed, readings, foreseen)


def read(platform: str, meeting: Meeting, names: Sequence[str]) -> dict[str, Reading]:
    """Read a platform's test part once for every state that it keeps."""
    opened = next(it for it in meeting.platforms if it.config.name == platform)
    found = {}
    for name in names:
        kept = meeting.kept[name][platform]
        values = metrics.ndcg(kept.rank(opened, "test").ranks)
        found[name] = Reading(kept.name, kept.validation, np.asarray(values, np.float64))
    offered = [name for name in names if STRATEGIES[name].leaves != "rows"]
    best = max(offered, key=lambda name: found[name].validation)  # of equals the first
    found[CHOSEN] = Reading(best, found[best].validation, found[best].values)
    return found


def together(sittings: Sequence[Sitting], *, same_shoppers: bool, resamples: int) -> dict[str, Any]:
    """The entries "strategies", "platforms" and "transfer" of strategies.json.

    Args:
        sittings: at least one; all of the same platforms and strategies.
        same_shoppers: every seed tested the same ones, so each shopper's mean counts once; else
            seeds make other worlds, and their shoppers stand side by side.
        resamples: of the bootstrap.
    """
    first = sittings[0]
    platforms = {
        name: platform_entry(name, sittings, same_shoppers=same_shoppers, resamples=resamples)
        for name in first.readings
    }
    correct(platforms)
    names = next(iter(first.readings.values()))
    told = {
        name: {"leaves": it.leaves, "told": it.told}
        for name in names
        if (it := STRATEGIES.get(name)) is not None
    }
    return {
        "strategies": {**told, CHOSEN: {"leaves": "Adapters", "told": CHOICE}},
        "platforms": platforms,
        "transfer": foreseen(platforms),
    }


def platform_entry(
    name: str, sittings: Sequence[Sitting], *, same_shoppers: bool, resamples: int
) -> dict[str, Any]:
    """One platform's rows, without Holm's correction."""
    strategies = list(sittings[0].readings[name])
    values = {}
    for strategy in strategies:
        each = [sitting.readings[name][strategy].values for sitting in sittings]
        values[strategy] = np.mean(each, axis=0) if same_shoppers else np.concatenate(each)
    rows: dict[str, Any] = {}
    for place, strategy in enumerate(strategies):
        readings = [sitting.readings[name][strategy] for sitting in sittings]
        rng = np.random.default_rng([sittings[0].seed, place])
        row: dict[str, Any] = {
            "ndcg@10": float(values[strategy].mean()),
            "by_seed": [float(it.values.mean()) for it in readings],
            "validation": float(np.mean([it.validation for it in readings])),
            "kept": [it.kept for it in readings],
        }
        if strategy != LOCAL:
            found = metrics.paired(values[strategy], values[LOCAL], rng=rng, resamples=resamples)
            row["against_local"] = {**asdict(found), "ci95": list(found.ci95)}
        rows[strategy] = row
    return {
        "shoppers": len(values[LOCAL]),
        "strategies": rows,
        "scores": [score_entry(sitting, name) for sitting in sittings],
    }


def score_entry(sitting: Sitting, name: str) -> dict[str, Any]:
    """A score, and what federated came to, as a share of local."""
    found, readings = sitting.scores[name], sitting.readings[name]
    gain = None
    if FEDERATED in readings and (base := float(readings[LOCAL].values.mean())) > 0:
        gain = float(readings[FEDERATED].values.mean()) / base - 1
    return {"seed": sitting.seed, **asdict(found), "verdict": found.verdict, "gain": gain}


def correct(platforms: Mapping[str, Any]) -> None:
    """Add p by Holm's method over the whole table, the verdict, and which strategy wins where.

    `chosen` is one of the others and is not among the wins.
    """
    every = [
        row["against_local"]
        for platform in platforms.values()
        for row in platform["strategies"].values()
        if "against_local" in row
    ]
    for it, p in zip(every, metrics.holm([it["p"] for it in every]), strict=True):
        it["p_holm"] = p
        sure = "gain" if it["difference"] > 0 else "loss"
        it["verdict"] = sure if p < metrics.ALPHA else "no clear difference"
    for platform in platforms.values():
        rows = platform["strategies"]
        had = [it for it in rows if it != CHOSEN and STRATEGIES[it].leaves != "rows"]
        platform["best"] = max(had, key=lambda name: rows[name]["ndcg@10"])


def foreseen(platforms: Mapping[str, Any]) -> dict[str, Any]:
    """How well the score ranked the gains, over platforms and seeds; None where it cannot be told.

    The coefficient is Spearman's, of FEWEST points and FEWEST_PLATFORMS platforms or more. No p:
    platforms of one seed are scored against one another.
    """
    points = [
        it for platform in platforms.values() for it in platform["scores"] if it["gain"] is not None
    ]

    def agreement(key: str) -> float | None:
        told = [it[key] for it in points if it[key] is not None]
        came = [it["gain"] for it in points if it[key] is not None]
        few = len(told) < FEWEST or len(platforms) < FEWEST_PLATFORMS
        if few or len(set(told)) < 2 or len(set(came)) < 2:
            return None
        return float(stats.spearmanr(told, came).statistic)

    return {
        "epsilon": EPSILON,
        "points": len(points),
        "rank_correlation": {key: agreement(key) for key in ("expected", "nearness")},
        "warnings": [
            f"{name}: the others' law runs contrary to its own (nearness"
            f" {figure(it['nearness'], '+.2f')}, seed {it['seed']}): expect negative transfer"
            for name, platform in platforms.items()
            for it in platform["scores"]
            if it["verdict"] == "contrary"
        ],
    }
