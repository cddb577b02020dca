from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.daemon import main as atoll_client
from clients.membership import load as load_member
from server.daemon import main as atoll_server
from server.home import load_home
from shared.config import Section, read_toml
from shared.errors import ConfigError
from shared.file_kinds import KINDS, other_kind
from shared.tables.config import _File as PlatformFile
from shared.tables.config import load_platform
from simulations.cli import main as atoll_sim
from simulations.scenario import load_scenario
from simulations.scenario_file import ScenarioFile

Refused = Callable[..., str]
SHIPPED = Path(__file__).parents[2] / "simulations" / "scenarios"
PLATFORM = """
[platform]
name = "shop"
[events]
path = "events.csv"
columns = { shopper = "user", item = "item", order = "pos" }
[items]
path = "items.csv"
columns = { item = "item", text = "text" }
"""
SERVER = 'listen = "0.0.0.0:9092"\nbackbone = "backbone.safetensors"\n'
MEMBER = 'name = "shop"\nserver = "localhost:9092"\nplatform = "/etc/shop.toml"\n'
IS_SCENARIO = "is a scenario, not a platform's file; atoll-sim compare FILE takes it"
IS_PLATFORM = "is a platform's file, not a scenario; atoll-client check --platform FILE takes it"


@pytest.fixture
def platform(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(PLATFORM, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (atoll_sim, ("plan", "--platform")),
        (atoll_client, ("check", "--platform")),
        (atoll_client, ("budget", "-p")),
        (atoll_client, ("recommend", "--history", "a", "-p")),
        (atoll_client, ("compare", "-p")),
        (atoll_client, ("up", "-p")),
        (atoll_client, ("approvals", "list", "-p")),
        (atoll_server, ("pretrain", "--out", "none.safetensors")),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else "",
)
@pytest.mark.parametrize("name", ["demo", "sisters"])
def test_where_a_platform_is_asked_for_a_scenario_is_told_from_a_misspelt_one(
    name: str, main: Callable[[], None], words: tuple[str, ...], refused: Refused
) -> None:
    path = SHIPPED / f"{name}.toml"
    assert refused(main, *words, path) == f"{path}: {IS_SCENARIO}"


@pytest.mark.parametrize("command", ["compare", "run", "strategies"])
def test_where_a_scenario_is_asked_for_a_platform_s_file_is_told(
    command: str, refused: Refused, platform: Path
) -> None:
    assert refused(atoll_sim, command, platform) == f"{platform}: {IS_PLATFORM}"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("server.toml", SERVER, "is the server.toml of a coordinator's home, not "),
        ("client.toml", MEMBER, "is the client.toml of a platform's home, not "),
    ],
)
def test_files_of_both_homes_are_told(name: str, text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{name}: {told}a platform's file; atoll-"):
        load_platform(path)
    with pytest.raises(ConfigError, match=f"{name}: {told}a scenario; atoll-"):
        load_scenario(path)


def test_a_home_with_another_file_in_it_says_which(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(PLATFORM, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is a platform's file, not the server\.toml"):
        load_home(tmp_path)
    (tmp_path / "client.toml").write_text(PLATFORM, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is a platform's file, not the client\.toml"):
        load_member(tmp_path)


def test_a_fault_in_the_right_kind_of_file_is_told_as_before(platform: Path) -> None:
    platform.write_text(PLATFORM.replace("[items]", "[itmes]"), encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'itmes'"):
        load_platform(platform)
    platform.write_text(PLATFORM + "[platforms]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'platforms'"):
        load_platform(platform)


def test_every_kind_is_known_by_keys_that_its_own_model_has() -> None:
    models: dict[str, type[Section]] = {
        "a platform's file": PlatformFile,
        "a scenario": ScenarioFile,
    }
    for kind in KINDS:
        assert other_kind(dict.fromkeys(kind.keys), kind.keys) is None
        if kind.noun in models:
            assert kind.keys <= set(models[kind.noun].model_fields)


def test_a_file_that_nobody_takes_here_is_named_all_the_same(platform: Path) -> None:
    from clients.report import Statement

    with pytest.raises(ConfigError, match="is a platform's file, which is not asked for here"):
        read_toml(platform, Statement)
