"""Multi-task: in every round the encoder also learns to tell which kind of item comes next.

    vectors ─encoder→ states ─output→ queries ─→ loss of the task
                        └─ head of each platform ─→ cluster of the next item: cross-entropy

Kinds are clusters of the platform's own Catalogue by text, so they need no labels and no rows. Each
platform's head is its own, stays from round to round and never leaves; the slots are averaged as
ever. With few rows a kind is easier to learn than an item (Caruana, Machine Learning 28, 1997).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from clients.platform import Platform
from shared.adapter import Adapter
from shared.backbone import Backbone
from shared.tasks import next_item
from shared.training import Loss, Rows
from simulations.strategies.heads import read_and_answer, with_head
from simulations.strategies.meeting import Meeting, States
from simulations.strategies.rounds import Sent, rounds, trained

KINDS = 32  # clusters of a Catalogue, at most
SHARE = 0.3  # of the second task's loss beside the first's
STEPS = 25  # of k-means; of a few hundred items it has settled by then


def multitask(meeting: Meeting) -> States:
    """Rounds with a second task."""
    homes = {it.config.name: with_second_task(it, seed=meeting.seed) for it in meeting.platforms}

    def work(platform: Platform, sent: Sent) -> Adapter:
        backbone, loss = homes[platform.config.name]
        return trained(meeting, replace(platform, backbone=backbone), sent, loss=loss)

    return rounds(meeting, work)


def with_second_task(platform: Platform, *, seed: int) -> tuple[Backbone, Loss]:
    """A backbone with a head of its own, and the loss of both tasks."""
    kinds = kinds_of(platform.table.cpu().numpy(), seed=seed)
    count = int(kinds.max()) + 1
    backbone, head = with_head(
        platform.copy().backbone, lambda width: nn.Linear(width, count), seed=seed
    )
    return backbone, both(head, torch.from_numpy(kinds).to(platform.table.device))


def both(head: nn.Module, kinds: Tensor, *, share: float = SHARE) -> Loss:
    """The task's loss and `share` of the head's, over a History's own positions."""

    def loss(backbone: Backbone, part: Rows, batch: Tensor) -> Tensor:
        targets = batch[:, 1:]
        valid = targets != next_item.PAD
        states, queries = read_and_answer(backbone, next_item.inputs(part.table, batch))
        aims = kinds[targets.clamp(min=0)]  # [B, T-1]
        each = F.cross_entropy(head(states).flatten(0, 1), aims.flatten(), reduction="none")
        second = (each.view(valid.shape) * valid).sum(1) / valid.sum(1)  # [B]
        return next_item.of_queries(queries, part.table, batch) + share * second

    return loss


def kinds_of(table: NDArray[np.float32], *, seed: int) -> NDArray[np.int64]:
    """[N, W] unit vectors → [N] cluster of each, from 0, by spherical k-means from random items.

    A cluster that loses all its items stays where it was.
    """
    count = min(KINDS, len(table))
    centres = table[np.random.default_rng(seed).permutation(len(table))[:count]]
    found = np.zeros(len(table), np.int64)
    for _step in range(STEPS):
        found = (table @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, found, table)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return np.asarray(found, np.int64)
