"""The states a training offers, and the one a platform keeps.

Of the states that it is offered, a platform keeps the one that is best on its own validation part,
the untrained one among them, each with what it has beside an Adapter (simulations/beside.py). The
same rule holds for local, federated, personalised and pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clients.platform import Platform
from clients.recall import Recall
from server.registry import Registry, RoundReport
from shared import metrics
from shared.adapter import Adapter
from shared.events import Part
from shared.ranking import Ranking, Scorer, rank
from shared.text import Progress, titled
from shared.training import Recipe, train
from simulations.beside import Taken, dated, shared
from simulations.scenario import Scenario

VALIDATED = 4000  # shoppers by whom states are compared


@dataclass(frozen=True)
class Kept:
    """The state of a training that a platform keeps.

    Attributes:
        adapter: the state.
        validation: its mean NDCG@10 on the platform's validation part.
        name: which one it is, such as "round 3".
        beside: what is added to its scores; None adds nothing.
        to_date: whether the test part is ranked with all that is remembered on that day, as it
            is served, and not with train rows alone.
    """

    adapter: Adapter
    validation: float
    name: str
    beside: Recall | None = None
    to_date: bool = True

    def rank(self, platform: Platform, part: Part, *, most: int | None = None) -> Ranking:
        """Rank a part of the platform's split, or evenly spaced ones of it, with all it has."""
        scorer: Scorer = platform.scorer(self.adapter)
        if self.beside is not None:
            late = part == "test" and self.to_date
            beside = dated(platform, self.beside) if late else self.beside
            scorer = replace(beside, prior=scorer)
        asked = platform.question(part)
        if most is not None:
            asked = asked.spaced(most)
        return rank(scorer, asked, items=len(platform.rows.catalogue))

    def offered(self, platform: Platform, adapter: Adapter, name: str) -> Kept:
        """Another state beside the same, validated."""
        return validated(platform, adapter, name, self.beside)


def better(best: Kept, offered: Kept) -> Kept:
    """The offered state only if it is strictly better; the earlier one wins a tie."""
    return offered if offered.validation > best.validation else best


def validated(
    platform: Platform, adapter: Adapter, name: str = "untrained", beside: Recall | None = None
) -> Kept:
    """A state with its mean NDCG@10 on the platform's validation part, or VALIDATED of it."""
    state = Kept(adapter, 0.0, name, beside)
    ranks = state.rank(platform, "validation", most=VALIDATED).ranks
    return replace(state, validation=float(metrics.ndcg(ranks).mean()))


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
            state = start[name].offered(platform, adapter, f"epoch {epoch}")
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
    federated: Kept,
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
        {name: federated},
        recipe_of(scenario, epochs=scenario.personalise_epochs),
        seed=(*seed, 1),
        progress=titled(progress, f"{name} personalised"),
    )
    return alone[name], personal[name]
