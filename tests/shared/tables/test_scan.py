from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from shared.errors import DataError
from shared.tables.config import EventTable
from shared.tables.formats import TableFormat
from shared.tables.scan import read_text

ROLES = {"shopper": "user", "item": "item", "order": "pos"}
ROWS = [("shopper-a", "ink", "1"), ("shopper-a", 'pen 6" long', "2"), ("shopper-b", "cup", "1")]
TSV = "user\titem\tpos\n" + "".join("\t".join(row) + "\n" for row in ROWS)
CSV = TSV.replace("\t", ",").replace('pen 6" long', '"pen 6"" long"')
JSONL = "".join(json.dumps({"user": u, "item": i, "pos": int(p)}) + "\n" for u, i, p in ROWS)
FRAME = pl.DataFrame(ROWS, schema=list(ROLES.values()), orient="row")


def table(path: Path, columns: dict[str, str] = ROLES) -> EventTable:
    """The format is the suffix; `.gz` says nothing about what the bytes are."""
    form: dict[str, TableFormat] = {
        ".csv": "csv",
        ".tsv": "tsv",
        ".jsonl": "jsonl",
        ".parquet": "parquet",
    }
    return EventTable(path, form[Path(path.name.removesuffix(".gz")).suffix], columns)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, columns: dict[str, str] = ROLES) -> str:
    """What reading complains of: one line, the file first, the next step last, no shopper."""
    with pytest.raises(DataError) as caught:
        read_text(table(path, columns))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message.removeprefix(f"{path}: ")
    assert "\n" not in message
    assert "shopper-" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(("name", "text"), [("e.tsv", TSV), ("e.csv", CSV), ("e.jsonl", JSONL)])
def test_every_text_format_reads_the_same_plain_or_gzipped(
    tmp_path: Path, name: str, text: str, gz: bool
) -> None:
    data = text.encode()
    path = tmp_path / (f"{name}.gz" if gz else name)
    read = read_text(table(written(path, gzip.compress(data) if gz else data)))
    rows, blank = read.rows, read.blank
    assert rows.columns == ["row", "shopper", "item", "order"]
    assert rows.rows() == [(number, *row) for number, row in enumerate(ROWS, start=1)]
    assert blank == 0


def test_parquet_reads_the_same(tmp_path: Path) -> None:
    FRAME.with_columns(pl.col("pos").cast(pl.Int64)).write_parquet(tmp_path / "e.parquet")
    rows = read_text(table(tmp_path / "e.parquet")).rows
    assert rows.drop("row").rows() == ROWS


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n").encode()
    rows = read_text(table(written(tmp_path / "e.tsv", data))).rows
    assert rows.drop("row").rows() == ROWS


def test_a_quoted_csv_field_may_hold_commas_and_line_breaks(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", 'user,item,pos\na,"pen, black\nor blue",1\n')
    assert read_text(table(path)).rows["item"].to_list() == ["pen, black\nor blue"]


@pytest.mark.parametrize("name", ["e[1].tsv", "e*.jsonl"])
def test_a_path_with_wildcard_characters_is_one_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, TSV if "tsv" in name else JSONL)
    assert read_text(table(path)).rows.drop("row").rows() == ROWS


def test_what_stands_for_nothing_becomes_null_and_blank_rows_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "e.tsv", TSV + "\n\t\t\n a \tNaN\tNULL\n")
    read = read_text(table(path))
    rows, blank = read.rows, read.blank
    assert rows.row(-1) == (6, "a", None, None)
    assert blank == 2


@pytest.mark.parametrize(
    "time",
    [date(2020, 1, 1), datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)],
    ids=["date", "datetime", "zone"],
)
def test_parquet_s_own_times_come_as_seconds(tmp_path: Path, time: date) -> None:
    columns = {"user": ["a"], "item": ["pen"], "pos": [time]}
    pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
    (order,) = read_text(table(tmp_path / "e.parquet")).rows["order"]
    assert float(order) == 1577836800.0


MANY = "user\titem\tpos\n" + "".join(f"shopper-{n}\tpen\t{n}\n" for n in range(9000))
CUT = "the gz file is cut short or damaged; copy or write it anew"

BAD: dict[str, tuple[str, str | bytes, str]] = {
    "empty file": ("e.tsv", "", "the table is empty; give a table that has rows"),
    "header only": ("e.tsv", "user\titem\tpos\n", "the table is empty"),
    "blank rows only": ("e.tsv", "user\titem\tpos\n\t\t\n\n", "the table is empty"),
    "empty gz": ("e.tsv.gz", gzip.compress(b""), "the table is empty"),
    "empty jsonl": ("e.jsonl", "", "the table is empty"),
    "column missing": (
        "e.tsv",
        TSV.replace("user", "usr"),
        "no column 'user', nearest 'usr'; the columns are usr, item, pos; mend columns.shopper",
    ),
    "key missing in jsonl": (
        "e.jsonl",
        JSONL.replace("pos", "rank"),
        "no column 'pos'; the columns are user, item, rank; mend columns.order",
    ),
    "header missing": ("e.tsv", TSV.partition("\n")[2], "the first row is data or not UTF-8; name"),
    "header missing, other separator": ("e.csv", TSV.partition("\n")[2], "first row is data"),
    "too many fields": (
        "e.tsv",
        f"{TSV}shopper-a\tpen\t1\tmore\n",
        "row 4 has 4 fields, the header 3; mend or remove the row",
    ),
    "too many fields in csv": ("e.csv", f'{CSV}shopper-a,"a,b",1,2\n', "row 4 has 4 fields"),
    "too many fields in gz": (
        "e.tsv.gz",
        gzip.compress(f"{TSV}shopper-a\tpen\t1\tmore\n".encode()),
        "row 4 has 4 fields, the header 3",
    ),
    "not UTF-8": (
        "e.tsv",
        TSV.encode() + b"shopper-a\tcaf\xe9\t1\n",
        "row 4, column 'item' is not",
    ),
    "not UTF-8 in csv": (
        "e.csv",
        CSV.encode() + b"shopper-a,caf\xe9,1\n",
        "row 4, column 'item' is not",
    ),
    "not UTF-8 in jsonl": ("e.jsonl", JSONL.encode() + b'{"user": "\xe9"}\n', "row 4 is not UTF-8"),
    "UTF-16 without its mark": ("e.tsv", TSV.encode("utf-16-le"), "the first row is data or not"),
    "gz cut in half": ("e.tsv.gz", gzip.compress(MANY.encode())[:9000], CUT),
    "gz without its end": ("e.tsv.gz", gzip.compress(TSV.encode())[:-6], CUT),
    "gz with a wrong sum": ("e.tsv.gz", gzip.compress(TSV.encode())[:-8] + bytes(8), CUT),
    "gz cut in its head": ("e.tsv.gz", gzip.compress(TSV.encode())[:5], CUT),
    "gz of jsonl cut": ("e.jsonl.gz", gzip.compress(JSONL.encode())[:-9], CUT),
    "quote not closed": (
        "e.csv",
        f'{CSV}shopper-a,"pen,1\nshopper-b,ink,2\n',
        "row 4, column 'item' has a quote that is not closed; write each",
    ),
    "json not closed": ("e.jsonl", f'{JSONL}{{"user": "shopper-a",\n', "row 4 is not a JSON ob"),
    "a list in jsonl": ("e.jsonl", f"{JSONL}[1, 2]\n", "row 4 is not a JSON object"),
    "NaN in jsonl": ("e.jsonl", f'{JSONL}{{"pos": NaN}}\n', "row 4 is not a JSON object"),
    "text as jsonl": ("e.jsonl", TSV, "row 1 is not a JSON object"),
    "text as Parquet": ("e.parquet", TSV, "cannot be read as parquet: damaged, cut short or"),
}


@pytest.mark.parametrize(("name", "content", "told"), BAD.values(), ids=BAD.keys())
def test_a_bad_table_is_refused_by_file_place_and_next_step(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    assert told in refused(written(tmp_path / name, content))


@pytest.mark.parametrize("name", ["e.tsv", "e.csv.gz", "e.jsonl", "e.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name).startswith("no such file; mend its path")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "e.csv").mkdir()
    assert refused(tmp_path / "e.csv").startswith("no such file")


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "e.parquet")
    written(tmp_path / "e.parquet", (tmp_path / "e.parquet").read_bytes()[:-20])
    assert "damaged, cut short" in refused(tmp_path / "e.parquet")


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"user": [["a", "b"]]}).write_parquet(tmp_path / "e.parquet")
    message = refused(tmp_path / "e.parquet", {"shopper": "user"})
    assert "column 'user' holds List(String), not one value a row; mend columns.shopper" in message


def test_a_row_with_too_many_fields_is_refused_though_they_are_not_mapped(tmp_path: Path) -> None:
    path = written(tmp_path / "e.tsv", f"{TSV}shopper-a\tpen\t1\tmore\n")
    assert "row 4 has 4 fields, the header 3" in refused(path, {"shopper": "user"})


def test_a_row_is_counted_once_however_many_lines_it_takes(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", 'user,item,pos\na,"two\nlines",1\nb,c,2,3\n')
    assert "row 2 has 4 fields" in refused(path)
