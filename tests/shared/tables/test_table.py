from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import DataError
from shared.events import EVENT_SCHEMA
from shared.tables.config import PlatformConfig, platform_from
from shared.tables.table import PlatformRows, read_platform

HEADER = "user\titem\tpos\n"
SIX = "a\tpen\t2\na\tink\t1\nb\tcup\t1\nb\tpen\t3\nb\tink\t2\na\tcup\t3\n"  # not in time order
EVENTS = HEADER + re.sub("^", "shopper-", SIX.rstrip(), flags=re.M) + "\n"
ITEMS = 'item\ttext\npen\tfountain pen 6" long\nink\tblue  ink\ncup\ttea cup\n'


def config(
    folder: Path,
    *,
    events: str = "events.tsv",
    order: str = "order",
    more: dict[str, str] | None = None,
    item_columns: dict[str, str] | None = None,
    without_text: str = "refuse",
    **keys: object,
) -> PlatformConfig:
    """A platform in `folder`; `more` are further columns and `keys` further keys of [events]."""
    columns = {"shopper": "user", "item": "item", order: "pos", **(more or {})}
    texts = item_columns or {"item": "item", "text": "text"}
    mapping = {
        "platform": {"name": "shop"},
        "events": {"path": events, "columns": columns, **keys},
        "items": {"path": "items.tsv", "columns": texts, "without_text": without_text},
    }
    return platform_from(mapping, where="shop.toml", base=folder)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write(tmp_path, "events.tsv", EVENTS)
    write(tmp_path, "items.tsv", ITEMS)
    return tmp_path


def lists(rows: PlatformRows) -> dict[str, list[str]]:
    """Each shopper's items by name, in time order."""
    return {
        shopper: [rows.catalogue.items[i] for i in rows.histories[place]]
        for place, shopper in enumerate(rows.histories.shoppers)
    }


IN_ORDER = {"shopper-a": ["ink", "pen", "cup"], "shopper-b": ["cup", "ink", "pen"]}


def refused(platform: PlatformConfig) -> str:
    with pytest.raises(DataError) as caught:
        read_platform(platform)
    message = str(caught.value)
    assert "\n" not in message
    assert "shopper-" not in message  # no shopper's identifier
    return message


def test_rows_become_histories_in_time_order_over_a_sorted_catalogue(shop: Path) -> None:
    rows = read_platform(config(shop))
    assert rows.catalogue.items == ("cup", "ink", "pen")
    assert rows.catalogue.texts == ("tea cup", "blue ink", 'fountain pen 6" long')
    assert rows.histories.shoppers == ("shopper-a", "shopper-b")
    assert rows.histories.items.tolist() == [1, 2, 0, 0, 1, 2]
    assert dict(rows.events.schema) == EVENT_SCHEMA
    assert rows.events["item"].to_list() == ["ink", "pen", "cup", "cup", "ink", "pen"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_rows_in_the_file_changes_nothing(shop: Path, data: st.DataObject) -> None:
    # Ties in `pos`, one item twice at once, and rows that repeat.
    pairs = [f"s{shopper}\t{item}" for shopper in "12" for item in ("pen", "ink")]
    rows = [f"{pair}\t{pos}\t{kind}\n" for pair in pairs for pos in "12" for kind in "xy"]
    write(shop, "events.tsv", "user\titem\tpos\tkind\n" + "".join(rows))
    settled = read_platform(config(shop, more={"kind": "kind"}))
    shuffled = data.draw(st.permutations(rows + rows[:3]))
    write(shop, "events.tsv", "user\titem\tpos\tkind\n" + "".join(shuffled))
    again = read_platform(config(shop, more={"kind": "kind"}))
    assert again.histories.shoppers == settled.histories.shoppers
    assert again.histories.items.tolist() == settled.histories.items.tolist()
    assert again.histories.offsets.tolist() == settled.histories.offsets.tolist()
    assert again.events.equals(settled.events)


def test_every_row_is_counted_once_and_the_report_says_why(shop: Path) -> None:
    more = (
        "shopper-a\tpen\t2\n"  # repeats a row
        "shopper-a\tmug\t9\n"  # not in the catalogue
        "\t\t\n"  # blank
        "shopper-c\tpen\t1\nshopper-c\tink\t2\n"  # too short
        "shopper-d\tmug\t1\n"  # too short, of unknown items only
    )
    write(shop, "events.tsv", EVENTS + more)
    write(shop, "items.tsv", ITEMS + "cup\ttea cup\n")
    rows = read_platform(config(shop))
    report = rows.report
    assert lists(rows) == IN_ORDER
    assert (report.rows, report.blank, report.duplicates, report.unknown_items) == (12, 1, 1, 2)
    assert report.lines() == [
        "read 12 rows of events",
        "dropped 1 blank rows",
        "dropped 1 rows that repeat another",
        "dropped 2 events of items not in the catalogue",
        "dropped 2 shoppers with fewer than 3 events (2 events)",
        "dropped 1 item rows that repeat another",
        "kept 6 events of 2 shoppers, 3 items",
        "warning: 50% of the rows of events were dropped; items that the catalogue lacks: 'mug'",
    ]


def test_rows_that_differ_in_kind_or_value_are_no_duplicates(shop: Path) -> None:
    text = "user\titem\tpos\tk\tv\n"
    for user in ("1", "2"):
        text += f"{user}\tpen\t1\tview\t\n{user}\tpen\t1\tcart\t\n{user}\tpen\t1\tcart\t2.5\n" * 2
    write(shop, "events.tsv", text)
    rows = read_platform(config(shop, more={"kind": "k", "value": "v"}))
    assert rows.report.duplicates == 6
    assert rows.events["kind"].to_list() == ["cart", "cart", "view"] * 2
    assert rows.events["value"].to_list() == [None, 2.5, None] * 2


def test_a_limit_draws_the_same_shoppers_again_and_a_larger_one_only_adds(shop: Path) -> None:
    rows = [f"u{u}\t{item}\t1\n" for u in range(40) for item in ("pen", "ink", "cup")]
    write(shop, "events.tsv", HEADER + "".join(rows))
    few, more, every = (
        set(read_platform(config(shop, limit=limit)).histories.shoppers) for limit in (5, 20, 400)
    )
    assert (len(few), len(more), len(every)) == (5, 20, 40)
    assert few < more < every
    report = read_platform(config(shop, limit=5)).report
    assert (report.limited_shoppers, report.limited_events, report.events) == (35, 105, 15)


def test_min_length_counts_events_of_known_items(shop: Path) -> None:
    four = "".join(f"{u}\tpen\t{p}\n" for u in "cd" for p in range(4))
    write(shop, "events.tsv", EVENTS + "shopper-a\tmug\t4\n" + four)
    assert read_platform(config(shop, min_length=4)).histories.shoppers == ("c", "d")


def test_text_is_title_brand_category_and_text_and_attributes_stay(shop: Path) -> None:
    header = "item\ttext\tname\tmaker\tcat\tcost\tpic\n"
    pen = "pen\tlong\tPen\tAcme\tOffice\t1.5\tpen.png\n"
    write(shop, "items.tsv", header + pen + "ink\t\tInk\t\t\t\t\ncup\tc\tCup\t\tHome\t2\t\n")
    roles = {"title": "name", "brand": "maker", "category": "cat", "price": "cost", "image": "pic"}
    both = read_platform(config(shop, item_columns={"item": "item", "text": "text", **roles}))
    assert both.catalogue.texts == ("Cup Home c", "Ink", "Pen Acme Office long")
    assert both.catalogue.attributes == {
        "category": ("Home", None, "Office"),
        "brand": (None, None, "Acme"),
        "price": (2.0, None, 1.5),
        "image": (None, None, "pen.png"),
    }


def test_an_item_without_text_may_go_by_its_identifier(shop: Path) -> None:
    write(shop, "items.tsv", ITEMS.replace("tea cup", " "))
    rows = read_platform(config(shop, without_text="identifier"))
    assert rows.catalogue.texts[0] == "cup"
    assert rows.report.lines()[-1] == "1 items without text go by their identifier"


EMPTY = "row 7, column {} is empty; mend or remove the row"

BAD_EVENTS: dict[str, tuple[str, str]] = {
    "one shopper": ("".join(EVENTS.splitlines(True)[:3]), "holds one shopper only; give at least"),
    "all too short": (
        HEADER + "shopper-a\tpen\t1\nshopper-b\tpen\t1\n",
        "fewer than two shoppers have the 3 events that a History needs (0 of 2 events are of",
    ),
    "all but one too short": ("".join(EVENTS.splitlines(True)[:6]), "fewer than two shoppers"),
    "all items unknown": (
        re.sub("pen|ink|cup", "mug", EVENTS),
        "(6 of 6 events are of unknown items); give longer Histories, or check that both tables",
    ),
    "empty order": (f"{EVENTS}shopper-a\tpen\t\n", EMPTY.format("'pos'")),
    "too few fields": (f"{EVENTS}shopper-a\tpen\n", "row 7 has 2 fields, the header 3; mend"),
    "NaN order": (f"{EVENTS}shopper-a\tpen\tNaN\n", EMPTY.format("'pos'")),
    "order in words": (f"{EVENTS}shopper-a\tpen\tlast\n", "row 7, column 'pos' is not a finite"),
    "infinite order": (f"{EVENTS}shopper-a\tpen\tinf\n", "row 7, column 'pos' is not a finite"),
    "not UTF-8": (EVENTS + "\udce9\tpen\t1\n", "row 7, column 'user' is not UTF-8"),
}


@pytest.mark.parametrize(("text", "told"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_a_bad_events_table_is_refused_in_one_line(shop: Path, text: str, told: str) -> None:
    (shop / "events.tsv").write_bytes(text.encode(errors="surrogateescape"))
    message = refused(config(shop))
    assert message.startswith(f"{shop / 'events.tsv'}: ")
    assert told in message


def test_a_missing_table_is_refused(shop: Path) -> None:
    assert "none.tsv: no such file; mend its path" in refused(config(shop, events="none.tsv"))
    (shop / "items.tsv").unlink()
    assert "items.tsv: no such file; mend its path" in refused(config(shop))


def test_nan_in_parquet_is_refused_by_row_and_column(shop: Path) -> None:
    order = [1.0, 2.0, float("nan"), None]
    frame = pl.DataFrame({"user": list("aabb"), "item": ["pen"] * 4, "pos": order})
    frame.write_parquet(shop / "e.parquet")
    message = refused(config(shop, events="e.parquet"))
    assert "row 3, column 'pos' is empty (and 1 more)" in message


BAD_ITEMS: dict[str, tuple[Callable[[str], str], str]] = {
    "without text": (
        lambda text: text.replace("blue  ink", " "),
        "row 2, column 'text' is empty: an item needs text; write a text, drop the item, or set",
    ),
    "NaN text": (lambda text: text.replace("blue  ink", "NaN"), "row 2, column 'text' is empty"),
    "two texts": (lambda text: text + "cup\tmug\n", "item 'cup' has two different texts; keep one"),
    "not UTF-8": (lambda text: text + "mug\t\udce9\n", "row 4, column 'text' is not UTF-8"),
    "too many fields": (lambda text: text + "mug\ta\tb\n", "row 4 has 3 fields, the header 2"),
}


@pytest.mark.parametrize(("spoil", "told"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_catalogue_is_refused_in_one_line(
    shop: Path, spoil: Callable[[str], str], told: str
) -> None:
    (shop / "items.tsv").write_bytes(spoil(ITEMS).encode(errors="surrogateescape"))
    message = refused(config(shop))
    assert message.startswith(f"{shop / 'items.tsv'}: ")
    assert told in message


def test_a_price_or_a_value_that_is_no_number_is_refused(shop: Path) -> None:
    write(shop, "events.tsv", "user\titem\tpos\tv\na\tpen\t1\tmuch\n")
    assert "row 1, column 'v' is not a finite number" in refused(config(shop, more={"value": "v"}))
    write(shop, "items.tsv", "item\ttext\tcost\npen\tpen\t$3\n")
    shelf = config(shop, item_columns={"item": "item", "text": "text", "price": "cost"})
    assert "row 1, column 'cost': '$3' is not a finite number" in refused(shelf)
