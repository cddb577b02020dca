from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.beside import own
from clients.kept import Kept, validated
from clients.platform import Platform
from shared.adapter import Adapter
from shared.errors import ConfigError
from shared.tasks import next_item
from shared.training import of_task
from simulations.compare import compare
from simulations.federations import federate
from simulations.prepare import Ready, prepare
from simulations.scenario import Scenario, load_scenario
from simulations.strategies import (
    against_drift,
    at_home,
    fusion,
    multitask,
    personal,
    rounds,
)
from simulations.strategies.every import STRATEGIES, chosen
from simulations.strategies.meeting import Meeting, States


@pytest.fixture(scope="module")
def scenario(
    make_scenario: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Scenario:
    return load_scenario(make_scenario(tmp_path_factory.mktemp("strategies")))


@pytest.fixture(scope="module")
def ready(scenario: Scenario, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return prepare(scenario, tmp_path_factory.mktemp("ready"), cache=cache, seed=0)


@pytest.fixture(scope="module")
def start(ready: Ready) -> States:
    return {it.config.name: validated(it, it.untrained, beside=own(it)) for it in ready.platforms}


@pytest.fixture
def meeting(scenario: Scenario, ready: Ready, start: States) -> Meeting:
    return Meeting(scenario, ready.platforms, start, seed=0)


def digests(states: States) -> dict[str, str]:
    return {name: state.adapter.digest for name, state in states.items()}


def every_round(meeting: Meeting, work: rounds.Work, own: rounds.Own | None = None) -> Adapter:
    """The shared Adapter after the last round."""
    seen: list[Adapter] = []

    def watched(name: str, shared: Adapter) -> Adapter:
        seen.append(shared)
        return shared if own is None else own(name, shared)

    rounds.rounds(meeting, work, own=watched)
    return seen[-1]


def fedavg(meeting: Meeting) -> rounds.Work:
    return lambda platform, sent: rounds.trained(meeting, platform, sent)


def test_every_strategy_gives_each_platform_a_state_that_validation_does_not_find_worse(
    meeting: Meeting, start: States
) -> None:
    for name, listed in STRATEGIES.items():
        found = meeting.of(name, listed.run)
        assert list(found) == list(start), name
        for platform, state in found.items():
            assert state.validation >= start[platform].validation, name
            assert state.beside is start[platform].beside, name  # memory stands beside every row
            assert state.adapter.shapes == start[platform].adapter.shapes, name


def test_without_more_said_the_rounds_are_the_deployed_federation_to_the_last_bit(
    meeting: Meeting, scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    registry = federate(scenario, ready, tmp_path)
    deployed = registry.load(registry.rounds()[-1])[0].adapter
    assert every_round(meeting, fedavg(meeting)).digest == deployed.digest


def test_local_federated_and_lora_are_what_compare_calls_local_federated_and_personalised(
    meeting: Meeting, scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    table, _ = compare(scenario, ready.platforms, federate(scenario, ready, tmp_path), seed=0)
    names = {"local": "local", "federated": "federated", "lora": "personalised"}
    for strategy, scorer in names.items():
        for platform, state in meeting.of(strategy, STRATEGIES[strategy].run).items():
            there = table["platforms"][platform]["scorers"][scorer]
            assert state.validation == there["validation"]["ndcg@10"]
            assert state.name == there["kept"]


def test_threads_change_no_bit(meeting: Meeting) -> None:
    several = replace(meeting, threads=3, kept={})
    for strategy in (against_drift.scaffold, personal.personalised_layers, multitask.multitask):
        assert digests(strategy(several)) == digests(strategy(meeting))


def test_a_proximal_strength_of_0_is_fedavg_to_the_last_bit(meeting: Meeting) -> None:
    free = against_drift.fedprox(meeting, strength=0.0)
    assert digests(free) == digests(rounds.federated(meeting))


def test_the_deployed_federation_pulls_as_the_strategy_does_to_the_last_bit(
    meeting: Meeting, scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    asked = replace(scenario, federation=replace(scenario.federation, proximal=0.5))
    registry = federate(asked, ready, tmp_path)
    deployed = registry.load(registry.rounds()[-1])[0].adapter

    def work(platform: Platform, sent: rounds.Sent) -> Adapter:
        return against_drift.pulled(meeting, platform, sent, strength=0.5)

    assert deployed.digest == every_round(meeting, work).digest
    assert deployed.digest != every_round(meeting, fedavg(meeting)).digest


def test_the_stronger_the_pull_the_less_a_round_moves(meeting: Meeting) -> None:
    def moved(strength: float) -> float:
        pulled = replace(meeting, scenario=one_round(meeting.scenario))
        sent: list[rounds.Sent] = []

        def work(platform: Platform, given: rounds.Sent) -> Adapter:
            sent.append(given)
            return against_drift.pulled(pulled, platform, given, strength=strength)

        after = every_round(pulled, work)
        delta = after.minus(sent[0].adapter)
        return float(np.sqrt(sum(np.square(it).sum() for it in delta.values())))

    assert moved(0.0) > moved(10.0) > moved(1000.0)


def one_round(scenario: Scenario) -> Scenario:
    return replace(scenario, federation=replace(scenario.federation, rounds=1, epochs=3))


def test_scaffold_with_one_platform_is_plain_training(meeting: Meeting, start: States) -> None:
    alone = replace(meeting, platforms=meeting.platforms[:1], start={"a": start["a"]})
    assert digests(against_drift.scaffold(alone)) == digests(rounds.federated(alone))


def test_scaffolds_first_round_is_fedavgs_and_its_second_is_not(meeting: Meeting) -> None:
    work = against_drift.corrected(meeting)
    last = every_round(meeting, work)
    assert last.digest != every_round(meeting, fedavg(meeting)).digest
    once = replace(
        meeting,
        scenario=replace(
            meeting.scenario, federation=replace(meeting.scenario.federation, rounds=1)
        ),
    )
    first = every_round(once, against_drift.corrected(once))
    assert first.digest == every_round(once, fedavg(once)).digest


def test_the_whole_gradient_is_the_mean_of_each_historys(ready: Ready) -> None:
    platform = ready.platforms[0].copy()
    platform.backbone.mixed = False
    found = against_drift.gradient(platform, platform.untrained)
    part, backbone = platform.training, platform.backbone
    total = {name: np.zeros_like(it) for name, it in found.items()}
    for place in range(len(part.histories)):
        batch = next_item.pad(part.histories, np.array([place]), max_length=50)
        backbone.zero_grad()
        of_task(backbone, part, batch.to(part.table.device)).sum().backward()  # type: ignore[no-untyped-call]
        for name, slot in backbone.named_parameters():
            if name in total and slot.grad is not None:
                total[name] += slot.grad.cpu().numpy() / len(part.histories)
    for name, it in found.items():
        np.testing.assert_allclose(it, total[name], atol=1e-5)
    assert max(np.abs(it).max() for it in found.values()) > 1e-4


def test_uniform_fusion_of_equal_adapters_is_that_adapter(ready: Ready) -> None:
    adapter = shaken(ready.platforms[0].untrained, seed=1)
    fused = fusion.mean({"a": adapter, "b": adapter, "c": adapter}, {"a": 1, "b": 1, "c": 1})
    assert fused.digest == adapter.digest


def test_fusion_weighs_by_hand(ready: Ready) -> None:
    empty = ready.platforms[0].untrained
    one, two = shaken(empty, seed=1), shaken(empty, seed=2)
    fused = fusion.mean({"a": one, "b": two}, {"a": 3.0, "b": 1.0}, 2.0)
    for name, it in fused.tensors.items():
        expected = 2 * (0.75 * one.tensors[name] + 0.25 * two.tensors[name])
        np.testing.assert_allclose(it, expected, rtol=1e-5, atol=1e-7)


def shaken(adapter: Adapter, *, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(0, 0.3, it.shape).astype(np.float32)
        for name, it in adapter.tensors.items()
    }
    return replace(adapter, tensors=tensors)


def test_fusion_by_validation_leaves_a_platform_untrained_where_nothing_helps(
    meeting: Meeting, start: States
) -> None:
    meeting.kept["local"] = start  # nobody learnt anything
    for state in fusion.by_validation(meeting).values():
        assert state.name == "untrained"


def moved_slots(before: Mapping[str, Kept], after: Mapping[str, Kept]) -> set[str]:
    return {
        slot
        for name, state in after.items()
        for slot, delta in state.adapter.minus(before[name].adapter).items()
        if np.abs(delta).max() > 0
    }


def test_frozen_layers_do_not_move(meeting: Meeting, ready: Ready) -> None:
    begin = {
        it.config.name: Kept(shaken(it.untrained, seed=3), -1.0, "shaken") for it in ready.platforms
    }  # so bad that any epoch is kept
    trained = at_home.from_states(meeting, begin, passes=2, moves=at_home.is_output)
    # The gate of a backbone that was never pretrained has nothing to let in, and stays.
    assert moved_slots(begin, trained) == {"adapter.weight"} < set(at_home.OUTPUT)
    everything = at_home.from_states(meeting, begin, passes=2)
    slots = set(ready.platforms[0].untrained.tensors)
    assert moved_slots(begin, everything) == slots - {"gate.adapter"}


def test_a_backbone_whose_layers_were_frozen_trains_all_slots_again(ready: Ready) -> None:
    backbone = ready.platforms[0].copy().backbone
    before = [name for name, it in backbone.named_parameters() if it.requires_grad]
    with at_home.moving(backbone, at_home.is_output):
        here = [name for name, it in backbone.named_parameters() if it.requires_grad]
    after = [name for name, it in backbone.named_parameters() if it.requires_grad]
    assert sorted(here) == sorted(at_home.OUTPUT)
    assert before == after


def test_feature_reuse_begins_with_an_output_that_adds_nothing(ready: Ready) -> None:
    adapter = shaken(ready.platforms[0].untrained, seed=4)
    found = at_home.emptied(adapter)
    for name, it in found.tensors.items():
        assert np.array_equal(it, 0 * it if at_home.is_output(name) else adapter.tensors[name])


def test_personalised_layers_never_leave(meeting: Meeting) -> None:
    seen: list[tuple[Adapter, Adapter]] = []
    mine = personal.Layers(meeting)

    def work(platform: Platform, sent: rounds.Sent) -> Adapter:
        after = mine.work(platform, sent)
        seen.append((sent.adapter, after))
        return after

    last = every_round(meeting, work, own=mine.own)
    assert seen
    for sent, after in seen:
        delta = after.minus(sent)
        assert all(not delta[slot].any() for slot in at_home.OUTPUT)
        assert any(it.any() for it in delta.values())
    assert all(not last.tensors[slot].any() for slot in at_home.OUTPUT)
    kept = {name: mine.own(name, last) for name in meeting.start}
    outputs = {it.tensors["adapter.weight"].tobytes() for it in kept.values()}
    assert len(outputs) == len(kept)  # each its own


def test_strategies_are_chosen_in_the_tables_order_and_local_is_always_there() -> None:
    assert chosen(["scaffold", "fedprox"]) == ["local", "fedprox", "scaffold"]
    assert chosen([]) == list(STRATEGIES)


def test_an_unknown_strategy_is_told() -> None:
    with pytest.raises(ConfigError, match="no such strategy: 'magic'; name one of memory, local"):
        chosen(["magic"])
