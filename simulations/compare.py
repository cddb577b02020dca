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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from clients.beside import own
from clients.kept import Kept, better, preferred, trained, validated
from clients.platform import Platform
from clients.recall import Recall
from server.registry import Registry
from shared.text import Progress, silent, titled
from simulations.beside import Taken, pooled
from simulations.candidates import at_home, federated, recipe_of, reports_of, with_sums
from simulations.reading import corrected, read_test, served_as
from simulations.scenario import Scenario

EARLY = "memory of train rows"
Joined = Mapping[str, tuple[Registry, Taken | None]]


@dataclass(frozen=True)
class _End:
    """What a platform has once it has trained at home, or as much of it as needs no training.

    Attributes:
        local: trained alone.
        personal: by scorer of a federation, trained on from its state.
        pooled: trained on everybody's rows.
    """

    local: Kept
    personal: Mapping[str, Kept]
    pooled: Kept


@dataclass(frozen=True)
class _Start:
    """What a platform has before it trains at home.

    Attributes:
        alone: own memory.
        joined: by scorer, the rounds and sums of a federation, the one without Plans first.
        pooled: everybody's memory.
    """

    alone: Kept
    joined: Mapping[str, Kept]
    pooled: Kept


def compare(
    scenario: Scenario,
    platforms: Sequence[Platform],
    registry: Registry,
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
        registry: holds the rounds of the federation, if there were any.
        sums: its sums over pairs of items, if they were taken.
        private: by scorer, the rounds and sums of federations under Plans.
        training: False trains nothing at home and nothing pooled, so nothing is personalised.
        seed: of orders and resamples.
        threads: trainings at once; the result is the same for any number.
        progress: called after each batch.

    Returns:
        The entries "scorers", "platforms" and "rounds" of metrics.json, and by platform the
        federated state it keeps.
    """
    joined = {"federated": (registry, sums), **(private or {})}
    starts = {}
    remembered = []
    for place, platform in enumerate(platforms):
        progress("what platforms remember", place, len(platforms))
        remembered.append(own(platform))
    progress("what platforms remember", len(platforms), len(platforms))
    progress("what all of them remember", 0, 1)
    everything = pooled(platforms, remembered)
    progress("what all of them remember", 1, 1)
    for place, platform in enumerate(platforms):
        progress("what rounds and sums add", place, len(platforms))
        starts[platform.config.name] = _begun(
            platform, remembered[place], everything[place], joined
        )
    progress("what rounds and sums add", len(platforms), len(platforms))
    ends = {name: _End(it.alone, {}, it.pooled) for name, it in starts.items()}
    if training:
        ends = _trained(scenario, platforms, starts, seed=seed, threads=threads, progress=progress)
    tables = {}
    for number, platform in enumerate(platforms, start=1):
        start = starts[platform.config.name]
        end = ends[platform.config.name]
        kept = {
            "prior": validated(platform, platform.untrained),
            "memory": start.alone,
            "local": end.local,
            **start.joined,
            "pooled": end.pooled,
        }
        for scorer, personal in end.personal.items():
            kept[served_as(scorer)] = preferred(end.local, better(start.joined[scorer], personal))
        if training:
            kept["personalised"] = end.personal["federated"]
        tables[platform.config.name] = read_test(
            platform, kept, resamples=scenario.resamples, seed=(seed, number), progress=progress
        )
    corrected(tables)
    found = {
        "scorers": list(next(iter(tables.values()))["scorers"]),
        "platforms": tables,
        "rounds": [asdict(report) for report in reports_of(registry)],
    }
    return found, {name: it.joined["federated"] for name, it in starts.items()}


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


def _begun(
    platform: Platform,
    recall: Recall,
    everything: Recall,
    joined: Joined,
) -> _Start:
    alone = validated(platform, platform.untrained, beside=recall)
    return _Start(
        alone,
        {
            scorer: federated(platform, with_sums(platform, alone, taken), rounds)
            for scorer, (rounds, taken) in joined.items()
        },
        validated(platform, platform.untrained, beside=everything),
    )


def _trained(
    scenario: Scenario,
    platforms: Sequence[Platform],
    starts: Mapping[str, _Start],
    *,
    seed: int,
    threads: int,
    progress: Progress,
) -> dict[str, _End]:
    passes = scenario.federation.rounds * scenario.federation.epochs
    with ThreadPoolExecutor(threads) as pool:
        # The longest first. Each works on a copy: filling a platform's slots disturbs nobody.
        everyone = pool.submit(
            trained,
            [platform.copy() for platform in platforms],
            {name: it.pooled for name, it in starts.items()},
            recipe_of(scenario, epochs=passes),
            seed=(seed, 0),
            progress=titled(progress, "pooled"),
        )
        homes = {
            platform.config.name: pool.submit(
                at_home,
                platform.copy(),
                starts[platform.config.name].alone,
                starts[platform.config.name].joined,
                scenario,
                seed=(seed, number),
                progress=progress,
            )
            for number, platform in enumerate(platforms, start=1)
        }
        together = everyone.result()
        return {name: _End(*home.result(), together[name]) for name, home in homes.items()}
