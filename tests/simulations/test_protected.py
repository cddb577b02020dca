from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clients.ledger import entries
from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared.backbone import load_backbone, save_backbone
from shared.errors import PlanError
from shared.plan import Plan
from shared.tables.config import load_platform
from simulations.federations import federate, federate_privately
from simulations.prepare import Ready, prepare
from simulations.protected import plan_of, protected, scorer_name, told, unprotected
from simulations.reading import SCORERS, served_as
from simulations.run import full_comparison, with_seed
from simulations.scenario import Scenario, load_scenario

# With so few shoppers noise is found quickest at many steps.
PRIVACY = "[privacy]\nepsilons = [8.0, 1.0]\nbatch = 12\nsteps = 10\nlearning_rate = 0.02\n"
UNDER_PLANS = ["federated ε=8", "federated ε=1"]
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def scenario(
    make_scenario: Callable[..., Path], backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scenario:
    folder = tmp_path_factory.mktemp("scenario")
    # What pretraining would have learnt: without it the gate has nothing to let in.
    learnt = load_backbone(backbone)
    with torch.no_grad():
        learnt.pretrained.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    save_backbone(learnt, folder / "backbone.safetensors")
    path = make_scenario(folder, more=PRIVACY, backbone=folder / "backbone.safetensors")
    return load_scenario(path)


@pytest.fixture(scope="module")
def ready(scenario: Scenario, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return prepare(scenario, tmp_path_factory.mktemp("ready"), cache=cache, seed=0)


@pytest.fixture(scope="module")
def full(
    scenario: Scenario, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of a full comparison, and what it gave."""
    out = tmp_path_factory.mktemp("full") / "out"
    return out, full_comparison(scenario, out, cache=cache)


def digests(registry: Registry) -> list[str]:
    return [registry.load(number)[0].adapter.digest for number in registry.rounds()]


def private(scenario: Scenario, ready: Ready, out: Path, **how: Any) -> dict[float, list[str]]:
    """The digests of every round, by ε."""
    runs = federate_privately(scenario, ready, out, **how)
    return {epsilon: digests(registry) for epsilon, (_, registry, _sums) in runs.items()}


def of(out: Path, epsilon: str = "8") -> Path:
    return out / "private" / f"epsilon-{epsilon}"


def counts(out: Path, epsilon: str = "8") -> dict[str, list[str]]:
    """What the Ledgers of one federation hold, by platform."""
    found = {}
    for path in sorted((of(out, epsilon) / "platforms").iterdir()):
        policy = load_platform(path).policy
        assert policy is not None
        found[path.stem] = [str(entry.kind) for entry in entries(policy)]
    return found


def test_federations_under_plans_stand_after_the_one_without_in_the_scenarios_order(
    full: tuple[Path, dict[str, Any]],
) -> None:
    _, metrics = full
    place = SCORERS.index("federated") + 1
    end = SCORERS.index("served") + 1
    served = [served_as(it) for it in UNDER_PLANS]
    found = [*SCORERS[:place], *UNDER_PLANS, *SCORERS[place:end], *served, *SCORERS[end:]]
    assert metrics["scorers"] == found
    for platform in metrics["platforms"].values():
        assert list(platform["scorers"]) == metrics["scorers"]
        for name in UNDER_PLANS:
            assert 0 <= platform["scorers"][name]["ndcg@10"] <= 1
            assert platform["scorers"][name]["n"] == platform["scorers"]["federated"]["n"]
            reached, offered = (
                platform["scorers"][it]["validation"]["ndcg@10"] for it in (served_as(name), name)
            )
            assert reached >= offered
            assert set(platform["against_local"]) == {"federated", "served", *UNDER_PLANS}


def test_what_was_spent_is_at_most_each_epsilon_and_close_to_it(
    full: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = full
    written = json.loads((out / "metrics.json").read_text())["privacy"]
    assert written == metrics["privacy"]
    assert [(it["epsilon"], it["scorer"]) for it in written] == [
        (8.0, UNDER_PLANS[0]),
        (1.0, UNDER_PLANS[1]),
    ]
    for it in written:
        assert (it["noise"], it["rounds"], list(it["platforms"])) == ("simulated", 2, NAMES)
        for platform in it["platforms"].values():
            assert 0.99 * it["epsilon"] < platform["spent"] <= it["epsilon"]
            assert (platform["releases"], platform["steps"]) == (2, 10)
            assert platform["epsilon"] == it["epsilon"]
    loose, tight = (it["platforms"]["a"]["noise_multiplier"] for it in written)
    assert loose < tight


def test_noise_that_protects_nobody_is_stamped_on_every_update(
    full: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = full
    for epsilon in ("8", "1"):
        for number in (1, 2):
            report = Registry(of(out, epsilon)).load(number)[1]
            assert report.noise == dict.fromkeys(NAMES, "simulated")
            assert (report.refused, report.missing, report.moved) == ({}, (), True)
            assert not any(report.validation.values())  # under a Plan none leaves
    assert [it["noise"] for it in metrics["rounds"]] == [{}, *[dict.fromkeys(NAMES, "none")] * 2]


def test_each_federation_has_a_folder_with_its_files_and_ledgers(
    full: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = full
    assert sorted(it.name for it in (out / "private").iterdir()) == ["epsilon-1", "epsilon-8"]
    for epsilon in ("8", "1"):
        assert sorted(it.name for it in (of(out, epsilon) / "platforms").iterdir()) == [
            f"{name}.toml" for name in NAMES
        ]
        ledgers = {it.name for it in (of(out, epsilon) / "ledgers").iterdir()}
        assert {f"{name}.ledger" for name in NAMES} <= ledgers
        assert {f"{name}.head" for name in NAMES} <= ledgers
        assert counts(out, epsilon) == dict.fromkeys(NAMES, ["reserve", "release"] * 2)
        assert Registry(of(out, epsilon)).standing().receipts.keys() == set(NAMES)


def test_plans_change_nothing_of_the_federation_without(
    full: tuple[Path, dict[str, Any]], scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    out, metrics = full
    without = replace(scenario, privacy=replace(scenario.privacy, epsilons=()))
    plain = full_comparison(without, tmp_path, cache=cache)
    assert digests(Registry(tmp_path)) == digests(Registry(out))
    assert (plain["privacy"], plain["scorers"]) == ([], list(SCORERS))
    for name, platform in plain["platforms"].items():
        with_plans = metrics["platforms"][name]["scorers"]
        assert platform["scorers"] == {it: with_plans[it] for it in SCORERS}
    assert not (tmp_path / "private").exists()


def test_one_seed_gives_one_result_on_any_number_of_threads_and_another_seed_another(
    full: tuple[Path, dict[str, Any]], scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    once = {float(it): digests(Registry(of(full[0], it))) for it in ("8", "1")}
    assert private(scenario, ready, tmp_path / "threads", threads=3) == once
    other = private(with_seed(scenario, 1), ready, tmp_path / "other")
    for epsilon, found in once.items():
        assert len(set(found)) == 3  # it moves in each round
        assert found[0] == other[epsilon][0]  # the untrained state
        assert not set(found[1:]) & set(other[epsilon][1:])
    assert not set(once[8.0][1:]) & set(once[1.0][1:])


@pytest.mark.parametrize("when", ["before its training", "before it is recorded"])
def test_a_run_cut_short_in_its_second_round_goes_on_with_the_ledgers(
    when: str,
    full: tuple[Path, dict[str, Any]],
    scenario: Scenario,
    ready: Ready,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = Registry.record

    def killed(self: Registry, state: ServerState, report: RoundReport) -> None:
        if when == "before its training":
            record(self, state, report)
        if report.round == (1 if when == "before its training" else 2):
            raise KeyboardInterrupt
        if when != "before its training":
            record(self, state, report)

    monkeypatch.setattr(Registry, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        private(scenario, ready, tmp_path)
    monkeypatch.undo()
    rounds = 1 if when == "before its training" else 2
    assert Registry(of(tmp_path)).rounds() == [0, 1]
    assert counts(tmp_path) == dict.fromkeys(NAMES, ["reserve", "release"] * rounds)
    assert not of(tmp_path, "1").exists()

    runs = federate_privately(scenario, ready, tmp_path, resume=True)
    expected = {float(it): digests(Registry(of(full[0], it))) for it in ("8", "1")}
    assert {it: digests(registry) for it, (_, registry, _sums) in runs.items()} == expected
    assert told(runs) == full[1]["privacy"]  # what was answered again cost nothing
    assert counts(tmp_path) == counts(full[0])


def test_a_run_anew_in_the_same_folder_starts_with_empty_ledgers(
    full: tuple[Path, dict[str, Any]], scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    tight = replace(scenario, privacy=replace(scenario.privacy, epsilons=(1.0,)))
    first = private(tight, ready, tmp_path)
    assert private(tight, ready, tmp_path) == first
    assert counts(tmp_path, "1") == dict.fromkeys(NAMES, ["reserve", "release"] * 2)


def test_a_platforms_file_says_what_it_is_run_with(
    scenario: Scenario, ready: Ready, full: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    it = protected(scenario, ready.platforms, full[0], epsilon=8.0)
    assert [config.name for config in it.configs] == NAMES
    # A cache outside of the run's folder is not named, so that the folder can be moved.
    assert [load_platform(it.files[name]) for name in NAMES] == [
        replace(config, cache=None) for config in it.configs
    ]
    assert it.federation.learning_rate == 0.02  # of [privacy], in place of [federation]'s
    assert replace(it.federation, learning_rate=0.05) == scenario.federation
    settings = replace(scenario.privacy, learning_rate=None, server_learning_rate=4.0)
    it = protected(replace(scenario, privacy=settings), ready.platforms, tmp_path, epsilon=8.0)
    assert it.federation == replace(scenario.federation, server_learning_rate=4.0)
    assert list(tmp_path.iterdir()) == []  # nothing is written yet


def test_without_plans_all_of_the_made_up_rows_may_leave(ready: Ready, tmp_path: Path) -> None:
    for platform in ready.platforms:
        policy = platform.config.policy
        assert policy is not None
        assert (policy.plan, policy.answer_seconds) == (None, 0.0)
        assert platform.config.share_metrics
        written = load_platform(ready.files[platform.config.name])
        assert written == replace(platform.config, cache=None)
        again = unprotected(platform.config, tmp_path)
        assert again.policy is not None
        assert again.policy.ledger == tmp_path / "ledgers" / f"{platform.config.name}.ledger"


def test_a_plan_by_hand(scenario: Scenario) -> None:
    found = plan_of(scenario, 24, epsilon=8.0)
    assert found == Plan(
        clip=1.0,
        noise_multiplier=found.noise_multiplier,
        sampling_rate=0.5,  # 12 of 24
        steps=10,
        expected_batch=12.0,
        epsilon=8.0,
        delta=found.delta,
        shoppers_at_least=24,
        update_norm=100.0,
    )
    assert found.delta == pytest.approx(24**-1.1)
    assert plan_of(scenario, 9, epsilon=8.0).sampling_rate == 1.0
    passes = replace(scenario, privacy=replace(scenario.privacy, steps=None, batch=8))
    assert plan_of(passes, 100, epsilon=1.0).steps == 13  # 8 · 13 is the first above 100
    twice = replace(passes, federation=replace(passes.federation, epochs=2))
    assert plan_of(twice, 100, epsilon=1.0).steps == 25
    with pytest.raises(PlanError, match="shoppers_at_least 1 is fewer than 2"):
        plan_of(scenario, 1, epsilon=8.0)


def test_an_epsilon_is_named_as_it_is_written() -> None:
    assert [scorer_name(it) for it in (8.0, 0.5, 1.25)] == [
        "federated ε=8",
        "federated ε=0.5",
        "federated ε=1.25",
    ]


def test_federating_without_plans_leaves_no_ledger(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    federate(scenario, ready, tmp_path)
    assert Registry(tmp_path).standing().receipts == {}
    assert [it for it in tmp_path.rglob("*.ledger")] == []


def test_a_run_may_be_told_its_folder_from_where_one_stands(
    scenario: Scenario, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = replace(scenario, privacy=replace(scenario.privacy, epsilons=(8.0,)))
    private(one, ready, Path("runs") / "here")
    ran = counts(tmp_path / "runs" / "here")
    assert ran == dict.fromkeys(NAMES, ["reserve", "release"] * 2)
