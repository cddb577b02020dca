"""What sharing adds: every scorer on every platform, on one split.

    popularity, tfidf, itemknn   what a platform has without learning, or from its own counts
    prior                        the backbone untrained
    memory                       the prior and the platform's own memory, nothing trained
    local                        and the adapter trained on the platform's rows alone
    federated                    the rounds of the scenario, own memory, and what sums say of all
    federated ε=8, 3, 1 …        the same under Plans, with simulated noise
    personalised                 the federated adapter, trained on at home
    served                       the best of local, federated and personalised; not local where
                                 sums are listened to (clients/kept.py)
    served ε=8, 3, 1 …           the same of what comes of a Plan
    pooled                       one adapter and one memory of everyone's rows, were they shared

Validation chooses (simulations/candidates.py), test is read once (simulations/reading.py).

A memory of pairs of items is large, and each platform needs several: its own, one of each
federation, one of everybody's rows (simulations/pooled.py). So one task compares a platform from
beginning to end, of which an Adapter and figures remain, and no more platforms than threads hold
theirs at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from clients.beside import own
from clients.kept import Kept, better, preferred, validated
from clients.platform import Platform
from server.registry import Registry
from shared.text import Progress, silent
from simulations.beside import Taken
from simulations.candidates import at_home, federated, reports_of, with_sums
from simulations.pooled import POOLED, pool_rows
from simulations.reading import corrected, read_test, served_as
from simulations.scenario import Scenario

EARLY = "memory of train rows"
Joined = Mapping[str, tuple[Registry, Taken | None]]


@dataclass(frozen=True)
class _Result:
    """One platform, compared.

    Attributes:
        entry: of metrics.json, without what is pooled.
        kept: the state to hand out: federated, or of a platform alone what it trained.
    """

    entry: dict[str, Any]
    kept: Kept


def compare(
    scenario: Scenario,
    platforms: Sequence[Platform],
    registry: Registry | None,
    *,
    seed: int,
    sums: Taken | None = None,
    private: Joined | None = None,
    training: bool = True,
    threads: int = 1,
    progress: Progress = silent,
) -> tuple[dict[str, Any], dict[str, Kept]]:
    """Train and test every scorer on every platform.

    Args:
        scenario: how long and how fast to train.
        platforms: opened; in the order of their names.
        registry: holds the rounds of the federation, if there were any; None where there is no
            federation, so that each platform is trained alone.
        sums: its sums over pairs of items, if they were taken.
        private: by scorer, the rounds and sums of federations under Plans.
        training: False trains nothing at home and nothing pooled, so nothing is personalised.
        seed: of orders and resamples.
        threads: platforms at once; the result is the same for any number.
        progress: called after each batch.

    Returns:
        The entries "scorers", "platforms" and "rounds" of metrics.json, and by platform the
        federated state it keeps, without the memory beside it; without a federation the one that it
        trained alone.
    """
    joined: Joined = {}
    if registry is not None:
        joined = {"federated": (registry, sums), **(private or {})}
    everyone: Future[dict[str, dict[str, Any]]] | None = None
    with ThreadPoolExecutor(threads) as pool:
        if joined:  # the longest first
            everyone = pool.submit(
                pool_rows, scenario, platforms, training=training, seed=seed, progress=progress
            )
        tasks = {
            platform.config.name: pool.submit(
                _compared,
                platform,
                joined,
                scenario,
                training=training,
                seed=(seed, number),
                progress=progress,
            )
            for number, platform in enumerate(platforms, start=1)
        }
        done = {name: task.result() for name, task in tasks.items()}
        pooled = everyone.result() if everyone is not None else {}
    tables = {name: it.entry for name, it in done.items()}
    for name, row in pooled.items():
        tables[name]["scorers"][POOLED] = row
    corrected(tables)
    found = {
        "scorers": list(next(iter(tables.values()))["scorers"]),
        "platforms": tables,
        "rounds": [] if registry is None else [asdict(it) for it in reports_of(registry)],
    }
    return found, {name: it.kept for name, it in done.items()}


def compare_untrained(
    scenario: Scenario, platforms: Sequence[Platform], *, seed: int, progress: Progress = silent
) -> dict[str, Any]:
    """Test the scorers that need neither training nor others: entries as of `compare`."""
    tables = {}
    for number, platform in enumerate(platforms, start=1):
        start = platform.untrained
        memory = validated(platform, start, beside=own(platform))
        kept = {
            "prior": validated(platform, start),
            "memory": memory,
            EARLY: replace(memory, to_date=False),
        }
        tables[platform.config.name] = read_test(
            platform, kept, resamples=scenario.resamples, seed=(seed, number), progress=progress
        )
    names = list(next(iter(tables.values()))["scorers"])
    return {"scorers": names, "platforms": tables, "rounds": []}


def _compared(
    opened: Platform,
    joined: Joined,
    scenario: Scenario,
    *,
    training: bool,
    seed: Sequence[int],
    progress: Progress,
) -> _Result:
    """Everything of one platform but what is pooled."""
    platform = opened.copy()  # filling its slots disturbs no other task
    name, steps = platform.config.name, 1 + len(joined)
    title = f"{name}: memory, rounds and sums"
    progress(title, 0, steps)
    alone = validated(platform, platform.untrained, beside=own(platform))
    states: dict[str, Kept] = {}
    for place, (scorer, (rounds, taken)) in enumerate(joined.items(), start=1):
        progress(title, place, steps)
        states[scorer] = federated(platform, with_sums(platform, alone, taken), rounds)
    progress(title, steps, steps)
    local, personal = alone, dict[str, Kept]()
    if training:
        local, personal = at_home(platform, alone, states, scenario, seed=seed, progress=progress)
    kept = {
        "prior": validated(platform, platform.untrained),
        "memory": alone,
        "local": local,
        **states,
    }
    for scorer, further in personal.items():
        kept[served_as(scorer)] = preferred(local, better(states[scorer], further))
    if personal:
        kept["personalised"] = personal["federated"]
    entry = read_test(platform, kept, resamples=scenario.resamples, seed=seed, progress=progress)
    return _Result(entry, replace(states.get("federated", local), beside=None))
