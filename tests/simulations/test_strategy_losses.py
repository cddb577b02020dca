"""What strategies make small beside the task's loss: a teacher, a judge, a second task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.kept import Kept
from clients.platform import Platform
from shared.adapter import Adapter
from shared.tasks import next_item
from shared.training import of_task
from simulations.prepare import prepare
from simulations.scenario import load_scenario
from simulations.strategies import adversarial, distillation, heads, multitask, rounds
from simulations.strategies.meeting import Meeting


@pytest.fixture(scope="module")
def meeting(
    make_scenario: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Meeting:
    folder = tmp_path_factory.mktemp("losses")
    scenario = load_scenario(make_scenario(folder))
    ready = prepare(scenario, folder / "out", cache=cache, seed=0)
    start = {it.config.name: Kept(it.untrained, 0.0, "untrained") for it in ready.platforms}
    return Meeting(scenario, ready.platforms, start, seed=0)


@pytest.fixture
def platform(meeting: Meeting) -> Platform:
    return meeting.platforms[0].copy()


def shaken(adapter: Adapter, *, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(0, 0.3, it.shape).astype(np.float32)
        for name, it in adapter.tensors.items()
    }
    return replace(adapter, tensors=tensors)


def five(platform: Platform) -> Tensor:
    """Histories, where its vectors are."""
    batch = next_item.pad(platform.training.histories, np.arange(5), max_length=50)
    return batch.to(platform.table.device)


def test_distillation_with_no_share_of_the_teacher_is_plain_training(platform: Platform) -> None:
    batch = five(platform)
    teacher = shaken(platform.untrained, seed=5)
    loss = distillation.distilled(platform, teacher, share=0.0)
    ours = loss(platform.backbone, platform.training, batch)
    theirs = of_task(platform.backbone, platform.training, batch)
    torch.testing.assert_close(ours, theirs)


def test_a_teacher_that_is_the_student_pulls_nowhere(platform: Platform) -> None:
    batch = five(platform)
    oneself = distillation.distilled(platform, platform.untrained, share=1.0)
    loss = oneself(platform.backbone, platform.training, batch)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, torch.zeros_like(loss), atol=1e-5, rtol=0)
    slopes = [it.grad for it in platform.backbone.parameters() if it.grad is not None]
    assert max(float(it.abs().max()) for it in slopes) < 1e-4


def test_the_judges_gradient_turns_round() -> None:
    states = torch.randn(2, 3, 4, requires_grad=True)
    found = adversarial.turned(states)
    torch.testing.assert_close(found, states)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.full_like(states, -adversarial.REVERSED))


def test_a_head_is_trained_and_never_leaves(platform: Platform, meeting: Meeting) -> None:
    backbone, loss = multitask.with_second_task(platform, seed=0)
    head = backbone.get_submodule("head")
    before = [it.detach().clone() for it in head.parameters()]
    sent = rounds.Sent(platform.untrained, 1, 1)
    after = rounds.trained(meeting, replace(platform, backbone=backbone), sent, loss=loss)
    assert after.shapes == platform.untrained.shapes
    assert any(not torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_a_head_beside_changes_no_query(platform: Platform) -> None:
    batch = five(platform)
    vectors = next_item.inputs(platform.table, batch)
    _states, queries = heads.read_and_answer(platform.backbone, vectors)
    assert torch.equal(queries, platform.backbone(vectors))


def test_kinds_part_what_lies_apart() -> None:
    rng = np.random.default_rng(0)
    corners = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), 20)]
    noisy = corners + rng.normal(0, 0.01, corners.shape).astype(np.float32)
    kinds = multitask.kinds_of(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), seed=0)
    for corner in range(4):  # no kind holds items of two corners
        here = set(kinds[corner * 20 : corner * 20 + 20])
        assert not here & set(np.delete(kinds, np.s_[corner * 20 : corner * 20 + 20]))
