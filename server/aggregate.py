"""Updates in, next Adapter out: an algorithm is three functions over an immutable state.

    init(adapter)           → ServerState
    combine(updates)        → Aggregate
    step(state, aggregate)  → ServerState

FedAvg (arXiv 1602.05629) moves by the average; FedAdam (arXiv 2003.00295, Algorithm 2) takes the
average for a gradient and follows its moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.adapter import Adapter, Tensors
from shared.update import Update

Moments = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Aggregate:
    """A round's Updates, averaged or added by public weight.

    Attributes:
        delta: by name, float32.
        weight: the sum of the weights.
    """

    delta: Tensors
    weight: float


@dataclass(frozen=True)
class ServerState:
    """All that a next round needs.

    Attributes:
        adapter: what platforms will be sent; its version is the rounds behind it.
        moments: the server optimizer's memory, named `first/TENSOR` and `second/TENSOR`.
    """

    adapter: Adapter
    moments: Moments = field(default_factory=dict)


@dataclass(frozen=True)
class Algorithm:
    """What the server makes of Updates, and then of their Aggregate."""

    init: Callable[[Adapter], ServerState]
    step: Callable[[ServerState, Aggregate, int], ServerState]
    combine: Callable[[Sequence[Update]], Aggregate]


def average(updates: Sequence[Update]) -> Aggregate:
    """Σ w·delta / Σ w, summed in the order given; the caller makes that order deterministic.

    Args:
        updates: at least one, all of the same names and shapes, weights above zero.
    """
    total = sum(update.weight for update in updates)
    delta = {}
    for name in updates[0].delta:
        mean = np.zeros(updates[0].delta[name].shape, np.float32)
        for update in updates:
            mean += update.delta[name] * np.float32(update.weight / total)
        delta[name] = mean
    return Aggregate(delta, total)


def total(updates: Sequence[Update]) -> Aggregate:
    """Σ w·delta, summed in the order given, in double precision.

    Whole counts with whole weights stay whole; counts that were divided by their weight come back
    to within a unit of single precision, and are rounded where they are read.

    Args:
        updates: as of `average`.
    """
    delta = {}
    for name in updates[0].delta:
        summed = np.zeros(updates[0].delta[name].shape, np.float64)
        for update in updates:
            summed += update.delta[name].astype(np.float64) * update.weight
        delta[name] = summed.astype(np.float32)
    return Aggregate(delta, sum(update.weight for update in updates))


def fedavg(learning_rate: float = 1.0) -> Algorithm:
    """adapter + learning_rate · average."""

    def step(state: ServerState, aggregate: Aggregate, version: int) -> ServerState:
        delta = {
            name: tensor * np.float32(learning_rate) for name, tensor in aggregate.delta.items()
        }
        return replace(state, adapter=state.adapter.plus(delta, version=version))

    return Algorithm(ServerState, step, average)


def sums() -> Algorithm:
    """adapter + Σ w·delta: for sums that are taken once."""
    return replace(fedavg(), combine=total)


def fedadam(
    learning_rate: float, *, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3
) -> Algorithm:
    """m ← β1·m + (1-β1)·d;  v ← β2·v + (1-β2)·d²;  adapter + learning_rate · m/(√v + ε).

    `epsilon` is the paper's τ, the degree of adaptivity. As in the paper, v starts at τ² and
    moments are not debiased.
    """

    def init(adapter: Adapter) -> ServerState:
        moments = {}
        for name, tensor in adapter.tensors.items():
            moments[f"first/{name}"] = np.zeros_like(tensor)
            moments[f"second/{name}"] = np.full_like(tensor, epsilon**2)
        return ServerState(adapter, moments)

    def step(state: ServerState, aggregate: Aggregate, version: int) -> ServerState:
        moments: dict[str, NDArray[np.float32]] = {}
        move: dict[str, NDArray[np.float32]] = {}
        for name, delta in aggregate.delta.items():
            first = beta1 * state.moments[f"first/{name}"] + (1 - beta1) * delta
            second = beta2 * state.moments[f"second/{name}"] + (1 - beta2) * delta * delta
            moments[f"first/{name}"] = np.asarray(first, np.float32)
            moments[f"second/{name}"] = np.asarray(second, np.float32)
            move[name] = np.asarray(learning_rate * first / (np.sqrt(second) + epsilon), np.float32)
        return ServerState(state.adapter.plus(move, version=version), moments)

    return Algorithm(init, step, average)


def algorithm(name: Literal["fedavg", "fedadam"], learning_rate: float) -> Algorithm:
    """The algorithm of a configuration; `learning_rate` is the server's, finite and above zero."""
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"server learning rate {learning_rate} is not finite and above zero")
    return fedavg(learning_rate) if name == "fedavg" else fedadam(learning_rate)
