"""Domain-adversarial alignment: an encoder from whose states no judge can tell the platform.

    vectors ─encoder→ states ─output→ queries ─→ loss of the task
                        └─reversed gradient─ judge ─→ which platform? cross-entropy

The judge learns to tell platforms apart, the encoder learns to leave it nothing (Ganin et al.,
arXiv 1505.07818). A judge needs rows of several platforms at once, so this is trained as if rows
could be pooled: a yardstick beside `pooled`, not something that a federation can do as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.kept import better
from shared.adapter import Adapter
from shared.backbone import Backbone
from shared.tasks import next_item
from shared.training import Loss, Rows, train
from simulations.candidates import recipe_of
from simulations.strategies.at_home import all_passes
from simulations.strategies.heads import read_and_answer, with_head
from simulations.strategies.meeting import Meeting, States

REVERSED = 0.1  # of the judge's gradient that reaches the encoder, with its sign turned
WIDTH = 32  # of the judge's hidden layer


def adversarial(meeting: Meeting) -> States:
    """As many passes as the federation makes; each platform keeps its best epoch."""
    platforms = [platform.copy() for platform in meeting.platforms]
    rows = [platform.training for platform in platforms]
    first = platforms[0]
    backbone, judge = with_head(
        first.copy().backbone,
        lambda width: nn.Sequential(
            nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, len(platforms))
        ),
        seed=meeting.seed,
    )
    best = dict(meeting.start)

    def offer(epoch: int, adapter: Adapter) -> None:
        for platform in platforms:
            name = platform.config.name
            offered = meeting.start[name].offered(platform, adapter, f"epoch {epoch}")
            best[name] = better(best[name], offered)

    train(
        backbone,
        first.untrained,
        rows,
        recipe_of(meeting.scenario, epochs=all_passes(meeting)),
        rng=np.random.default_rng([meeting.seed, 0]),
        loss=judged(judge, rows),
        progress=meeting.progress,
        after_epoch=offer,
    )
    return best


def judged(judge: nn.Module, rows: list[Rows]) -> Loss:
    """The task's loss and the judge's, whose gradient turns round on its way into the encoder."""
    number = {id(part): place for place, part in enumerate(rows)}

    def loss(backbone: Backbone, part: Rows, batch: Tensor) -> Tensor:
        valid = batch[:, 1:] != next_item.PAD
        states, queries = read_and_answer(backbone, next_item.inputs(part.table, batch))
        told = judge(turned(states))  # [B, T-1, platforms]
        here = torch.full(valid.shape, number[id(part)], device=told.device)
        each = F.cross_entropy(told.flatten(0, 1), here.flatten(), reduction="none")
        wrong = (each.view(valid.shape) * valid).sum(1) / valid.sum(1)  # [B]
        return next_item.of_queries(queries, part.table, batch) + wrong

    return loss


def turned(states: Tensor) -> Tensor:
    """The same values, whose gradient is turned round and made REVERSED times as long."""
    return (1 + REVERSED) * states.detach() - REVERSED * states
