"""Times and orders of events."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import DataError
from shared.tables.config import PlatformConfig, platform_from
from shared.tables.table import read_platform


def config(folder: Path, **columns: str) -> PlatformConfig:
    mapping = {
        "platform": {"name": "shop"},
        "events": {"path": "events.tsv", "columns": {"shopper": "user", "item": "item", **columns}},
        "items": {"path": "items.tsv", "columns": {"item": "item", "text": "text"}},
    }
    return platform_from(mapping, where="shop.toml", base=folder)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write(tmp_path, "items.tsv", "item\ttext\npen\tfountain pen\nink\tblue ink\ncup\ttea cup\n")
    return tmp_path


def refused(platform: PlatformConfig) -> str:
    with pytest.raises(DataError) as caught:
        read_platform(platform)
    message = str(caught.value)
    assert "\n" not in message
    return message


TIMES = {
    "integers": ("1577836800", "1577923200", "1578009600"),
    "floats": ("1577836800.0", "1.5779232e9", "1578009600.0"),
    "dates": ("2020-01-01", "2020-01-02", "2020-01-03"),
    "datetimes": ("2020-01-01T00:00:00", "2020-01-02 00:00", "2020-01-03T00:00:00.000"),
    "zones": ("2020-01-01T00:00:00Z", "2020-01-02T02:00:00+02:00", "2020-01-02 22:00:00 -0200"),
}


def with_times(times: tuple[str, ...]) -> str:
    pairs = list(zip(("pen", "ink", "cup"), times, strict=True))
    rows = [f"{shopper}\t{item}\t{time}\n" for shopper in "ab" for item, time in pairs]
    return "user\titem\tpos\n" + "".join(rows)


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
def test_every_time_format_gives_the_same_seconds(shop: Path, times: tuple[str, ...]) -> None:
    write(shop, "events.tsv", with_times(times))
    rows = read_platform(config(shop, time="pos"))
    assert rows.events["order"].to_list() == [1577836800.0, 1577923200.0, 1578009600.0] * 2
    assert rows.histories.days is not None
    assert rows.histories.days.tolist() == [18262, 18263, 18264] * 2


def test_an_order_sorts_what_a_time_leaves_open_and_the_time_tells_the_day(shop: Path) -> None:
    text = "user\titem\tpos\tts\n"
    for user in "ab":
        for item, place in (("pen", 1), ("ink", 3), ("cup", 2)):
            text += f"{user}\t{item}\t{place}\t1969-12-31T23:00\n"
    write(shop, "events.tsv", text)
    rows = read_platform(config(shop, order="pos", time="ts"))
    assert rows.catalogue.items == ("cup", "ink", "pen")
    assert rows.histories.items.tolist() == [2, 0, 1] * 2
    assert rows.histories.days is not None
    assert rows.histories.days.tolist() == [-1] * 6
    assert read_platform(config(shop, order="pos")).histories.days is None


def test_rows_that_differ_in_their_day_alone_have_an_order_of_their_own(shop: Path) -> None:
    rows = [f"{user}\tpen\t1\t2020-01-0{day}\n" for user in "ab" for day in range(1, 8)]
    found = []
    for order in (rows, rows[::-1], rows[3:] + rows[:3]):
        write(shop, "events.tsv", "user\titem\tpos\tts\n" + "".join(order))
        days = read_platform(config(shop, order="pos", time="ts")).histories.days
        found.append(None if days is None else days.tolist())
    assert found == [[18262 + day for day in range(7)] * 2] * 3


MIXED = {
    "1577836800 2020-01-02 1": "row 1 holds seconds since 1970, row 2 holds a date; write",
    "2020-01-01 2020-01-02 2020-01-03T10:00": "row 1 holds a date, row 3 holds a date and time;",
    "2020-01-01T00:00 2020-01-02T00:00Z 2020-01-03T00:00": "row 1 holds a date and time, row 2",
}


@pytest.mark.parametrize(("times", "told"), MIXED.items())
def test_mixed_time_formats_are_refused_by_name(shop: Path, times: str, told: str) -> None:
    write(shop, "events.tsv", with_times(tuple(times.split())))
    message = refused(config(shop, time="pos"))
    assert f"events.tsv: column 'pos' has mixed time formats: {told}" in message


@pytest.mark.parametrize("time", ["01/02/2020", "yesterday", "2020-13-01", "inf", "1577836800000"])
def test_a_time_that_is_none_is_refused_by_row(shop: Path, time: str) -> None:
    write(shop, "events.tsv", with_times((time, time, time)))
    message = refused(config(shop, time="pos"))
    told = "row 1, column 'pos' is no time in seconds since 1970 or ISO 8601 (and 5 more); write"
    assert told in message
