from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.adapter import Adapter
from shared.backbone import (
    Backbone,
    BackboneSpec,
    LowRank,
    fill_slots,
    is_slot,
    new_backbone,
    read_slots,
)
from shared.errors import AdapterError

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=2, heads=2, rank=2, out_rank=6, max_length=9
)
SLOTS = {
    "adapter.weight": (12, 6),
    "gate.adapter": (1,),
    "layers.0.query_key_value.adapter.weight": (24, 2),
    "layers.0.feed_in.adapter.weight": (32, 2),
    "layers.1.query_key_value.adapter.weight": (24, 2),
    "layers.1.feed_in.adapter.weight": (32, 2),
}


def frozen(seed: int = 0, spec: BackboneSpec = SPEC) -> Backbone:
    """A backbone whose every frozen weight is drawn, as if it were pretrained."""
    backbone = new_backbone(spec, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if not is_slot(name):
                value.copy_(torch.randn(value.shape, generator=rng))
    return backbone


def drawn(backbone: Backbone, seed: int, *, only: str = "") -> Adapter:
    """An Adapter drawn at random; with `only`, the other slots stay untrained."""
    rng = np.random.default_rng(seed)
    start = read_slots(backbone, digest="d" * 64, task="t")
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) if only in name else start.tensors[name]
        for name, shape in start.shapes.items()
    }
    return replace(start, tensors=tensors)


def queries(backbone: Backbone, adapter: Adapter, vectors: Tensor) -> Tensor:
    fill_slots(backbone, adapter)
    with torch.inference_mode():
        return cast(Tensor, backbone(vectors))


def unit(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=rng), dim=-1)


def mean(*tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.mean([each[name] for each in tensors], axis=0, dtype=np.float32)
        for name in tensors[0]
    }


@pytest.mark.parametrize("seed", range(5))
def test_untrained_the_correction_is_zero_whatever_the_frozen_weights(seed: int) -> None:
    backbone, vectors = frozen(seed), unit(3, 7, 12, seed=seed)
    with torch.inference_mode():
        assert torch.equal(backbone.correction(vectors), torch.zeros(3, 7, 12))
        assert torch.equal(backbone(vectors), 6.0 * backbone.prior(vectors))


def test_the_untrained_score_of_two_items_by_hand() -> None:
    # After items 0 and 1, at right angles: pool = (.7 e0 + e1) / √1.49.
    axes = torch.eye(12)
    with torch.inference_mode():
        scores = frozen()(axes[None, :2])[0] @ axes.T
    assert scores[0, :3].tolist() == pytest.approx([6, 0, 0], abs=1e-6)
    first, second = 6 * 0.7 / math.sqrt(1.49), 6 / math.sqrt(1.49)
    assert scores[1, :3].tolist() == pytest.approx([first, second, 0], abs=1e-5)


def test_the_untrained_score_is_the_cosine_to_the_last_items_weighed_by_recency() -> None:
    spec = replace(SPEC, decay=0.5, window=3, prior_scale=4.0)
    history, items = unit(1, 8, 12), unit(20, 12, seed=1)
    with torch.inference_mode():
        scores = (frozen(spec=spec)(history)[0] @ items.T).numpy()
    for place in range(8):
        past = history[0, max(0, place - 2) : place + 1].numpy().astype(np.float64)
        pool = sum(0.5 ** (len(past) - 1 - at) * past[at] for at in range(len(past)))
        cosine = items.numpy() @ pool / np.linalg.norm(pool)
        np.testing.assert_allclose(scores[place], 4.0 * cosine, atol=1e-5)


@pytest.mark.parametrize("changed", range(7))
def test_a_query_sees_no_later_item_and_every_earlier_one(changed: int) -> None:
    backbone, vectors = frozen(), unit(2, 7, 12)
    adapter = drawn(backbone, 1)
    other = vectors.clone()
    other[:, changed] = unit(2, 12, seed=5)
    before, after = queries(backbone, adapter, vectors), queries(backbone, adapter, other)
    torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
    moved = (after[:, changed:] - before[:, changed:]).abs().amax(-1)
    assert (moved > 1e-4).all()


def test_padding_at_the_end_changes_nothing() -> None:
    backbone, vectors = frozen(), unit(1, 4, 12)
    adapter = drawn(backbone, 1)
    alone = queries(backbone, adapter, vectors)
    for padding in (torch.zeros(1, 5, 12), 100 * unit(1, 5, 12, seed=3)):
        padded = queries(backbone, adapter, torch.cat([vectors, padding], 1))
        torch.testing.assert_close(padded[:, :4], alone, rtol=0, atol=1e-5)


def test_a_history_is_read_alike_in_any_company() -> None:
    backbone, vectors = frozen(), unit(4, 5, 12)
    adapter = drawn(backbone, 1)
    together = queries(backbone, adapter, vectors)
    for place in range(4):
        alone = queries(backbone, adapter, vectors[place : place + 1])
        torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-5, atol=1e-5)


def test_only_the_slots_can_be_trained() -> None:
    backbone = frozen()
    backbone.requires_grad_(True)
    backbone.freeze()
    trainable = {name for name, value in backbone.named_parameters() if value.requires_grad}
    assert trainable == set(SLOTS)
    assert read_slots(backbone, digest="d", task="t").shapes == SLOTS


def test_loss_reaches_every_slot_once_the_first_step_is_made() -> None:
    backbone = frozen()
    fill_slots(backbone, drawn(backbone, 1))
    backbone(unit(2, 5, 12)).square().sum().backward()
    for name, value in backbone.named_parameters():
        assert (value.grad is not None) == (name in SLOTS)
        assert value.grad is None or value.grad.abs().max() > 0


def test_untrained_the_gate_and_the_output_slot_can_start_to_move() -> None:
    backbone = frozen()
    (backbone(unit(2, 5, 12)) * unit(2, 5, 12, seed=2)).sum().backward()
    moving = {n for n, v in backbone.named_parameters() if v.grad is not None and v.grad.any()}
    assert moving == {"gate.adapter", "adapter.weight"}


def test_the_gate_lets_in_what_pretraining_learnt() -> None:
    backbone, vectors = frozen(), unit(1, 5, 12)
    start = read_slots(backbone, digest="d", task="t")

    def correction(gate: float) -> Tensor:
        tensors = {**start.tensors, "gate.adapter": np.array([gate], np.float32)}
        total = queries(backbone, replace(start, tensors=tensors), vectors)
        return total - 6.0 * backbone.prior(vectors)

    whole = correction(1.0)
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(correction(0.5), whole / 2, rtol=0, atol=1e-5)
    with torch.inference_mode():
        backbone.pretrained.weight.zero_()
    assert torch.equal(correction(1.0), torch.zeros_like(whole))


def test_averaging_adapters_averages_what_a_slot_puts_out() -> None:
    torch.manual_seed(0)
    slot, x = LowRank(12, 24, 2), unit(2, 5, 12)
    slots = [torch.randn(24, 2) for _ in range(3)]

    def output(B: Tensor) -> Tensor:
        slot.adapter.weight.data = B
        return cast(Tensor, slot(x)).detach()

    average = torch.stack([output(B) for B in slots]).mean(0)
    torch.testing.assert_close(output(torch.stack(slots).mean(0)), average, rtol=0, atol=1e-6)
    assert not torch.allclose(output(slots[0]), average, atol=0.1)


def test_averaging_output_slots_averages_queries() -> None:
    backbone, vectors = frozen(), unit(2, 5, 12)
    one, two = (drawn(backbone, seed, only="adapter.weight") for seed in (1, 2))
    # Inner slots are shared; only the output slot differs.
    two = replace(two, tensors={**one.tensors, "adapter.weight": two.tensors["adapter.weight"]})
    apart = [queries(backbone, adapter, vectors) for adapter in (one, two)]
    middle = queries(backbone, replace(one, tensors=mean(one.tensors, two.tensors)), vectors)
    assert (apart[0] - apart[1]).abs().max() > 1.0
    torch.testing.assert_close(middle, (apart[0] + apart[1]) / 2, rtol=1e-6, atol=1e-5)


def test_slots_hold_what_they_are_filled_with_and_give_out_copies() -> None:
    backbone = frozen()
    adapter = drawn(backbone, 1)
    fill_slots(backbone, adapter)
    read = read_slots(backbone, digest=adapter.backbone, task=adapter.task)
    assert read.digest == adapter.digest
    fill_slots(backbone, drawn(backbone, 2))
    assert replace(read).digest == adapter.digest


def resized(adapter: Adapter) -> Adapter:
    return replace(adapter, tensors={**adapter.tensors, "gate.adapter": np.zeros(2, np.float32)})


def renamed(adapter: Adapter) -> Adapter:
    kept = {name: value for name, value in adapter.tensors.items() if name != "gate.adapter"}
    return replace(adapter, tensors={**kept, "gate": np.zeros(1, np.float32)})


def shortened(adapter: Adapter) -> Adapter:
    kept = {name: value for name, value in adapter.tensors.items() if name != "gate.adapter"}
    return replace(adapter, tensors=kept)


@pytest.mark.parametrize("spoil", [resized, renamed, shortened])
def test_an_adapter_that_does_not_fit_is_refused_and_fills_nothing(spoil: Any) -> None:
    backbone = frozen()
    before = read_slots(backbone, digest="d", task="t").digest
    with pytest.raises(AdapterError, match=r"'gate.* does not fit this backbone"):
        fill_slots(backbone, spoil(drawn(backbone, 1)))
    assert read_slots(backbone, digest="d", task="t").digest == before
