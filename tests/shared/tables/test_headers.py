"""First lines of tables: no shopper in a message, spaces, `sep=`, one column, and folders."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from shared.errors import DataError
from shared.tables.config import EventTable, ItemTable
from shared.tables.row_removal import remove_rows
from shared.tables.scan import read_text
from shared.tables.times import seconds_of

COLUMNS = {"shopper": "user", "item": "item", "time": "ts"}
ADA = "ada@example.com"
ROWS = f"{ADA},tea,2024-01-02 19:50:40 UTC\nbob@example.com,ink,2024-01-03 19:50:40 UTC\n"
HEADED = [(ADA, "tea"), ("bob@example.com", "ink")]


def events(path: Path, content: str = "") -> EventTable:
    if content:
        path.write_text(content, encoding="utf-8")
    return EventTable(path, path.suffix[1:], COLUMNS)  # type: ignore[arg-type]


def refused(table: EventTable) -> str:
    with pytest.raises(DataError) as caught:
        read_text(table)
    message = str(caught.value)
    assert "\n" not in message
    assert "example" not in message
    return message


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace("2024", "Jan 2024"),
        ROWS.replace(",", ";"),
        ROWS.replace("tea", '6" tea'),
        f'{ADA},tea,2024\nbob,6 inch,x\nbob,6" inch,x\n',
        f"{ADA},{ADA},x\n",
        ROWS + "one field\n",
    ],
    ids=["UTC", "words", "semicolon", "quote", "later quote", "twice", "short row"],
)
def test_events_without_a_header_put_no_shopper_into_the_message(tmp_path: Path, text: str) -> None:
    message = refused(events(tmp_path / "e.csv", text))
    assert "no column 'user': " in message
    assert "name the columns there" in message


def test_names_of_events_that_are_values_are_not_listed(tmp_path: Path) -> None:
    by_shopper = [{ADA: {"item": "tea"}, "user1@example.com": 1}]
    (tmp_path / "e.jsonl").write_text(json.dumps(by_shopper[0]) + "\n")
    assert "no mapped column is in the file" in refused(events(tmp_path / "e.jsonl"))
    pl.DataFrame(by_shopper).write_parquet(tmp_path / "e.parquet")
    assert "no mapped column is in the file" in refused(events(tmp_path / "e.parquet"))
    for row in ({"item": "tea", "by": {ADA: 1}}, {"item": "tea", "ts": 1, "user": {ADA: 1}}):
        message = refused(events(tmp_path / "e.jsonl", json.dumps(row) + "\n"))
        assert "columns.shopper" in message


def test_a_misspelt_column_of_events_is_still_named(tmp_path: Path) -> None:
    message = refused(events(tmp_path / "e.csv", "usr,item,ts\nu,tea,1\n"))
    assert "no column 'user', nearest 'usr'; the columns are usr, item, ts" in message


def test_a_backup_in_a_folder_is_no_part(tmp_path: Path) -> None:
    folder = tmp_path / "e.csv"
    folder.mkdir()
    for name in ("a.csv", "a.csv.bak", "a.csv.old", "a.csv~"):
        (folder / name).write_text("user,item,ts\n" + ROWS)
    assert read_text(events(folder)).rows.height == 2
    (folder / "b.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")  # a part that cannot be read
    refused(events(folder))


@pytest.mark.parametrize("name", ["i.csv", "i.tsv"])
def test_items_of_one_column_need_no_separator(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("item\nred tea\nblue ink\n")
    form = "csv" if name == "i.csv" else "tsv"
    table = ItemTable(tmp_path / name, form, {"item": "item", "text": "item"})  # type: ignore[arg-type]
    assert read_text(table).rows["text"].to_list() == ["red tea", "blue ink"]
    (tmp_path / name).write_text("item\nred tea\nblue,\tink\n")
    with pytest.raises(DataError, match="row 2 has 2 fields, the header 1"):
        read_text(table)


@pytest.mark.parametrize("header", ["user, item, ts", " user ,item ,ts", "user,item,ts"])
def test_spaces_around_the_names_of_columns_are_left_out(tmp_path: Path, header: str) -> None:
    rows = read_text(events(tmp_path / "e.csv", f"{header}\n{ROWS}")).rows
    assert rows.select("shopper", "item").rows() == HEADED


def test_a_column_that_occurs_twice_but_for_spaces_is_refused(tmp_path: Path) -> None:
    text = "user,item, item,ts\nu,tea,ink,1\n"
    assert "the column 'item' occurs twice" in refused(events(tmp_path / "e.csv", text))


@pytest.mark.parametrize("first", ["sep=;\n", "sep=;\r\n", '"sep=;"\r\n', "\ufeffsep=;\r\n"])
def test_the_line_in_which_excel_names_the_separator_is_no_header(
    tmp_path: Path, first: str
) -> None:
    ends = "\r\n" if "\r" in first else "\n"
    lines = ["user;item;ts", *ROWS.replace(",", ";").splitlines()]
    path = tmp_path / "e.csv"
    path.write_bytes((first + "".join(line + ends for line in lines)).encode())
    read = read_text(events(path))
    assert read.rows.select("row", "shopper", "item").rows() == [
        (number, *row) for number, row in enumerate(HEADED, start=1)
    ]
    assert (read.blank, read.words) == (0, ("separator ';'",))
    assert remove_rows(events(path), lambda shopper: shopper == ADA).rows == 1
    left = first + "".join(line + ends for line in lines if ADA not in line)
    assert path.read_bytes() == left.encode()


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (("20240102", "1704225040"), "row 1 holds a date without separators, row 2 does not"),
        (("1704225040", "1704225041", "20240102.0"), "row 3 holds a date without separators"),
        (("20240102", "20240230"), "row 1 holds a date without separators, row 2 does not"),
    ],
)
def test_dates_without_separators_beside_other_numbers_are_refused(
    times: tuple[str, ...], said: str
) -> None:
    rows = pl.DataFrame({"row": range(1, len(times) + 1), "time": times})
    with pytest.raises(DataError) as caught:
        seconds_of(rows, events(Path("e.csv")))
    message = str(caught.value)
    assert f"column 'ts' has mixed time formats: {said}" in message
    assert not any(time in message for time in times)
