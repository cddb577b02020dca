"""What the embedded world promises: its tables, its law, and that they stay the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared.errors import ConfigError
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from simulations.worlds.embedded import PlatformTables, World, generate, write
from simulations.worlds.journeys import Habits, race
from simulations.worlds.specs import (
    Dealt,
    PlatformSpec,
    WorldSpec,
    default_world,
    source_world,
    wide_world,
)
from simulations.worlds.vocabulary import load_vocabulary

WORDS = load_vocabulary()
ORDINARY = ("market", "trail", "hearth", "kiosk")
TINY = PlatformSpec("tiny", shoppers=20, items=60, departments={"pets": 1.0, "toys": 2.0})


@pytest.fixture(scope="module")
def world() -> World:
    return generate(default_world(0.2), seed=3)


def read_title(title: str, category: str) -> tuple[int, str]:
    """Need and style that a title tells."""
    words = set(re.findall(r"[a-z'-]+", title.lower()))
    styles = [name for name, adjectives in WORDS.styles.items() if words & set(adjectives)]
    needs = [
        need
        for need, (department, kind) in enumerate(WORDS.needs)
        if department == category and kind in title.lower()
    ]
    assert len(styles) == 1, title
    assert len(needs) == 1, title
    return needs[0], styles[0]


def told(tables: PlatformTables) -> pl.DataFrame:
    """Events with the need and style of their item, each shopper's in time order."""
    facts = [
        (item, *read_title(title, category))
        for item, title, category, _brand, _price in tables.items.iter_rows()
    ]
    items = pl.DataFrame(facts, schema=["item", "need", "style"], orient="row")
    return tables.events.join(items, on="item").sort("user", "time")


def steps(tables: PlatformTables) -> tuple[np.ndarray, np.ndarray]:
    """Needs of every two events in a row of one shopper."""
    events = told(tables)
    same = events["user"].to_numpy()
    need = events["need"].to_numpy()
    together = same[1:] == same[:-1]
    return need[:-1][together], need[1:][together]


def test_the_same_spec_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    spec = WorldSpec((TINY,), people=30)
    first = write(generate(spec, seed=7), tmp_path / "a")
    second = write(generate(spec, seed=7), tmp_path / "b")
    other = write(generate(spec, seed=8), tmp_path / "c")
    for name in ("interactions.csv.gz", "items.csv", "platform.toml"):
        data = first["tiny"].with_name(name).read_bytes()
        assert data == second["tiny"].with_name(name).read_bytes()
        if name != "platform.toml":
            assert data != other["tiny"].with_name(name).read_bytes()


def test_adding_a_platform_leaves_the_others_as_they_were() -> None:
    more = replace(TINY, name="more", law="contrary")
    alone = generate(WorldSpec((TINY,), people=30), seed=1).platforms["tiny"]
    beside = generate(WorldSpec((more, TINY), people=30), seed=1).platforms["tiny"]
    assert alone.events.equals(beside.events)
    assert alone.items.equals(beside.items)


def test_sizes_are_those_asked_for() -> None:
    spec = WorldSpec((TINY,), people=30)
    tables = generate(spec, seed=0).platforms["tiny"]
    assert tables.events["user"].n_unique() == 20
    assert tables.items.height == 60
    assert tables.events.columns == ["user", "item", "time", "kind"]
    assert tables.items.columns == ["item", "title", "category", "brand", "price"]
    assert set(tables.events["kind"]) == {"view", "cart", "purchase"}


def test_the_demo_has_platforms_of_very_different_size() -> None:
    shoppers = {platform.name: platform.shoppers for platform in default_world().platforms}
    assert shoppers == {"market": 2400, "trail": 800, "hearth": 350, "kiosk": 120, "outlet": 500}
    assert [p.law for p in default_world().platforms] == ["journeys"] * 4 + ["contrary"]


def test_scale_changes_shoppers_and_not_catalogues() -> None:
    half, whole = default_world(0.5), default_world()
    assert [p.shoppers for p in half.platforms] == [1200, 400, 175, 60, 250]
    assert [p.items for p in half.platforms] == [p.items for p in whole.platforms]
    assert min(p.shoppers for p in default_world(0.001).platforms) == 8


def test_histories_have_four_to_twenty_events_in_strict_order(world: World) -> None:
    for tables in world.platforms.values():
        per_shopper = tables.events.group_by("user").agg(
            pl.len().alias("events"),
            pl.col("time").n_unique().alias("times"),
            pl.col("item").n_unique().alias("items"),
        )
        assert per_shopper["events"].is_between(4, 20).all()
        assert per_shopper["times"].equals(per_shopper["events"])
        assert per_shopper["items"].equals(per_shopper["events"])


def test_a_history_is_no_longer_than_the_catalogue() -> None:
    small = PlatformSpec("small", shoppers=200, items=14, departments={"pets": 1.0})
    spec = WorldSpec((small,), people=200, habits=Habits(stop=0.05))
    tables = generate(spec, seed=0).platforms["small"]
    lengths = tables.events.group_by("user").len()["len"]
    assert lengths.max() == 14
    assert tables.events.unique(["user", "item"]).height == tables.events.height


def test_no_item_is_shared_and_some_shoppers_are(world: World) -> None:
    items = [item for tables in world.platforms.values() for item in tables.items["item"]]
    assert len(set(items)) == len(items)
    market, trail = (set(world.platforms[name].events["user"]) for name in ("market", "trail"))
    # 480 · 160 / 2400 people
    assert 20 <= len(market & trail) <= 45


def test_a_shoppers_style_carries_over_between_platforms() -> None:
    # Two shops with every style of everything on the shelf, and people who never stray.
    faithful = Habits(wander=0.0, keep_style=1.0)
    shops = tuple(PlatformSpec(name, 60, 500, {"pets": 1.0}) for name in ("near", "far"))
    world = generate(WorldSpec(shops, people=60, habits=faithful), seed=0)
    favourite = {
        name: dict(
            told(tables).group_by("user").agg(pl.col("style").mode().sort().first()).iter_rows()
        )
        for name, tables in world.platforms.items()
    }
    assert len(favourite["near"]) == 60
    assert favourite["near"] == favourite["far"]
    assert len(set(favourite["near"].values())) == 6


def test_titles_are_readable_and_unique_on_a_platform(world: World) -> None:
    for tables in world.platforms.values():
        titles = tables.items["title"]
        assert titles.n_unique() == len(titles)
        for title, category in tables.items.select("title", "category").iter_rows():
            read_title(title, category)
            assert re.fullmatch(r"[A-Z][A-Za-z',:\- ]+", title)
            assert any(finish in title.lower() for finish in WORDS.departments[category].finishes)
        assert (tables.items["price"] > 0).all()


def test_platforms_word_their_titles_differently() -> None:
    shapes = {platform.template for platform in default_world().platforms}
    assert len(shapes) == 5


def test_a_tent_leads_to_a_sleeping_bag_and_the_last_need_to_the_first() -> None:
    follows = {WORDS.needs[a]: WORDS.needs[b] for a, b in enumerate(WORDS.follows.tolist())}
    assert follows["camping", "tent"] == ("camping", "sleeping bag")
    assert follows["camping", "insect repellent"] == ("camping", "tent")
    assert sorted(WORDS.follows.tolist()) == list(range(len(WORDS.needs)))
    assert all(10 <= len(department.types) <= 14 for department in WORDS.departments.values())


@pytest.mark.parametrize("name", ORDINARY)
def test_needs_follow_one_another_on_ordinary_platforms(world: World, name: str) -> None:
    before, after = steps(world.platforms[name])
    forwards = np.mean(WORDS.follows[before] == after)
    backwards = np.mean(WORDS.follows[after] == before)
    assert forwards > 0.35  # by chance 1 in 84 to 140
    assert backwards < 0.06


def test_journeys_run_backwards_under_the_contrary_law(world: World) -> None:
    before, after = steps(world.platforms["outlet"])
    assert np.mean(WORDS.follows[after] == before) > 0.35
    assert np.mean(WORDS.follows[before] == after) < 0.06


def test_the_source_world_sells_nothing_of_the_demos() -> None:
    (source,) = source_world().platforms
    sold = {name for platform in default_world().platforms for name in platform.departments}
    assert source.name == "source"
    assert not sold & set(source.departments)
    before, after = steps(generate(source_world(0.05), seed=0).platforms["source"])
    assert np.mean(WORDS.follows[before] == after) > 0.35


def test_written_files_read_back_as_a_platform(world: World, tmp_path: Path) -> None:
    paths = write(world, tmp_path)
    assert list(paths) == [platform.name for platform in default_world().platforms]
    config = load_platform(paths["hearth"])
    read = read_platform(config)
    tables = world.platforms["hearth"]
    assert (config.name, config.weight) == ("hearth", 1.0)
    assert len(read.histories) == 70
    assert len(read.histories.items) == tables.events.height
    assert dict(zip(read.catalogue.items, read.catalogue.texts, strict=True)) == dict(
        tables.items.select("item", "title").iter_rows()
    )
    first = read.histories.shoppers[0]
    expected = tables.events.filter(user=first).sort("time")["item"].to_list()
    assert [read.catalogue.items[place] for place in read.histories[0]] == expected


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"departments": {"weapons": 1.0}}, "unknown department 'weapons'"),
        ({"departments": {}}, "departments"),
        ({"departments": {"pets": 0.0}}, "departments"),
        ({"items": 27}, "27 items cannot cover 28 product types"),
        ({"items": 20_000}, "20000 items are more than there are different titles"),
        ({"shoppers": 31}, "31 shoppers cannot be drawn from 30 people"),
        ({"template": 9}, "no title template 9"),
    ],
)
def test_a_platform_that_cannot_be_made_is_named(change: dict[str, object], fault: str) -> None:
    spec = WorldSpec((replace(TINY, **change),), people=30)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=fault) as caught:
        generate(spec, seed=0)
    assert "platform 'tiny'" in str(caught.value)


def test_shoppers_choose_alike_in_blocks_of_any_size() -> None:
    rng = np.random.default_rng(0)
    fit = rng.random((6, 40)).astype(np.float32)
    which, seen = rng.integers(6, size=90), rng.integers(40, size=(90, 3))
    one, seven, all_at_once = (
        race(fit, which, seen, np.random.default_rng(1), block=block) for block in (1, 7, 90)
    )
    assert one.tolist() == seven.tolist() == all_at_once.tolist()
    assert not (one[:, None] == seen).any()


def test_the_wide_worlds_catalogue_does_not_depend_on_its_shoppers() -> None:
    few, more = (generate(wide_world(count), seed=2).platforms["everyone"] for count in (30, 60))
    assert few.items.equals(more.items)
    assert len(few.items) == 3000
    assert (few.events["user"].n_unique(), more.events["user"].n_unique()) == (30, 60)


def test_two_platforms_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="share a name"):
        generate(WorldSpec((TINY, TINY), people=30), seed=0)
    with pytest.raises(ConfigError, match="share a name"):
        generate(wide_world(30, (Dealt("a", (0.0, 0.5)), Dealt("a", (0.5, 1.0)))), seed=0)
