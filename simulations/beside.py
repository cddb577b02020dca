"""What stands beside an Adapter in a comparison: own memory, sums of a federation, or everything.

Each is fitted on the platform's own validation part; among those who protect nobody how loudly
signals speak is shared too (clients/taught.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.beside import with_sums
from clients.memory import Memory
from clients.platform import Platform
from clients.recall import Recall
from clients.taught import Taught
from server.registry import Registry
from shared.events import Histories
from shared.tables.config import PlatformConfig


@dataclass(frozen=True)
class Taken:
    """Sums that a federation took once.

    Attributes:
        registry: where they are recorded.
        configs: of the platforms in that federation, by name.
    """

    registry: Registry
    configs: Mapping[str, PlatformConfig]


def shared(platform: Platform, alone: Recall, taken: Taken) -> Recall:
    """Own memory, and what the others added to the sums of a federation."""
    there = replace(platform, config=taken.configs[platform.config.name])
    state, report = taken.registry.load(taken.registry.rounds()[-1])
    among = platform.config.name in report.replied
    run = taken.registry.standing().run if among else None
    return with_sums(there, alone, state.adapter, run=run)


def pooled(everyone: Sequence[Platform], alone: Sequence[Recall]) -> list[Recall]:
    """By platform its own memory and what everybody tells of, of items sold there, all shared.

    How loudly that speaks is shared too: own fits and the mean of the others' are mixed.
    """
    found = []
    for platform, mine in zip(everyone, alone, strict=True):
        memory, position = mine.memory, platform.rows.catalogue.position
        for other in everyone:
            if other is not platform:
                names = other.rows.catalogue.items
                place = np.array([position.get(item, -1) for item in names], np.int32)
                theirs = moved(other.told, place)
                memory = memory.plus(Memory.of(theirs, items=len(position)))
        found.append(mine.with_memory(memory).fitted(platform.question("validation")))
    flat = np.array([it.own.flat for it in found])
    heads = np.array([float(len(it.rows.histories)) for it in everyone])
    taught = [Taught(heads @ flat, sent).others for sent in heads[:, None] * flat]
    return [
        it if others is None else it.fitted(platform.question("validation"), others=others)
        for it, others, platform in zip(found, taught, everyone, strict=True)
    ]


def moved(histories: Histories, place: NDArray[np.int32]) -> Histories:
    """Histories over another Catalogue, less the items that it lacks.

    Args:
        histories: over the one.
        place: of each of its items in the other; -1 where it is not there.
    """
    there = histories.only(place[histories.items] >= 0)
    return replace(there, items=place[there.items])
