"""A run's folder can be moved: the files in it name one another relative to themselves."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clients.daemon import main as atoll_client
from shared.errors import ConfigError
from shared.tables.config import load_platform
from shared.tables.dump import dump_platform, write_platform
from simulations.prepare import Ready, prepare
from simulations.protected import protected, write
from simulations.scenario import Scenario, load_scenario

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scenario(encoder: Path, tmp_path: Path) -> Scenario:
    """A small embedded world, whose tables and backbone are made in the run's folder."""
    path = tmp_path / "world.toml"
    path.write_text(
        f"""title = "A small world"
[world]
scale = 0.02
[backbone]
encoder = {json.dumps(str(encoder))}
width = 8
heads = 2
rank = 2
out_rank = 4
[sums]
share = 0.0
[privacy]
epsilons = [8.0]
""",
        encoding="utf-8",
    )
    return load_scenario(path)


@pytest.fixture
def ready(scenario: Scenario, tmp_path: Path) -> Ready:
    """Prepared in tmp_path/run, nothing trained."""
    return prepare(scenario, tmp_path / "run", cache=tmp_path / "cache", seed=0, trained=False)


def test_a_moved_run_is_recommended_from(typed: Typed, ready: Ready, tmp_path: Path) -> None:
    name = ready.platforms[0].config.name
    shopper = ready.platforms[0].rows.histories.shoppers[0]
    file = f"platforms/{name}.toml"
    words = ("recommend", "--shopper", shopper, "--json", "-p")
    before = typed(atoll_client, *words, tmp_path / "run" / file)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    after = typed(atoll_client, *words, moved / file)
    assert before[0] == after[0] == 0, after[2]
    assert json.loads(before[1]) == json.loads(after[1])


def test_no_platform_s_file_names_the_run_s_folder(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    plans = protected(scenario, ready.platforms, tmp_path / "run", epsilon=8.0)
    write(plans, resume=False)
    files = [*ready.files.values(), *plans.files.values()]
    assert len(files) == 10
    for file in files:
        assert str(tmp_path / "run") not in file.read_text(encoding="utf-8")
        sections = tomllib.loads(file.read_text(encoding="utf-8"))
        assert "cache" not in sections["backbone"]  # outside the folder, and made again
        loaded = load_platform(file)
        assert loaded.backbone == tmp_path / "run" / "backbone.safetensors"
        assert loaded.events.path.is_file()


def test_rounds_under_plans_are_resumed_where_the_run_was_moved_to(
    scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    write(protected(scenario, ready.platforms, tmp_path / "run", epsilon=8.0), resume=False)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    again = prepare(scenario, moved, cache=tmp_path / "cache", seed=0, trained=False)
    write(protected(scenario, again.platforms, moved, epsilon=8.0), resume=True)
    other = replace(scenario, privacy=replace(scenario.privacy, clip=0.5))
    with pytest.raises(ConfigError, match="the rounds recorded are of another Plan"):
        write(protected(other, again.platforms, moved, epsilon=8.0), resume=True)


def test_what_lies_outside_keeps_its_absolute_path(ready: Ready, tmp_path: Path) -> None:
    config = replace(ready.platforms[0].config, cache=tmp_path / "run" / "cache")
    outside = replace(config, backbone=tmp_path / "backbone.safetensors")
    file = tmp_path / "run" / "platforms" / "again.toml"
    write_platform(outside, file, within=tmp_path / "run")
    assert load_platform(file) == outside
    told = tomllib.loads(file.read_text(encoding="utf-8"))
    assert told["backbone"]["path"] == str(tmp_path / "backbone.safetensors")
    assert told["backbone"]["cache"] == "../cache"
    assert tomllib.loads(dump_platform(outside))["backbone"]["cache"] == str(config.cache)


def test_a_path_that_is_no_text_is_refused(ready: Ready, tmp_path: Path) -> None:
    config = replace(ready.platforms[0].config, backbone=tmp_path / "b\udcff")
    with pytest.raises(ConfigError, match="this path is not UTF-8"):
        dump_platform(config)
