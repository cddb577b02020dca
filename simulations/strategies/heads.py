"""A second head on the encoder's states: it is trained with the slots, and never leaves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shared.backbone import Backbone


def with_head(
    backbone: Backbone, make: Callable[[int], nn.Module], *, seed: int
) -> tuple[Backbone, nn.Module]:
    """Put a head on a backbone, where an Engine finds it; no global state is touched.

    Args:
        backbone: of its own for whoever calls; it is changed.
        make: the head, of the width of the states.
        seed: of its first weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make(backbone.spec.width)
    head.to(next(backbone.parameters()).device)
    backbone.add_module("head", head)
    return backbone, head


def read_and_answer(backbone: Backbone, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """[B, T, W] → states [B, T, D] and queries [B, T, W], from one reading."""
    states = backbone.states(vectors)
    queries = backbone.spec.prior_scale * backbone.prior(vectors) + backbone.answer(states)
    return states, queries
