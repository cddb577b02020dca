"""What sharing adds: every scorer on every platform, on one split.

    popularity, tfidf, itemknn   what a platform has without learning, or from its own counts
    prior                        the backbone untrained
    memory                       the prior and the platform's own memory, nothing trained
    local                        the adapter trained on the platform's rows alone
    federated                    the rounds of the scenario
    federated ε=8, 3, 1 …        the same under Plans, with simulated noise
    personalised                 the federated adapter, trained on at home
    pooled                       one adapter on everyone's rows, as if they could be shared

Validation chooses (simulations/candidates.py), test is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.memory import Memory, Recall
from clients.platform import Platform
from server.registry import Registry, RoundReport
from shared import metrics
from shared.ranking import Ranking, Scorer, rank
from shared.text import Progress, silent, titled
from simulations.baselines import ItemKnn, Popularity, TfIdf
from simulations.candidates import (
    Kept,
    at_home,
    federated,
    recipe_of,
    trained,
    validated,
)
from simulations.scenario import Scenario

SCORERS = (
    "popularity",
    "tfidf",
    "prior",
    "itemknn",
    "memory",
    "local",
    "federated",
    "personalised",
    "pooled",
)
LENGTHS = ((1, 4), (5, 8), (9, 16), (17, 10**9))  # events of a context
FEW = 20  # shoppers under which a length is not shown
ALPHA = 0.05


def compare(
    scenario: Scenario,
    platforms: Sequence[Platform],
    registry: Registry,
    *,
    seed: int,
    private: Mapping[str, Registry] | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> tuple[dict[str, Any], dict[str, Kept]]:
    """Train and test every scorer on every platform.

    Args:
        scenario: how long and how fast to train.
        platforms: opened; in the order of their names.
        registry: holds the rounds of the federation.
        private: by scorer, the rounds of federations under Plans.
        seed: of orders and resamples.
        threads: trainings at once; the result is the same for any number.
        progress: called after each batch.

    Returns:
        The entries "scorers", "platforms" and "rounds" of metrics.json, and by platform the
        federated state it keeps.
    """
    private = private or {}
    reports = reports_of(registry)
    passes = scenario.federation.rounds * scenario.federation.epochs
    untrained, shared, noised = {}, {}, {}
    for platform in platforms:
        name = platform.config.name
        start = platform.untrained
        untrained[name] = Kept(start, validated(platform, start), "untrained")
        shared[name] = federated(platform, untrained[name], registry, reports)
        noised[name] = {
            scorer: federated(platform, untrained[name], rounds, reports_of(rounds))
            for scorer, rounds in private.items()
        }
    with ThreadPoolExecutor(threads) as pool:
        # The longest first. Each works on a copy: filling a platform's slots disturbs nobody.
        everyone = pool.submit(
            trained,
            [platform.copy() for platform in platforms],
            untrained,
            recipe_of(scenario, epochs=passes),
            seed=(seed, 0),
            progress=titled(progress, "pooled"),
        )
        homes = [
            pool.submit(
                at_home,
                platform.copy(),
                untrained[platform.config.name],
                shared[platform.config.name],
                scenario,
                seed=(seed, number),
                progress=progress,
            )
            for number, platform in enumerate(platforms, start=1)
        ]
        pooled = everyone.result()
        tables = {}
        for number, (platform, home) in enumerate(zip(platforms, homes, strict=True), start=1):
            name = platform.config.name
            local, personal = home.result()
            kept = {
                "prior": untrained[name],
                "local": local,
                "federated": shared[name],
                **noised[name],
                "personalised": personal,
                "pooled": pooled[name],
            }
            tables[name] = read_test(
                platform, kept, resamples=scenario.resamples, seed=(seed, number), progress=progress
            )
    found = {
        "scorers": ordered(private),
        "platforms": tables,
        "rounds": [asdict(report) for report in reports],
    }
    return found, shared


def reports_of(registry: Registry) -> list[RoundReport]:
    """What happened in every round."""
    return [registry.load(round_)[1] for round_ in registry.rounds()]


def ordered(private: Iterable[str]) -> list[str]:
    """All scorers in the order of the table: those under Plans after the one without."""
    place = SCORERS.index("federated") + 1
    return [*SCORERS[:place], *private, *SCORERS[place:]]


def compare_untrained(
    scenario: Scenario, platforms: Sequence[Platform], *, seed: int, progress: Progress = silent
) -> dict[str, Any]:
    """Test the scorers that need no training, on every platform: entries as of `compare`."""
    tables = {}
    for number, platform in enumerate(platforms, start=1):
        start = platform.untrained
        kept = {"prior": Kept(start, validated(platform, start), "untrained")}
        tables[platform.config.name] = read_test(
            platform, kept, resamples=scenario.resamples, seed=(seed, number), progress=progress
        )
    names = [name for name in SCORERS if name in next(iter(tables.values()))["scorers"]]
    return {"scorers": names, "platforms": tables, "rounds": []}


def read_test(
    platform: Platform,
    kept: Mapping[str, Kept],
    *,
    resamples: int,
    seed: Sequence[int],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Read the test part once for every scorer: one platform's entry of metrics.json.

    Args:
        platform: whose test part.
        kept: the trained scorers' states, by name; those that only count are fitted here.
        resamples: of the bootstrap.
        seed: of the bootstrap and the test.
        progress: called before each scorer.
    """
    items = len(platform.rows.catalogue)
    asked = platform.question("test")
    rows = platform.rows.histories.without_last(2)
    counted: dict[str, Scorer] = {
        "popularity": Popularity.fit(rows, items=items),
        "tfidf": TfIdf.fit(platform.rows.catalogue),
        "itemknn": ItemKnn.fit(rows, items=items),
        "memory": remembering(platform),
    }
    scorers: dict[str, Any] = {}
    gains: dict[str, NDArray[np.float64]] = {}
    names = ordered(name for name in kept if name not in SCORERS)
    for place, name in enumerate(names):
        if name not in kept and name not in counted:
            continue
        progress(f"{platform.config.name} test", place, len(names))
        # By its own number, so that one scorer more changes no other's interval.
        number = SCORERS.index(name) if name in SCORERS else len(SCORERS) + place
        rng = np.random.default_rng([*seed, number])
        more: dict[str, object] = {"validation": None, "kept": None}
        if name in kept:
            ranking: Ranking = platform.rank(kept[name].adapter, "test")
            more = {"validation": {"ndcg@10": kept[name].validation}, "kept": kept[name].name}
        else:
            ranking = rank(counted[name], asked, items=items)
        figures = metrics.summary(ranking, items, rng=rng, resamples=resamples)
        scorers[name] = {**figures, **more}
        gains[name] = np.asarray(metrics.ndcg(ranking.ranks), np.float64)
    progress(f"{platform.config.name} test", len(names), len(names))
    histories = platform.rows.histories
    entry = {
        "shoppers": len(histories),
        "items": items,
        "events": len(histories.items),
        "catalogue_digest": platform.rows.catalogue.digest,
        "scorers": scorers,
    }
    if "federated" in gains:
        ours, theirs = gains["federated"], gains["local"]
        entry["federated_vs_local"] = verdict(ours, theirs, resamples=resamples, seed=seed)
        entry["gain_by_length"] = by_length(
            ours, theirs, asked.contexts.lengths, resamples=resamples, seed=seed
        )
    return entry


def remembering(platform: Platform) -> Recall:
    """The untrained prior beside the Memory of the platform's train rows."""
    return Recall(
        prior=platform.copy().scorer(platform.untrained),
        memory=Memory.of(
            platform.rows.histories.without_last(2), items=len(platform.rows.catalogue)
        ),
        scale=platform.backbone.spec.prior_scale,
    )


def verdict(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], *, resamples: int, seed: Sequence[int]
) -> dict[str, Any]:
    """Federated against local over the same shoppers, in words and figures."""
    result = metrics.paired(
        ours, theirs, rng=np.random.default_rng([*seed, 100]), resamples=resamples
    )
    word = "no clear difference"
    if result.p < ALPHA:
        word = "gain" if result.difference > 0 else "loss"
    return {**asdict(result), "ci95": list(result.ci95), "verdict": word}


def by_length(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    lengths: NDArray[np.int64],
    *,
    resamples: int,
    seed: Sequence[int],
) -> list[dict[str, Any]]:
    """The difference by how many events stand before the target."""
    rows = []
    for least, most in LENGTHS:
        here = (lengths >= least) & (lengths <= most)
        if here.sum() < FEW:
            continue
        rng = np.random.default_rng([*seed, 200, least])
        difference = ours[here] - theirs[here]
        rows.append(
            {
                "length": f"{least}-{most}" if most < 10**9 else f"{least}+",
                "n": int(here.sum()),
                "difference": float(difference.mean()),
                "ci95": list(metrics.bootstrap_ci(difference, rng=rng, resamples=resamples)),
            }
        )
    return rows
