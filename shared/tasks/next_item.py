"""Task: from what a shopper did so far, rank what comes next.

    History [i0 i1 i2 i3] ─examples→ (i0 → i1), (i0 i1 → i2), (i0 i1 i2 → i3)

One History is one example: its loss is the mean over its own positions of the cross-entropy against
the whole public Catalogue. No other shopper's rows enter it, so clipping an example's gradient is
clipping a shopper's. That rules out in-batch negatives and candidates flattened into the batch.

Axes: B Histories, T positions, P = the valid ones among B·T, N items, W width of the text vectors.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shared.backbone import Backbone, is_slot
from shared.events import Histories

NAME = "next-item"
PAD = -1
LOGITS_AT_ONCE = 16_000_000  # numbers: 64 MB of float32, whatever P and N are


def pad(histories: Histories, indices: NDArray[np.int64], *, max_length: int) -> Tensor:
    """[B, T] catalogue positions of the last `max_length` events, PAD at the end."""
    rows = [histories[int(index)][-max_length:] for index in indices]
    padded = np.full((len(rows), max((len(row) for row in rows), default=0)), PAD, np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded)


def losses(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
    """The loss of each History.

    Args:
        backbone: with its adapter slots filled.
        table: [N, W] unit vectors of the platform's Catalogue, frozen.
        batch: [B, T] catalogue positions, PAD at the end, each row of at least two events.

    Returns:
        [B] nats, the mean over a History's own positions.
    """
    if len(batch) == 0:  # a sampled batch may be; its step still adds noise
        return table.new_zeros(0)
    return of_queries(backbone(inputs(table, batch)), table, batch)


def inputs(table: Tensor, batch: Tensor) -> Tensor:
    """[B, T-1, W]: the vectors of all events but the last position's, which is only a target."""
    return F.embedding(batch[:, :-1].clamp(min=0), table)


def of_queries(queries: Tensor, table: Tensor, batch: Tensor) -> Tensor:
    """[B] the loss of each History by its queries [B, T-1, W]; further as of `losses`."""
    targets = batch[:, 1:]  # [B, T-1]
    valid = targets != PAD
    each = cast(Tensor, _Separable.apply(queries[valid], table, targets[valid]))  # type: ignore[no-untyped-call]
    # Not index_add, whose order of sums a GPU does not keep.
    placed = queries.new_zeros(valid.shape).masked_scatter(valid, each)  # [B, T-1]
    return placed.sum(1) / valid.sum(1)


class _Separable(torch.autograd.Function):
    """Cross-entropy against a frozen table, in blocks: memory does not grow with P·N.

    The table takes no gradient, so the gradient of a query, (softmax - onehot)·table, is known as
    soon as its loss is, and the logits can be thrown away at once.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        """queries [P, W], table [N, W], targets [P] → [P] nats."""
        block = max(1, LOGITS_AT_ONCE // max(1, len(table)))
        each = queries.new_empty(len(queries))
        slope = torch.empty_like(queries)
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            logits = queries[part] @ table.T  # [block, N]
            aim = targets[part, None]
            top = logits.gather(1, aim)[:, 0]
            normaliser = logits.logsumexp(1)
            each[part] = normaliser - top
            softmax = logits.sub_(normaliser[:, None]).exp_()
            softmax.scatter_add_(1, aim, softmax.new_full(aim.shape, -1.0))
            slope[part] = softmax @ table
        ctx.save_for_backward(slope)
        return each

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """[P] → [P, W]."""
        (slope,) = ctx.saved_tensors
        return grads[0][:, None] * slope, None, None


def is_untrained(backbone: Backbone) -> bool:
    """Whether every adapter slot is zero, so that nothing is added to the prior."""
    return not any(bool(it.any()) for name, it in backbone.named_parameters() if is_slot(name))


class NextItemScorer:
    """Scores of the whole Catalogue for each History; a `shared.ranking.Scorer`."""

    def __init__(self, backbone: Backbone, table: Tensor) -> None:
        """`table` is [N, W] on the backbone's device."""
        self.backbone = backbone
        self.table = table

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N], higher is better. A History without events scores every item 0."""
        with torch.inference_mode():
            return cast(NDArray[np.float32], (self.queries(contexts) @ self.table.T).cpu().numpy())

    def queries(self, contexts: Histories) -> Tensor:
        """[B, W]: the query after each History's last event; zero for a History without events."""
        spec, prior_alone = self.backbone.spec, is_untrained(self.backbone)
        # The prior reads its window alone, and most states that are ranked are the untrained one.
        length = spec.window if prior_alone else spec.max_length
        batch = pad(contexts, np.arange(len(contexts)), max_length=length)
        batch = batch.to(self.table.device)
        lengths = (batch != PAD).sum(1)
        answer = self.table.new_zeros(len(batch), self.table.shape[1])
        known = lengths.nonzero()[:, 0]
        if len(known):
            vectors = F.embedding(batch[known].clamp(min=0), self.table)
            vectors = vectors * (batch[known] != PAD)[..., None]
            if prior_alone:
                every = spec.prior_scale * self.backbone.prior(vectors)  # [known, T, W]
            else:
                every = self.backbone(vectors)
            answer[known] = every[torch.arange(len(known)), lengths[known] - 1]
        return answer
