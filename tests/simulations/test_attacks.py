from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from clients.private import PrivateEngine
from clients.randomness import simulated
from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, fill_slots, new_backbone, read_slots
from shared.plan import Plan
from shared.tasks import next_item
from shared.training import PlainEngine, Recipe, Rows, Speed, train
from simulations.audits.attacks import (
    Shadows,
    gradients,
    invert,
    likelihood_ratios,
    recovered,
    roc,
    shadow_runs,
    slots,
)
from simulations.audits.canaries import Tape, nameless, watching

PLAN = Plan(
    clip=0.5,
    noise_multiplier=1.0,
    sampling_rate=0.5,
    steps=4,
    expected_batch=10.0,
    epsilon=10.0,
    delta=1e-5,
    shoppers_at_least=20,
    update_norm=100.0,
)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    spec = BackboneSpec(encoder="", text_width=32, width=16, heads=2, rank=4, out_rank=8)
    return new_backbone(spec, seed=0)


@pytest.fixture(scope="module")
def start(backbone: Backbone) -> Adapter:
    return read_slots(backbone, digest="", task=next_item.NAME)


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((100, 32)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    histories = [rng.choice(100, 4, replace=False).astype(np.int32) for _ in range(70)]
    return Rows(nameless(histories), torch.from_numpy(table))


def test_each_gradient_is_that_of_one_history_alone(
    backbone: Backbone, start: Adapter, rows: Rows
) -> None:
    fill_slots(backbone, start)
    found = torch.cat(list(gradients(backbone, rows.table, rows.histories)))
    assert found.shape == (70, sum(value.numel() for value in slots(backbone)))
    for place in (0, 69):
        batch = next_item.pad(rows.histories, np.array([place]), max_length=50)
        loss = next_item.losses(backbone, rows.table, batch).sum()
        alone = torch.autograd.grad(loss, slots(backbone))
        torch.testing.assert_close(
            found[place], torch.cat([part.flatten() for part in alone]), atol=1e-6, rtol=1e-4
        )


def test_watching_changes_nothing_and_sees_every_step(
    backbone: Backbone, start: Adapter, rows: Rows
) -> None:
    speed = Speed(microbatch=16)
    engine = partial(PrivateEngine, plan=PLAN, randomness=simulated(1), speed=speed)
    tape = Tape()
    adapters = [
        train(backbone, start, [rows], Recipe(), rng=np.random.default_rng(0), engine=kind)
        for kind in (engine, watching(engine, tape))
    ]
    assert adapters[0].digest == adapters[1].digest
    assert len(tape.sums) == len(tape.states) == len(tape.drawn) == PLAN.steps
    # Noise of σ·C on every number, on top of 35 Histories of at most C each.
    spread = float(torch.stack(tape.sums).std())
    assert spread == pytest.approx(PLAN.clip, rel=0.2)


def test_a_curve_goes_from_nothing_to_all_as_by_hand() -> None:
    scores, inside = np.array([[3.0, 2.0, 2.0, 1.0]]), np.array([[True, False, True, False]])
    false, true = roc(scores, inside)
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]


def test_a_likelihood_ratio_is_fitted_to_the_other_runs() -> None:
    """Out of run 0: in at 2 and 2, out at 0 and 0, but for a spread of one in one run."""
    scores = np.array([[2.0], [3.0], [1.0], [0.0], [0.0]])
    inside = np.array([[True], [True], [True], [False], [False]])
    # In: mean 2; out: mean 0; variance (1 + 1 + 0 + 0)/4 = ½. At 2: (4 - 0)/(2·½) = 4.
    assert likelihood_ratios(Shadows(scores, inside))[0, 0] == pytest.approx(4.0)


def test_without_a_plan_members_are_told_from_others(
    backbone: Backbone, start: Adapter, rows: Rows
) -> None:
    shadows = shadow_runs(
        backbone,
        start,
        rows,
        Recipe(epochs=4, batch=16, learning_rate=0.01),
        engines=[PlainEngine] * 6,
        rng=np.random.default_rng(0),
    )
    false, true = roc(likelihood_ratios(shadows), shadows.inside)
    assert (true - false).max() > 0.5


def test_an_update_of_one_step_gives_the_history_away(
    backbone: Backbone, start: Adapter, rows: Rows
) -> None:
    history = rows.histories[0]
    alone = Rows(nameless([history]), rows.table)
    after = train(
        backbone, start, [alone], Recipe(batch=1), rng=np.random.default_rng(0), engine=PlainEngine
    )
    guess = invert(after.minus(start), backbone, start, rows.table, length=4)
    assert recovered(guess, history) >= 3


def test_items_are_counted_once_and_in_any_order() -> None:
    assert recovered(np.array([3, 3, 1]), np.array([1, 3, 2], np.int32)) == 2
