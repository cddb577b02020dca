from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.kept import Kept, better, trained, validated
from clients.platform import Platform, open_platform
from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared.adapter import Adapter
from shared.tables.config import load_platform
from shared.text import silent
from shared.training import Recipe, train
from simulations.candidates import at_home, federated, recipe_of
from simulations.scenario import load_scenario


@pytest.fixture
def shop(make_platform: Callable[..., Path], tmp_path: Path) -> Platform:
    return open_platform(load_platform(make_platform(tmp_path / "a", "a")))


def test_a_state_is_kept_only_if_it_is_strictly_better() -> None:
    adapter = Adapter({}, "b", "t")
    first, second = Kept(adapter, 0.5, "untrained"), Kept(adapter, 0.5, "epoch 1")
    assert better(first, second) is first
    assert better(first, replace(second, validation=0.51)).name == "epoch 1"
    assert better(first, replace(second, validation=0.49)) is first
    assert better(first, replace(second, validation=float("nan"))) is first


def rounds(folder: Path, untrained: Adapter, *reports: RoundReport) -> Registry:
    registry = Registry(folder)
    for report in (RoundReport(0), *reports):
        moved = {name: value + report.round for name, value in untrained.tensors.items()}
        registry.record(ServerState(untrained.plus(moved, version=report.round)), report)
    return registry


@pytest.mark.parametrize(
    ("scores", "still", "kept"),
    [
        ([0.4, 0.6, 0.5], 0, "round 2"),
        ([0.6, 0.6], 0, "round 1"),  # of equals the earlier
        ([0.3, 0.2], 0, "untrained"),
        ([0.35], 0, "untrained"),  # as good is not better
        ([0.4, 0.9], 2, "round 1"),  # the Adapter did not move in round 2
    ],
)
def test_the_round_that_is_best_on_the_platforms_own_validation_is_kept(
    scores: list[float],
    still: int,
    kept: str,
    shop: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = [RoundReport(n, moved=n != still) for n in range(1, len(scores) + 1)]
    registry = rounds(tmp_path, shop.untrained, *reports)

    def offered(self: Kept, _platform: Platform, adapter: Adapter, name: str) -> Kept:
        return replace(self, adapter=adapter, name=name, validation=scores[adapter.version - 1])

    monkeypatch.setattr(Kept, "offered", offered)
    found = federated(shop, Kept(shop.untrained, 0.35, "untrained"), registry)
    assert found.name == kept
    number = 0 if kept == "untrained" else int(kept.split()[1])
    assert all((tensor == number).all() for tensor in found.adapter.tensors.values())


@pytest.mark.parametrize("told", [{}, {"a": {}}, {"b": {"ndcg@10": 2.0}}])
def test_what_a_platform_does_not_share_it_validates_at_home(
    told: dict[str, dict[str, float]], shop: Platform, tmp_path: Path
) -> None:
    registry = rounds(tmp_path, shop.untrained, RoundReport(1, validation=told))
    home = validated(shop, registry.load(1)[0].adapter).validation
    beaten = Kept(shop.untrained, home - 1e-6, "untrained")
    equal = Kept(shop.untrained, home, "untrained")
    assert federated(shop, beaten, registry).validation == home
    assert federated(shop, equal, registry) is equal


def test_training_cannot_lose_against_the_state_to_beat(shop: Platform) -> None:
    name = shop.config.name
    start = {name: Kept(shop.untrained, 2.0, "unbeatable")}
    recipe = Recipe(epochs=2, batch=4)
    found = trained([shop], start, recipe, seed=(0,), progress=silent)
    assert found[name] is start[name]


def test_of_all_epochs_each_platform_keeps_the_one_that_is_best_for_it(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    sizes = {"a": 9, "b": 14}
    files = {it: make_platform(tmp_path / it, it, shoppers=n, seed=n) for it, n in sizes.items()}
    shops = [open_platform(load_platform(path)) for path in files.values()]
    start = {name: Kept(shops[0].untrained, -1.0, "untrained") for name in files}
    recipe = Recipe(epochs=6, batch=4, learning_rate=0.1)
    found = trained(shops, start, recipe, seed=(3,), progress=silent)
    reached: dict[str, list[float]] = {name: [] for name in files}

    def look(_epoch: int, adapter: Adapter) -> None:
        for shop in shops:
            reached[shop.config.name].append(validated(shop.copy(), adapter).validation)

    everyone = [shop.training for shop in shops]
    rng = np.random.default_rng([3])
    train(shops[0].copy().backbone, shops[0].untrained, everyone, recipe, rng=rng, after_epoch=look)
    for name, values in reached.items():
        assert len(set(values)) > 1  # there was something to choose
        best = int(np.argmax(values))  # the first of equals
        assert (found[name].name, found[name].validation) == (f"epoch {best + 1}", values[best])


def test_training_begins_where_it_is_told(shop: Platform) -> None:
    ones = {name: np.ones_like(tensor) for name, tensor in shop.untrained.tensors.items()}
    begin = shop.untrained.plus(ones, version=1)
    recipe = Recipe(epochs=1, batch=4, learning_rate=1e-6)
    found = trained([shop], {"a": Kept(begin, -1.0, "round 1")}, recipe, seed=(0,), progress=silent)
    for name, tensor in found["a"].adapter.tensors.items():
        np.testing.assert_allclose(tensor, begin.tensors[name], atol=1e-4)


def test_training_leaves_the_platforms_rows_and_table_and_its_frozen_numbers(
    shop: Platform,
) -> None:
    digest, table = shop.backbone.digest, shop.table.clone()
    recipe = Recipe(epochs=2, batch=4, learning_rate=0.1)
    start = {"a": Kept(shop.untrained, 0.0, "untrained")}
    trained([shop], start, recipe, seed=(0,), progress=silent)
    assert shop.backbone.digest == digest
    assert bool((shop.table == table).all())


def test_the_recipe_is_the_federations_but_for_its_epochs(
    make_scenario: Callable[..., Path], tmp_path: Path
) -> None:
    scenario = load_scenario(make_scenario(tmp_path))
    assert recipe_of(scenario, epochs=7) == Recipe(7, 4, 0.05, "cosine")


def test_at_home_one_trains_from_nothing_and_from_the_federated_state(
    make_scenario: Callable[..., Path], shop: Platform, tmp_path: Path
) -> None:
    scenario = load_scenario(make_scenario(tmp_path / "s"))
    ones = {name: np.ones_like(tensor) for name, tensor in shop.untrained.tensors.items()}
    shared = Kept(shop.untrained.plus(ones, version=2), -1.0, "round 2")
    nothing = Kept(shop.untrained, -1.0, "untrained")
    joined = {"federated": shared, "federated ε=3": nothing}
    local, personal = at_home(shop, nothing, joined, scenario, seed=(0,), progress=silent)
    assert local.adapter.version == 0
    assert [it.adapter.version for it in personal.values()] == [2, 0]
    assert [it.name for it in personal.values()] == ["epoch 1", "epoch 1"]  # a single pass
    assert local.name.split()[0] == "epoch"  # of two
    assert list(personal) == list(joined)
