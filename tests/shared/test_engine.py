"""What the loop asks of an Engine, and what PlainEngine gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, new_backbone, read_slots
from shared.errors import DataError
from shared.events import from_lists
from shared.tasks import next_item
from shared.text import Progress, silent
from shared.training import Piece, PlainEngine, Recipe, Rows, Stretch, epochs, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=16, layers=1, heads=2, rank=2, max_length=8
)
ITEMS = 12
TABLE = torch.eye(ITEMS)
# Shoppers go round in a circle: after item i comes i + 1.
CIRCLE = [[(start + step) % ITEMS for step in range(5)] for start in range(ITEMS)] * 2


def rows(lists: list[list[int]]) -> Rows:
    names = tuple(f"s{place}" for place in range(len(lists)))
    return Rows(from_lists([np.array(each, np.int32) for each in lists], names), TABLE)


@dataclass
class Watching:
    """An Engine that moves nothing and remembers what it was asked.

    Attributes:
        sizes: of the pieces of each step's batch.
        asked: in order; "take 3" is a piece of three Histories.
    """

    sizes: Sequence[Sequence[int]] = ((2,), (2,))
    rates: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps = len(self.sizes)

    def batches(self) -> Iterator[Iterable[Piece]]:
        for sizes in self.sizes:
            yield ((0, np.arange(size)) for size in sizes)  # a generator: it is read once

    def take(self, losses: Tensor) -> None:
        self.asked.append(f"take {len(losses)}")

    def step(self, *, rate: float) -> None:
        self.asked.append("step")
        self.rates.append(rate)

    def close(self) -> None:
        self.asked.append("close")


def trained(
    engine: Watching,
    recipe: Recipe | None = None,
    *,
    progress: Progress = silent,
    after_epoch: Callable[[int, Adapter], None] | None = None,
) -> Adapter:
    backbone = new_backbone(SPEC, seed=0)
    return train(
        backbone,
        read_slots(backbone, digest="d" * 64, task="next-item"),
        [rows(CIRCLE)],
        recipe or Recipe(),
        rng=np.random.default_rng(0),
        engine=lambda *_parts, **_how: engine,
        progress=progress,
        after_epoch=after_epoch,
    )


def rates_of(recipe: Recipe, stretch: Stretch, engine: Watching | None = None) -> list[float]:
    engine, backbone = engine or Watching(), new_backbone(SPEC, seed=0)
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


def test_a_schedule_counts_steps_and_not_pieces() -> None:
    recipe = Recipe(learning_rate=0.4, schedule="linear")
    whole, pieces = Watching([(4,), (1,)]), Watching([(1, 1, 2), ()])
    assert rates_of(recipe, Stretch(), whole) == rates_of(recipe, Stretch(), pieces)


def test_the_loop_gives_the_engine_one_loss_a_history() -> None:
    engine = Watching()
    list(epochs(new_backbone(SPEC, seed=0), [rows(CIRCLE[:3])], Recipe(batch=2), engine))
    assert engine.asked == ["take 2", "step"] * 2


def test_a_batch_comes_in_pieces_and_is_one_step() -> None:
    engine = Watching([(3, 3, 1), (2,)])
    progress: list[tuple[str, int, int]] = []
    trained(engine, progress=lambda what, done, total: progress.append((what, done, total)))
    assert engine.asked == ["take 3", "take 3", "take 1", "step", "take 2", "step", "close"]
    assert progress == [("epoch 1", 1, 2), ("epoch 1", 2, 2)]


@pytest.mark.parametrize("drawn", [(1,), (0,), ()])
def test_another_engine_takes_the_loop_and_may_draw_nobody(drawn: tuple[int, ...]) -> None:
    engine = Watching([drawn])
    trained(engine)
    assert engine.asked == [*(f"take {size}" for size in drawn), "step", "close"]


def test_an_engine_is_closed_once_after_all_its_epochs() -> None:
    engine, seen = Watching([(1,)]), list[int]()
    trained(engine, Recipe(epochs=3), after_epoch=lambda epoch, _adapter: seen.append(epoch))
    assert engine.asked == [*(["take 1", "step"] * 3), "close"]
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("where", ["batches", "take", "step", "after_epoch"])
@pytest.mark.parametrize("fault", [DataError("broken", todo="x"), KeyboardInterrupt()])
def test_an_engine_is_closed_even_if_a_batch_fails(where: str, fault: BaseException) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault

    engine = Watching()
    if where != "after_epoch":
        setattr(engine, where, fails)
    with pytest.raises(type(fault)):
        trained(engine, after_epoch=fails if where == "after_epoch" else None)
    assert engine.asked[-1] == "close"
    assert engine.asked.count("close") == 1


def engine_of(recipe: Recipe, *parts: Rows) -> tuple[Backbone, PlainEngine]:
    backbone = new_backbone(SPEC, seed=0)
    return backbone, PlainEngine(backbone, parts, recipe, rng=np.random.default_rng(0))


def test_every_history_is_drawn_once_an_epoch_in_an_order_of_its_own() -> None:
    _, engine = engine_of(Recipe(batch=4), rows(CIRCLE[:10]), rows(CIRCLE[:7]))
    batches = []
    for _epoch in range(3):
        batched = [list(pieces) for pieces in engine.batches()]
        assert [len(pieces) for pieces in batched] == [1] * engine.steps
        drawn = [piece for pieces in batched for piece in pieces]
        assert sorted(len(places) for _, places in drawn) == [2, 3, 4, 4, 4]
        for which, size in ((0, 10), (1, 7)):
            mine = [place for part, places in drawn if part == which for place in places]
            assert sorted(mine) == list(range(size))
        batches.append({(which, *sorted(places.tolist())) for which, places in drawn})
    assert batches[0] != batches[1] != batches[2]  # others stand together, not only later


def stepped(engine: PlainEngine, losses: Tensor, *, rate: float = 0.0) -> None:
    engine.take(losses)
    engine.step(rate=rate)


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
    stepped(engine, losses_of(backbone, CIRCLE[:1]))
    torch.testing.assert_close(slopes(engine), expected)
    stepped(engine, losses_of(backbone, CIRCLE[:1] * 4))
    torch.testing.assert_close(slopes(engine), expected * 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_no_step_has_a_larger_gradient_than_the_clip(scale: float) -> None:
    backbone, engine = engine_of(Recipe(batch=4, clip_norm=0.5), rows(CIRCLE))
    _, free = engine_of(Recipe(batch=4, clip_norm=1e9), rows(CIRCLE))
    free.moved = engine.moved
    stepped(free, losses_of(backbone, CIRCLE[:4]) * scale)
    unclipped = slopes(free).clone()
    stepped(engine, losses_of(backbone, CIRCLE[:4]) * scale)
    norm = float(unclipped.norm())
    assert float(slopes(engine).norm()) <= 0.5 * (1 + 1e-5)
    torch.testing.assert_close(
        slopes(engine), unclipped * min(1.0, 0.5 / norm), rtol=1e-4, atol=1e-6
    )


def test_the_rate_of_a_step_is_the_one_it_is_given() -> None:
    # Adam's first step moves every number that has a gradient by the rate.
    backbone, engine = engine_of(Recipe(learning_rate=7.0, clip_norm=1e9), rows(CIRCLE))
    stepped(engine, losses_of(backbone, CIRCLE[:4]), rate=0.25)
    moved = backbone.get_parameter("adapter.weight").detach().abs()
    assert float(moved.max()) == pytest.approx(0.25, rel=1e-3)
