"""What holds a platform's steps near the others' while it trains on its own rows alone.

    gradient of a batch ─+ pull→ gradient of the step

FedProx (arXiv 1812.06127, equation 2) pulls back to the Adapter that came. Its pull reads
parameters and what was sent, never a History, so a Plan allows it at no cost. SCAFFOLD (arXiv
1910.06378, equation 3) pulls along what all platforms' gradients have and this one's lacks: those
are made of rows, and no Plan here pays for them, so it is a simulation's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from shared.adapter import Adapter, Tensors
from shared.backbone import Backbone, is_slot
from shared.training import Engine, Piece, PlainEngine, Recipe, Rows

Pull = Callable[[str, nn.Parameter], Tensor]  # name and values of a slot → added to its gradient


def proximal(start: Adapter, strength: float) -> Pull:
    """The gradient of strength/2·|w - start|².

    Args:
        start: the Adapter that came.
        strength: the paper's µ; 0 pulls nowhere.
    """
    home = {name: torch.from_numpy(np.array(it)) for name, it in start.tensors.items()}
    return lambda name, slot: strength * (slot.detach() - home[name].to(slot.device))


def variates(all_of_them: Tensors, own: Tensors) -> Pull:
    """c - cᵢ: the mean of all platforms' gradients at a common state less this one's."""
    missing = {name: torch.from_numpy(all_of_them[name] - own[name]) for name in own}
    return lambda name, slot: missing[name].to(slot.device)


def pulled(backbone: Backbone, pull: Pull) -> None:
    """Add the pull to every gradient that stands in the backbone."""
    for name, slot in backbone.named_parameters():
        if slot.requires_grad and slot.grad is not None and is_slot(name):
            slot.grad += pull(name, slot)


def plain(start: Adapter, *, strength: float) -> Callable[..., Engine]:
    """Makes the Engine of a platform without a Plan: with a strength of 0 it is `PlainEngine`."""
    if strength == 0:
        return PlainEngine
    return partial(PulledEngine, pull=proximal(start, strength))


class PulledEngine:
    """`PlainEngine` whose steps follow a pull too; without a Plan, so without privacy."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Rows],
        recipe: Recipe,
        *,
        rng: np.random.Generator,
        pull: Pull,
    ) -> None:
        """Arguments as of `PlainEngine`, and what is added to each slot's gradient.

        Raises:
            DataError: there is no History to train on.
        """
        self.plain = PlainEngine(backbone, rows, recipe, rng=rng)
        self.steps = self.plain.steps
        self.backbone, self.pull = backbone, pull

    def batches(self) -> Iterator[Iterable[Piece]]:
        """As of `PlainEngine`."""
        return self.plain.batches()

    def take(self, losses: Tensor) -> None:
        """As of `PlainEngine`."""
        self.plain.take(losses)

    def step(self, *, rate: float) -> None:
        """One step of Adam along the batch's gradient and the pull, clipped together."""
        pulled(self.backbone, self.pull)
        self.plain.step(rate=rate)

    def close(self) -> None:
        """Nothing was changed."""
