from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from clients import private
from clients.private import PrivateEngine, per_history
from clients.randomness import FINENESS, Randomness, secure, simulated
from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, fill_slots, new_backbone, read_slots
from shared.errors import BackboneError
from shared.events import from_lists
from shared.plan import Plan
from shared.tasks import next_item
from shared.training import Recipe, Rows, Speed, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=2, heads=2, rank=2, out_rank=4, max_length=8
)
ITEMS = 12
TABLE = torch.eye(ITEMS)
PLAN = Plan(
    clip=0.5,
    noise_multiplier=1.5,
    sampling_rate=0.5,
    steps=3,
    expected_batch=6.0,
    epsilon=50.0,
    delta=0.001,
    shoppers_at_least=8,
    update_norm=100.0,
)
NOBODY = replace(PLAN, sampling_rate=1e-12)  # every step's sample is empty
EVERYONE = replace(PLAN, sampling_rate=1.0)


def rows(lists: list[list[int]]) -> Rows:
    names = tuple(f"s{place}" for place in range(len(lists)))
    return Rows(from_lists([np.array(each, np.int32) for each in lists], names), TABLE)


def shop(count: int, *, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return rows([rng.integers(ITEMS, size=rng.integers(2, 11)).tolist() for _ in range(count)])


def fresh() -> Backbone:
    """A backbone as pretraining leaves it: the gate has something to let in."""
    made = new_backbone(SPEC, seed=0)
    with torch.no_grad():
        made.pretrained.weight.copy_(torch.eye(12, 8))
    return made


def slots(backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    return {name: it for name, it in backbone.named_parameters() if it.requires_grad}


def start(*, size: float = 0.2) -> Adapter:
    found = read_slots(new_backbone(SPEC, seed=0), digest="d" * 64, task=next_item.NAME)
    rng = np.random.default_rng(3)
    moved = {
        name: rng.normal(0, size, it.shape).astype(np.float32) for name, it in found.tensors.items()
    }
    return replace(found, tensors=moved)


def go(
    held: Rows,
    *,
    plan: Plan = PLAN,
    randomness: Randomness | None = None,
    microbatch: int = 64,
    seed: int = 0,
    recipe: Recipe | None = None,
) -> Adapter:
    """A round, as a platform trains it."""
    engine = partial(
        PrivateEngine,
        plan=plan,
        randomness=randomness or simulated("test"),
        speed=Speed(microbatch=microbatch),
    )
    rng = np.random.default_rng(seed)
    return train(fresh(), start(), [held], recipe or Recipe(), rng=rng, engine=engine)


def engine_of(held: Rows, backbone: Backbone, plan: Plan = PLAN) -> PrivateEngine:
    return PrivateEngine(
        backbone,
        [held],
        Recipe(),
        rng=np.random.default_rng(0),
        plan=plan,
        randomness=simulated("test"),
        speed=Speed(),
    )


def losses_of(backbone: Backbone, held: Rows) -> Tensor:
    every = np.arange(len(held.histories))
    return next_item.losses(
        backbone, TABLE, next_item.pad(held.histories, every, max_length=SPEC.max_length)
    )


def far(one: Adapter, other: Adapter) -> float:
    return max(float(np.abs(it).max()) for it in one.minus(other).values())


def flat(backbone: Backbone, name: str) -> Tensor:
    """An attribute of all slots, in double precision."""
    return torch.cat(
        [getattr(it, name).detach().double().flatten() for it in slots(backbone).values()]
    )


# What a step is ------------------------------------------------------------------------------


def test_a_step_is_clipped_gradients_plus_noise_over_the_expected_batch() -> None:
    held, backbone = shop(5), fresh()
    fill_slots(backbone, start())
    alone = []
    for loss in losses_of(backbone, held):
        grads = torch.autograd.grad(loss, list(slots(backbone).values()), retain_graph=True)
        alone.append(torch.cat([it.double().flatten() for it in grads]))
    clip = float(sorted(it.norm() for it in alone)[2])  # some are longer and some are not
    plan = replace(EVERYONE, clip=clip)
    aim = clip * (1 - private.SLACK)
    total = torch.stack([it * min(1.0, aim / float(it.norm())) for it in alone]).sum(0)
    noise = simulated("test").on_grid(
        np.zeros(len(total)), sensitivity=clip, multiplier=plan.noise_multiplier, number=0
    )
    engine = engine_of(held, backbone, plan)
    seen: list[Tensor] = []
    engine.optimizer.attach_step_hook(lambda _: seen.append(flat(backbone, "grad")))
    engine.take(losses_of(backbone, held))
    torch.testing.assert_close(flat(backbone, "summed_grad"), total, rtol=1e-5, atol=1e-7)
    engine.step(rate=0.01)
    expected = (total + torch.from_numpy(noise)) / plan.expected_batch
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)
    assert 1.3 < float(seen[0].std()) * plan.expected_batch / clip < 1.7  # σ is 1.5
    engine.close()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_one_history_adds_no_more_than_the_clip(scale: float) -> None:
    held, backbone = shop(1), fresh()
    fill_slots(backbone, start())
    engine = engine_of(held, backbone)
    engine.take(losses_of(backbone, held) * scale)
    norm = float(flat(backbone, "summed_grad").norm())
    engine.close()
    assert norm <= PLAN.clip
    if scale == 1e4:
        assert norm == pytest.approx(PLAN.clip, rel=2e-3)


@pytest.mark.parametrize("shoppers", [1023, 1024, 1025])
def test_no_divisor_and_no_number_of_steps_is_read_off_the_rows(shoppers: int) -> None:
    plan = replace(PLAN, sampling_rate=8 / 1024, expected_batch=8.0)
    engine = engine_of(shop(shoppers), fresh(), plan)
    assert engine.optimizer.expected_batch_size == 8.0
    assert engine.steps == len(list(engine.batches())) == plan.steps
    engine.close()


def test_with_nobody_drawn_any_number_of_shoppers_gives_the_same_adapter() -> None:
    made = [go(shop(count), plan=NOBODY) for count in (0, 1, 9)]
    assert len({it.digest for it in made}) == 1


def test_an_empty_step_adds_noise_and_counts() -> None:
    backbone = fresh()
    engine = engine_of(shop(5), backbone, NOBODY)
    for done, pieces in enumerate(engine.batches()):
        assert list(pieces) == []
        before = flat(backbone, "data")
        engine.step(rate=0.01)
        assert bool((flat(backbone, "data") != before).all())
        assert engine.optimizer.released == done + 1
    assert engine.optimizer.released == NOBODY.steps
    engine.close()


def test_batches_are_poisson_samples_and_no_shuffle() -> None:
    held, steps, rate = shop(300), 400, 0.2
    engine = engine_of(held, fresh(), replace(PLAN, sampling_rate=rate, steps=steps))
    engine.speed = Speed(microbatch=10**6)
    drawn = np.zeros((steps, 300), bool)
    for step, pieces in enumerate(engine.batches()):
        for _, part in pieces:
            drawn[step, part] = True
    engine.close()
    sizes, spread = drawn.sum(1), 300 * rate * (1 - rate)
    assert sizes.mean() == pytest.approx(300 * rate, abs=4 * math.sqrt(spread / steps))
    assert sizes.var() == pytest.approx(spread, rel=4 * math.sqrt(2 / steps))  # a shuffle: 0
    twice = (drawn[1:] & drawn[:-1]).mean()  # a shuffle would avoid who has just been drawn
    assert twice == pytest.approx(rate**2, abs=4 * math.sqrt(rate**2 / drawn.size))
    each = drawn.sum(0)
    assert each.var() == pytest.approx(steps * rate * (1 - rate), rel=4 * math.sqrt(2 / 300))


@pytest.mark.parametrize("microbatch", [1, 2, 5])
def test_the_microbatch_changes_nothing_but_time(microbatch: int) -> None:
    assert far(go(shop(12), microbatch=microbatch), go(shop(12))) < 1e-6


def test_only_the_plan_and_the_rate_have_a_say() -> None:
    held = shop(12)
    told = go(held)
    assert go(held, seed=1).digest == told.digest
    assert go(held, recipe=Recipe(batch=2, clip_norm=1e-9)).digest == told.digest
    assert go(held, recipe=Recipe(learning_rate=0.1)).digest != told.digest


def test_the_same_simulated_seed_gives_the_same_adapter_and_secure_noise_never_does() -> None:
    held = shop(6)
    assert go(held, randomness=simulated(1)).digest == go(held, randomness=simulated(1)).digest
    assert go(held, randomness=simulated(2)).digest != go(held, randomness=simulated(1)).digest
    assert go(held, randomness=secure()).digest != go(held, randomness=secure()).digest


def test_every_step_has_noise_of_its_own() -> None:
    backbone = fresh()
    engine = engine_of(rows([]), backbone, NOBODY)
    seen: list[Tensor] = []
    engine.optimizer.attach_step_hook(lambda _: seen.append(flat(backbone, "grad")))
    for _ in engine.batches():
        engine.step(rate=0.0)
    engine.close()
    assert abs(float(torch.corrcoef(torch.stack(seen))[0, 1])) < 0.4
    assert not bool((seen[0] == seen[1]).any())


# What is refused -----------------------------------------------------------------------------


def test_more_gradients_than_histories_are_refused() -> None:
    held, backbone = shop(6), fresh()
    engine = engine_of(held, backbone)
    losses = losses_of(backbone, held)
    with pytest.raises(BackboneError, match=r"^6 gradients for 3 Histories; use a task whose"):
        engine.take(losses.view(3, 2).sum(1))
    engine.close()


def test_candidates_flattened_into_the_batch_axis_are_refused() -> None:
    backbone = fresh()
    engine = engine_of(shop(6), backbone)
    queries = backbone(TABLE[torch.arange(24) % ITEMS][:, None])  # [6·4, 1, W]
    with pytest.raises(BackboneError, match=r"^24 gradients for 6 Histories; "):
        engine.take(queries.square().sum((1, 2)).view(6, 4).sum(1))
    engine.close()


@pytest.mark.parametrize("whole", [True, False])
def test_slots_that_are_one_tensor_are_refused(whole: bool) -> None:
    backbone = fresh()
    first, second = (backbone.get_submodule(f"layers.{n}.feed_in") for n in (0, 1))
    if whole:
        second.adapter = first.adapter
    else:
        second.get_submodule("adapter").weight = first.get_parameter("adapter.weight")
    with pytest.raises(BackboneError, match=r"^two adapter slots are one tensor, "):
        per_history(backbone)


def test_rows_of_two_platforms_are_refused() -> None:
    with pytest.raises(ValueError, match="the shoppers of one platform"):
        train(
            fresh(),
            start(),
            [shop(3), shop(3)],
            Recipe(),
            rng=np.random.default_rng(0),
            engine=partial(PrivateEngine, plan=PLAN, randomness=simulated(0), speed=Speed()),
        )


def test_a_plan_is_trained_in_full_precision_and_the_backbone_left_as_it_was() -> None:
    backbone = fresh()
    mixed = [backbone.mixed]  # elsewhere: bfloat16 where there is a GPU
    engine = engine_of(shop(3), backbone)
    mixed.append(backbone.mixed)
    engine.close()
    assert [*mixed, backbone.mixed] == [True, False, True]


def test_the_clip_has_room_for_what_rounding_to_a_grid_adds() -> None:
    largest = 10**8  # numbers of all slots, far more than any backbone here has
    assert math.sqrt(largest) * 2.0**-FINENESS <= private.SLACK < 0.01


def test_who_is_drawn_follows_from_the_key_and_nothing_else() -> None:
    def drawn(randomness: Randomness, seed: int = 0) -> list[list[int]]:
        engine = PrivateEngine(
            fresh(),
            [shop(40)],
            Recipe(),
            rng=np.random.default_rng(seed),
            plan=PLAN,
            randomness=randomness,
            speed=Speed(),
        )
        found = [[int(it) for _, part in step for it in part] for step in engine.batches()]
        engine.close()
        return found

    assert drawn(simulated(1)) == drawn(simulated(1), seed=1)
    assert drawn(simulated(1)) != drawn(simulated(2))
    assert drawn(secure()) != drawn(secure())
