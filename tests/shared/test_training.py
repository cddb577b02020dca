from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, fill_slots, new_backbone, read_slots
from shared.errors import DataError
from shared.events import from_lists
from shared.tasks import next_item
from shared.training import PlainEngine, Recipe, Rows, Schedule, Stretch, epochs, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=16, layers=1, heads=2, rank=2, max_length=8
)
ITEMS = 12
TABLE = torch.eye(ITEMS)
# Shoppers go round in a circle: after item i comes i + 1.
CIRCLE = [[(start + step) % ITEMS for step in range(5)] for start in range(ITEMS)] * 2


def rows(lists: list[list[int]], table: Tensor = TABLE) -> Rows:
    names = tuple(f"s{place}" for place in range(len(lists)))
    return Rows(from_lists([np.array(each, np.int32) for each in lists], names), table)


def untrained(backbone: Backbone) -> Adapter:
    fresh = new_backbone(SPEC, seed=0)
    return read_slots(fresh, digest="d" * 64, task="next-item")


def go(recipe: Recipe, *parts: Rows, seed: int = 0, start: Adapter | None = None) -> Adapter:
    backbone = new_backbone(SPEC, seed=0)
    begin = start or untrained(backbone)
    return train(backbone, begin, list(parts), recipe, rng=np.random.default_rng(seed))


def mean_loss(adapter: Adapter, part: Rows) -> float:
    backbone = new_backbone(SPEC, seed=0)
    fill_slots(backbone, adapter)
    batch = next_item.pad(part.histories, np.arange(len(part.histories)), max_length=8)
    with torch.no_grad():
        return float(next_item.losses(backbone, part.table, batch).mean())


@dataclass
class Watching:
    """An Engine that moves nothing and remembers what it was asked."""

    steps: int
    rates: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def batches(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        yield from [(0, np.array([step, step + 1])) for step in range(self.steps)]

    def step(self, losses: Tensor, *, rate: float) -> None:
        self.rates.append(rate)
        self.sizes.append(len(losses))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.4, 0.341421, 0.2, 0.0]),
        ("linear", [0.4, 0.3, 0.2, 0.0]),
        ("constant", [0.4, 0.4, 0.4, 0.4]),
    ],
)
def test_the_learning_rate_by_hand(schedule: Schedule, expected: list[float]) -> None:
    recipe = Recipe(learning_rate=0.4, schedule=schedule)
    rates = [recipe.rate(progress) for progress in (0, 0.25, 0.5, 1)]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_stretch_is_a_part_of_the_whole() -> None:
    third = Stretch(1 / 3, 2 / 3)
    assert [third.at(share) for share in (0, 0.5, 1)] == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    assert [Stretch().at(share) for share in (0, 0.5, 1)] == [0, 0.5, 1]


def rates_of(recipe: Recipe, stretch: Stretch) -> list[float]:
    engine, backbone = Watching(steps=2), new_backbone(SPEC, seed=0)
    part = rows(CIRCLE[:4])
    assert list(epochs(backbone, [part], recipe, engine, stretch=stretch)) == list(
        range(1, recipe.epochs + 1)
    )
    return engine.rates


def test_a_schedule_spans_rounds_as_if_they_were_one_training() -> None:
    recipe = Recipe(epochs=1, batch=2, learning_rate=0.4, schedule="linear")
    rounds = [rates_of(recipe, Stretch(at / 4, (at + 1) / 4)) for at in range(4)]
    whole = rates_of(replace(recipe, epochs=4), Stretch())
    assert [rate for each in rounds for rate in each] == pytest.approx(whole)
    assert whole == pytest.approx([0.4 * (1 - step / 8) for step in range(8)])


def test_the_loop_gives_the_engine_one_loss_a_history() -> None:
    engine = Watching(steps=2)
    list(epochs(new_backbone(SPEC, seed=0), [rows(CIRCLE[:3])], Recipe(batch=2), engine))
    assert engine.sizes == [2, 2]


def test_one_seed_gives_one_adapter() -> None:
    recipe = Recipe(epochs=2, batch=5, learning_rate=0.01)
    one, again, other = (go(recipe, rows(CIRCLE), seed=seed) for seed in (0, 0, 1))
    assert one.digest == again.digest
    assert one.digest != other.digest


def test_nothing_but_the_generator_decides_and_no_global_state_is_touched() -> None:
    recipe = Recipe(batch=5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = go(recipe, rows(CIRCLE))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert go(recipe, rows(CIRCLE)).digest == one.digest


def test_training_begins_at_the_adapter_it_is_given_whatever_the_slots_held() -> None:
    recipe, part = Recipe(batch=5), rows(CIRCLE)
    backbone = new_backbone(SPEC, seed=0)
    start = untrained(backbone)
    first = train(backbone, start, [part], recipe, rng=np.random.default_rng(0))
    again = train(backbone, start, [part], recipe, rng=np.random.default_rng(0))
    assert first.digest == again.digest != start.digest


def test_a_step_moves_the_adapter_and_nothing_else() -> None:
    backbone = new_backbone(SPEC, seed=0)
    start, before = untrained(backbone), backbone.digest
    kept = start.digest
    after = train(backbone, start, [rows(CIRCLE)], Recipe(batch=99), rng=np.random.default_rng(0))
    assert np.abs(after.minus(start)["adapter.weight"]).max() > 1e-4
    assert backbone.digest == before
    assert Adapter(start.tensors, start.backbone, start.task).digest == kept
    assert (after.backbone, after.task, after.version) == (start.backbone, start.task, 0)


def test_no_rate_no_move() -> None:
    start = untrained(new_backbone(SPEC, seed=0))
    assert go(Recipe(learning_rate=0.0), rows(CIRCLE)).digest == start.digest


def test_training_learns_what_shoppers_do() -> None:
    part = rows(CIRCLE)
    before = mean_loss(untrained(new_backbone(SPEC, seed=0)), part)
    after = mean_loss(go(Recipe(epochs=40, batch=8, learning_rate=0.02), part), part)
    assert before > 3.0
    assert after < 1.0


def test_after_each_epoch_the_adapter_can_be_looked_at() -> None:
    seen: list[tuple[int, str]] = []
    backbone = new_backbone(SPEC, seed=0)
    last = train(
        backbone,
        untrained(backbone),
        [rows(CIRCLE)],
        Recipe(epochs=3, batch=10),
        rng=np.random.default_rng(0),
        after_epoch=lambda epoch, adapter: seen.append((epoch, adapter.digest)),
    )
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert len({digest for _, digest in seen}) == 3
    assert seen[-1][1] == last.digest


def test_progress_counts_every_batch() -> None:
    seen: list[tuple[str, int, int]] = []
    backbone = new_backbone(SPEC, seed=0)
    train(
        backbone,
        untrained(backbone),
        [rows(CIRCLE[:5]), rows(CIRCLE[:2])],
        Recipe(epochs=2, batch=3),
        rng=np.random.default_rng(0),
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert seen == [(f"epoch {epoch}", done, 3) for epoch in (1, 2) for done in (1, 2, 3)]


def engine_of(recipe: Recipe, *parts: Rows) -> tuple[Backbone, PlainEngine]:
    backbone = new_backbone(SPEC, seed=0)
    return backbone, PlainEngine(backbone, parts, recipe, rng=np.random.default_rng(0))


def test_every_history_is_drawn_once_an_epoch_in_an_order_of_its_own() -> None:
    _, engine = engine_of(Recipe(batch=4), rows(CIRCLE[:10]), rows(CIRCLE[:7]))
    batches = []
    for _epoch in range(3):
        drawn = list(engine.batches())
        assert sorted(len(places) for _, places in drawn) == [2, 3, 4, 4, 4]
        for which, size in ((0, 10), (1, 7)):
            mine = [place for part, places in drawn if part == which for place in places]
            assert sorted(mine) == list(range(size))
        batches.append({(which, *sorted(places.tolist())) for which, places in drawn})
    assert batches[0] != batches[1] != batches[2]  # others stand together, not only later


def slopes(engine: PlainEngine) -> Tensor:
    return torch.cat([value.grad.flatten() for value in engine.moved if value.grad is not None])


def losses_of(backbone: Backbone, lists: list[list[int]]) -> Tensor:
    held = rows(lists).histories
    return next_item.losses(
        backbone, TABLE, next_item.pad(held, np.arange(len(held)), max_length=8)
    )


def test_a_history_in_the_short_last_batch_weighs_no_more() -> None:
    recipe = Recipe(batch=4, clip_norm=1e9)
    backbone, engine = engine_of(recipe, rows(CIRCLE))
    own = torch.autograd.grad(losses_of(backbone, CIRCLE[:1])[0], engine.moved)
    expected = torch.cat([slope.flatten() for slope in own]) / 4
    engine.step(losses_of(backbone, CIRCLE[:1]), rate=0.0)
    torch.testing.assert_close(slopes(engine), expected)
    engine.step(losses_of(backbone, CIRCLE[:1] * 4), rate=0.0)
    torch.testing.assert_close(slopes(engine), expected * 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_no_step_has_a_larger_gradient_than_the_clip(scale: float) -> None:
    backbone, engine = engine_of(Recipe(batch=4, clip_norm=0.5), rows(CIRCLE))
    _, free = engine_of(Recipe(batch=4, clip_norm=1e9), rows(CIRCLE))
    free.moved = engine.moved
    free.step(losses_of(backbone, CIRCLE[:4]) * scale, rate=0.0)
    unclipped = slopes(free).clone()
    engine.step(losses_of(backbone, CIRCLE[:4]) * scale, rate=0.0)
    norm = float(unclipped.norm())
    assert float(slopes(engine).norm()) <= 0.5 * (1 + 1e-5)
    torch.testing.assert_close(
        slopes(engine), unclipped * min(1.0, 0.5 / norm), rtol=1e-4, atol=1e-6
    )


def test_the_rate_of_a_step_is_the_one_it_is_given() -> None:
    # Adam's first step moves every number that has a gradient by the rate.
    backbone, engine = engine_of(Recipe(learning_rate=7.0, clip_norm=1e9), rows(CIRCLE))
    engine.step(losses_of(backbone, CIRCLE[:4]), rate=0.25)
    moved = backbone.get_parameter("adapter.weight").detach().abs()
    assert float(moved.max()) == pytest.approx(0.25, rel=1e-3)


def test_platforms_with_catalogues_of_different_size_can_be_pooled() -> None:
    small = rows([[0, 1, 2], [1, 2, 0]], TABLE[:3])
    both = go(Recipe(epochs=2, batch=4), rows(CIRCLE), small)
    assert both.digest != go(Recipe(epochs=2, batch=4), rows(CIRCLE)).digest


def test_a_platform_without_histories_stands_beside_others() -> None:
    assert go(Recipe(), rows(CIRCLE), rows([])).shapes == go(Recipe(), rows(CIRCLE)).shapes


@pytest.mark.parametrize("parts", [[], [rows([])], [rows([]), rows([])]])
def test_nothing_to_train_on_is_refused(parts: list[Rows]) -> None:
    with pytest.raises(DataError, match="no History to train on; lower min_length"):
        go(Recipe(), *parts)


def test_a_loss_that_is_not_finite_is_refused_with_its_epoch() -> None:
    spoilt = TABLE.clone()
    spoilt[3, 3] = float("nan")
    with pytest.raises(DataError, match="epoch 1 is not finite; lower learning_rate"):
        go(Recipe(), rows(CIRCLE, spoilt))


def test_training_that_runs_away_is_refused_and_hands_out_no_adapter() -> None:
    with pytest.raises(DataError, match="is not finite; lower learning_rate"):
        go(Recipe(epochs=3, learning_rate=3e37), rows(CIRCLE))


@pytest.mark.parametrize("drawn", [[0], []])
def test_another_engine_takes_the_loop_and_may_draw_nobody(drawn: list[int]) -> None:
    class Sampling(Watching):
        def batches(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
            yield 0, np.array(drawn, np.int64)

    engine = Sampling(1)
    backbone = new_backbone(SPEC, seed=0)
    train(
        backbone,
        untrained(backbone),
        [rows(CIRCLE)],
        Recipe(),
        rng=np.random.default_rng(0),
        engine=lambda *_parts, **_how: engine,
    )
    assert engine.sizes == [len(drawn)]
