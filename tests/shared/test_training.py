from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, fill_slots, new_backbone, read_slots
from shared.errors import DataError
from shared.events import from_lists
from shared.tasks import next_item
from shared.training import Recipe, Rows, Schedule, Stretch, train

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


def test_a_loss_that_is_not_finite_is_refused() -> None:
    spoilt = TABLE.clone()
    spoilt[3, 3] = float("nan")
    with pytest.raises(DataError, match="the loss of a batch is not finite; lower learning_rate"):
        go(Recipe(), rows(CIRCLE, spoilt))


def test_training_that_runs_away_is_refused_and_hands_out_no_adapter() -> None:
    with pytest.raises(DataError, match="is not finite; lower learning_rate"):
        go(Recipe(epochs=3, learning_rate=3e37), rows(CIRCLE))
