"""Files as real programs export them: read as they are meant, or refused by row, column and key."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from shared.errors import ConfigError, DataError
from shared.tables.config import load_platform, platform_from
from shared.tables.dump import dump_platform
from shared.tables.table import PlatformRows, read_platform

NAMES = ("red tea pot", "blue hose", "oak desk lamp", "wool scarf")
PAIRS = [(f"u{s}", f"i{(s + k) % 4}") for s in range(3) for k in range(3)]
START = 1704225040
TIMES = [START + 86_400 * number for number in range(len(PAIRS))]


def csv_events(times: list[object] | None = None, separator: str = ",") -> str:
    lines = [("user", "item", "ts")]
    lines += [(*pair, str(at)) for pair, at in zip(PAIRS, times or TIMES, strict=True)]
    return "".join(separator.join(line) + "\n" for line in lines)


def json_events(more: str = "") -> str:
    rows = zip(PAIRS, TIMES, strict=True)
    return "".join(f'{{"user": "{u}", "item": "{i}", "ts": {at}{more}}}\n' for (u, i), at in rows)


ITEMS = "item,title\n" + "".join(f"i{at},{name}\n" for at, name in enumerate(NAMES))
EVENTS = csv_events()


def read(
    folder: Path,
    events: str | bytes | None = EVENTS,
    items: str | bytes | None = ITEMS,
    *,
    names: tuple[str, str] = ("e.csv", "items.csv"),
    event_keys: dict[str, object] | None = None,
    item_keys: dict[str, object] | None = None,
) -> PlatformRows:
    """What is read of two tables; None leaves a file that is there."""
    for name, content in zip(names, (events, items), strict=True):
        if content is not None:
            data = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(data)
    columns = {"shopper": "user", "item": "item", "time": "ts"}
    mapping = {
        "platform": {"name": "t"},
        "events": {"path": names[0], "columns": columns, **(event_keys or {})},
        "items": {
            "path": names[1],
            "columns": {"item": "item", "title": "title"},
            **(item_keys or {}),
        },
    }
    config = platform_from(mapping, where="p.toml", base=folder)
    (folder / "written.toml").write_text(dump_platform(config))
    assert load_platform(folder / "written.toml") == config
    return read_platform(config)


def told(folder: Path, *tables: str | bytes | None, **more: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, *tables, **more)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_quotes_escaped_with_backslashes_lose_no_item(tmp_path: Path) -> None:
    items = 'item,title\ni0,red\ni1,"hose 6\\" wide"\ni2,oak\ni3,"knife, 8\\" \\\\ long"\n'
    rows = read(tmp_path, items=items)
    assert rows.catalogue.texts == ("red", 'hose 6" wide', "oak", 'knife, 8" \\ long')
    assert rows.report.written == ("items: quotes escaped with backslashes",)


def test_a_backslash_before_a_quote_that_may_end_the_field_is_asked_for(tmp_path: Path) -> None:
    items = 'item,title\ni0,"C:\\"\ni1,"x"\ni2,"D:\\"\ni3,y\n'
    rows = read(tmp_path, items=items, item_keys={"escape": "double"})
    assert rows.catalogue.texts == ("C:\\", "x", "D:\\", "y")
    both = 'item,title,more\ni0,"a\\",b"\ni1,x,y\ni2,x,y\ni3,x,"y"\n'
    assert "items.csv: row 1" in told(tmp_path, EVENTS, both)


def test_a_quote_in_a_bare_field_is_named_by_row_and_column(tmp_path: Path) -> None:
    items = ITEMS.replace("blue hose", 'blue hose 6" wide')
    message = told(tmp_path, EVENTS, items)
    assert "row 2, column 'title' has a quote inside a field that is not quoted" in message
    assert 'set quote = "" in [items]' in message
    rows = read(tmp_path, items=items, item_keys={"quote": ""})
    assert rows.catalogue.texts[1] == 'blue hose 6" wide'


def test_no_row_is_swallowed_by_a_quote(tmp_path: Path) -> None:
    for items in (
        'item,title\ni0,"red\ni1,blue\ni2,oak\ni3,wool\n',
        'item,title\ni0,"red" pot\ni1,blue\ni2,"oak\ni3,wool\n',
        'item,title\ni0, "red\ni1,blue"\ni2,oak\ni3,wool\n',
    ):
        assert "items.csv: row 1, column 'title' has a quote" in told(tmp_path, EVENTS, items)
    assert "row 2 has 1 fields, the header 2" in told(tmp_path, EVENTS, ITEMS.replace("i1,", "i1"))


@pytest.mark.parametrize("name", ["e[1].jsonl", "e*.jsonl", "{e}?.jsonl", "e!.jsonl"])
def test_a_path_is_literal_and_no_other_file_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data [2024]"
    folder.mkdir()
    for other in ("e1.jsonl", "e_old.jsonl", "e.jsonl", "{e}x.jsonl"):
        (folder / other).write_text(json_events().replace('"u', '"other-u'))
    rows = read(folder, json_events(), names=(name, "items.csv"))
    assert rows.histories.shoppers == ("u0", "u1", "u2")


def test_a_mapped_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    twice = EVENTS.replace("ts\n", "ts,ts\n").replace("\nu", ",0\nu")[:-1] + ",0\n"
    assert "the column 'ts' occurs twice" in told(tmp_path, twice)
    message = told(tmp_path, json_events(', "ts": 0'), names=("e.jsonl", "items.csv"))
    assert "row 1 has the key 'ts' twice" in message
    read(tmp_path, json_events(', "more": {"ts": 0}'), names=("e.jsonl", "items.csv"))


@pytest.mark.parametrize("word", ["NA", "None", "NULL", "null", "NaN", "\\N", "n/a", ""])
def test_a_null_word_is_no_shopper_and_is_counted(tmp_path: Path, word: str) -> None:
    guests = "".join(f"{word},i{n % 4},{START + n}\n" for n in range(6))
    rows = read(tmp_path, EVENTS + guests)
    assert rows.histories.shoppers == ("u0", "u1", "u2")
    assert "dropped 6 events without shopper or item" in rows.report.lines()
    assert any(line.startswith("warning: 40%") for line in rows.report.lines())


def test_null_words_can_be_set(tmp_path: Path) -> None:
    items = ITEMS.replace("i3,", "NA,")
    rows = read(
        tmp_path,
        EVENTS.replace("i3", "NA"),
        items,
        event_keys={"null_words": [""]},
        item_keys={"null_words": [""]},
    )
    assert "NA" in rows.catalogue.items
    assert rows.report.missing_keys == 0


def test_separator_and_decimal_comma_are_detected_and_reported(tmp_path: Path) -> None:
    events = csv_events([f"{at},5" for at in TIMES], ";")
    rows = read(tmp_path, events)
    assert rows.report.written == ("events: separator ';', decimal comma",)
    assert rows.events["order"].min() == START + 0.5
    for separator in ("\t", "|"):
        assert read(tmp_path, csv_events(None, separator)).report.events == len(PAIRS)
    assert read(tmp_path).report.written == ()


def test_a_comma_that_may_separate_thousands_is_asked_for(tmp_path: Path) -> None:
    columns = {"item": "item", "title": "title", "price": "cost"}
    items = "item;title;cost\n" + "".join(f"i{n};{t};1,250\n" for n, t in enumerate(NAMES))
    keys: dict[str, object] = {"columns": columns}
    message = told(tmp_path, EVENTS, items, item_keys=keys)
    assert "row 1, column 'cost' has a comma, which may be decimal or separate thousands" in message
    rows = read(tmp_path, items=items, item_keys={**keys, "decimal": ","})
    assert rows.catalogue.attributes["price"][0] == 1.25
    assert "row 1, column 'cost': '1,250'" in told(
        tmp_path, EVENTS, items, item_keys={**keys, "decimal": "."}
    )


def test_a_header_that_two_separators_split_is_asked_for(tmp_path: Path) -> None:
    events = EVENTS.replace("user,item,ts", "user,item,ts;user;item;ts;,,")
    columns = {"shopper": "user", "item": "item", "order": "ts"}
    message = told(tmp_path, events, event_keys={"columns": columns})
    assert "set the key separator" in message or "occurs twice" in message or "fields" in message


def test_other_encodings_are_read_or_named(tmp_path: Path) -> None:
    latin = ITEMS.replace("red", "thé").encode("cp1252")
    message = told(tmp_path, EVENTS, latin)
    assert "row 1, column 'title' is not UTF-8; save the file as UTF-8" in message
    rows = read(tmp_path, items=latin, item_keys={"encoding": "cp1252"})
    assert rows.catalogue.texts[0] == "thé tea pot"
    wide = ITEMS.replace("red", "茶").encode("utf-16")
    assert read(tmp_path, items=wide).report.written == ("items: encoding utf-16",)
    assert "row 1 is not ascii" in told(
        tmp_path, latin, latin, item_keys={"encoding": "ascii"}
    ) or ("not UTF-8" in told(tmp_path, EVENTS, latin, item_keys={"encoding": "ascii"}))
    with pytest.raises(ConfigError, match="text encoding"):
        read(tmp_path, item_keys={"encoding": "rot13"})


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, name: str) -> None:
    text = EVENTS if name == "e.csv" else json_events()
    rows = read(tmp_path, b"\xef\xbb\xbf" + text.encode(), names=(name, "items.csv"))
    assert rows.report.events == len(PAIRS)


def test_quotes_in_tsv_are_taken_off_kept_or_asked_for(tmp_path: Path) -> None:
    names = ("e.csv", "items.tsv")
    items = ITEMS.replace(",", "\t")
    inch = items.replace("blue", '6" blue')
    assert read(tmp_path, items=inch, names=names).catalogue.texts[1] == '6" blue hose'
    pandas = items.replace("blue hose", '"6"" blue\those"')
    assert read(tmp_path, items=pandas, names=names).catalogue.texts[1] == '6" blue hose'
    either = items.replace("blue hose", '"blue hose"')
    assert "row 2 has a field in quotes" in told(tmp_path, EVENTS, either, names=names)
    for quote, text in (("", '"blue hose"'), ('"', "blue hose")):
        rows = read(tmp_path, items=either, names=names, item_keys={"quote": quote})
        assert rows.catalogue.texts[1] == text


DAYS = [f"2024-01-{day:02}" for day in range(2, 11)]


@pytest.mark.parametrize(
    "times",
    [
        [f"{day} 19:50:40 UTC" for day in DAYS],
        [f"{day.replace('-', '')}T195040Z" for day in DAYS],
        [f"{day.replace('-', '')}T1950" for day in DAYS],
        [f"{day.replace('-', '')}T215040.5+0200" for day in DAYS],
        [day.replace("-", "") for day in DAYS],
        [day.replace("-", "") + "195040" for day in DAYS],
    ],
    ids=["BigQuery", "basic", "basic minutes", "basic zone", "date", "14 digits"],
)
def test_times_of_common_exports_are_read(tmp_path: Path, times: list[object]) -> None:
    days = read(tmp_path, csv_events(times)).histories.days
    assert days is not None
    assert sorted(days.tolist()) == list(range(19724, 19733))


@pytest.mark.parametrize(
    "times", [list(range(9)), [f"01{day:02}" for day in range(2, 11)], [START // 1000] * 9]
)
def test_a_counter_or_a_month_and_day_is_no_time(tmp_path: Path, times: list[object]) -> None:
    message = told(tmp_path, csv_events(times))
    assert "every time in column 'ts' would be before 1990" in message
    assert "map a counter as order" in message


def parquet(folder: Path, **columns: object) -> None:
    users, items = zip(*PAIRS, strict=True)
    pl.DataFrame({"user": users, "item": items, "ts": TIMES, **columns}).write_parquet(
        folder / "e.parquet"
    )


def test_a_folder_of_parquet_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "e.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    users, items = zip(*PAIRS, strict=True)
    whole = pl.DataFrame({"user": users, "item": items, "ts": TIMES})
    whole[:4].write_parquet(folder / "part-0.snappy.parquet")
    whole[4:].write_parquet(folder / "part-1.snappy.parquet")
    names = ("e.parquet", "items.csv")
    rows = read(tmp_path, None, names=names)
    assert (rows.report.events, rows.report.written) == (9, ("events: 2 part files",))
    (folder / "day=1").mkdir()
    assert "the folder holds other folders" in told(tmp_path, None, names=names)


def test_bytes_are_read_as_text_or_as_uuids_or_named(tmp_path: Path) -> None:
    names = ("e.parquet", "items.csv")
    users = [bytes([255, int(user[1:])]) + bytes(14) for user, _ in PAIRS]
    parquet(tmp_path, user=users)
    assert read(tmp_path, None, names=names).histories.shoppers[1] == (
        "ff010000-0000-0000-0000-000000000000"
    )
    parquet(tmp_path, user=[user.encode() for user, _ in PAIRS])
    assert read(tmp_path, None, names=names).histories.shoppers == ("u0", "u1", "u2")
    parquet(tmp_path, user=[user[:9] for user in users])
    assert "column 'user' holds bytes (Binary)" in told(tmp_path, None, names=names)


def test_a_parquet_file_that_makes_polars_panic_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parquet(tmp_path)

    class Panic(BaseException):
        """As pyo3's PanicException, which cannot be made by hand."""

    def scan(*_args: object, **_more: object) -> None:
        os.write(2, b"thread panicked at u1")
        raise Panic("u1")

    monkeypatch.setattr(pl, "scan_parquet", scan)
    message = told(tmp_path, None, names=("e.parquet", "items.csv"))
    assert "damaged, cut short or another format" in message
    assert capfd.readouterr().err == ""


def test_a_deeply_nested_row_is_one_line(tmp_path: Path) -> None:
    deep = json_events() + '{"user": ' + "[" * 50_000 + "]" * 50_000 + "}\n"
    message = told(tmp_path, deep, names=("e.jsonl", "items.csv"))
    assert "row 10 is nested too deeply" in message or "row 10 is not a JSON" in message


def test_a_long_header_is_cut_in_the_message(tmp_path: Path) -> None:
    for header in ("[" * 100_000, '"' * 1500, "," * 50_000):
        assert len(told(tmp_path, f"{header}\nx\n")) < 2000
