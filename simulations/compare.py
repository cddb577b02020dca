"""What sharing adds: every scorer on every platform, on one split.

    popularity, tfidf, itemknn   what a platform has without learning, or from its own counts
    prior                        the backbone untrained
    memory                       the prior and the platform's own memory, nothing trained
    local                        and the adapter trained on the platform's rows alone
    federated                    the rounds of the scenario, own memory, and sums of all memories
    federated ε=8, 3, 1 …        the same under Plans, with simulated noise
    personalised                 the federated adapter, trained on at home
    pooled                       one adapter and one memory of everyone's rows, were they shared

Validation chooses (simulations/candidates.py), test is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.beside import own
from clients.platform import Platform
from server.registry import Registry
from shared import metrics
from shared.ranking import Ranking, Scorer, rank
from shared.text import Progress, silent, titled
from simulations.baselines import ItemKnn, Popularity, TfIdf
from simulations.beside import Taken, pooled
from simulations.candidates import (
    Kept,
    at_home,
    federated,
    recipe_of,
    reports_of,
    trained,
    validated,
    with_sums,
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
    sums: Taken | None = None,
    private: Mapping[str, tuple[Registry, Taken | None]] | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> tuple[dict[str, Any], dict[str, Kept]]:
    """Train and test every scorer on every platform.

    Args:
        scenario: how long and how fast to train.
        platforms: opened; in the order of their names.
        registry: holds the rounds of the federation.
        sums: its sums over pairs of items, if they were taken.
        private: by scorer, the rounds and sums of federations under Plans.
        seed: of orders and resamples.
        threads: trainings at once; the result is the same for any number.
        progress: called after each batch.

    Returns:
        The entries "scorers", "platforms" and "rounds" of metrics.json, and by platform the
        federated state it keeps.
    """
    private = private or {}
    passes = scenario.federation.rounds * scenario.federation.epochs
    alone, shared, noised, together = {}, {}, {}, {}
    for place, platform in enumerate(platforms):
        progress("what platforms remember", place, len(platforms))
        name, start = platform.config.name, platform.untrained
        recall = own(platform)
        alone[name] = validated(platform, start, beside=recall)
        shared[name] = federated(platform, with_sums(platform, alone[name], sums), registry)
        noised[name] = {
            scorer: federated(platform, with_sums(platform, alone[name], taken), rounds)
            for scorer, (rounds, taken) in private.items()
        }
        whole = pooled(platform, recall, platforms)
        together[name] = validated(platform, start, beside=whole)
    progress("what platforms remember", len(platforms), len(platforms))
    with ThreadPoolExecutor(threads) as pool:
        # The longest first. Each works on a copy: filling a platform's slots disturbs nobody.
        everyone = pool.submit(
            trained,
            [platform.copy() for platform in platforms],
            together,
            recipe_of(scenario, epochs=passes),
            seed=(seed, 0),
            progress=titled(progress, "pooled"),
        )
        homes = [
            pool.submit(
                at_home,
                platform.copy(),
                alone[platform.config.name],
                shared[platform.config.name],
                scenario,
                seed=(seed, number),
                progress=progress,
            )
            for number, platform in enumerate(platforms, start=1)
        ]
        with_all = everyone.result()
        tables = {}
        for number, (platform, home) in enumerate(zip(platforms, homes, strict=True), start=1):
            name = platform.config.name
            local, personal = home.result()
            kept = {
                "prior": validated(platform, platform.untrained),
                "memory": alone[name],
                "local": local,
                "federated": shared[name],
                **noised[name],
                "personalised": personal,
                "pooled": with_all[name],
            }
            tables[name] = read_test(
                platform, kept, resamples=scenario.resamples, seed=(seed, number), progress=progress
            )
    corrected(tables)
    found = {
        "scorers": ordered(private),
        "platforms": tables,
        "rounds": [asdict(report) for report in reports_of(registry)],
    }
    return found, shared


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
        kept = {
            "prior": validated(platform, start),
            "memory": validated(platform, start, beside=own(platform)),
        }
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
            ranking: Ranking = kept[name].rank(platform, "test")
            more = {"validation": {"ndcg@10": kept[name].validation}, "kept": kept[name].name}
        else:
            ranking = rank(counted[name], asked, items=items)
        figures = metrics.summary(ranking, items, rng=rng, resamples=resamples)
        scorers[name] = {**figures, **more}
        gains[name] = np.asarray(metrics.ndcg(ranking.ranks), np.float64)
    progress(f"{platform.config.name} test", len(names), len(names))
    histories = platform.rows.histories
    entry: dict[str, Any] = {
        "shoppers": len(histories),
        "items": items,
        "events": len(histories.items),
        "catalogue_digest": platform.rows.catalogue.digest,
        "scorers": scorers,
    }
    if "federated" in gains:
        ours, theirs = gains["federated"], gains["local"]
        entry["against_local"] = {
            name: verdict(gains[name], theirs, resamples=resamples, seed=seed)
            for name in names
            if name.startswith("federated")
        }
        entry["federated_vs_local"] = entry["against_local"]["federated"]
        entry["gain_by_length"] = by_length(
            ours, theirs, asked.contexts.lengths, resamples=resamples, seed=seed
        )
    return entry


def corrected(tables: Mapping[str, Any]) -> None:
    """Add to each comparison with local its p by Holm's method over all of them together."""
    every = [it for table in tables.values() for it in table["against_local"].values()]
    for it, p in zip(every, metrics.holm([it["p"] for it in every]), strict=True):
        it["p_holm"] = p


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
