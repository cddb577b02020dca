from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients.beside import own
from clients.compare import OWN, PRIOR, compare
from clients.platform import open_platform
from server.registry import Registry
from shared.adapter import load_adapter
from shared.tables.config import load_platform
from shared.training import Recipe
from simulations.federations import federate
from simulations.harness import Fault
from simulations.prepare import Ready, prepare
from simulations.run import full_comparison, with_seed
from simulations.scenario import Scenario, load_scenario


@pytest.fixture(scope="module")
def scenario(
    make_scenario: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Scenario:
    return load_scenario(make_scenario(tmp_path_factory.mktemp("scenario")))


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


def test_another_seed_changes_the_federation_and_the_draw_of_shoppers_and_nothing_else(
    scenario: Scenario,
) -> None:
    own = scenario.federation.seed
    other = with_seed(scenario, own + 9)
    assert other.federation.seed == own + 9
    assert {it.events.draw for it in other.platforms} == {9}
    assert with_seed(other, own) == scenario
    assert with_seed(scenario, own) == scenario
    assert with_seed(scenario, None) is scenario


def test_rounds_are_recorded_under_the_runs_folder(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    assert federate(scenario, ready, tmp_path).rounds() == [0, 1, 2]
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["0000", "0001", "0002"]


def test_the_scenarios_faults_and_weights_are_in_the_run(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    calm = federate(scenario, ready, tmp_path / "calm")
    struck = replace(scenario, faults=(Fault("b", 1, "drop"),))
    _, report = federate(struck, ready, tmp_path / "struck", threads=2).load(1)
    assert list(report.missing) == ["b"]
    # Without b the weights are 0.5 and 1.5.
    assert digests(calm)[1] != digests(Registry(tmp_path / "struck"))[1]


def test_a_run_resumed_ends_where_an_uninterrupted_one_does(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    whole = federate(scenario, ready, tmp_path)
    expected = digests(whole)
    shutil.rmtree(whole.folder / "0002")
    assert digests(federate(scenario, ready, tmp_path, resume=True)) == expected


def test_a_comparison_leaves_rounds_report_table_metrics_platforms_and_adapters(
    full: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = full
    assert sorted(path.name for path in out.iterdir()) == [
        "adapters",
        "metrics.json",
        "platforms",
        "registry.sqlite",
        "report.html",
        "rounds",
        "table.md",
    ]
    written = json.loads((out / "metrics.json").read_text())
    assert written["platforms"].keys() == metrics["platforms"].keys()
    assert written["seed"] == 0
    assert written["title"] == "Three small shops"
    hidden = [path for path in out.rglob(".*")]
    assert hidden == []


def test_a_platform_finds_at_home_what_the_comparison_found(
    full: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = full
    for name, entry in metrics["platforms"].items():
        platform = open_platform(load_platform(out / "platforms" / f"{name}.toml"))
        adapter = load_adapter(out / "adapters" / f"{name}.safetensors")
        alone, nothing = own(platform), Recipe(epochs=0)
        told = compare(platform, alone, alone, {"federated": adapter}, recipe=nothing)
        for ours, theirs in ((PRIOR, "prior"), (OWN, "memory"), ("federated", "federated")):
            known = entry["scorers"][theirs]
            line = told.line(ours)
            assert line.validation == pytest.approx(known["validation"]["ndcg@10"], abs=1e-9)
            assert (line.ndcg, line.hit_rate) == pytest.approx(
                (known["ndcg@10"], known["hr@10"]), abs=1e-9
            )


def test_each_platforms_adapter_is_the_federated_state_it_keeps(
    full: tuple[Path, dict[str, Any]], ready: Ready
) -> None:
    out, metrics = full
    registry = Registry(out)
    for platform in ready.platforms:
        name = platform.config.name
        adapter = load_adapter(out / "adapters" / f"{name}.safetensors", backbone=platform.digest)
        kept = metrics["platforms"][name]["scorers"]["federated"]["kept"]
        number = 0 if kept == "untrained" else int(kept.removeprefix("round "))
        assert adapter.digest == registry.load(number)[0].adapter.digest


def test_what_a_run_says_of_its_backbone_is_so(
    full: tuple[Path, dict[str, Any]], ready: Ready
) -> None:
    told = full[1]["backbone"]
    platform = ready.platforms[0]
    assert told["digest"] == platform.digest
    assert told["trainable"] == platform.untrained.size
    assert told["adapter_bytes"] == 4 * platform.untrained.size


def test_a_comparison_again_in_the_same_folder_starts_over(
    full: tuple[Path, dict[str, Any]], scenario: Scenario, cache: Path
) -> None:
    out, metrics = full
    before = digests(Registry(out))
    (out / "rounds" / "0007").mkdir()  # of an older, longer run
    again = full_comparison(scenario, out, cache=cache)
    assert digests(Registry(out)) == before
    assert again["platforms"] == metrics["platforms"]


def test_a_comparison_resumed_keeps_the_rounds_that_are_there(
    full: tuple[Path, dict[str, Any]], scenario: Scenario, cache: Path
) -> None:
    out, metrics = full
    before = {path: path.stat().st_mtime_ns for path in (out / "rounds").iterdir()}
    again = full_comparison(scenario, out, cache=cache, resume=True)
    assert {path: path.stat().st_mtime_ns for path in (out / "rounds").iterdir()} == before
    assert again["platforms"] == metrics["platforms"]
