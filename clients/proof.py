"""Before a Plan is trusted with shoppers: is each gradient one History's, and does a step move?

Made-up Histories of Catalogue items go through the engine once as a batch and once one by one. Two
libraries and a processor stand between a loss and its gradient; whichever changes, this finds it
out before a shopper's rows are touched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.pieces import rows_of
from clients.private import PrivateEngine, gradients, per_history, unhooked
from clients.randomness import simulated
from shared.backbone import Backbone, fill_slots, read_slots
from shared.errors import BackboneError
from shared.events import from_lists
from shared.plan import Plan
from shared.tasks import next_item
from shared.training import Recipe, Rows, Speed

LENGTHS = (2, 3, 5, 2, 8, 13)  # events of the probes; different, so that padding plays its part
COMPANY = (2, 3, 5, 8, 13, 21, 34)  # events of the Histories that are put into other company
MOVED = 0.9  # of a slot, by a step: noise may be zero to the last bit for a number or two
TOLERANCE = 1e-3  # of a gradient's norm; single precision leaves 1e-6 to 1e-5 here
STIR = 0.05  # standard deviation of the slots while they are probed: at zero most have no gradient


def prove(backbone: Backbone, table: Tensor, *, speed: Speed | None = None) -> None:
    """Compare per-History gradients with one History at a time, and take a step.

    The slots are left as they were.

    Args:
        backbone: on its device.
        table: [N, W] unit vectors on the same device.
        speed: with which the platform trains; the default one if None.

    Raises:
        BackboneError: a gradient is not that of its History, or none is there, or a slot does not
            move.
    """
    before = read_slots(backbone, digest="", task="")
    mixed, backbone.mixed = backbone.mixed, False  # as PrivateEngine computes
    rows = probes(table)
    try:
        rng = np.random.default_rng(0)
        with torch.no_grad():
            for value in slots(backbone).values():
                noise = rng.normal(0, STIR, tuple(value.shape))
                value.copy_(torch.from_numpy(noise).to(value))
        check_gradients(backbone, rows)
        check_company(backbone, rows, microbatch=(speed or Speed()).microbatch)
        check_step(backbone, rows)
    finally:
        backbone.mixed = mixed
        fill_slots(backbone, before)


def probes(table: Tensor) -> Rows:
    """Histories of random items."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(len(table), size=size).astype(np.int32) for size in LENGTHS]
    return Rows(from_lists(rows, tuple(f"probe {place}" for place in range(len(rows)))), table)


def slots(backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    """What a Plan trains."""
    return {name: it for name, it in backbone.named_parameters() if it.requires_grad}


def check_gradients(backbone: Backbone, rows: Rows) -> None:
    """Raises: BackboneError if a gradient of the batch is not that of its History alone."""
    everyone = np.arange(len(rows.histories))
    module = per_history(backbone)
    try:
        losses_of(backbone, rows, everyone).sum().backward()  # type: ignore[no-untyped-call]
        for name, it in slots(backbone).items():
            if getattr(it, "grad_sample", None) is None:
                raise BackboneError(
                    f"slot {name!r} has no gradient",
                    todo="use a backbone of this version; no shopper was touched",
                )
        batch = {name: gradients(it).double() for name, it in slots(backbone).items()}
    finally:
        unhooked(backbone, module)
    for place in everyone:
        losses_of(backbone, rows, everyone[place : place + 1]).sum().backward()  # type: ignore[no-untyped-call]
        error = size = 0.0
        for name, value in slots(backbone).items():
            # The gate of a backbone that was never pretrained has none, and rightly so.
            alone = torch.zeros_like(value) if value.grad is None else value.grad
            error += float((batch[name][place] - alone.double()).square().sum())
            size += float(alone.double().square().sum())
            value.grad = None
        if not size > 0:
            raise BackboneError(
                "no slot has a gradient",
                todo="use a backbone of this version; no shopper was touched",
            )
        off = math.sqrt(error / size)
        if not off <= TOLERANCE:
            raise BackboneError(
                f"in a batch the gradient of a History is off by {off:.2g} of itself",
                todo="use the pinned versions of opacus and torch; no shopper was touched",
            )


def check_company(backbone: Backbone, rows: Rows, *, microbatch: int) -> None:
    """Raises: BackboneError if a gradient's last bits depend on who else is in its piece."""
    rng = np.random.default_rng(2)
    for length in COMPANY:
        size = rows_of(length, microbatch)
        mine = rng.integers(len(rows.table), size=length).astype(np.int32)
        found = []
        for place in {0, size // 2, size - 1}:
            others = [
                mine
                if row == place
                else rng.integers(len(rows.table), size=length).astype(np.int32)
                for row in range(size)
            ]
            piece = Rows(from_lists(others, tuple(map(str, range(size)))), rows.table)
            module = per_history(backbone)
            try:
                losses_of(backbone, piece, np.arange(size)).sum().backward()  # type: ignore[no-untyped-call]
                found.append([gradients(it)[place].clone() for it in slots(backbone).values()])
            finally:
                unhooked(backbone, module)
        for other in found[1:]:
            if not all(map(torch.equal, found[0], other)):
                raise BackboneError(
                    f"gradients of {length} events depend on who else is there, to the last bit",
                    todo="use another device or build of torch; no shopper was touched",
                )


def check_step(backbone: Backbone, rows: Rows) -> None:
    """Raises: BackboneError if a step under a Plan leaves a slot where it was."""
    plan = Plan(
        clip=1.0,
        noise_multiplier=1.0,
        sampling_rate=1.0,
        steps=1,
        expected_batch=float(len(LENGTHS)),
        epsilon=100.0,
        delta=0.01,
        shoppers_at_least=len(LENGTHS),
        update_norm=1.0,
    )
    before = {name: it.detach().clone() for name, it in slots(backbone).items()}
    engine = PrivateEngine(
        backbone,
        [rows],
        Recipe(),
        rng=np.random.default_rng(0),
        plan=plan,
        randomness=simulated(0),
        speed=Speed(microbatch=4),
    )
    try:
        for pieces in engine.batches():
            for _which, indices in pieces:
                engine.take(losses_of(backbone, rows, indices))
            engine.step(rate=0.01)
    finally:
        engine.close()
    for name, value in slots(backbone).items():
        if not float((value != before[name]).float().mean()) >= MOVED:
            raise BackboneError(
                f"a step does not move slot {name!r}",
                todo="use the pinned versions of opacus and torch; no shopper was touched",
            )


def losses_of(backbone: Backbone, rows: Rows, indices: NDArray[np.int64]) -> Tensor:
    """The losses of these probes."""
    batch = next_item.pad(rows.histories, indices, max_length=backbone.spec.max_length)
    return next_item.losses(backbone, rows.table, batch.to(rows.table.device))
