"""Train on Histories: (Adapter, rows) → Adapter, or a whole backbone on public rows.

    for each batch of Histories the engine draws, in pieces that fit into memory:
        losses [B]  one number a History, from its own rows and the public Catalogue
        engine.take(losses)
    engine.step()

An Engine says how Histories are drawn and how their losses become a step. `PlainEngine` shuffles
and averages; one built from a Plan (clients/private.py) samples, clips and adds noise. The loop is
the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapter import Adapter
from shared.backbone import Backbone, fill_slots, read_slots
from shared.errors import DataError
from shared.events import Histories
from shared.tasks import next_item
from shared.text import Progress, silent

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Recipe:
    """How to train; nothing here bears on privacy.

    Attributes:
        epochs: passes over the Histories.
        batch: Histories a step.
        learning_rate: Adam's, at its highest.
        schedule: how it falls to zero at the end.
        clip_norm: the largest norm of a step's gradient.
    """

    epochs: int = 1
    batch: int = 64
    learning_rate: float = 0.003
    schedule: Schedule = "cosine"
    clip_norm: float = 1.0

    def rate(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1] of the whole training."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "linear":
            return self.learning_rate * (1 - progress)
        return self.learning_rate


@dataclass(frozen=True)
class Speed:
    """What makes training faster or smaller; nothing here bears on privacy.

    Attributes:
        microbatch: Histories at once in memory under a Plan, at most.
    """

    microbatch: int = 64


@dataclass(frozen=True)
class Rows:
    """What one platform trains on.

    Attributes:
        histories: the train part of the split, each of at least two events.
        table: [N, W] unit vectors of the platform's Catalogue, on the device to train on.
    """

    histories: Histories
    table: Tensor


@dataclass(frozen=True)
class Stretch:
    """Which part of the whole training this call is, so that a schedule can span rounds."""

    begin: float = 0.0
    end: float = 1.0

    def at(self, share: float) -> float:
        """Progress of the whole when `share` of this part is done."""
        return self.begin + share * (self.end - self.begin)


WHOLE = Stretch()


Piece = tuple[int, NDArray[np.int64]]  # which of the Rows, and positions of Histories there


class Loss(Protocol):
    """What a training makes small; that of the task, unless a strategy has another."""

    def __call__(self, backbone: Backbone, part: Rows, batch: Tensor) -> Tensor:
        """[B] nats, one a History, from its own positions [B, T] and the public Catalogue."""
        ...


def of_task(backbone: Backbone, part: Rows, batch: Tensor) -> Tensor:
    """The loss of the task, and nothing else."""
    return next_item.losses(backbone, part.table, batch)


class Engine(Protocol):
    """How Histories are drawn and how their losses become a step.

    Attributes:
        steps: of one epoch. A Plan's is a public number, never taken from the rows.
    """

    steps: int

    def batches(self) -> Iterator[Iterable[Piece]]:
        """The pieces of each step's batch: one epoch's worth."""
        ...

    def take(self, losses: Tensor) -> None:
        """Gather the gradients of the losses [B] of one piece."""
        ...

    def step(self, *, rate: float) -> None:
        """Move the parameters by what was gathered."""
        ...

    def close(self) -> None:
        """Leave the backbone as it was found, its adapter slots aside."""
        ...


class PlainEngine:
    """Shuffled batches, mean gradient, Adam: training without a Plan, so without privacy."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Rows],
        recipe: Recipe,
        *,
        rng: np.random.Generator,
    ) -> None:
        """Steps move whatever of the backbone requires a gradient.

        Raises:
            DataError: there is no History to train on.
        """
        if not any(len(part.histories) for part in rows):
            raise DataError("no History to train on", todo="lower min_length or bring more rows")
        self.rows = rows
        self.recipe = recipe
        self.rng = rng
        self.moved = [value for value in backbone.parameters() if value.requires_grad]
        self.steps = sum(math.ceil(len(part.histories) / recipe.batch) for part in rows)
        self.optimizer = torch.optim.Adam(self.moved, lr=recipe.learning_rate)

    def batches(self) -> Iterator[Iterable[Piece]]:
        """Every History once; a batch holds Histories of one of the Rows, for one table."""
        size = self.recipe.batch
        drawn: list[Piece] = []
        for which, rows in enumerate(self.rows):
            order = self.rng.permutation(len(rows.histories))
            drawn += [(which, order[at : at + size]) for at in range(0, len(order), size)]
        for place in self.rng.permutation(len(drawn)):
            yield [drawn[place]]

    def take(self, losses: Tensor) -> None:
        """The gradient of the mean loss.

        Raises:
            DataError: a loss is not finite.
        """
        if not bool(torch.isfinite(losses).all()):
            raise DataError("the loss of a batch is not finite", todo="lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        # Divided by the nominal batch: the last batch of an epoch is short, and a History must not
        # weigh more for standing in it.
        (losses.sum() / self.recipe.batch).backward()  # type: ignore[no-untyped-call]

    def step(self, *, rate: float) -> None:
        """One step of Adam."""
        torch.nn.utils.clip_grad_norm_(self.moved, self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def close(self) -> None:
        """Nothing was changed."""


def train(
    backbone: Backbone,
    start: Adapter,
    rows: Sequence[Rows],
    recipe: Recipe,
    *,
    rng: np.random.Generator,
    engine: Callable[..., Engine] = PlainEngine,
    loss: Loss = of_task,
    stretch: Stretch = WHOLE,
    progress: Progress = silent,
    after_epoch: Callable[[int, Adapter], None] | None = None,
) -> Adapter:
    """Train the adapter slots from `start`; several Rows are trained on as if rows were pooled.

    Args:
        backbone: frozen; its adapter slots are overwritten.
        start: the Adapter to begin with.
        rows: what to train on; at least one History.
        recipe: how.
        rng: draws the batches.
        engine: makes the Engine from backbone, rows, recipe and rng, as PlainEngine does.
        loss: of each History.
        stretch: which part of the schedule this call is.
        progress: called after each batch.
        after_epoch: given the epoch (from 1) and the Adapter as it then stands.

    Raises:
        DataError: there is no History to train on, or the loss stopped being finite.
    """
    adapter = start
    fill_slots(backbone, start)
    steps = engine(backbone, rows, recipe, rng=rng)
    try:
        for epoch in epochs(
            backbone, rows, recipe, steps, loss=loss, stretch=stretch, progress=progress
        ):
            adapter = read_slots(
                backbone, digest=start.backbone, task=start.task, version=start.version
            )
            if not all(np.isfinite(tensor).all() for tensor in adapter.tensors.values()):
                raise DataError(f"epoch {epoch} left values not finite", todo="lower learning_rate")
            if after_epoch is not None:
                after_epoch(epoch, adapter)
    finally:
        steps.close()
    return adapter


def epochs(
    backbone: Backbone,
    rows: Sequence[Rows],
    recipe: Recipe,
    engine: Engine,
    *,
    loss: Loss = of_task,
    stretch: Stretch = WHOLE,
    progress: Progress = silent,
) -> Iterator[int]:
    """Run the epochs of a recipe; yields the number of each, from 1, when it is done."""
    length = backbone.spec.max_length
    for epoch in range(1, recipe.epochs + 1):
        for place, pieces in enumerate(engine.batches()):
            for which, indices in pieces:
                part = rows[which]
                batch = next_item.pad(part.histories, indices, max_length=length)
                engine.take(loss(backbone, part, batch.to(part.table.device)))
            share = (epoch - 1 + place / engine.steps) / recipe.epochs
            engine.step(rate=recipe.rate(stretch.at(share)))
            progress(f"epoch {epoch}", place + 1, engine.steps)
        yield epoch
