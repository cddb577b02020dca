"""What the server may ask of steps under a Plan: to be pulled back, at no cost and for no noise."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from clients.app import how
from clients.private import PrivateEngine
from clients.randomness import simulated
from shared.adapter import Adapter
from shared.asking import Training
from shared.backbone import BackboneSpec, new_backbone, read_slots
from shared.drift import Pull, proximal
from shared.errors import ConfigError
from shared.events import from_lists
from shared.plan import Plan
from shared.training import Recipe, Rows, Speed, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=1, heads=2, rank=2, out_rank=4, max_length=8
)
PLAN = Plan(
    clip=0.5,
    noise_multiplier=1.5,
    sampling_rate=0.5,
    steps=6,
    expected_batch=6.0,
    epsilon=50.0,
    delta=0.001,
    shoppers_at_least=8,
    update_norm=100.0,
)
ASKED = Training(1, 2, 1, 8, 0.01, "cosine", 0)


def rows(count: int) -> Rows:
    rng = np.random.default_rng(0)
    lists = [rng.integers(12, size=4).astype(np.int32) for _ in range(count)]
    return Rows(from_lists(lists, tuple(f"s{place}" for place in range(count))), torch.eye(12))


def start() -> Adapter:
    return read_slots(new_backbone(SPEC, seed=0), digest="d" * 64, task="next-item")


def go(pull: Pull | None, *, held: Rows | None = None) -> Adapter:
    engine = partial(
        PrivateEngine, plan=PLAN, randomness=simulated("pull"), speed=Speed(), pull=pull
    )
    return train(
        new_backbone(SPEC, seed=0),
        start(),
        [held or rows(12)],
        Recipe(learning_rate=0.05),
        rng=np.random.default_rng(0),
        engine=engine,
    )


def length(adapter: Adapter) -> float:
    return float(np.sqrt(sum(np.square(it).sum() for it in adapter.minus(start()).values())))


def test_a_proximal_strength_of_0_changes_no_bit_under_a_plan() -> None:
    assert go(proximal(start(), 0.0)).digest == go(None).digest


def test_under_a_plan_too_the_harder_the_pull_the_nearer_to_home() -> None:
    assert length(go(None)) > length(go(proximal(start(), 10.0))) > 0


def test_a_pull_is_asked_of_parameters_and_never_of_a_history() -> None:
    seen: list[tuple[str, int]] = []

    def watched(name: str, slot: torch.nn.Parameter) -> torch.Tensor:
        seen.append((name, slot.numel()))
        return torch.zeros_like(slot)

    go(watched)
    slots = {name: it.size for name, it in start().tensors.items()}
    assert len(seen) == PLAN.steps * len(slots)  # once a step, whoever was in it
    assert dict(seen) == slots


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf"), 1e9])
def test_an_impossible_pull_is_refused(strength: float) -> None:
    asked = Training(1, 2, 1, 8, 0.01, "cosine", 0, proximal=strength)
    with pytest.raises(ConfigError, match="impossible round"):
        how(asked)
    assert how(ASKED)[0].epochs == 1
