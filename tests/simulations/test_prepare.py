from __future__ import annotations

import json
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


DEALT = """\
title = "Two shops of one catalogue"
[world]
scale = 0.01
[[world.platforms]]
name = "small"
weight = 0.5
shoppers = [0.8, 1.0]
items = {items}
[[world.platforms]]
name = "large"
shoppers = [0.0, {end}]
[backbone]
path = {backbone}
encoder = {encoder}
[sums]
"""


@pytest.fixture
def dealt(tmp_path: Path, backbone: Path, encoder: Path) -> Callable[[str, float], Scenario]:
    def make(items: str, end: float) -> Scenario:
        paths = {"backbone": json.dumps(str(backbone)), "encoder": json.dumps(str(encoder))}
        (tmp_path / "dealt.toml").write_text(DEALT.format(items=items, end=end, **paths))
        return load_scenario(tmp_path / "dealt.toml")

    return make


def test_one_catalogue_of_the_embedded_world_is_dealt_out(
    dealt: Callable[[str, float], Scenario], cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = prepare(dealt("[0.0, 0.7]", 0.8), out, cache=cache, seed=1)
    large, small = found.platforms
    assert [(it.config.name, it.config.weight) for it in (large, small)] == [
        ("large", 1.0),
        ("small", 0.5),
    ]
    assert 130 < len(large.rows.histories) < 190
    assert not set(large.rows.histories.shoppers) & set(small.rows.histories.shoppers)
    assert len(large.rows.catalogue) == 3000
    assert set(small.rows.catalogue.items) < set(large.rows.catalogue.items)
    assert load_platform(found.files["small"]) == small.config
    assert sorted(it.name for it in (out / "data").iterdir()) == ["everyone", "large", "small"]
    other = prepare(dealt("[0.0, 0.7]", 0.8), tmp_path / "other", cache=cache, seed=2).platforms[0]
    assert other.config.events.part == large.config.events.part
    assert other.rows.catalogue.items != large.rows.catalogue.items or (
        other.rows.histories.items.tolist() != large.rows.histories.items.tolist()
    )


@pytest.mark.parametrize(
    ("items", "end", "told"),
    [
        ("[0.0, 0.0001]", 0.8, "small: gets too little of the embedded world: no item is in its"),
        ("[0.0, 0.05]", 0.8, "small: gets too little of the embedded world: fewer than two"),
        ("[0.0, 1.0]", 0.001, "large: gets too little of the embedded world: fewer than two"),
    ],
)
def test_a_part_that_is_too_small_is_told_by_the_platform_s_name(
    dealt: Callable[[str, float], Scenario],
    cache: Path,
    tmp_path: Path,
    items: str,
    end: float,
    told: str,
) -> None:
    with pytest.raises(AtollError) as caught:
        prepare(dealt(items, end), tmp_path / "out", cache=cache, seed=1)
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("give it a larger part, or [world] a larger scale")
    assert not (tmp_path / "out" / "platforms").exists()


def test_each_platform_gets_the_file_that_its_own_client_would_be_given(
    ready: Ready, out: Path
) -> None:
    for platform in ready.platforms:
        path = ready.files[platform.config.name]
        assert path == out / "platforms" / f"{platform.config.name}.toml"
        assert load_platform(path) == platform.config
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


def test_paths_written_are_absolute_wherever_one_stands(
    scenario: Scenario, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = prepare(scenario, Path("out"), cache=Path("vectors"), seed=0)
    assert (tmp_path / "vectors").is_dir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_platform(ready.files["a"])
    assert config.cache == tmp_path / "vectors"
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
