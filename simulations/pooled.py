"""The yardstick of a comparison: one Adapter and one memory of everybody's rows, were they shared.

    rows of all ─train→ an Adapter after each epoch ┐
    one platform after another: memory of all rows ─┴─validated→ the best epoch ─rank→ test row

No platform could have it. The memory of all rows differs by platform, for a platform validates by
rows that the others may count; so it is made for one platform at a time and not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clients.beside import remembering
from clients.kept import Kept, better, validated
from clients.memory import Memory
from clients.platform import Platform
from clients.recall import Recall
from clients.taught import Taught
from clients.weighing import Weighing
from shared.adapter import Adapter
from shared.text import Progress, silent, titled
from shared.training import train
from simulations.beside import moved
from simulations.candidates import recipe_of
from simulations.reading import read_scorer
from simulations.scenario import Scenario

POOLED = "pooled"


def pool_rows(
    scenario: Scenario,
    platforms: Sequence[Platform],
    *,
    training: bool = True,
    seed: int,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Train on everybody's rows, and test on each platform.

    Args:
        scenario: how long and how fast to train.
        platforms: at least two, in the order of their names.
        training: False trains nothing: the memory alone is pooled.
        seed: of orders and resamples.
        progress: called while it works.

    Returns:
        By platform the row of the scorer, as in metrics.json.
    """
    own_copies = [platform.copy() for platform in platforms]  # their slots are filled here
    others = taught_by_others(own_copies, progress=progress)
    epochs = trained_epochs(scenario, own_copies, seed=seed, progress=progress) if training else []
    found = {}
    for number, platform in enumerate(own_copies, start=1):
        progress("what all of them remember", number - 1, len(own_copies))
        recall = memory_of_all(platform, own_copies)
        recall = recall.fitted(platform.question("validation"), others=others[number - 1])
        start = validated(platform, platform.untrained, beside=recall)
        best = best_epoch(platform, start, epochs)
        found[platform.config.name] = read_scorer(
            platform, POOLED, best, resamples=scenario.resamples, seed=(seed, number)
        )
    progress("what all of them remember", len(own_copies), len(own_copies))
    return found


def best_epoch(platform: Platform, start: Kept, epochs: Sequence[Adapter]) -> Kept:
    """The best of these states by the platform's validation part; `start` wins a tie."""
    best = start
    for epoch, adapter in enumerate(epochs, start=1):
        best = better(best, start.offered(platform, adapter, f"epoch {epoch}"))
    return best


def trained_epochs(
    scenario: Scenario, platforms: Sequence[Platform], *, seed: int, progress: Progress = silent
) -> list[Adapter]:
    """One Adapter trained on the rows of all: its state after each epoch."""
    epochs: list[Adapter] = []
    train(
        platforms[0].copy().backbone,
        platforms[0].untrained,
        [platform.training for platform in platforms],
        recipe_of(scenario, epochs=scenario.federation.rounds * scenario.federation.epochs),
        rng=np.random.default_rng([seed, 0]),
        progress=titled(progress, POOLED),
        after_epoch=lambda _epoch, adapter: epochs.append(adapter),
    )
    return epochs


def memory_of_all(platform: Platform, everyone: Sequence[Platform]) -> Recall:
    """The memory of a platform's train rows and of what all others tell of items sold there.

    It is not fitted.
    """
    mine = remembering(platform)
    memory, position = mine.memory, platform.rows.catalogue.position
    for other in everyone:
        if other is not platform:
            names = other.rows.catalogue.items
            place = np.array([position.get(item, -1) for item in names], np.int32)
            memory = memory.plus(Memory.of(moved(other.told, place), items=len(position)))
    return mine.with_memory(memory)


def taught_by_others(
    everyone: Sequence[Platform], *, progress: Progress = silent
) -> list[Weighing | None]:
    """For each platform the mean of how all others weigh that memory, by their shoppers."""
    own = []
    for place, platform in enumerate(everyone):
        progress("how all of them weigh", place, len(everyone))
        recall = memory_of_all(platform, everyone)
        own.append(recall.fitted(platform.question("validation")).own.flat)
    progress("how all of them weigh", len(everyone), len(everyone))
    flat = np.array(own)
    heads = np.array([float(len(it.rows.histories)) for it in everyone])
    return [Taught(heads @ flat, sent).others for sent in heads[:, None] * flat]
