from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.beside import dated, heard, let_out, own, to_serve
from clients.kept import Kept
from clients.ledger import balance, entries
from clients.memory import Memory
from clients.platform import Platform
from clients.recall import Recall
from clients.weighing import Weighing, weighing_of
from server.registry import Registry
from shared.accounting import Charge
from shared.events import Question
from shared.pairs import load_pairs
from shared.tasks import co_visitation as task
from simulations.beside import Taken, shared
from simulations.federations import federate_privately, sum_up
from simulations.pooled import memory_of_all
from simulations.prepare import Ready, prepare
from simulations.run import full_comparison
from simulations.scenario import Scenario, load_scenario

PARTS = {"app": (0.0, 0.5), "kiosk": (0.5, 0.7), "web": (0.7, 1.0)}
WEIGHTS = {"app": 5.0, "kiosk": 2.0, "web": 3.0}


@pytest.fixture(scope="module")
def scenario(
    write_tables: Callable[..., None],
    encoder: Path,
    backbone: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scenario:
    """Three channels of one shop: one table of events, one catalogue, no shopper in two."""
    folder = tmp_path_factory.mktemp("channels")
    write_tables(folder / "shop", "shop", shoppers=90, items=20, seed=1)
    lines = ['title = "Channels"']
    for name, part in PARTS.items():
        lines += ["[[platforms]]", f'name = "{name}"', f"weight = {WEIGHTS[name]}"]
        lines += ["[platforms.events]", 'path = "shop/interactions.tsv"', f"part = {list(part)}"]
        lines += ['columns = { shopper = "user", item = "item", order = "pos" }']
        lines += ["[platforms.items]", 'path = "shop/items.tsv"']
        lines += ['columns = { item = "item", text = "text" }']
    lines += ["[backbone]", f"encoder = {json.dumps(str(encoder))}"]
    lines += [f"path = {json.dumps(str(backbone))}"]
    lines += ["[federation]", "rounds = 1", "batch = 4", "learning_rate = 0.05"]
    lines += ["[comparison]", "personalise_epochs = 1", "resamples = 100"]
    lines += ["[privacy]", "epsilons = [8.0]", "batch = 4", "steps = 2"]
    lines += ["[sums]", "nearest = 3", "share = 0.8"]
    path = folder / "channels.toml"
    path.write_text("\n".join(lines))
    return load_scenario(path)


@pytest.fixture(scope="module")
def ready(scenario: Scenario, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return prepare(scenario, tmp_path_factory.mktemp("ready"), cache=cache, seed=0)


@pytest.fixture
def taken(scenario: Scenario, ready: Ready, tmp_path: Path) -> Taken:
    found = sum_up(scenario, ready, tmp_path)
    assert found is not None
    return found


def told(platform: Platform) -> Memory:
    return Memory.of(platform.told, items=len(platform.rows.catalogue))


def same(one: Memory, other: Memory) -> bool:
    return (
        np.array_equal(one.together.toarray(), other.together.toarray())
        and np.array_equal(one.next.toarray(), other.next.toarray())
        and np.array_equal(one.rows, other.rows)
    )


def test_one_list_holds_every_pair_that_occurs_and_the_other_those_near_by_text(
    ready: Ready,
) -> None:
    assert ready.met is not None
    assert ready.near is not None
    met, near = load_pairs(ready.met), load_pairs(ready.near)
    assert (met.directed, near.directed) == (True, False)
    assert met.items == near.items == ready.platforms[0].rows.catalogue.items
    counts = sum(told(it).together.toarray() for it in ready.platforms)
    assert len(met) == np.count_nonzero(np.triu(counts, 1))
    assert 20 * 3 / 2 <= len(near) <= 20 * 3


def test_sums_without_noise_are_the_memory_of_all(ready: Ready, taken: Taken) -> None:
    for platform in ready.platforms:
        alone = own(platform)
        known = shared(platform, alone, taken)
        assert same(known.memory, memory_of_all(platform, ready.platforms).memory)
        assert not same(known.memory, alone.memory)


def test_over_a_list_of_texts_the_unprotected_take_out_what_they_let_out(ready: Ready) -> None:
    kiosk = ready.platforms[1]
    policy = kiosk.config.policy
    assert policy is not None
    named = replace(kiosk, config=replace(kiosk.config, policy=replace(policy, pairs=ready.near)))
    mine = let_out(named, "any")
    assert set(mine) == {task.TOGETHER, task.ITEMS, task.VARIANCE, task.WEIGHT}
    assert float(mine[task.VARIANCE][0]) == 0
    assert mine[task.TOGETHER].any()


def test_own_rows_are_taken_out_of_the_sums_before_they_are_added(
    ready: Ready, taken: Taken
) -> None:
    state, report = taken.registry.load(1)
    assert report.replied == tuple(PARTS)
    kiosk = ready.platforms[1]
    others = sum(told(it).together.toarray() for it in ready.platforms if it is not kiosk)
    alone = own(kiosk)
    assert np.array_equal(
        shared(kiosk, alone, taken).memory.together.toarray(),
        others + alone.memory.together.toarray(),
    )
    assert state.adapter.task == task.NAME


def test_how_the_others_weigh_comes_of_the_sums_less_what_was_sent(
    ready: Ready, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls = {it.config.name: own(it) for it in ready.platforms}
    state, _report = taken.registry.load(1)
    total = sum(WEIGHTS[name] * it.own.flat for name, it in recalls.items())
    np.testing.assert_allclose(state.adapter.tensors[task.WEIGHING], total, rtol=1e-4, atol=1e-4)
    asked: list[Weighing | None] = []

    def fitted(self: Recall, _asked: Question, *, others: Weighing | None = None) -> Recall:
        asked.append(others)
        return replace(self, weighing=others, held_out=1.0) if others is not None else self

    monkeypatch.setattr(Recall, "fitted", fitted)
    for platform in ready.platforms:
        name = platform.config.name
        known = shared(platform, recalls[name], taken)
        others = weighing_of(total - WEIGHTS[name] * recalls[name].own.flat)
        assert asked[-1] is known.weighing  # what is better is served
        np.testing.assert_allclose(known.weighing.flat, others.flat, rtol=1e-3, atol=1e-4)


def test_whose_own_part_is_not_known_is_not_taught(ready: Ready, taken: Taken) -> None:
    kiosk = ready.platforms[1]
    policy = kiosk.config.policy
    assert policy is not None
    file = policy.ledger.with_name(f"{policy.ledger.name}.weighing")
    state, _report = taken.registry.load(1)
    run = taken.registry.standing().run
    alone = own(kiosk)
    assert heard(kiosk, alone, state.adapter, run=run).taught is not None
    file.rename(file.with_suffix(".lost"))
    there = heard(kiosk, alone, state.adapter, run=run)
    assert there.taught is None
    assert there.memory.rows.sum() > alone.memory.rows.sum()


def test_who_serves_remembers_the_rows_that_validated_too(ready: Ready) -> None:
    kiosk = ready.platforms[1]
    settled = own(kiosk)
    serving = to_serve(kiosk, settled)
    assert serving.weighing is settled.weighing
    assert int(serving.memory.rows.sum()) == len(kiosk.rows.histories.items)
    assert int(settled.memory.rows.sum()) == int(serving.memory.rows.sum()) - 2 * len(
        kiosk.rows.histories
    )


def test_on_the_day_of_the_test_all_but_what_tests_is_remembered(ready: Ready) -> None:
    kiosk = ready.platforms[1]
    settled = own(kiosk)
    late = dated(kiosk, settled)
    assert late.weighing is settled.weighing
    rows = kiosk.rows.histories
    assert int(late.memory.rows.sum()) == len(rows.items) - len(rows)
    assert same(late.memory, Memory.of(rows.without_last(1), items=len(kiosk.rows.catalogue)))


def test_the_test_part_is_ranked_with_the_memory_of_that_day(ready: Ready) -> None:
    kiosk = ready.platforms[1]
    recall = own(kiosk)
    kept = Kept(kiosk.untrained, 0.0, "untrained", recall)
    late = Kept(kiosk.untrained, 0.0, "untrained", dated(kiosk, recall), to_date=False)
    early = replace(kept, to_date=False)
    found = {
        name: it.rank(kiosk, "test").ranks
        for name, it in {"kept": kept, "late": late, "early": early}.items()
    }
    assert np.array_equal(found["kept"], found["late"])
    assert not np.array_equal(found["kept"], found["early"])
    validated = kept.rank(kiosk, "validation").ranks
    assert np.array_equal(validated, early.rank(kiosk, "validation").ranks)


def test_under_plans_sums_and_rounds_are_paid_from_one_budget(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    runs = federate_privately(scenario, ready, tmp_path)
    it, _rounds, sums = runs[8.0]
    assert sums is not None
    for config in it.configs:
        assert config.policy is not None
        kept = entries(config.policy)
        assert [entry.asked.purpose for entry in kept] == ["sums", "sums", "update", "update"]
        assert config.policy.sums_noise is not None
        assert kept[0].charge == Charge(config.policy.sums_noise, mechanism="laplace")
        assert 0.99 * 8 < balance(config.policy).spent <= 8


def test_what_a_platform_let_out_is_in_its_ledger_and_nothing_else_of_it_is_in_the_sums(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    it, _rounds, sums = federate_privately(scenario, ready, tmp_path)[8.0]
    assert sums is not None
    state, _report = sums.registry.load(1)
    total = {name: np.zeros_like(tensor) for name, tensor in state.adapter.tensors.items()}
    for platform, config in zip(ready.platforms, it.configs, strict=True):
        there = replace(platform, config=config)
        mine = let_out(there, sums.registry.standing().run)
        for name, tensor in mine.items():
            total[name] = total[name] + np.float32(config.weight) * tensor
    for name, tensor in state.adapter.tensors.items():
        np.testing.assert_allclose(tensor, total[name], rtol=1e-5, atol=1e-5)


def test_sums_are_taken_once_however_often_a_run_is_resumed(
    scenario: Scenario, ready: Ready, taken: Taken, tmp_path: Path
) -> None:
    again = sum_up(scenario, ready, tmp_path, resume=True)
    assert again is not None
    assert again.registry.rounds() == [0, 1]
    assert len(again.registry.versions()) == 2


def test_a_comparison_has_the_sums_in_the_rows_that_would_have_them(
    scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    found = full_comparison(scenario, tmp_path / "one", cache=cache)
    without = replace(scenario, sums=None)
    plain = full_comparison(without, tmp_path / "two", cache=cache)
    for name in PARTS:
        one, two = (it["platforms"][name]["scorers"] for it in (found, plain))
        for scorer in ("popularity", "prior", "itemknn", "memory", "local", "pooled"):
            assert one[scorer] == two[scorer]
        assert one["federated"]["validation"] != two["federated"]["validation"]


def test_untrained_sums_are_compared_and_no_round_is_run(
    scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    found = full_comparison(scenario, tmp_path, cache=cache, untrained=True)
    assert found["rounds"] == []
    assert not Registry(tmp_path).rounds()
    assert [it["rounds"] for it in found["privacy"]] == [0]
    for platform in found["platforms"].values():
        rows = platform["scorers"]
        assert rows["local"] == {**rows["memory"], "ci95": rows["local"]["ci95"]}
        assert {row["kept"] for row in rows.values()} <= {None, "untrained", "sums"}
        assert set(platform["against_local"]) == {"federated", "federated ε=8"}
        assert set(rows).isdisjoint({"personalised", "served"})
    assert any(it["scorers"]["federated"]["kept"] == "sums" for it in found["platforms"].values())
