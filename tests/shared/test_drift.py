"""Pulls, and the Engine that follows one."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, fill_slots, new_backbone, read_slots
from shared.drift import PulledEngine, plain, proximal, pulled, variates
from shared.events import from_lists
from shared.training import PlainEngine, Recipe, Rows, train

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=1, heads=2, rank=2, out_rank=4, max_length=8
)
ROWS = Rows(
    from_lists(
        [np.array([place, place + 1, place + 2], np.int32) for place in range(9)],
        tuple(f"s{place}" for place in range(9)),
    ),
    torch.eye(12),
)


def start() -> Adapter:
    return read_slots(new_backbone(SPEC, seed=0), digest="d" * 64, task="next-item")


def go(engine: object, *, epochs: int = 3) -> Adapter:
    return train(
        new_backbone(SPEC, seed=0),
        start(),
        [ROWS],
        Recipe(epochs=epochs, batch=3, learning_rate=0.05),
        rng=np.random.default_rng(0),
        engine=engine,  # type: ignore[arg-type]
    )


def length(adapter: Adapter) -> float:
    return float(np.sqrt(sum(np.square(it).sum() for it in adapter.minus(start()).values())))


def test_without_strength_the_engine_is_the_plain_one() -> None:
    assert plain(start(), strength=0.0) is PlainEngine


def test_a_pull_of_nothing_changes_no_bit() -> None:
    still = partial(PulledEngine, pull=proximal(start(), 0.0))
    assert go(still).digest == go(PlainEngine).digest


def test_the_proximal_pull_is_strength_times_the_way_from_home() -> None:
    pull = proximal(start(), 0.25)
    home = torch.from_numpy(np.array(start().tensors["adapter.weight"]))
    slot = torch.nn.Parameter(home + 2.0)
    torch.testing.assert_close(pull("adapter.weight", slot), torch.full_like(home, 0.5))


def test_the_harder_the_pull_the_nearer_to_home() -> None:
    lengths = [length(go(plain(start(), strength=it))) for it in (0.0, 1.0, 100.0)]
    assert lengths[0] > lengths[1] > lengths[2] > 0


def test_variates_of_equal_gradients_pull_nowhere() -> None:
    own = dict(start().tensors)
    pull = variates(own, own)
    slot = torch.nn.Parameter(torch.zeros(own["adapter.weight"].shape))
    assert not pull("adapter.weight", slot).any()


def test_a_pull_reaches_slots_that_have_a_gradient_and_nothing_else() -> None:
    backbone: Backbone = new_backbone(SPEC, seed=0)
    fill_slots(backbone, start())
    backbone.adapter.weight.grad = torch.zeros_like(backbone.adapter.weight)
    pulled(backbone, lambda _name, slot: torch.ones_like(slot))
    found = {name for name, it in backbone.named_parameters() if it.grad is not None}
    assert found == {"adapter.weight"}
    assert bool((backbone.adapter.weight.grad == 1).all())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_pulled_engine_draws_as_the_plain_one_does(epochs: int) -> None:
    one = PulledEngine(
        new_backbone(SPEC, seed=0),
        [ROWS],
        Recipe(batch=4),
        rng=np.random.default_rng(1),
        pull=proximal(start(), 1.0),
    )
    other = PlainEngine(
        new_backbone(SPEC, seed=0), [ROWS], Recipe(batch=4), rng=np.random.default_rng(1)
    )
    assert one.steps == other.steps
    for _ in range(epochs):
        drawn = [[list(indices) for _which, indices in pieces] for pieces in one.batches()]
        assert drawn == [[list(indices) for _which, indices in it] for it in other.batches()]
