"""The states a training offers, and the one a platform keeps.

Of the states that it is offered, a platform keeps the one that is best on its own validation part,
the untrained one among them. The same rule holds for local, federated, personalised and pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clients.platform import Platform
from server.registry import Registry, RoundReport
from shared import metrics
from shared.adapter import Adapter
from shared.text import Progress, titled
from shared.training import Recipe, train
from simulations.scenario import Scenario


@dataclass(frozen=True)
class Kept:
    """The state of a training that a platform keeps.

    Attributes:
        adapter: the state.
        validation: its mean NDCG@10 on the platform's validation part.
        name: which one it is, such as "round 3".
    """

    adapter: Adapter
    validation: float
    name: str


def better(best: Kept, offered: Kept) -> Kept:
    """The offered state only if it is strictly better; the earlier one wins a tie."""
    return offered if offered.validation > best.validation else best


def validated(platform: Platform, adapter: Adapter) -> float:
    """Mean NDCG@10 on the platform's validation part."""
    return float(metrics.ndcg(platform.rank(adapter, "validation").ranks).mean())


def recipe_of(scenario: Scenario, *, epochs: int) -> Recipe:
    """The platforms' recipe in this scenario, for so many passes over the rows."""
    federation = scenario.federation
    return Recipe(
        epochs=epochs,
        batch=federation.batch,
        learning_rate=federation.learning_rate,
        schedule=federation.schedule,
    )


def trained(
    platforms: Sequence[Platform],
    start: Mapping[str, Kept],
    recipe: Recipe,
    *,
    seed: Sequence[int],
    progress: Progress,
) -> dict[str, Kept]:
    """Train one adapter on the rows of all these platforms; each keeps its best epoch.

    Args:
        platforms: one for training at home; several as if rows could be pooled.
        start: by name, the state to beat; training begins from the first platform's.
        recipe: how.
        seed: of the order of Histories.
        progress: called after each batch.
    """
    best = dict(start)

    def offer(epoch: int, adapter: Adapter) -> None:
        for platform in platforms:
            name = platform.config.name
            state = Kept(adapter, validated(platform, adapter), f"epoch {epoch}")
            best[name] = better(best[name], state)

    first = platforms[0]
    train(
        first.copy().backbone,
        start[first.config.name].adapter,
        [platform.training for platform in platforms],
        recipe,
        rng=np.random.default_rng(list(seed)),
        progress=progress,
        after_epoch=offer,
    )
    return best


def federated(
    platform: Platform, untrained: Kept, registry: Registry, reports: Sequence[RoundReport]
) -> Kept:
    """The round whose adapter is best on the platform's validation part."""
    best = untrained
    for report in reports[1:]:
        if report.moved:
            adapter = registry.load(report.round)[0].adapter
            told = report.validation.get(platform.config.name, {}).get("ndcg@10")
            reached = validated(platform, adapter) if told is None else told
            best = better(best, Kept(adapter, reached, f"round {report.round}"))
    return best


def at_home(
    platform: Platform,
    untrained: Kept,
    shared: Kept,
    scenario: Scenario,
    *,
    seed: Sequence[int],
    progress: Progress,
) -> tuple[Kept, Kept]:
    """What a platform trains by itself: from the untrained state, and from the federated one."""
    name = platform.config.name
    passes = scenario.federation.rounds * scenario.federation.epochs
    alone = trained(
        [platform],
        {name: untrained},
        recipe_of(scenario, epochs=passes),
        seed=seed,
        progress=titled(progress, f"{name} local"),
    )
    personal = trained(
        [platform],
        {name: shared},
        recipe_of(scenario, epochs=scenario.personalise_epochs),
        seed=(*seed, 1),
        progress=titled(progress, f"{name} personalised"),
    )
    return alone[name], personal[name]
