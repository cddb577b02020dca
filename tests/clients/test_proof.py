"""What training under a Plan leaves behind, and the check before it: `clients.proof`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients import private
from clients.private import GridOptimizer, PrivateEngine, gate_gradient, per_history, unhooked
from clients.proof import prove
from clients.randomness import simulated
from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, Gate, fill_slots, new_backbone, read_slots
from shared.errors import BackboneError
from shared.events import from_lists
from shared.plan import Plan
from shared.tasks import next_item
from shared.text import Progress, silent
from shared.training import Recipe, Rows, Speed, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=2, heads=2, rank=2, out_rank=4, max_length=8
)
ITEMS = 12
TABLE = torch.eye(ITEMS)
PLAN = Plan(
    clip=0.5,
    noise_multiplier=1.0,
    sampling_rate=0.7,
    steps=2,
    expected_batch=6.0,
    epsilon=50.0,
    delta=0.001,
    shoppers_at_least=8,
    update_norm=100.0,
)
HELD = Rows(
    from_lists(
        [np.array([s, s + 1, s + 2, s + 4][: 2 + s % 3], np.int32) for s in range(8)],
        tuple(f"s{place}" for place in range(8)),
    ),
    TABLE,
)
honest = next_item.losses


def fresh() -> Backbone:
    """A backbone as pretraining leaves it: the gate has something to let in."""
    made = new_backbone(SPEC, seed=0)
    with torch.no_grad():
        made.pretrained.weight.copy_(torch.eye(12, 8))
    return made


def slots_of(backbone: Backbone) -> Adapter:
    return read_slots(backbone, digest="d" * 64, task=next_item.NAME)


def start() -> Adapter:
    found = slots_of(new_backbone(SPEC, seed=0))
    return replace(found, tensors={name: it + 0.1 for name, it in found.tensors.items()})


def hooks(backbone: Backbone) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in backbone.modules() for kind in kinds)


def losses(backbone: Backbone) -> Tensor:
    every = np.arange(len(HELD.histories))
    return next_item.losses(backbone, TABLE, next_item.pad(HELD.histories, every, max_length=8))


def plain_gradient(backbone: Backbone) -> Tensor:
    fill_slots(backbone, start())
    moved = [value for value in backbone.parameters() if value.requires_grad]
    return torch.cat([it.flatten() for it in torch.autograd.grad(losses(backbone).sum(), moved)])


def go(backbone: Backbone, *, progress: Progress = silent) -> Adapter:
    engine = partial(PrivateEngine, plan=PLAN, randomness=simulated("t"), speed=Speed(microbatch=3))
    rng = np.random.default_rng(0)
    return train(backbone, start(), [HELD], Recipe(), rng=rng, engine=engine, progress=progress)


def broken(_what: str, _done: int, _total: int) -> None:
    raise RuntimeError("a disk, a wire, a person")


@pytest.mark.parametrize("fails", [False, True])
def test_training_leaves_no_hook_no_gradient_and_the_backbone_as_it_was(fails: bool) -> None:
    backbone = fresh()
    backbone.mixed = True
    digest = backbone.digest
    if fails:
        with pytest.raises(RuntimeError, match="a disk"):
            go(backbone, progress=broken)
    else:
        go(backbone)
    assert hooks(backbone) == 0
    assert backbone.digest == digest
    assert backbone.mixed
    assert not any(getattr(part, "activations", None) for part in backbone.modules())
    for value in backbone.parameters():
        assert value.grad is None
        assert not any(hasattr(value, name) for name in ("grad_sample", "summed_grad"))
    assert {n for n, it in backbone.named_parameters() if it.requires_grad} == set(start().shapes)


def test_a_backbone_trains_as_before_once_the_engine_is_closed() -> None:
    used, other = fresh(), fresh()
    go(used)
    torch.testing.assert_close(plain_gradient(used), plain_gradient(other), rtol=0, atol=0)
    assert go(used).digest == go(other).digest


def test_a_round_that_dies_between_loss_and_gradient_does_not_spoil_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dying(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
        honest(backbone, table, batch[:1])
        raise MemoryError

    backbone = fresh()
    monkeypatch.setattr(next_item, "losses", dying)
    with pytest.raises(MemoryError):
        go(backbone)
    monkeypatch.setattr(next_item, "losses", honest)
    assert go(backbone).digest == go(fresh()).digest
    assert not any(getattr(part, "activations", None) for part in backbone.modules())


def test_gradients_a_history_are_those_of_a_history_alone() -> None:
    backbone = fresh()
    fill_slots(backbone, start())
    moved = {name: it for name, it in backbone.named_parameters() if it.requires_grad}
    module = per_history(backbone)
    losses(backbone).sum().backward()  # type: ignore[no-untyped-call]
    batch = {name: private.gradients(it).clone() for name, it in moved.items()}
    unhooked(backbone, module)
    for place, loss in enumerate(losses(backbone)):
        alone = torch.autograd.grad(loss, list(moved.values()), retain_graph=True)
        for (name, rows), truth in zip(batch.items(), alone, strict=True):
            torch.testing.assert_close(rows[place], truth, rtol=1e-4, atol=1e-7, msg=name)


# The check -----------------------------------------------------------------------------------


def test_the_check_passes_and_leaves_the_slots_and_nothing_else_behind() -> None:
    backbone = fresh()
    fill_slots(backbone, start())
    prove(backbone, TABLE)
    assert slots_of(backbone).digest == slots_of_start()
    assert hooks(backbone) == 0
    assert all(value.grad is None for value in backbone.parameters())


def slots_of_start() -> str:
    backbone = fresh()
    fill_slots(backbone, start())
    return slots_of(backbone).digest


def test_a_backbone_that_was_never_pretrained_can_be_trained_under_a_plan_too() -> None:
    # Its gate lets in what is zero, so it has no gradient: that is right, and no fault.
    prove(new_backbone(SPEC, seed=0), TABLE)


def refused(backbone: Backbone) -> str:
    """The one line; whatever was found out, the slots are as they were."""
    fill_slots(backbone, start())
    with pytest.raises(BackboneError) as caught:
        prove(backbone, TABLE)
    assert slots_of(backbone).digest == slots_of_start()
    assert hooks(backbone) == 0
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith("no shopper was touched")
    return said


def in_batch(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
    """Each History's loss takes the others' events for negatives as well."""
    vectors = table[batch.clamp(min=0)].mean(1)  # [B, W]
    ends = cast(Tensor, backbone(vectors[:, None]))[:, 0]
    return honest(backbone, table, batch) + 0.1 * (ends @ vectors.T).logsumexp(1)


def weighed(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
    """A loss counts for more beside larger ones, as a norm over the batch would have it."""
    each = honest(backbone, table, batch)
    return each * each.mean()


def averaged(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
    return honest(backbone, table, batch) / len(batch)


@pytest.mark.parametrize("task", [in_batch, weighed, averaged])
def test_a_task_in_which_shoppers_meet_is_found_out(
    task: Callable[[Backbone, Tensor, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_item, "losses", task)
    assert "in a batch the gradient of a History is off by " in refused(fresh())


Rule = Callable[[Gate, list[Tensor], Tensor], dict[nn.Parameter, Tensor]]


def summed(layer: Gate, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    (rows,) = gate_gradient(layer, activations, backprops).values()
    return {layer.adapter: rows.mean(0, keepdim=True).expand_as(rows)}


def doubled(
    layer: Gate, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    return {layer.adapter: 2 * gate_gradient(layer, activations, backprops)[layer.adapter]}


def shifted(
    layer: Gate, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    return {layer.adapter: gate_gradient(layer, activations, backprops)[layer.adapter].roll(1, 0)}


@pytest.mark.parametrize("rule", [summed, doubled, shifted])
def test_a_wrong_gradient_of_one_slot_is_found_out(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "gate_gradient", rule)
    assert "in a batch the gradient of a History is off by " in refused(fresh())


def test_a_step_that_moves_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GridOptimizer, "release", lambda _self: None)
    assert "a step does not move slot " in refused(fresh())


@pytest.mark.parametrize(("numbers", "passes"), [(1, True), (24, False)])
def test_one_number_that_noise_leaves_is_no_fault_and_half_a_slot_is(
    numbers: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = fresh()
    slot, step = backbone.adapter.weight, GridOptimizer.release
    assert slot.numel() == 48

    def leaving(self: GridOptimizer) -> None:
        before = slot.detach().flatten()[:numbers].clone()
        step(self)
        with torch.no_grad():
            slot.view(-1)[:numbers] = before

    monkeypatch.setattr(GridOptimizer, "release", leaving)
    if passes:
        prove(backbone, TABLE)
    else:
        assert "a step does not move slot 'adapter.weight'" in refused(backbone)


def test_the_check_computes_as_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bool] = set()

    def watched(backbone: Backbone, table: Tensor, batch: Tensor) -> Tensor:
        seen.add(backbone.mixed)
        return honest(backbone, table, batch)

    monkeypatch.setattr(next_item, "losses", watched)
    backbone = fresh()
    prove(backbone, TABLE)
    assert (seen, backbone.mixed) == ({False}, True)


def test_a_slot_that_no_loss_reaches_is_found_out() -> None:
    class Deaf(Backbone):
        def correction(self, vectors: Tensor) -> Tensor:
            return super().correction(vectors).detach() + 0 * self.gate.adapter

    backbone = Deaf(SPEC)
    assert " has no gradient" in refused(backbone)


def test_gradients_whose_last_bits_tell_of_others_are_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def losses_in_company(*parts: object, **more: object) -> Tensor:
        losses: Tensor = honest(*parts, **more)  # type: ignore[arg-type]
        return losses * (1 + 1e-5 * losses.detach().mean())  # far below what is off by a fault

    prove(fresh(), TABLE)
    monkeypatch.setattr(next_item, "losses", losses_in_company)
    with pytest.raises(BackboneError, match="depend on who else is there, to the last bit"):
        prove(fresh(), TABLE)
