"""Model fusion: every platform trains alone, then the finished Adapters are added up, once.

    uniform          all alike
    by size          by the public weight of each platform
    by validation    each platform by how far another's Adapter helps on its own validation part
                     (FedFomo's idea, arXiv 2012.08565)

A is frozen and common, so adding B's adds the models exactly (decision 6). Platforms differ, so the
mean of their moves is short: multiples of it are offered, and validation chooses (task arithmetic,
arXiv 2212.04089).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from clients.kept import Kept, better
from clients.platform import Platform
from shared.adapter import Adapter
from simulations.strategies.at_home import local
from simulations.strategies.meeting import Meeting, States, weighted

MULTIPLES = (1.0, 2.0, 3.0)  # of the mean; the scenario's server learning rates lie in this range
Weights = Mapping[str, float]


def uniform(meeting: Meeting) -> States:
    """All alike."""
    return fused(meeting, lambda _platform: dict.fromkeys(meeting.start, 1.0))


def by_size(meeting: Meeting) -> States:
    """By the weights that platforms declare."""
    public = {it.config.name: it.config.weight for it in meeting.platforms}
    return fused(meeting, lambda _platform: public)


def by_validation(meeting: Meeting) -> States:
    """By what each Adapter adds to the untrained state here; one that adds nothing weighs nothing.

    A platform that every Adapter fails, its own included, keeps the untrained state.
    """
    alone = meeting.of("local", local)

    def weights(platform: Platform) -> Weights:
        start = meeting.start[platform.config.name]
        return {
            name: max(0.0, start.offered(platform, it.adapter, name).validation - start.validation)
            for name, it in alone.items()
        }

    return fused(meeting, weights)


def fused(meeting: Meeting, weights: Callable[[Platform], Weights]) -> States:
    """Each platform keeps the best multiple of the mean that its weights give."""
    alone = meeting.of("local", local)

    def job(platform: Platform) -> Kept:
        best = start = meeting.start[platform.config.name]
        chosen = weights(platform)
        if sum(chosen.values()) > 0:
            for multiple in MULTIPLES:
                adapter = mean({name: it.adapter for name, it in alone.items()}, chosen, multiple)
                best = better(best, start.offered(platform, adapter, f"{multiple:g} × mean"))
        return best

    return meeting.each(job)


def mean(adapters: Mapping[str, Adapter], weights: Weights, multiple: float = 1.0) -> Adapter:
    """Σ w·adapter / Σ w times a multiple; some weight is above 0."""
    found = weighted({name: it.tensors for name, it in adapters.items()}, weights, multiple)
    return replace(next(iter(adapters.values())), tensors=found)
