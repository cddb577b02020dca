"""Read the test part once: every scorer of a platform, and federated against local.

Kept ─rank→ figures with intervals      ranks ─paired→ difference to local, its interval and p
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.kept import Kept
from clients.platform import Platform
from shared import metrics
from shared.ranking import Ranking, Scorer, rank
from shared.text import Progress, silent
from simulations.baselines import ItemKnn, Popularity, TfIdf

SCORERS = (
    "popularity",
    "tfidf",
    "prior",
    "itemknn",
    "memory",
    "local",
    "federated",
    "personalised",
    "served",
    "pooled",
)
LENGTHS = ((1, 4), (5, 8), (9, 16), (17, 10**9))  # events of a context
FEW = 20  # shoppers under which a length is not shown


def ordered(more: Iterable[str] = ()) -> list[str]:
    """All scorers in the order of the table: "federated ε=8" and its like after "federated"."""
    variants = list(more)
    return [
        it
        for scorer in SCORERS
        for it in (scorer, *(name for name in variants if name.split()[0] == scorer))
    ]


def served_as(scorer: str) -> str:
    """The name of what a platform would serve with, given what this federation sent it."""
    return scorer.replace("federated", "served")


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
    rows = platform.told  # all that there is on that day, as every memory has it
    counted: dict[str, Scorer] = {
        "popularity": Popularity.fit(rows, items=items),
        "tfidf": TfIdf.fit(platform.rows.catalogue),
        "itemknn": ItemKnn.fit(rows, items=items),
    }
    scorers: dict[str, Any] = {}
    gains: dict[str, NDArray[np.float64]] = {}
    ranked: dict[int, Ranking] = {}  # one state may be kept under several names
    names = ordered(name for name in kept if name not in SCORERS)
    for place, name in enumerate(names):
        if name not in kept and name not in counted:
            continue
        progress(f"{platform.config.name} test", place, len(names))
        # By its own number, so that one scorer more changes none of SCORERS' intervals.
        number = SCORERS.index(name) if name in SCORERS else len(SCORERS) + place
        state = kept.get(name)
        if state is not None:
            ranking = ranked.get(id(state)) or state.rank(platform, "test")
            ranked[id(state)] = ranking
        else:
            ranking = rank(counted[name], asked, items=items)
        scorers[name] = _row(ranking, state, items=items, resamples=resamples, seed=(*seed, number))
        gains[name] = np.asarray(metrics.ndcg(ranking.ranks), np.float64)
    progress(f"{platform.config.name} test", len(names), len(names))
    histories = platform.rows.histories
    entry: dict[str, Any] = {
        "shoppers": len(histories),
        "items": items,
        "events": len(histories.items),
        "dropped": platform.rows.report.dropped(),
        "catalogue_digest": platform.rows.catalogue.digest,
        "scorers": scorers,
    }
    if "federated" in gains:
        ours, theirs = gains["federated"], gains["local"]
        entry["against_local"] = {
            name: verdict(gains[name], theirs, resamples=resamples, seed=seed)
            for name in gains
            if name.startswith("federated") or name == "served"
        }
        entry["federated_vs_local"] = entry["against_local"]["federated"]
        entry["gain_by_length"] = by_length(
            ours, theirs, asked.contexts.lengths, resamples=resamples, seed=seed
        )
    return entry


def read_scorer(
    platform: Platform, name: str, state: Kept, *, resamples: int, seed: Sequence[int]
) -> dict[str, Any]:
    """Read the test part once for one of SCORERS: its row of metrics.json.

    It is the row that `read_test` would give among others, as of `seed`.
    """
    return _row(
        state.rank(platform, "test"),
        state,
        items=len(platform.rows.catalogue),
        resamples=resamples,
        seed=(*seed, SCORERS.index(name)),
    )


def _row(
    ranking: Ranking, state: Kept | None, *, items: int, resamples: int, seed: Sequence[int]
) -> dict[str, Any]:
    """Figures with intervals, and which state they are of; None is a scorer that only counts."""
    rng = np.random.default_rng(list(seed))
    figures = metrics.summary(ranking, items, rng=rng, resamples=resamples)
    if state is None:
        return {**figures, "validation": None, "kept": None}
    return {**figures, "validation": {"ndcg@10": state.validation}, "kept": state.name}


def corrected(tables: Mapping[str, Any]) -> None:
    """Add to each comparison with local Holm's p over all of them, and judge by it.

    Where nothing was federated there is none.
    """
    every = [it for table in tables.values() for it in table.get("against_local", {}).values()]
    for it, p in zip(every, metrics.holm([it["p"] for it in every]), strict=True):
        it["p_holm"] = p
        it["verdict"] = metrics.worded(it["difference"], p)


def verdict(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], *, resamples: int, seed: Sequence[int]
) -> dict[str, Any]:
    """Federated against local over the same shoppers, in words and figures."""
    result = metrics.paired(
        ours, theirs, rng=np.random.default_rng([*seed, 100]), resamples=resamples
    )
    word = metrics.worded(result.difference, result.p)
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
