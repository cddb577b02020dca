"""One catalogue of the embedded world, dealt out to several platforms."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import AtollError, ConfigError
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from simulations.prepare import prepare
from simulations.scenario import Scenario, find_scenario, load_scenario
from simulations.worlds.embedded import generate, write
from simulations.worlds.specs import Dealt, PlatformSpec, WorldSpec, default_world, wide_world

WORLD = 'title = "A world"\n[world]\n'
ONE = '[[world.platforms]]\nname = "a"\nweight = 2.0\nshoppers = [0.0, 0.5]\n'
FAULT = '[[faults]]\nplatform = "{}"\nround = 1\nkind = "drop"\n'
TWO = """\
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
def path(tmp_path: Path) -> Path:
    return tmp_path / "dealt.toml"


@pytest.fixture
def dealt(path: Path, backbone: Path, encoder: Path) -> Callable[[str, float], Scenario]:
    def make(items: str, end: float) -> Scenario:
        paths = {"backbone": json.dumps(str(backbone)), "encoder": json.dumps(str(encoder))}
        path.write_text(TWO.format(items=items, end=end, **paths))
        return load_scenario(path)

    return make


def test_one_catalogue_is_dealt_out_to_platforms_with_nobody_on_two_of_them(
    tmp_path: Path,
) -> None:
    spec = wide_world(
        200,
        (
            Dealt("left", (0.0, 0.75), (0.0, 0.5), weight=3.0),
            Dealt("right", (0.75, 1.0), (0.25, 1.0)),
        ),
    )
    world = generate(spec, seed=5)
    paths = write(world, tmp_path)
    assert list(paths) == spec.names == ["left", "right"]
    assert sorted(path.parent.name for path in tmp_path.glob("*/*.gz")) == ["everyone"]
    configs = [load_platform(path) for path in paths.values()]
    assert [(it.name, it.weight) for it in configs] == [("left", 3.0), ("right", 1.0)]
    whole = [replace(it, items=replace(it.items, part=(0.0, 1.0))) for it in configs]
    left, right = (set(read_platform(it).histories.shoppers) for it in whole)
    assert left | right == set(world.platforms["everyone"].events["user"])
    assert not left & right
    assert 130 < len(left) < 170
    sold = [set(read_platform(it).catalogue.items) for it in configs]
    assert sold[0] | sold[1] == set(world.platforms["everyone"].items["item"])
    assert 0.2 < len(sold[0] & sold[1]) / 3000 < 0.3


def test_a_shopper_is_dealt_out_once() -> None:
    dealt = (Dealt("a", (0.0, 0.3)), Dealt("b", (0.5, 1.0)), Dealt("c", (0.25, 0.5)))
    with pytest.raises(ConfigError, match="'a' and 'c' of the world share shoppers"):
        generate(wide_world(30, dealt), seed=0)
    generate(wide_world(30, dealt[:2]), seed=0)


def test_the_tables_of_one_platform_alone_are_dealt_out() -> None:
    shops = [PlatformSpec(it, shoppers=20, items=60, departments={"pets": 1.0}) for it in "ab"]
    spec = WorldSpec(tuple(shops), people=30, dealt=(Dealt("c", (0.0, 1.0)),))
    with pytest.raises(ConfigError, match="the tables of one platform can be dealt out"):
        generate(spec, seed=0)


@pytest.mark.parametrize("name", ["channels", "sisters"])
def test_a_scenario_of_tables_is_divided_alike_in_the_embedded_world(name: str) -> None:
    tables = load_scenario(find_scenario(name)).platforms
    world = load_scenario(find_scenario(f"{name}-world")).world
    assert world is not None
    assert [(it.name, it.weight, it.shoppers, it.items) for it in world.dealt] == [
        (it.name, it.weight, it.events.part, it.items.part) for it in tables
    ]


def test_a_world_is_as_large_as_its_scale_says(path: Path) -> None:
    path.write_text(WORLD + "scale = 0.5\n")
    assert load_scenario(path).world == default_world(0.5)
    path.write_text(WORLD + f"scale = 0.5\n{ONE}" + FAULT.format("a"))
    found = load_scenario(path)
    assert found.world == wide_world(10_000, (Dealt("a", (0.0, 0.5), weight=2.0),))
    assert (found.names, found.platforms) == (["a"], ())


@pytest.mark.parametrize(
    ("dealt", "told"),
    [
        (ONE.replace("0.5", "0.0"), " [[world.platforms]] a: shoppers: part [0.0, 0.0] is none"),
        (ONE + "items = [0.6, 0.2]", " [[world.platforms]] a: items: part [0.6, 0.2] is none"),
        (ONE * 2, ": two platforms are called 'a'"),
        (ONE.replace('"a"', '"../a"'), ": 'world.platforms.0.name' is \"../a\""),
        (ONE.replace("2.0", "0.0"), ": 'world.platforms.0.weight' is 0.0"),
        (ONE + "item = [0.0, 1.0]", ": unknown key 'world.platforms.0.item'"),
        (ONE + FAULT.format("everyone"), ": fault of 'everyone'"),
        (ONE.replace("shoppers", "#"), ": missing key 'world.platforms.0.shoppers'"),
    ],
)
def test_a_world_that_cannot_be_dealt_out_is_refused(path: Path, dealt: str, told: str) -> None:
    path.write_text(WORLD + dealt)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}{told}")
    assert "\n" not in str(caught.value)


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
    # A cache outside of the run's folder is not named: the folder can be moved.
    assert load_platform(found.files["small"]) == replace(small.config, cache=None)
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
