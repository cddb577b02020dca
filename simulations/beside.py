"""What stands beside an Adapter in a comparison: own memory, and the sums of a federation.

Each is fitted on the platform's own validation part; among those who protect nobody how loudly
signals speak is shared too (clients/taught.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.beside import with_sums
from clients.platform import Platform
from clients.recall import Recall
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


def moved(histories: Histories, place: NDArray[np.int32]) -> Histories:
    """Histories over another Catalogue, less the items that it lacks.

    Args:
        histories: over the one.
        place: of each of its items in the other; -1 where it is not there.
    """
    there = histories.only(place[histories.items] >= 0)
    return replace(there, items=place[there.items])
