"""Training under a Plan: DP-SGD on one shopper's History as the record (Abadi et al., 1607.00133).

    each step    Poisson sample: every History with chance q, nobody's number counts
                 Opacus: one gradient a History; clipped to C; summed
                 + noise of σ·C from a CSPRNG, on a grid; ÷ the Plan's expected batch; Adam

Guarantee: all the steps of a round together are the Plan's Charge. A History can change the clipped
sum of a step by at most C, whatever its values are, and changes nothing else: not the number of
steps, not whether one happens, not the chance of any other History to be in it.

| a step's batch | gradient of a History | what it adds |
| --- | --- | --- |
| empty | - | noise alone, and it is charged |
| any | norm ≤ C | itself |
| any | norm > C | itself, scaled to C |
| any | zero, NaN, infinite or overflowing | nothing |
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from clients.pieces import pieces
from clients.randomness import Randomness, Stream
from shared.backbone import Backbone, Gate
from shared.drift import Pull, pulled
from shared.errors import BackboneError
from shared.plan import Plan
from shared.training import Piece, Recipe, Rows, Speed

# Clipping aims this much below C, which covers what rounding to the grid adds (√d·2^-24 of C) and
# the order of a sum in double precision.
SLACK = 2.0**-10


class PrivateEngine:
    """A `shared.training.Engine` built from a Plan."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Rows],
        recipe: Recipe,
        *,
        rng: np.random.Generator,
        plan: Plan,
        randomness: Randomness,
        speed: Speed,
        pull: Pull | None = None,
    ) -> None:
        """Steps, batch and noise are the Plan's; of the recipe only the rate is used.

        `rng` is not used: what draws Histories must be as hard to foretell as the noise.
        """
        if len(rows) != 1:
            raise ValueError("a Plan protects the shoppers of one platform")
        self.lengths = np.minimum(rows[0].histories.lengths, backbone.spec.max_length)
        self.plan, self.randomness, self.speed = plan, randomness, speed
        self.steps = plan.steps
        self.counts: deque[int] = deque()  # of each piece that was handed out and not yet taken
        self.backbone = backbone
        self.module = per_history(backbone)
        # Not bfloat16: its rounding is coarse enough to move a sum.
        self.mixed, backbone.mixed = backbone.mixed, False
        moved = [value for value in backbone.parameters() if value.requires_grad]
        self.optimizer = GridOptimizer(
            torch.optim.Adam(moved, lr=recipe.learning_rate),
            plan=plan,
            randomness=randomness,
        )
        if pull is not None:
            # After clipping and noise. It reads parameters, which are made of released sums alone,
            # and what was sent: no History, so it costs nothing.
            self.optimizer.attach_step_hook(lambda _optimizer: pulled(backbone, pull))

    def batches(self) -> Iterator[Iterable[Piece]]:
        """A Poisson sample a step, in pieces of one shape each; it may have none."""
        count = len(self.lengths)
        for step in range(self.steps):
            drawn = self.randomness.uniforms(Stream.SAMPLE, step, count) < self.plan.sampling_rate
            yield self.cut(np.flatnonzero(drawn))

    def cut(self, chosen: NDArray[np.int64]) -> Iterator[Piece]:
        """The chosen Histories, cut; rows that only fill a piece will count for nothing."""
        for part, count in pieces(self.lengths, chosen, microbatch=self.speed.microbatch):
            self.counts.append(count)
            yield 0, part

    def take(self, losses: Tensor) -> None:
        """Clip the gradient of each of these Histories and add them up."""
        losses.sum().backward()  # type: ignore[no-untyped-call]
        count = self.counts.popleft() if self.counts else len(losses)
        self.optimizer.gather(len(losses), count=count)

    def step(self, *, rate: float) -> None:
        """Noise on what was gathered, and a step of Adam."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.release()

    def close(self) -> None:
        """Take Opacus' hooks off again."""
        self.backbone.mixed = self.mixed
        unhooked(self.backbone, self.module)


class GridOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with sums in double precision and noise from a CSPRNG on a grid."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, plan: Plan, randomness: Randomness
    ) -> None:
        """Every number is the Plan's: none is read off a data set or a loader."""
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip,
            expected_batch_size=plan.expected_batch,
        )
        self.randomness = randomness
        self.released = 0

    def gather(self, records: int, *, count: int) -> None:
        """Clip and add up the gradients of the first `count` of a piece's records, a row each."""
        for value in self.params:
            if len(gradients(value)) != records:
                raise BackboneError(
                    f"{len(gradients(value))} gradients for {records} Histories",
                    todo="use a task whose losses are one a History",
                )
            value.grad_sample = gradients(value)[:count]
        self.signal_skip_step(True)
        self.step()
        self.zero_grad(set_to_none=True)

    def release(self) -> None:
        """Noise, scale and step. A piece of no records closes the batch, so it may be empty."""
        for value in self.params:
            value.grad_sample = value.new_zeros((0, *value.shape))
        self.signal_skip_step(False)
        self.step()
        self.zero_grad(set_to_none=True)
        self.released += 1

    def clip_and_accumulate(self) -> None:
        """Scale each record's gradient to at most C, and add to the sum; see the module's table."""
        samples = [gradients(value) for value in self.params]
        norms = torch.stack(
            [
                torch.linalg.vector_norm(sample.flatten(1), dim=1, dtype=torch.float64)
                for sample in samples
            ]
        ).norm(dim=0)  # [B]
        aim = self.max_grad_norm * (1 - SLACK)
        factor = (aim / norms.clamp(min=aim)).where(norms.isfinite(), 0.0)  # [B]
        for value, sample in zip(self.params, samples, strict=True):
            # Not finite times zero is not zero.
            kept = sample.double().nan_to_num_(0.0, 0.0, 0.0)
            total = torch.einsum("b,b...->...", factor, kept)
            value.summed_grad = total if value.summed_grad is None else value.summed_grad + total

    def add_noise(self) -> None:
        """Noise on the sum, drawn for all parameters at once."""
        flat = torch.cat([value.summed_grad.flatten() for value in self.params]).cpu().numpy()
        noised = self.randomness.on_grid(
            flat,
            sensitivity=self.max_grad_norm,
            multiplier=self.noise_multiplier,
            number=self.released,
        )
        place = 0
        for value in self.params:
            part = noised[place : place + value.numel()].reshape(value.shape)
            value.grad = torch.from_numpy(part).to(value.device, value.dtype)
            place += value.numel()


def per_history(backbone: Backbone) -> GradSampleModule:
    """Opacus' hooks on the adapter slots of a backbone that is on its device already.

    Raises:
        BackboneError: two slots are one tensor, or Opacus has no rule for a slot.
    """
    every = backbone.named_parameters(remove_duplicate=False)
    slots = [value for _name, value in every if value.requires_grad]
    if len({value.data_ptr() for value in slots}) != len(slots):
        raise BackboneError(
            "two adapter slots are one tensor, so its gradient would be clipped in halves",
            todo="untie them",
        )
    # True of the first layer's slot, whose input is a constant, and no matter: what is asked for is
    # the gradient of its weights.
    warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
    GradSampleModule.GRAD_SAMPLERS[Gate] = gate_gradient
    try:
        return GradSampleModule(backbone, batch_first=True, loss_reduction="sum")
    except NotImplementedError as fault:
        raise BackboneError(
            f"Opacus has no gradient rule for a slot ({str(fault).splitlines()[0]})",
            todo="make it of linear layers",
        ) from fault


def gradients(slot: nn.Parameter) -> Tensor:
    """[B, *slot.shape]: what Opacus' hooks left of the last backward pass."""
    return cast(Tensor, slot.grad_sample)  # type: ignore[attr-defined]


def unhooked(backbone: Backbone, module: GradSampleModule) -> None:
    """Leave no hook and no gradient behind."""
    module._close()
    for value in backbone.parameters():
        for name in ("grad_sample", "summed_grad"):
            if hasattr(value, name):
                delattr(value, name)
        value.grad = None
    for part in backbone.modules():  # where a loss was computed and no gradient followed
        for name in ("activations", "max_batch_len"):
            if hasattr(part, name):
                delattr(part, name)


def gate_gradient(
    layer: Gate, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """The gate's gradient a History: [B, T, W] and [B, T, W] → [B, 1]."""
    return {layer.adapter: (activations[0] * backprops).flatten(1).sum(1, keepdim=True)}
