from __future__ import annotations

import gzip
import os
from pathlib import Path

import polars as pl
import pytest

import shared.tables.records as records
import shared.tables.row_removal as row_removal
from shared.errors import DataError
from shared.tables.config import EventTable
from shared.tables.formats import TableFormat
from shared.tables.row_removal import remove_rows, rows_of, sha256_of
from shared.tables.scan import read_text

COLUMNS = {"shopper": "who", "item": "what", "order": "n"}
CSV = b"""who,what,n,note
ada,pen,1,"a ""quoted"", note
over two lines"
bob,cup,2, spaces stay\x20
ada ,ink,3,x

"ada",oak,4,y
Ada,red,5,z
"bob",tea,6,"""
TSV = CSV.replace(b'"a ""quoted"", note\nover two lines"', b'5" wide').replace(b'"', b"")
TSV = TSV.replace(b",", b"\t")
JSONL = b"""{"who": "ada", "what": "pen", "n": 1}

{ "what":"cup", "who":"bob",  "n": 2.50 }
  \n{"who": "ada", "what": "\\u00e9", "n": 3, "note": "x"}
{"who": "bob", "what": "tea", "n": 4}"""


def is_ada(shopper: str) -> bool:
    return shopper == "ada"


def table_of(path: Path, form: TableFormat) -> EventTable:
    return EventTable(path, form, COLUMNS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("form", "content", "stay"),  # numbers of the lines that stay
    [("csv", CSV, (0, 3, 5, 7, 8)), ("tsv", TSV, (0, 2, 4, 6, 7)), ("jsonl", JSONL, (1, 2, 3, 5))],
)
def test_the_other_rows_of_a_text_file_stay_as_they_are_to_the_byte(
    form: TableFormat,
    content: bytes,
    stay: tuple[int, ...],
    ends: bytes,
    packed: bool,
    tmp_path: Path,
) -> None:
    path, content = tmp_path / f"events.{form}", content.replace(b"\n", ends)
    path.write_bytes(gzip.compress(content) if packed else content)
    before = sha256_of(path)
    told = remove_rows(table_of(path, form), is_ada)
    lines = content.splitlines(keepends=True)
    wanted = [lines[number] for number in stay if number < len(lines)]
    raw = path.read_bytes()
    assert (gzip.decompress(raw) if packed else raw) == b"".join(wanted)
    assert (told.before, told.after) == (before, sha256_of(path))
    assert told.rows == (2 if form == "jsonl" else 3)
    assert remove_rows(table_of(path, form), is_ada).rows == 0
    assert sha256_of(path) == told.after


def test_parquet_keeps_types_values_and_notes_of_the_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    frame = pl.DataFrame(
        {
            "who": [7, 8, 7, 9],
            "what": ["a", "b", "c", None],
            "n": [1.5, 2.5, 3.5, 4.5],
            "row": [["x"], [], None, ["y", "z"]],
        },
        schema_overrides={"who": pl.Int32},
    )
    frame.write_parquet(path, metadata={"pandas": "{}", "made by": "the export"})
    told = remove_rows(table_of(path, "parquet"), lambda shopper: shopper == "7")
    assert told.rows == 2
    left = pl.read_parquet(path)
    assert left.equals(frame.filter(pl.col("who") != 7))
    assert left.schema == frame.schema
    notes = pl.read_parquet_metadata(path)
    assert (notes["pandas"], notes["made by"]) == ("{}", "the export")
    assert remove_rows(table_of(path, "parquet"), lambda _shopper: True).rows == 2
    assert pl.read_parquet(path).schema == frame.schema


def test_a_table_of_this_shopper_alone_is_left_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_bytes(b"who\twhat\tn\nada\tpen\t1\nada\tcup\t2\n")
    assert remove_rows(table_of(path, "tsv"), is_ada).rows == 2
    assert path.read_bytes() == b"who\twhat\tn\n"


def test_the_reader_says_which_rows_are_a_shopper_s(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(CSV)
    rows = rows_of(table_of(path, "csv"), is_ada)
    assert rows.rows() == [(1, "ada"), (3, "ada"), (5, "ada")]


def test_a_file_behind_a_link_is_rewritten_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "events.csv", tmp_path / "events.csv"
    real.write_bytes(CSV)
    real.chmod(0o640)
    link.symlink_to(real)
    assert remove_rows(table_of(link, "csv"), is_ada).rows == 3
    assert link.is_symlink()
    assert b"ada" not in real.read_bytes().replace(b"Ada", b"")
    assert real.stat().st_mode & 0o777 == 0o640
    assert [it.name for it in real.parent.iterdir()] == ["events.csv"]


def test_rows_that_cannot_be_taken_out_alone_leave_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(CSV)
    whole = records.records_of

    def one_off(*given: object) -> object:
        return ((number + 1, record) for number, record in whole(*given))  # type: ignore[arg-type]

    monkeypatch.setattr(row_removal, "records_of", one_off)
    with pytest.raises(DataError, match="cannot be taken out of it alone") as refused:
        remove_rows(table_of(path, "csv"), is_ada)
    assert "ada" not in str(refused.value).replace(str(path), "")
    assert path.read_bytes() == CSV
    assert [it.name for it in tmp_path.iterdir()] == ["events.csv"]


def test_a_table_that_is_exported_anew_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(CSV)
    newer = CSV + b"\ncyd,pen,7,\n"
    check = row_removal._check

    def exported(*given: object) -> None:
        check(*given)  # type: ignore[arg-type]
        part = path.with_name("new")
        part.write_bytes(newer)
        os.replace(part, path)

    monkeypatch.setattr(row_removal, "_check", exported)
    with pytest.raises(DataError, match="changed while it was read"):
        remove_rows(table_of(path, "csv"), is_ada)
    assert path.read_bytes() == newer
    assert read_text(table_of(path, "csv")).rows["shopper"].to_list()[-1] == "cyd"
