"""Nested rows, baskets, and identifiers that are written in two ways."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from shared.errors import ConfigError, DataError
from shared.tables.config import platform_from
from shared.tables.dialect import normalised_key
from shared.tables.spelling import shopper_pairs
from shared.tables.table import PlatformRows, read_platform

NAMES = ("red pot", "blue hose", "oak lamp", "wool scarf")
ITEMS = "item,title\n" + "".join(f"i{n},{name}\n" for n, name in enumerate(NAMES))
EVENTS = [(f"u{s}", f"i{(s + k) % 4}", k) for s in range(3) for k in range(3)]


def read(folder: Path, events: str, items: str, /, **keys: dict[str, object]) -> PlatformRows:
    """Reads e.csv and items.csv, or what `events` and `items` keys name instead."""
    names = [keys.get(it, {}).get("path", f"{it}.csv") for it in ("events", "items")]
    for name, text in zip(names, (events, items), strict=True):
        if text:
            (folder / str(name)).write_text(text, encoding="utf-8")
    columns = {"shopper": "user", "item": "item", "order": "pos"}
    mapping = {
        "platform": {"name": "t"},
        "events": {"path": names[0], "columns": columns, **keys.get("events", {})},
        "items": {
            "path": names[1],
            "columns": {"item": "item", "title": "title"},
            **keys.get("items", {}),
        },
    }
    return read_platform(platform_from(mapping, where="p.toml", base=folder))


def events(rows: list[tuple[str, str, int]] = EVENTS) -> str:
    return "user,item,pos\n" + "".join(f"{u},{i},{p}\n" for u, i, p in rows)


def test_a_name_with_dots_reaches_into_objects(tmp_path: Path) -> None:
    rows = [{"item": f"i{n}", "name": {"en": t, "de": "x"}} for n, t in enumerate(NAMES)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    pl.DataFrame(rows).write_parquet(tmp_path / "i.parquet")
    for path, text in (("i.jsonl", lines), ("i.parquet", "")):
        keys: dict[str, object] = {"path": path, "columns": {"item": "item", "title": "name.en"}}
        assert read(tmp_path, events(), text, items=keys).catalogue.texts == NAMES
        keys = {"path": path, "columns": {"item": "item", "title": "name"}}
        with pytest.raises(DataError, match=r"not one value a row; map one .* = 'name\.en'"):
            read(tmp_path, events(), text, items=keys)
        keys = {"path": path, "columns": {"item": "item", "title": "name.fr"}}
        with pytest.raises(DataError, match=r"no column 'name\.fr', nearest 'name"):
            read(tmp_path, events(), text, items=keys)
    mixed = lines + '{"item": "i9", "name": "plain"}\n'
    keys = {"path": "i.jsonl", "columns": {"item": "item", "title": "name"}}
    with pytest.raises(DataError, match="row 1, key 'name' holds an object"):
        read(tmp_path, events(), mixed, items=keys)


def test_explode_makes_a_row_of_each_line_of_an_order(tmp_path: Path) -> None:
    orders: list[dict[str, object]] = [
        {"user": f"u{s}", "at": s, "lines": [{"item": f"i{k}", "n": k} for k in range(3)]}
        for s in range(3)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in orders) + '{"user": "u0", "lines": []}\n'
    columns = {"shopper": "user", "item": "lines.item", "order": "lines.n"}
    keys: dict[str, object] = {"path": "o.jsonl", "columns": columns, "explode": "lines"}
    rows = read(tmp_path, lines, ITEMS, events=keys)
    assert rows.histories.items.tolist() == [0, 1, 2] * 3
    assert (rows.report.rows, rows.report.missing_keys) == (10, 1)
    pl.DataFrame(orders).write_parquet(tmp_path / "o.parquet")
    found = read(tmp_path, "", ITEMS, events={**keys, "path": "o.parquet"})
    assert found.histories.items.tolist() == rows.histories.items.tolist()
    with pytest.raises(DataError, match="no list 'line' to explode; the columns are user, at"):
        read(tmp_path, lines, ITEMS, events={**keys, "explode": "line"})
    with pytest.raises(ConfigError, match="csv has no lists to explode"):
        read(tmp_path, events(), ITEMS, events={"explode": "lines"})


def test_events_of_one_basket_are_of_one_moment(tmp_path: Path) -> None:
    text = "user,item,pos,order\n"
    for user in ("u0", "u1"):  # both have an order 7, which is not one order
        text += f"{user},i3,1,7\n{user},i0,2,7\n{user},i2,3,\n{user},i1,4,\n"
    columns = {"shopper": "user", "item": "item", "order": "pos", "basket": "order"}
    rows = read(tmp_path, text, ITEMS, events={"columns": columns})
    assert rows.histories.items.tolist() == [0, 3, 2, 1] * 2
    assert rows.events["order"].to_list() == [1, 1, 3, 4] * 2
    assert rows.events["basket"].to_list() == ["7", "7", None, None] * 2


def test_items_that_differ_in_case_are_counted_shown_and_normalised(tmp_path: Path) -> None:
    mixed = [(u, i.upper() if i == "i2" else i, p) for u, i, p in EVENTS]
    more = [(f"v{s}", f"i{k}", k) for s in range(2) for k in (0, 1, 3)]
    rows = read(tmp_path, events(mixed + more), ITEMS)
    assert (rows.report.near_events, rows.report.near_items, rows.report.unknown_items) == (3, 1, 3)
    (hint,) = rows.report.hints
    assert "'I2' in the events, 'i2' in the catalogue" in hint
    assert 'set normalise = ["case"] in [items]' in hint
    alike = read(tmp_path, events(mixed + more), ITEMS, items={"normalise": ["case"]})
    assert alike.report.unknown_items == 0
    assert normalised_key("  I2 ", ("case",)) == "i2"


@pytest.mark.parametrize(
    ("written", "how"),
    [
        ("{}.0", "numbers"),
        ("00{}", "write them alike"),
        ("\uff2e{}", "unicode"),
        ("n  {}", "spaces"),
    ],
)
def test_two_names_of_one_item_stand_beside_one_another(
    tmp_path: Path, written: str, how: str
) -> None:
    plain = "N{}" if "\uff2e" in written else "n {}" if "n " in written else "{}"
    items = "item,title\n" + "".join(f"{plain.format(1193 + n)},{t}\n" for n, t in enumerate(NAMES))
    rows = [(u, written.format(1193 + int(i[1])), p) for u, i, p in EVENTS]
    with pytest.raises(DataError) as caught:
        read(tmp_path, events(rows), items)
    message = str(caught.value)
    assert "(9 of 9 events are of unknown items)" in message
    names = [it.format(1193).replace(" ", "\u2423") for it in (written, plain)]
    assert f"{names[0]!r} in the events, {names[1]!r} in the catalogue" in message
    assert how in message


def test_a_column_that_may_hold_shoppers_is_never_shown(tmp_path: Path) -> None:
    rows = [(i, u, p) for u, i, p in EVENTS] + [("u9", "i0", 1), ("u9", "i1", 2), ("u9", "i2", 3)]
    swapped = [*rows, ("u8", "i0", 1), ("u8", "i1", 2), ("u8", "i2", 3)]
    report = read(tmp_path, events(swapped), ITEMS).report
    assert report.unknown_items == 9
    assert report.examples == ()
    assert not any("u0" in line for line in report.lines())


def test_spellings_of_one_person_are_counted_and_never_named() -> None:
    names = [
        "Ann",
        "ann",
        "bo",
        "\uff22\uff4f",
        "c@x.org",
        "c+news@x.org",
        "d.e@gmail.com",
        "de@gmail.com",
    ]
    assert shopper_pairs(pl.Series(names)) == (4, 1)
    apart = ["a.b@x.org", "ab@x.org", "u1", "u2", "x+1", "x+2"]
    assert shopper_pairs(pl.Series(apart)) == (0, 0)


def test_pairs_of_shoppers_are_a_warning_and_normalise_joins_them(tmp_path: Path) -> None:
    rows = [*EVENTS, *((u.upper(), i, p + 5) for u, i, p in EVENTS if u == "u0")]
    report = read(tmp_path, events(rows), ITEMS).report
    assert (report.shoppers, report.spellings, report.case_alone) == (4, 1, 1)
    warning = next(line for line in report.lines() if "one person" in line)
    assert warning.startswith("warning: 1 pairs of shoppers may be one person each")
    assert "u0" not in warning.lower()
    joined = read(tmp_path, events(rows), ITEMS, events={"normalise": ["case"]}).report
    assert (joined.shoppers, joined.spellings) == (3, 0)
