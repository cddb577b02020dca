"""What every strategy is given, and what it gives back.

    Meeting: platforms, each one's untrained state beside its own memory, seed
        ─strategy→ by platform the Kept state that its own validation chose

A strategy that builds on another asks the Meeting for what that one kept: it is trained once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.kept import Kept
from clients.platform import Platform
from shared.adapter import Tensors
from shared.text import Progress, silent
from simulations.scenario import Scenario

T = TypeVar("T")
States = Mapping[str, Kept]  # by platform


@dataclass(frozen=True)
class Meeting:
    """Platforms that meet, and what was trained already.

    Attributes:
        scenario: how long and how fast to train.
        platforms: opened, in the order of their names.
        start: by platform, the untrained state and what stands beside it.
        seed: of every order.
        threads: platforms that train at once; no figure depends on it.
        progress: called while it works.
        kept: by strategy, what was trained already.
    """

    scenario: Scenario
    platforms: Sequence[Platform]
    start: States
    seed: int
    threads: int = 1
    progress: Progress = silent
    kept: dict[str, States] = field(default_factory=dict)

    def of(self, name: str, strategy: Strategy) -> States:
        """What a strategy keeps, trained if it was not yet."""
        if name not in self.kept:
            self.kept[name] = strategy(self)
        return self.kept[name]

    def seeds(self, name: str) -> tuple[int, int]:
        """Of what this platform draws at home: as in `compare`, so that both train alike."""
        names = [platform.config.name for platform in self.platforms]
        return self.seed, names.index(name) + 1

    def each(self, job: Callable[[Platform], T]) -> dict[str, T]:
        """By name what the job makes of each platform's copy, whose slots it may fill."""
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(job, [platform.copy() for platform in self.platforms]))
        return {it.config.name: one for it, one in zip(self.platforms, found, strict=True)}


class Strategy(Protocol):
    """One way to let platforms learn from one another."""

    def __call__(self, meeting: Meeting) -> States:
        """By platform the state that its validation chose, the untrained one among the offered."""
        ...


def weighted(
    tensors: Mapping[str, Tensors], weights: Mapping[str, float], multiple: float = 1.0
) -> dict[str, NDArray[np.float32]]:
    """Σ w·tensors / Σ w times a multiple, by slot, in double precision and in the order of names.

    Of a single platform, once, it is its own to the last bit.

    Args:
        tensors: by platform; one at least.
        weights: of each of them; some is above 0.
        multiple: of the mean.
    """
    total = sum(weights[name] for name in tensors)
    first = next(iter(tensors.values()))
    return {
        slot: np.asarray(
            sum(
                tensors[name][slot].astype(np.float64) * (multiple * weights[name] / total)
                for name in sorted(tensors)
            ),
            np.float32,
        )
        for slot in first
    }
