"""Two data sets of which one has a shopper more, under the same randomness.

The one more stands at the end: shoppers are drawn by their place, so the same others are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.private import PrivateEngine
from clients.randomness import Randomness, Stream, simulated
from shared.backbone import Backbone, BackboneSpec, new_backbone
from shared.events import from_lists
from shared.plan import Plan
from shared.tasks import next_item
from shared.training import Recipe, Rows, Speed

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=1, heads=2, rank=2, out_rank=4, max_length=8
)
ITEMS = 12
TABLE = torch.eye(ITEMS)
PLAN = Plan(
    clip=0.7,
    noise_multiplier=1.0,
    sampling_rate=0.6,
    steps=2,
    expected_batch=4.0,
    epsilon=50.0,
    delta=0.001,
    shoppers_at_least=8,
    update_norm=100.0,
)
Lists = list[list[int]]


@dataclass(frozen=True, repr=False)
class Watched(Randomness):
    """Remembers what it was asked for."""

    asked: list[tuple[Stream, int, int]] = field(default_factory=list)

    def words(self, stream: Stream, number: int, count: int) -> NDArray[np.uint64]:
        self.asked.append((stream, number, count))
        return super().words(stream, number, count)


@dataclass
class Walk:
    """What one round did.

    Attributes:
        drawn: Histories of each step, in pieces.
        sums: clipped sums of each step, before noise.
        noised: gradients of each step, after it.
        noise: draws of noise: number and count.
        moved: all slots at the end.
    """

    drawn: list[list[list[int]]]
    sums: list[NDArray[np.float64]]
    noised: list[NDArray[np.float64]]
    noise: list[tuple[int, int]]
    moved: NDArray[np.float64]

    def without(self, place: int) -> list[list[int]]:
        """The Histories of each step, in order, less one."""
        return [[it for piece in step for it in piece if it != place] for step in self.drawn]


def rows(lists: Lists) -> Rows:
    names = tuple(f"s{place}" for place in range(len(lists)))
    return Rows(from_lists([np.array(each, np.int32) for each in lists], names), TABLE)


def histories(rng: np.random.Generator, count: int) -> Lists:
    """Random Histories, of two events or of more than the model reads."""
    return [rng.integers(ITEMS, size=rng.integers(2, 12)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    made = new_backbone(SPEC, seed=0)
    with torch.no_grad():  # as pretraining leaves it: the gate has something to let in
        made.pretrained.weight.copy_(torch.eye(12, 8))
    return made


def walk(
    backbone: Backbone,
    lists: Lists,
    *,
    seed: int,
    plan: Plan = PLAN,
    size: float = 0.3,
    factors: dict[int, float] | None = None,
    rate: float = 0.0,
    microbatch: int = 3,
) -> Walk:
    """Drive the engine by hand, from random slots of this size.

    Args:
        backbone: whose slots are overwritten.
        lists: Histories.
        seed: of slots and of the engine's randomness.
        plan: of the engine.
        size: standard deviation of the slots; at zero most have no gradient.
        factors: what the loss of a History is multiplied by, by its place.
        rate: of each step; at 0 all steps start from the same slots.
        microbatch: Histories at once.
    """
    held, every = rows(lists), factors or {}
    slots = [value for value in backbone.parameters() if value.requires_grad]
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for value in slots:
            value.copy_(torch.from_numpy(rng.normal(0, size, tuple(value.shape))))
    key = simulated("neighbours", seed).key
    watched = Watched(key, "simulated")
    engine = PrivateEngine(
        backbone,
        [held],
        Recipe(),
        rng=np.random.default_rng(0),
        plan=plan,
        randomness=watched,
        speed=Speed(microbatch=microbatch),
    )
    noised: list[NDArray[np.float64]] = []
    drawn, sums = [], []

    def after_noise(_optimizer: object) -> None:
        grads = [value.grad for value in slots]
        noised.append(torch.cat([it.flatten() for it in grads if it is not None]).double().numpy())

    engine.optimizer.attach_step_hook(after_noise)
    try:
        for step in engine.batches():
            pieces = [part for _, part in step]  # rows that fill a piece are there twice
            drawn.append([np.unique(part).tolist() for part in pieces])
            for part in pieces:
                batch = next_item.pad(held.histories, part, max_length=SPEC.max_length)
                factor = torch.tensor([every.get(int(place), 1.0) for place in part])
                engine.take(next_item.losses(backbone, TABLE, batch) * factor)
            parts = [getattr(value, "summed_grad", None) for value in slots]
            zeros = [np.zeros(value.numel()) for value in slots]
            flat = [
                z if p is None else p.flatten().numpy() for p, z in zip(parts, zeros, strict=True)
            ]
            sums.append(np.concatenate(flat))
            engine.step(rate=rate)
    finally:
        engine.close()
    noise = [(number, count) for stream, number, count in watched.asked if stream == Stream.NOISE]
    moved = torch.cat([value.detach().flatten() for value in slots]).double().numpy()
    return Walk(drawn, sums, noised, noise, moved)


def check(one: Walk, other: Walk, *, newcomer: int, clip: float) -> list[float]:
    """The promise; gives how far apart the sums of each step are."""
    assert len(one.drawn) == len(other.drawn) == len(one.noised) == len(other.noised)
    assert one.without(newcomer) == other.without(newcomer)
    assert one.noise == other.noise
    apart = [float(np.linalg.norm(a - b)) for a, b in zip(one.sums, other.sums, strict=True)]
    assert all(distance <= clip for distance in apart)  # false for NaN too
    for step, distance in zip(other.drawn, apart, strict=True):
        if not any(newcomer in piece for piece in step):
            assert distance == 0  # who is not drawn changes no bit
    return apart


@pytest.mark.parametrize("part", range(4))
def test_a_shopper_more_changes_a_sum_by_at_most_the_clip_and_nothing_else(
    backbone: Backbone, part: int
) -> None:
    met = 0.0
    for pair in range(part * 50, part * 50 + 50):
        rng = np.random.default_rng(pair)
        lists = histories(rng, 1 + pair % 7)
        plan = replace(PLAN, clip=float(rng.choice([0.05, 0.7, 30.0])), steps=1)
        size = float(rng.choice([0.0, 0.3, 3.0]))
        how = {"seed": pair, "plan": plan, "size": size}
        less = walk(backbone, lists[:-1], **how)  # type: ignore[arg-type]
        more = walk(backbone, lists, **how)  # type: ignore[arg-type]
        apart = check(less, more, newcomer=len(lists) - 1, clip=plan.clip)
        met = max(met, max(apart) / plan.clip)
    assert met > 0.99  # some were long enough to be clipped: the bound was tried


@pytest.mark.parametrize("seed", range(4))
def test_the_only_shopper_is_one_too(backbone: Backbone, seed: int) -> None:
    plan = replace(PLAN, sampling_rate=1.0)
    nobody = walk(backbone, [], seed=seed, plan=plan)
    alone = walk(backbone, histories(np.random.default_rng(seed), 1), seed=seed, plan=plan)
    assert all(not total.any() for total in nobody.sums)
    assert all(distance > 0 for distance in check(nobody, alone, newcomer=0, clip=plan.clip))


def test_a_step_that_draws_nobody_is_a_step_in_either(backbone: Backbone) -> None:
    plan = replace(PLAN, sampling_rate=1e-9)
    lists = histories(np.random.default_rng(0), 5)
    less, more = (walk(backbone, it, seed=1, plan=plan, rate=0.1) for it in (lists[:-1], lists))
    assert less.drawn == more.drawn == [[], []]
    check(less, more, newcomer=4, clip=plan.clip)
    assert np.array_equal(less.moved, more.moved)


HUGE = [1e3, -1e3, 1e20, -3e38, math.inf, -math.inf, math.nan, 0.0, 1e-30]


@pytest.mark.parametrize("factor", HUGE)
@pytest.mark.parametrize("size", [0.3, 1e3])
def test_no_loss_however_spoilt_moves_a_sum_by_more(
    backbone: Backbone, factor: float, size: float
) -> None:
    plan = replace(PLAN, sampling_rate=1.0)
    lists = histories(np.random.default_rng(5), 6)
    less = walk(backbone, lists[:-1], seed=2, plan=plan, size=size)
    more = walk(backbone, lists, seed=2, plan=plan, size=size, factors={5: factor})
    apart = check(less, more, newcomer=5, clip=plan.clip)
    if not math.isfinite(factor) or not factor:
        assert max(apart) < 1e-4 * plan.clip  # it adds nothing, and the others are as they were


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_one_spoilt_shopper_does_not_hide_or_shield_another(
    backbone: Backbone, factor: float
) -> None:
    plan = replace(PLAN, sampling_rate=1.0)
    lists = histories(np.random.default_rng(6), 6)
    spoilt = {0: factor, 3: -factor}
    less = walk(backbone, lists[:-1], seed=3, plan=plan, factors=spoilt)
    more = walk(backbone, lists, seed=3, plan=plan, factors=spoilt)
    apart = check(less, more, newcomer=5, clip=plan.clip)
    clean = walk(backbone, lists[-1:], seed=3, plan=plan)
    own = float(np.linalg.norm(clean.sums[0]))
    assert apart[0] == pytest.approx(own, rel=1e-4)  # the newcomer's part is what it is alone


def test_a_history_repeated_without_end_is_still_one_shopper(backbone: Backbone) -> None:
    plan = replace(PLAN, sampling_rate=1.0)
    lists = histories(np.random.default_rng(7), 4)
    long = [*lists, [3, 4] * 500]
    less, more = (walk(backbone, it, seed=4, plan=plan) for it in (lists, long))
    check(less, more, newcomer=4, clip=plan.clip)


def test_after_the_noise_neighbours_are_no_farther_apart_than_before(backbone: Backbone) -> None:
    plan = replace(PLAN, sampling_rate=1.0)
    lists = histories(np.random.default_rng(8), 5)
    less, more = (walk(backbone, it, seed=5, plan=plan) for it in (lists[:-1], lists))
    for one, other in zip(less.noised, more.noised, strict=True):
        apart = np.linalg.norm(one - other) * plan.expected_batch
        assert 0 < apart <= plan.clip * (1 + 1e-5)  # gradients are float32


def test_with_slots_at_the_end_of_float32_every_sum_is_finite_and_clipped(
    backbone: Backbone,
) -> None:
    lists = histories(np.random.default_rng(9), 4)
    plan = replace(PLAN, sampling_rate=1.0)
    less, more = (walk(backbone, it, seed=6, plan=plan, size=1e38) for it in (lists[:-1], lists))
    assert all(np.isfinite(total).all() for total in less.sums + more.sums)
    check(less, more, newcomer=3, clip=plan.clip)


@pytest.mark.parametrize("size", [0.3, 1e3])
def test_nobodys_arithmetic_depends_on_who_else_is_there(backbone: Backbone, size: float) -> None:
    plan = replace(PLAN, sampling_rate=1.0, steps=1)
    others = histories(np.random.default_rng(10), 9)
    newcomer = [1, 2, 3, 4, 5, 6, 7, 8]  # as long as any: padding would change for everyone
    alone = walk(backbone, [newcomer], seed=7, plan=plan, size=size).sums[0]
    before = walk(backbone, others, seed=7, plan=plan, size=size).sums[0]
    for place in range(len(others) + 1):
        lists = [*others[:place], newcomer, *others[place:]]
        after = walk(backbone, lists, seed=7, plan=plan, size=size).sums[0]
        np.testing.assert_allclose(after - before, alone, rtol=0, atol=1e-12)  # of double sums
