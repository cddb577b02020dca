"""The states that rounds, sums and training at home offer, and the one a platform keeps of them.

By the rule of clients/kept.py, which is the same for local, federated, personalised and pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clients.kept import Kept, better, trained, validated
from clients.platform import Platform
from server.registry import Registry, RoundReport
from shared.text import Progress, titled
from shared.training import Recipe
from simulations.beside import Taken, shared
from simulations.scenario import Scenario


def recipe_of(scenario: Scenario, *, epochs: int) -> Recipe:
    """The platforms' recipe in this scenario, for so many passes over the rows."""
    federation = scenario.federation
    return Recipe(
        epochs=epochs,
        batch=federation.batch,
        learning_rate=federation.learning_rate,
        schedule=federation.schedule,
    )


def with_sums(platform: Platform, alone: Kept, taken: Taken | None) -> Kept:
    """The same beside what sums say of the others' memory too, if that is better."""
    if taken is None or alone.beside is None:
        return alone
    recall = shared(platform, alone.beside, taken)
    if recall is alone.beside:
        return alone
    return validated(platform, alone.adapter, "sums", recall)


def reports_of(registry: Registry) -> list[RoundReport]:
    """What happened in every round."""
    return [registry.load(round_)[1] for round_ in registry.rounds()]


def federated(platform: Platform, untrained: Kept, registry: Registry) -> Kept:
    """The round whose adapter is best on the platform's validation part."""
    best = untrained
    for report in reports_of(registry)[1:]:
        if report.moved:
            adapter = registry.load(report.round)[0].adapter
            best = better(best, untrained.offered(platform, adapter, f"round {report.round}"))
    return best


def at_home(
    platform: Platform,
    untrained: Kept,
    joined: Mapping[str, Kept],
    scenario: Scenario,
    *,
    seed: Sequence[int],
    progress: Progress,
) -> tuple[Kept, dict[str, Kept]]:
    """What a platform trains by itself: from the untrained state, and on from what came of others.

    Args:
        platform: whose rows.
        untrained: the state to begin from alone.
        joined: by scorer, the state of each federation that it was in.
        scenario: for how long.
        seed: of the orders; every training on has the same.
        progress: called after each batch.

    Returns:
        The best alone, and by scorer the best from there on.
    """
    name = platform.config.name
    passes = scenario.federation.rounds * scenario.federation.epochs
    alone = trained(
        [platform],
        {name: untrained},
        recipe_of(scenario, epochs=passes),
        seed=seed,
        progress=titled(progress, f"{name} local"),
    )
    further = recipe_of(scenario, epochs=scenario.personalise_epochs)
    personal = {}
    for scorer, state in joined.items():
        title = titled(progress, f"{name} on from {scorer}")
        found = trained([platform], {name: state}, further, seed=(*seed, 1), progress=title)
        personal[scorer] = found[name]
    return alone[name], personal
