from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from shared.backbone import Backbone, BackboneSpec, new_backbone
from shared.events import Histories, from_lists
from shared.tasks import next_item
from shared.tasks.next_item import PAD, NextItemScorer, is_untrained, losses, pad

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=1, heads=2, rank=2, max_length=6
)
ITEMS = 30
TABLE = F.normalize(torch.randn(ITEMS, 12, generator=torch.Generator().manual_seed(0)), dim=1)
ROWS = [[1, 2], [3, 4, 5, 6, 7], [8, 8, 8], [9, 1, 9, 1, 2, 29], [0, 5]]

rows_of_events = st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=9)


def trained(spec: BackboneSpec = SPEC) -> Backbone:
    """A backbone whose every number is drawn: no term of its queries is zero."""
    backbone = new_backbone(spec, seed=0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in backbone.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=rng))
    return backbone


BACKBONE = trained()


def histories(rows: list[list[int]]) -> Histories:
    return from_lists(
        [np.array(row, np.int32) for row in rows], tuple(f"s{at}" for at in range(len(rows)))
    )


def batch(rows: list[list[int]], *, max_length: int = 6) -> Tensor:
    return pad(histories(rows), np.arange(len(rows)), max_length=max_length)


def plain_losses(backbone: Backbone, table: Tensor, rows: list[list[int]]) -> Tensor:
    """The definition: one History at a time, torch's cross-entropy over the whole table."""
    each = []
    for row in rows:
        kept = torch.tensor(row[-6:])
        logits = backbone(table[kept[:-1]][None])[0] @ table.T
        each.append(F.cross_entropy(logits, kept[1:]))
    return torch.stack(each)


def slopes(total: Tensor, backbone: Backbone = BACKBONE) -> list[Tensor]:
    moved = [value for value in backbone.parameters() if value.requires_grad]
    return list(torch.autograd.grad(total, moved, retain_graph=True))


def test_a_batch_holds_the_last_events_padded_at_the_end() -> None:
    held = histories([[1, 2, 3, 4], [5], [6, 7]])
    padded = pad(held, np.array([2, 0, 1]), max_length=3)
    assert padded.tolist() == [[6, 7, PAD], [2, 3, 4], [5, PAD, PAD]]
    assert pad(held, np.zeros(0, np.int64), max_length=3).shape == (0, 0)


def test_the_untrained_loss_of_one_step_by_hand() -> None:
    # Three items at right angles: after item 0 the logits are 6, 0, 0 and item 1 comes.
    axes = torch.eye(3, 12)
    untrained = new_backbone(SPEC, seed=0)
    loss = losses(untrained, axes, torch.tensor([[0, 1], [0, 0]])).tolist()
    assert loss[0] == pytest.approx(math.log(math.exp(6) + 2), abs=1e-5)
    assert loss[1] == pytest.approx(math.log(math.exp(6) + 2) - 6, abs=1e-5)


def test_the_loss_is_cross_entropy_over_the_whole_table_mean_per_history() -> None:
    found = losses(BACKBONE, TABLE, batch(ROWS))
    expected = plain_losses(BACKBONE, TABLE, ROWS)
    assert found.shape == (len(ROWS),)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", range(len(ROWS)))
def test_its_gradient_is_that_of_cross_entropy(place: int) -> None:
    found = slopes(losses(BACKBONE, TABLE, batch(ROWS))[place])
    expected = slopes(plain_losses(BACKBONE, TABLE, ROWS)[place])
    assert max(float(slope.abs().max()) for slope in expected) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_each_historys_gradient_is_scaled_by_its_own_weight() -> None:
    weights = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    found = slopes((losses(BACKBONE, TABLE, batch(ROWS)) * weights).sum())
    expected = slopes((plain_losses(BACKBONE, TABLE, ROWS) * weights).sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbers", [1, ITEMS, 3 * ITEMS + 1])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    whole = losses(BACKBONE, TABLE, batch(ROWS))
    monkeypatch.setattr(next_item, "LOGITS_AT_ONCE", numbers)
    blocks = losses(BACKBONE, TABLE, batch(ROWS))
    torch.testing.assert_close(blocks, whole, rtol=1e-6, atol=1e-6)  # a few units of rounding
    torch.testing.assert_close(slopes(blocks.sum()), slopes(whole.sum()), rtol=1e-5, atol=1e-5)


class Largest(TorchFunctionMode):
    """Watches how many numbers the largest tensor holds that any operation returns."""

    numbers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


def test_no_more_logits_are_alive_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLE.repeat(20, 1)  # 600 items
    many = batch([[1, 2, 3, 4, 5, 6]] * 40)  # 200 positions
    with Largest() as whole:
        losses(BACKBONE, table, many)
    monkeypatch.setattr(next_item, "LOGITS_AT_ONCE", 1200)
    with Largest() as blocks:
        losses(BACKBONE, table, many)
    assert whole.numbers == 200 * 600
    assert blocks.numbers <= 15_000  # the table is 7,200, the last items of each position 12,000


@given(st.lists(rows_of_events, min_size=1, max_size=6), st.data())
@settings(max_examples=40)
def test_one_history_is_one_example_whatever_its_neighbours(
    rows: list[list[int]], data: st.DataObject
) -> None:
    mine = data.draw(st.integers(0, len(rows) - 1))
    others = data.draw(st.lists(rows_of_events, max_size=6))
    among = data.draw(st.permutations([rows[mine], *others]))
    together = losses(BACKBONE, TABLE, batch(rows))
    elsewhere = losses(BACKBONE, TABLE, batch(among))
    assert (len(together), len(elsewhere)) == (len(rows), len(among))
    alone = losses(BACKBONE, TABLE, batch([rows[mine]]))[0]
    for found in (together[mine], elsewhere[among.index(rows[mine])]):
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@given(st.lists(rows_of_events, min_size=1, max_size=4))
@settings(max_examples=20)
def test_neighbours_do_not_enter_a_historys_gradient(others: list[list[int]]) -> None:
    alone = slopes(losses(BACKBONE, TABLE, batch([ROWS[3]]))[0])
    among = slopes(losses(BACKBONE, TABLE, batch([*others, ROWS[3]]))[-1])
    torch.testing.assert_close(among, alone, rtol=1e-4, atol=1e-5)


def test_a_long_history_weighs_no_more_than_a_short_one() -> None:
    # The same step once and five times, each as surprising.
    untrained = new_backbone(SPEC, seed=0)
    short, long = losses(untrained, TABLE, batch([[4, 4], [4] * 6])).tolist()
    assert long == pytest.approx(short, abs=1e-5)


def test_scores_are_those_the_loss_is_made_of() -> None:
    scores = NextItemScorer(BACKBONE, TABLE).scores(histories([[3], [8]]))
    surprise = F.cross_entropy(torch.from_numpy(scores), torch.tensor([7, 1]), reduction="none")
    trained_on = losses(BACKBONE, TABLE, batch([[3, 7], [8, 1]]))
    torch.testing.assert_close(surprise, trained_on, rtol=0, atol=1e-5)


def test_a_history_without_events_scores_every_item_zero() -> None:
    scores = NextItemScorer(BACKBONE, TABLE).scores(histories([[], [1, 2], []]))
    assert scores.shape == (3, ITEMS)
    assert scores.dtype == np.float32
    assert not scores[[0, 2]].any()
    assert np.abs(scores[1]).max() > 0.1


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_nobody_and_nothing_can_be_scored(rows: list[list[int]]) -> None:
    scores = NextItemScorer(BACKBONE, TABLE).scores(histories(rows))
    assert scores.shape == (len(rows), ITEMS)
    assert not scores.any()


@given(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=6))
@settings(max_examples=30)
def test_a_history_is_scored_alike_in_any_company(rows: list[list[int]]) -> None:
    scorer = NextItemScorer(BACKBONE, TABLE)
    together = scorer.scores(histories(rows))
    for place, row in enumerate(rows):
        alone = scorer.scores(histories([row]))[0]
        np.testing.assert_allclose(together[place], alone, rtol=0, atol=1e-5)


def test_only_the_last_events_are_read() -> None:
    scores = NextItemScorer(BACKBONE, TABLE).scores(
        histories([[9, 8, 7, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [7, 2, 3, 4, 5, 6]])
    )
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-6)
    assert np.abs(scores[2] - scores[1]).max() > 1e-3


@given(rows=st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=6))
def test_untrained_only_the_window_is_read_and_the_scores_are_those_of_all(
    rows: list[list[int]],
) -> None:
    untrained = new_backbone(SPEC, seed=0)
    assert is_untrained(untrained)
    assert not is_untrained(BACKBONE)
    scores = NextItemScorer(untrained, TABLE).scores(histories(rows))
    for row, found in zip(rows, scores, strict=True):
        if row:
            whole = untrained(TABLE[torch.tensor(row[-6:])][None])[0, -1] @ TABLE.T
            np.testing.assert_allclose(found, whole.detach().numpy(), rtol=1e-5, atol=1e-5)
