"""Distillation: a platform trains at home on its own rows and on a teacher's scores of them.

    loss = (1 - share) · cross-entropy(next item) + share · t² · KL(teacher ‖ student at t)

The scores are those of the whole own Catalogue, softened by the temperature t (Hinton et al., arXiv
1503.02531). The teacher is the federated Adapter that the platform keeps, or one of pooled rows,
which nobody could have: it says how much a better teacher would add.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.platform import Platform
from shared.adapter import Adapter
from shared.backbone import Backbone, fill_slots
from shared.tasks import next_item
from shared.training import Loss, Rows
from simulations.strategies.at_home import all_passes, from_states
from simulations.strategies.meeting import Meeting, States
from simulations.strategies.pooled import pooled
from simulations.strategies.rounds import federated

SHARE = 0.5  # of the teacher in the loss
TEMPERATURE = 2.0  # of both softmaxes: what a teacher says of items it does not rank first


def from_federated(meeting: Meeting) -> States:
    """Taught by the federated Adapter."""
    return taught_by(meeting, meeting.of("federated", federated))


def from_pooled(meeting: Meeting) -> States:
    """Taught by the Adapter of pooled rows."""
    return taught_by(meeting, meeting.of("pooled", pooled))


def taught_by(meeting: Meeting, teachers: States) -> States:
    """Each platform trains from the untrained state, with its teacher's scores beside its rows."""
    return from_states(
        meeting,
        meeting.start,
        passes=all_passes(meeting),
        loss=lambda platform: distilled(platform, teachers[platform.config.name].adapter),
    )


def distilled(platform: Platform, teacher: Adapter, *, share: float = SHARE) -> Loss:
    """The loss with this teacher; a share of 0 is the task's, up to rounding."""
    wise = platform.copy().backbone
    fill_slots(wise, teacher)

    def loss(backbone: Backbone, part: Rows, batch: Tensor) -> Tensor:
        vectors = next_item.inputs(part.table, batch)  # [B, T-1, W]
        valid = batch[:, 1:] != next_item.PAD
        queries: Tensor = backbone(vectors)
        rows = next_item.of_queries(queries, part.table, batch)
        with torch.no_grad():
            aims = (wise(vectors)[valid] @ part.table.T / TEMPERATURE).log_softmax(1)  # [P, N]
        said = (queries[valid] @ part.table.T / TEMPERATURE).log_softmax(1)
        apart = F.kl_div(said, aims, reduction="none", log_target=True).sum(1)  # [P]
        placed = queries.new_zeros(valid.shape).masked_scatter(valid, apart)
        return (1 - share) * rows + share * TEMPERATURE**2 * placed.sum(1) / valid.sum(1)

    return loss
