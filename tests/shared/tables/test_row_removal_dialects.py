r"""Rows are taken out of tables in every way of writing that the reader knows, or out of none."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shared.errors import DataError
from shared.tables.config import EventTable
from shared.tables.dialect import Dialect
from shared.tables.formats import TableFormat
from shared.tables.row_removal import remove_rows, rows_of, sha256_of, sha256_of_table
from shared.tables.scan import read_text

COLUMNS = {"shopper": "who", "item": "what", "order": "n"}
LINES = ["who,what,n\n", "ada,pen,1\n", "bob,té,2\n", "ada,ink,3\n", "bob,cup,4\n"]
ADA = (1, 3)  # of LINES


def is_ada(shopper: str) -> bool:
    return shopper == "ada"


def table_of(path: Path, form: TableFormat, **more: Any) -> EventTable:
    return EventTable(path, form, COLUMNS, **more)


def check(
    path: Path, form: TableFormat, records: list[bytes], mine: tuple[int, ...], **how: Any
) -> None:
    """Takes these records out of a file of all of them, plain and gzipped."""
    for packed in (False, True):
        raw = b"".join(records)
        path.write_bytes(gzip.compress(raw) if packed else raw)
        table = table_of(path, form, dialect=Dialect(**how))
        assert remove_rows(table, is_ada).rows == len(mine)
        left = path.read_bytes()
        wanted = b"".join(it for at, it in enumerate(records) if at not in mine)
        assert (gzip.decompress(left) if packed else left) == wanted
        assert "ada" not in read_text(table).rows["shopper"].to_list()


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16-le", None),
        ("utf-16-be", None),
        ("utf-16-le", "utf-16"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32-le", None),
        ("cp1252", "cp1252"),
        ("gbk", "gbk"),
        ("utf-8", None),
        ("utf-8", "utf-8-sig"),
    ],
)
def test_other_encodings_keep_every_other_byte(
    encoding: str, named: str | None, ends: str, tmp_path: Path
) -> None:
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    marks |= {"utf-32-le": codecs.BOM_UTF32_LE, "utf-8": codecs.BOM_UTF8}
    records = [line.replace("\n", ends).encode(encoding) for line in LINES]
    records[0] = marks.get(encoding, b"") + records[0]
    check(tmp_path / "e.csv", "csv", records, ADA, encoding=named)
    objects = [
        json.dumps(dict(zip(COLUMNS.values(), line.strip().split(","), strict=True)))
        for line in LINES[1:]
    ]
    encoded = [marks.get(encoding, b""), *((it + ends).encode(encoding) for it in objects)]
    check(tmp_path / "e.jsonl", "jsonl", encoded, (1, 3), encoding=named)


@pytest.mark.parametrize(
    ("form", "how", "records", "mine"),
    [
        (
            "csv",
            {"separator": ";", "quote": "'"},
            [
                *("\n", "\r\n", "who;what;n\n", "ada;'a\n''b\n';1\n", 'bob;"x;2\n'),
                *("'ada';'z;\n';3\n", "\n", "bob;'it''s\n\n';4\n", "\n", "ada;x;5"),
            ],
            (3, 5, 9),
        ),
        (
            "csv",
            {},  # `\"` is detected
            [
                *("who,what,n\n", 'ada,"6\\" \nhose",1\n', 'bob,"6\\" \nhose",2\n'),
                *('"ada",b,3\n', 'bob,"a \\\\",4\n'),
            ],
            (1, 3),
        ),
        (
            "csv",
            {"escape": "backslash"},
            ["who,what,n\n", 'ada,"6\\",\n",1\n', 'bob,"a\\"\n\\"",2\n', 'ada,"\\"\n",3\n'],
            (1, 3),
        ),
        ("csv", {"quote": ""}, ["who,what,n\n", 'ada,6",1\n', 'bob,7",2\n', 'ada,"8,3\n'], (1, 3)),
        ("tsv", {}, ["who\twhat\tn\n", 'ada\t6"\t1\n', "bob\tx\t2\n", 'ada\t7"\t3\n'], (1, 3)),
        (
            "tsv",
            {"quote": '"'},
            ["who\twhat\tn\n", 'ada\t"6\n"\t1\n', 'bob\t"a\n\t"\t2\n', 'ada\t"7"\t3\n'],
            (1, 3),
        ),
        ("csv", {}, ["who|what|n\r\n", "ada|x|1\r\n", "\r\n", "bob|y|2\r\n", "ada|z|3"], (1, 4)),
        ("csv", {}, ["who,what,n\r", "ada,x,1\r", "bob,y,2\r", "ada,z,3\r", "bob,y,4"], (1, 3)),
        ("csv", {}, ["\ufeffwho,what,n\n", "\n", "ada,x,1\n", "\n", "bob,y,2\n"], (2,)),
    ],
)
def test_other_ways_to_write_fields_keep_every_other_byte(
    form: TableFormat,
    how: dict[str, Any],
    records: list[str],
    mine: tuple[int, ...],
    tmp_path: Path,
) -> None:
    check(tmp_path / f"e.{form}", form, [it.encode() for it in records], mine, **how)


def test_bytes_that_the_encoding_would_write_in_another_way_are_refused_and_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "e.csv"
    # A needless change to ASCII: decoded and encoded again, the line has other bytes.
    text = "who,what,n\nada,p,1\nbob,q,2\n".encode("iso2022_jp")
    path.write_bytes(text.replace(b"p,1\n", b"p,1\x1b(B\n"))
    before = path.read_bytes()
    with pytest.raises(DataError, match="rows cannot be taken out of it alone"):
        remove_rows(table_of(path, "csv", dialect=Dialect(encoding="iso2022_jp")), is_ada)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def parts_of(folder: Path, form: TableFormat, *, packed: bool = False) -> list[Path]:
    """Four parts: rows of both, of bob alone, of ada alone, and none."""
    frame = pl.DataFrame({"who": list("abba"), "what": list("wxyz"), "n": [1, 2, 3, 4]})
    frame = frame.with_columns(pl.col("who").replace({"a": "ada", "b": "bob"}))
    folder.mkdir()
    paths = []
    for number, part in enumerate((frame[:2], frame[2:3], frame[3:], frame[:0])):
        path = folder / f"part-{number}.{form}"
        if form == "parquet":
            part.write_parquet(path)
        elif form == "csv":
            part.write_csv(path)
        else:
            part.write_ndjson(path)
        if packed:
            path.write_bytes(gzip.compress(path.read_bytes()))
            path = path.rename(f"{path}.gz")
        paths.append(path)
    (folder / "_SUCCESS").touch()
    return paths


@pytest.mark.parametrize(
    ("form", "packed"),
    [("parquet", False), ("csv", False), ("csv", True), ("jsonl", False), ("jsonl", True)],
)
def test_of_a_folder_only_the_parts_with_such_rows_are_written_again(
    form: TableFormat, packed: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    paths = parts_of(folder, form, packed=packed)
    table = table_of(folder, form)
    before = [sha256_of(path) for path in paths]
    told = remove_rows(table, is_ada)
    assert told.rows == 2
    assert [sha256_of(it) == old for it, old in zip(paths, before, strict=True)] == [
        *(False, True, False, True)
    ]
    assert read_text(table).rows.select("shopper", "item").rows() == [("bob", "x"), ("bob", "y")]
    assert rows_of(table, is_ada).is_empty()
    assert remove_rows(table, is_ada).rows == 0
    assert told.after == sha256_of_table(table) != told.before
    lines = "".join(f"{sha256_of(path)}  {path.name}\n" for path in paths)  # of sha256sum
    assert told.after == hashlib.sha256(lines.encode()).hexdigest()
    assert len(list(folder.iterdir())) == 5


def test_a_part_that_cannot_be_rewritten_leaves_all_parts_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    paths = parts_of(folder, "jsonl")
    # Without ada's row nobody could read the column n in this part.
    paths[2].write_text('{"who": "ada", "what": "z", "n": 4}\n{"who": "bob", "what": "y"}\n')
    before = [path.read_bytes() for path in paths]
    with pytest.raises(DataError, match="rows cannot be taken out of it alone"):
        remove_rows(table_of(folder, "jsonl"), is_ada)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(folder.iterdir())) == 5


ORDERS = [
    {"who": "ada", "lines": [{"what": "x", "n": 1}, {"what": "y", "n": 2}]},
    {"who": "bob", "lines": [{"what": "x", "n": 3}]},
    {"who": "ada", "lines": []},
    {"who": "bob", "lines": [{"what": "z", "n": 4}, {"what": "x", "n": 5}]},
]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_whole_nested_orders_of_a_shopper_are_taken_out(form: TableFormat, tmp_path: Path) -> None:
    path = tmp_path / f"orders.{form}"
    columns = {"shopper": "who", "item": "lines.what", "order": "lines.n"}
    if form == "parquet":
        pl.DataFrame(ORDERS).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(order) + "\n" for order in ORDERS))
    table = EventTable(path, form, columns, explode="lines")
    assert remove_rows(table, is_ada).rows == 3
    assert read_text(table).rows["item"].to_list() == ["x", "z", "x"]
    if form == "jsonl":
        assert path.read_text() == "".join(json.dumps(ORDERS[at]) + "\n" for at in (1, 3))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_list_of_several_shoppers_rows_is_left_as_it_was(
    form: TableFormat, tmp_path: Path
) -> None:
    path = tmp_path / f"days.{form}"
    lines = [{"who": "ada", "what": "x", "n": 1}, {"who": "bob", "what": "y", "n": 2}]
    days = [{"day": 1, "lines": lines}, {"day": 2, "lines": lines[:1]}, {"day": 3, "lines": lines}]
    if form == "parquet":
        pl.DataFrame(days).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(day) + "\n" for day in days))
    before = path.read_bytes()
    columns = {role: f"lines.{name}" for role, name in COLUMNS.items()}
    table = EventTable(path, form, columns, explode="lines")
    with pytest.raises(DataError, match=r"rows of other shoppers too: .* cannot be taken out"):
        remove_rows(table, is_ada)
    assert path.read_bytes() == before


def test_a_parquet_file_whose_other_columns_are_damaged_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    note = [random.Random(row).randbytes(5_000).hex() for row in range(4)]
    frame = pl.DataFrame({"who": ["ada", "bob"] * 2, "what": list("wxyz"), "n": [1, 2, 3, 4]})
    frame.with_columns(note=pl.Series(note)).write_parquet(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 2_000] = bytes(2_000)
    path.write_bytes(raw)
    table = table_of(path, "parquet")
    assert read_text(table).rows.height == 4
    with pytest.raises(DataError, match="a column is damaged"):
        remove_rows(table, is_ada)
    assert path.read_bytes() == raw
    assert list(tmp_path.iterdir()) == [path]


def test_spellings_that_are_normalised_alike_go_together_in_all_parts(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    (folder / "a.csv").write_text("who,what,n\nAda  L,x,1\nbob,y,2\n")
    (folder / "b.csv").write_text("who,what,n\nADA l,x,3\nbob,y,4\n")
    table = table_of(folder, "csv", normalise=("case", "spaces"))
    for asked in ("ada l", "Ada  L", "ADA l"):  # as normalised, or as one part spells it
        rows = rows_of(table, lambda name, asked=asked: name == asked)  # type: ignore[misc]
        assert rows.rows() == [(1, "Ada  L"), (3, "ADA l")]
    assert remove_rows(table, lambda name: name == "Ada  L").rows == 2
    assert (folder / "a.csv").read_text() == "who,what,n\nbob,y,2\n"
    assert (folder / "b.csv").read_text() == "who,what,n\nbob,y,4\n"


def test_a_column_called_row_is_read_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("row,who,what,n\n7,ada,x,1\n8,bob,y,2\n")
    assert remove_rows(table_of(path, "csv"), is_ada).rows == 1
    assert path.read_text() == "row,who,what,n\n8,bob,y,2\n"
