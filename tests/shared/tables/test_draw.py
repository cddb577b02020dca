from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ConfigError, DataError
from shared.tables.config import PlatformConfig, load_platform, platform_from
from shared.tables.draw import ITEMS, SHOPPERS, WHOLE, Part, checked, drawn, shoppers_key, within
from shared.tables.dump import dump_platform
from shared.tables.table import PlatformRows, read_platform

NAMES = [f"shopper-{number}" for number in range(10_000)]
SHELF = [f"item-{number:02}" for number in range(24)]
CROWD = NAMES[:60]


def config(
    folder: Path, *, events: Part = WHOLE, items: Part = WHOLE, limit: int | None = None
) -> PlatformConfig:
    """A platform of which these parts are kept."""
    columns = {"shopper": "user", "item": "item", "order": "pos"}
    texts = {"item": "item", "text": "text"}
    more = {} if limit is None else {"limit": limit}
    mapping = {
        "platform": {"name": "shop"},
        "events": {"path": "events.tsv", "columns": columns, "part": events, **more},
        "items": {"path": "items.tsv", "columns": texts, "part": items},
    }
    return platform_from(mapping, where="shop.toml", base=folder)


def write(folder: Path, shoppers: Sequence[str], *, more: str = "") -> Path:
    """Tables in which each of these shoppers takes every item once."""
    rows = [f"{name}\t{item}\t{at}\n" for name in shoppers for at, item in enumerate(SHELF)]
    (folder / "events.tsv").write_text("user\titem\tpos\n" + "".join(rows) + more)
    (folder / "items.tsv").write_text("item\ttext\n" + "".join(f"{it}\t{it}\n" for it in SHELF))
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write(tmp_path, CROWD)


def kept(rows: PlatformRows) -> set[str]:
    return set(rows.histories.shoppers)


def add_up(rows: PlatformRows) -> bool:
    """Whether every row of the events table is counted once, as the report promises."""
    it = rows.report
    dropped = it.blank + it.duplicates + it.unknown_items + it.short_events + it.limited_events
    return it.rows == dropped + it.events


def refused(platform: PlatformConfig) -> str:
    with pytest.raises(DataError) as caught:
        read_platform(platform)
    said = str(caught.value)
    assert "\n" not in said
    assert "shopper-" not in said  # no shopper's identifier
    return said


@pytest.mark.parametrize("key", [SHOPPERS, ITEMS])
@pytest.mark.parametrize("part", [(0.0, 0.1), (0.0, 0.6), (0.6, 1.0), (0.25, 0.5), (0.0, 1.0)])
def test_a_part_holds_about_the_share_of_names_that_it_asks_for(part: Part, key: bytes) -> None:
    share = sum(within(part, name, key) for name in NAMES) / len(NAMES)
    assert share == pytest.approx(part[1] - part[0], abs=0.02)  # four standard deviations


@given(cut=st.floats(0, 1, exclude_min=True, exclude_max=True), name=st.text())
def test_of_two_parts_that_meet_a_name_is_in_exactly_one(cut: float, name: str) -> None:
    assert within((0.0, cut), name, SHOPPERS) != within((cut, 1.0), name, SHOPPERS)
    assert within(WHOLE, name, SHOPPERS)


def place(name: str) -> float:
    return int.from_bytes(drawn(name, SHOPPERS)[:6], "big") / 2**48


@given(st.text())
def test_a_name_on_the_cut_is_in_the_part_that_starts_there(name: str) -> None:
    assert within((place(name), 1.0), name, SHOPPERS)
    assert not within((0.0, place(name)), name, SHOPPERS)


def test_another_draw_gives_others_the_same_chance_and_draw_0_is_the_first() -> None:
    half = (0.0, 0.5)
    assert shoppers_key(0) == SHOPPERS
    one, other = (
        {name for name in NAMES if within(half, name, shoppers_key(draw))} for draw in (0, 7)
    )
    assert len(other) / len(NAMES) == pytest.approx(0.5, abs=0.02)
    assert len(one & other) / len(NAMES) == pytest.approx(0.25, abs=0.02)


def test_a_platform_s_draw_says_who_is_in_its_part_and_is_written_into_its_file(shop: Path) -> None:
    first = config(shop, events=(0.0, 0.5))
    other = replace(first, events=replace(first.events, draw=3))
    there = {name for name in CROWD if within((0.0, 0.5), name, shoppers_key(3))}
    assert kept(read_platform(other)) == there != kept(read_platform(first))
    (shop / "shop.toml").write_text(dump_platform(other))
    assert load_platform(shop / "shop.toml").events == other.events


def test_shoppers_and_items_are_drawn_apart() -> None:
    half = (0.0, 0.5)
    both = sum(within(half, name, SHOPPERS) and within(half, name, ITEMS) for name in NAMES)
    assert both / len(NAMES) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("part", [WHOLE, (0.0, 0.5), (0.5, 1.0), (0.25, 0.26)])
def test_a_part_of_rising_shares_stands(part: Part) -> None:
    assert checked(part, "p.toml: events") == part


BAD = [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.0, 1.1), (1.0, 1.0), (float("nan"), 1.0)]


@pytest.mark.parametrize("part", [*BAD, (0.0, float("nan"))])
def test_what_is_no_part_is_refused_with_its_place(part: Part) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(part, "p.toml: events")
    assert str(caught.value) == (
        f"p.toml: events: part {list(part)} is none; give two shares, the smaller first"
    )


@pytest.mark.parametrize("part", BAD[:-1])
def test_a_platform_s_file_with_a_part_that_is_none_is_refused(part: Part) -> None:
    with pytest.raises(ConfigError, match=r"^shop.toml: events: part .* is none; "):
        config(Path("/shop"), events=part)
    with pytest.raises(ConfigError, match=r"^shop.toml: items: part .* is none; "):
        config(Path("/shop"), items=part)


@pytest.mark.parametrize("part", [(0.5,), (0.0, 0.5, 1.0), ("0", "1"), 0.5])
def test_a_part_that_is_not_two_numbers_names_its_key(part: Part) -> None:
    with pytest.raises(ConfigError, match=r"^shop.toml: .*'events\.part") as caught:
        config(Path("/shop"), events=part)
    assert "\n" not in str(caught.value)


def test_parts_survive_a_dump_to_the_last_bit(tmp_path: Path) -> None:
    platform = config(tmp_path, events=(0.1, 1 / 3), items=(5e-324, 1.0))
    (tmp_path / "p.toml").write_text(dump_platform(platform))
    assert load_platform(tmp_path / "p.toml") == platform
    assert (platform.events.part, platform.items.part) == ((0.1, 1 / 3), (5e-324, 1.0))


def test_a_file_that_names_no_part_keeps_the_whole_and_says_nothing_of_it(shop: Path) -> None:
    assert "part =" not in dump_platform(config(shop))
    rows = read_platform(config(shop))
    assert (kept(rows), rows.catalogue.items) == (set(CROWD), tuple(SHELF))


def test_parts_of_one_table_share_no_shopper_and_leave_none_out(shop: Path) -> None:
    cuts: list[Part] = [(0.0, 0.3), (0.3, 0.8), (0.8, 1.0)]
    found = [kept(read_platform(config(shop, events=part))) for part in cuts]
    assert sum(map(len, found)) == len(CROWD)
    assert set().union(*found) == set(CROWD)


def test_parts_of_one_catalogue_share_no_item_and_leave_none_out(shop: Path) -> None:
    cuts: list[Part] = [(0.0, 0.5), (0.5, 1.0)]
    found = [read_platform(config(shop, items=part)).catalogue.items for part in cuts]
    assert tuple(sorted(found[0] + found[1])) == tuple(SHELF)
    assert all(len(items) > 2 for items in found)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(others=st.sets(st.sampled_from(NAMES[60:]), max_size=30))
def test_whether_a_shopper_is_in_a_part_depends_on_nobody_else(
    tmp_path: Path, others: set[str]
) -> None:
    part = config(write(tmp_path, CROWD), events=(0.2, 0.7))
    alone = kept(read_platform(part))
    write(tmp_path, [*CROWD, *sorted(others)])
    assert kept(read_platform(part)) & set(CROWD) == alone
    assert alone == {name for name in CROWD if within((0.2, 0.7), name, SHOPPERS)}


def test_a_limit_draws_from_the_part_and_a_larger_one_only_adds(shop: Path) -> None:
    inside = kept(read_platform(config(shop, events=(0.5, 1.0))))
    few, more = (kept(read_platform(config(shop, events=(0.5, 1.0), limit=n))) for n in (4, 9))
    assert (len(few), len(more)) == (4, 9)
    assert few < more < inside


def test_the_report_of_a_part_still_counts_every_row_once(tmp_path: Path) -> None:
    more = (
        "shopper-0\titem-00\t0\n"  # repeats a row
        "shopper-0\tmug\t9\n"  # not in the catalogue
        "\t\t\n"  # blank
        "shopper-x\titem-00\t1\nshopper-x\titem-01\t2\n"  # too short
    )
    write(tmp_path, CROWD, more=more)
    whole = read_platform(config(tmp_path)).report
    rows = read_platform(config(tmp_path, events=(0.0, 0.5)))
    report = rows.report
    assert add_up(rows)
    assert (report.rows, report.blank, report.duplicates, report.unknown_items) == (1445, 1, 1, 1)
    assert report.limited_shoppers + report.shoppers == whole.shoppers == len(CROWD)
    told = f"dropped {report.limited_shoppers} shoppers outside part or limit"
    assert f"{told} ({report.limited_events:,} events)" in report.lines()


def test_events_of_items_outside_their_part_count_as_unknown(shop: Path) -> None:
    rows = read_platform(config(shop, items=(0.0, 0.5), events=(0.0, 0.5), limit=5))
    assert add_up(rows)
    assert rows.report.unknown_items == len(CROWD) * (len(SHELF) - rows.report.items)
    assert rows.report.items == sum(within((0.0, 0.5), item, ITEMS) for item in SHELF)
    assert set(rows.events["item"]) == set(rows.catalogue.items)


@pytest.mark.parametrize("left", [0, 1])
def test_a_part_that_leaves_fewer_than_two_shoppers_is_refused_in_one_line(
    left: int, shop: Path
) -> None:
    cuts = sorted(map(place, CROWD))
    assert refused(config(shop, events=(0.0, cuts[left]))) == (
        f"{shop / 'events.tsv'}: fewer than two shoppers are in part [0.0, {cuts[left]}];"
        " give a larger part"
    )
    assert len(kept(read_platform(config(shop, events=(0.0, cuts[2]))))) == 2


def test_a_part_that_leaves_no_item_is_refused_in_one_line(shop: Path) -> None:
    told = f"{shop / 'items.tsv'}: no item is in its part; give a larger part"
    assert refused(config(shop, items=(0.0, 1e-9))) == told
