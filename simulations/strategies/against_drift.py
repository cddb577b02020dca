"""Rounds against drift: platforms whose laws differ pull the average apart while they train.

    fedprox     each step is pulled back to the Adapter that came (arXiv 1812.06127)
    scaffold    each step is corrected by what all gradients have and one's own lacks
                (arXiv 1910.06378, its Option I: gradients at the Adapter that came)

Both papers step by plain gradients. Here the corrected gradient goes into the platform's Adam, so
neither paper's rate of convergence is claimed.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from clients.platform import Platform
from shared.adapter import Adapter, Tensors
from shared.backbone import fill_slots, is_slot
from shared.drift import PulledEngine, proximal, variates
from shared.tasks import next_item
from shared.training import of_task
from simulations.strategies.meeting import Meeting, States, weighted
from simulations.strategies.rounds import Sent, Work, rounds, trained

STRENGTH = 0.01  # FedProx's µ, in the middle of the paper's 0.001 to 1; gradients are clipped at 1
AT_ONCE = 256  # Histories of one piece of a whole gradient


def fedprox(meeting: Meeting, *, strength: float = STRENGTH) -> States:
    """FedAvg whose steps are pulled back; with strength 0 it is FedAvg to the last bit."""
    return rounds(
        meeting, lambda platform, sent: pulled(meeting, platform, sent, strength=strength)
    )


def pulled(meeting: Meeting, platform: Platform, sent: Sent, *, strength: float) -> Adapter:
    """A platform's part of a round of FedProx."""
    pull = proximal(sent.adapter, strength)
    return trained(meeting, platform, sent, engine=partial(PulledEngine, pull=pull))


def scaffold(meeting: Meeting) -> States:
    """FedAvg whose steps are corrected; the first round, before any variates, is FedAvg's."""
    return rounds(meeting, corrected(meeting))


def corrected(meeting: Meeting) -> Work:
    """A platform's part of each round of SCAFFOLD, which remembers every gradient told."""
    weights = {it.config.name: it.config.weight for it in meeting.platforms}
    told: dict[int, dict[str, Tensors]] = {
        round_: {} for round_ in range(1, meeting.scenario.federation.rounds + 1)
    }

    def work(platform: Platform, sent: Sent) -> Adapter:
        name = platform.config.name
        told[sent.round][name] = gradient(platform, sent.adapter)
        if sent.round == 1:
            return trained(meeting, platform, sent)
        known = told[sent.round - 1]
        pull = variates(weighted(known, weights), known[name])
        return trained(meeting, platform, sent, engine=partial(PulledEngine, pull=pull))

    return work


def gradient(platform: Platform, adapter: Adapter) -> Tensors:
    """The gradient of the mean loss over all of a platform's Histories, by slot."""
    backbone, part = platform.backbone, platform.training
    fill_slots(backbone, adapter)
    backbone.zero_grad(set_to_none=True)
    everyone = np.arange(len(part.histories))
    for start in range(0, len(everyone), AT_ONCE):
        batch = next_item.pad(
            part.histories, everyone[start : start + AT_ONCE], max_length=backbone.spec.max_length
        )
        losses = of_task(backbone, part, batch.to(part.table.device))
        (losses.sum() / len(everyone)).backward()  # type: ignore[no-untyped-call]
    found = {
        name: torch.zeros_like(slot) if slot.grad is None else slot.grad.detach().clone()
        for name, slot in backbone.named_parameters()
        if is_slot(name)
    }
    backbone.zero_grad(set_to_none=True)
    return {name: it.cpu().numpy() for name, it in found.items()}
