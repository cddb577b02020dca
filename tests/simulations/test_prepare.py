from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clients.platform import open_platform
from shared.backbone import load_backbone
from shared.errors import AtollError
from shared.tables.config import load_platform
from simulations.prepare import Ready, prepare
from simulations.scenario import Scenario, load_scenario

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def scenario(make_scenario: Make, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return load_scenario(make_scenario(tmp_path_factory.mktemp("scenario")))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "out"


@pytest.fixture(scope="module")
def ready(scenario: Scenario, out: Path, cache: Path) -> Ready:
    return prepare(scenario, out, cache=cache, seed=0)


def test_platforms_are_opened_in_the_order_of_their_names(
    scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    turned = replace(scenario, platforms=scenario.platforms[::-1])
    found = prepare(turned, tmp_path, cache=cache, seed=0)
    assert [platform.config.name for platform in found.platforms] == ["a", "b", "c"]
    assert list(found.files) == ["a", "b", "c"]


def test_each_platform_gets_the_file_that_its_own_client_would_be_given(
    ready: Ready, out: Path
) -> None:
    for platform in ready.platforms:
        path = ready.files[platform.config.name]
        assert path == out / "platforms" / f"{platform.config.name}.toml"
        # A cache outside of the run's folder is not named, so that the folder can be moved.
        assert load_platform(path) == replace(platform.config, cache=None)
        alone = open_platform(load_platform(path))
        assert alone.digest == platform.digest
        assert torch.equal(alone.table, platform.table)


def test_platforms_of_a_simulation_share_their_metrics_and_one_backbone(
    ready: Ready, scenario: Scenario
) -> None:
    assert scenario.backbone is not None
    digest = load_backbone(scenario.backbone).digest
    for platform in ready.platforms:
        assert platform.config.share_metrics
        assert platform.digest == digest
        assert platform.config.backbone == ready.backbone == scenario.backbone
        assert platform.config.encoder == scenario.encoder


def test_weights_are_those_of_the_scenario(ready: Ready) -> None:
    assert [platform.config.weight for platform in ready.platforms] == [0.5, 1.0, 1.5]


def test_paths_written_hold_wherever_one_stands(
    scenario: Scenario, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = prepare(scenario, Path("out"), cache=Path("out/vectors"), seed=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_platform(tmp_path / ready.files["a"])
    assert config.cache == tmp_path / "out" / "vectors"
    assert config.events.path.is_file()


def test_nothing_but_the_platforms_files_is_written_where_a_backbone_is_given(
    ready: Ready, out: Path
) -> None:
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "platforms",
        "platforms/a.toml",
        "platforms/b.toml",
        "platforms/c.toml",
    ]


def test_preparing_twice_changes_nothing(
    ready: Ready, scenario: Scenario, out: Path, cache: Path
) -> None:
    before = {name: path.read_bytes() for name, path in ready.files.items()}
    again = prepare(scenario, out, cache=cache, seed=0)
    assert {name: path.read_bytes() for name, path in again.files.items()} == before


def test_a_platform_that_cannot_be_opened_leaves_no_file_of_any(
    make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    scenario = load_scenario(make_scenario(tmp_path / "s"))
    (tmp_path / "s" / "c" / "items.tsv").unlink()
    with pytest.raises(AtollError, match="no such file"):
        prepare(scenario, tmp_path / "out", cache=cache, seed=0)
    assert not (tmp_path / "out").exists()
