"""An erased shopper is known in every spelling, in every kind of table, and in no other's cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clients import settled
from clients.erasure import erase
from clients.erasure_plan import Request
from clients.erasure_record import verify_record
from shared.errors import ColumnError, DataError
from shared.tables.config import load_platform
from shared.tables.erasure_list import load_list
from shared.tables.table import read_platform

Make = Callable[..., Path]
ADA = "shop-shopper-03"
# As it is written in the table, and as other rows write it.
SPELLINGS = (ADA, ADA.upper(), "Shop-Shopper-03")
OTHERS = ADA.upper(), "Shop-Shopper-03"


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    """A platform on which three spellings of one shopper have enough rows each."""
    path = make_platform(tmp_path, cache=tmp_path / "cache")
    table = tmp_path / "interactions.tsv"
    rows = [f"{name}\tshop-{at:02}\t{at}\n" for name in OTHERS for at in range(4)]
    table.write_text(table.read_text() + "".join(rows))
    return path


def keyed(path: Path, key: str = "") -> Path:
    """The same platform with another line in [events], or none."""
    lines = [it for it in path.read_text().splitlines() if not it.startswith("normalise")]
    lines.insert(lines.index("[items]"), key)
    path.write_text("\n".join(lines))
    return path


def request_of(path: Path, *shoppers: str, **more: Any) -> Request:
    config = load_platform(path)
    return Request(config=config, file=path, home=path.parent / "none", shoppers=shoppers, **more)


def names(path: Path) -> set[str]:
    return set(read_platform(load_platform(path)).histories.shoppers)


NORMALISE = 'normalise = ["case", "spaces"]'


@pytest.mark.parametrize("asked", ["Shop-shopper-03 ", ADA, ADA.upper()])
@pytest.mark.parametrize("rewrite", [True, False])
def test_every_spelling_is_erased_and_stays_out_when_normalise_goes(
    shop: Path, asked: str, rewrite: bool
) -> None:
    table = shop.parent / "interactions.tsv"
    before = table.read_text()
    mine = [line for line in before.splitlines() if line.lower().startswith(ADA)]
    keyed(shop, NORMALISE)
    assert ADA in names(shop)
    outcome = erase(request_of(shop, asked, rewrite=rewrite))
    assert outcome.complete == rewrite
    (shopper,) = outcome.facts["shoppers"]  # one person, however it is spelt
    assert (shopper["rows"], shopper["new"]) == (len(mine), True)
    if rewrite:
        assert table.read_text() == "".join(
            f"{line}\n" for line in before.splitlines() if line not in mine
        )
        table.write_text(before)  # an old export
    listed = load_list(load_platform(shop).events.erased)
    assert listed is not None
    assert all(spelling in listed for spelling in SPELLINGS)
    assert ADA not in names(shop)
    assert not names(keyed(shop)) & set(SPELLINGS)
    report = read_platform(load_platform(shop)).report
    assert report.erased_rows == len(mine)
    again = erase(request_of(shop, *SPELLINGS, rewrite=True))
    assert again.complete
    assert table.read_text().lower().count(ADA) == 0


def test_a_list_that_is_older_than_normalise_erases_the_other_spellings_too(shop: Path) -> None:
    first = erase(request_of(shop, ADA))
    assert "2 other shoppers differ from an erased one in case alone" in str(first.facts)
    assert names(shop) >= set(OTHERS)
    keyed(shop, NORMALISE)
    assert ADA not in names(shop)
    cache = settled.place_of(load_platform(shop))
    assert cache is not None
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(b"fitted to the other spellings")
    second = erase(request_of(shop))  # without a shopper: the list is applied again
    assert second.record is not None
    assert not cache.exists()
    assert not names(keyed(shop)) & set(SPELLINGS)


def test_a_shopper_that_was_listed_before_normalise_is_no_unknown_one(shop: Path) -> None:
    table = shop.parent / "interactions.tsv"
    erase(request_of(shop, *SPELLINGS, rewrite=True))
    assert ADA not in table.read_text()
    keyed(shop, NORMALISE)
    assert erase(request_of(shop, ADA.upper(), rewrite=True)).complete
    with pytest.raises(DataError, match="no row of this shopper"):
        erase(request_of(shop, "nobody-here", rewrite=True))


def test_a_null_word_is_no_shopper_and_nothing_changes(shop: Path) -> None:
    table = shop.parent / "interactions.tsv"
    table.write_text(f"{table.read_text()}NULL\tshop-01\t1\n")
    before = {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")}
    for absent in (True, False):
        with pytest.raises(DataError, match="identifier 2 is the null word 'NULL'"):
            erase(request_of(shop, ADA, " NULL ", absent=absent))
    assert {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")} == before
    keyed(shop, 'null_words = [""]')  # where it is a shopper's own name
    assert erase(request_of(shop, "NULL", rewrite=True)).complete
    assert "NULL" not in table.read_text()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_folder_of_parts_is_erased_from_and_recorded(
    shop: Path, form: str, tmp_path: Path
) -> None:
    frame = pl.read_csv(shop.parent / "interactions.tsv", separator="\t")
    frame = frame.filter(~pl.col("user").is_in(OTHERS))
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, part in enumerate(frame.iter_slices(8)):
        part.write_parquet(folder / f"part-{number}.{form}") if form == "parquet" else (
            part.write_csv(folder / f"part-{number}.{form}")
        )
    shutil.copytree(folder, tmp_path / "old")
    killed = folder / f".part-0.{form}.atoll-0123abcd"  # a process that was killed left this
    backup = folder / f".part-0.{form}.20240102"  # somebody's own, dated
    for path in (killed, backup):
        path.write_bytes(b"rows")
        os.utime(path, (1.0, 1.0))
    shop.write_text(
        shop.read_text().replace('path = "interactions.tsv"', f'path = "parts"\nformat = "{form}"')
    )
    dry = erase(request_of(shop, ADA, rewrite=True), dry_run=True)
    outcome = erase(request_of(shop, ADA, rewrite=True, copies=(tmp_path / "old",)))
    assert outcome.complete
    assert outcome.record is not None
    assert ADA not in names(shop)
    own, copy = verify_record(outcome.record)["facts"]["tables"]
    assert (own["rows_removed"], own["rows_left"]) == (len(frame.filter(user=ADA)), 0)
    assert dry.facts["tables"][0]["rows_removed"] == own["rows_removed"]
    assert own["sha256_before"] != own["sha256_after"]
    assert (own["file"], copy["file"], own["note"]) == ("parts", "old", "")
    assert not killed.exists()
    assert backup.exists()
    for place in (folder, tmp_path / "old"):
        assert all(ADA.encode() not in it.read_bytes() for it in place.iterdir())


def test_a_table_that_rows_cannot_be_taken_out_of_is_told_in_the_record(shop: Path) -> None:
    table = shop.parent / "orders.jsonl"
    table.write_text(
        '{"lines": [{"user": "ada", "item": "shop-01", "pos": 1}]}\n'
        '{"lines": [{"user": "ada", "item": "shop-01", "pos": 1},'
        ' {"user": "bob", "item": "shop-02", "pos": 2}]}\n'
    )
    before = table.read_bytes()
    columns = '{ shopper = "lines.user", item = "lines.item", order = "lines.pos" }'
    text = shop.read_text().replace('"interactions.tsv"', '"orders.jsonl"\nexplode = "lines"')
    shop.write_text(text.replace('{ shopper = "user", item = "item", order = "pos" }', columns))
    outcome = erase(request_of(shop, "ada", rewrite=True))
    assert not outcome.complete
    assert "rows cannot be taken out of it alone; remove these rows" in str(
        outcome.facts["remaining"]
    )
    assert outcome.facts["tables"][0]["rows_left"] == 2
    assert table.read_bytes() == before


@pytest.mark.parametrize("content", [b"PAR1 no table PAR1", b"", b"\x00" * 50])
def test_a_damaged_copy_is_one_line_and_nothing_changes(
    shop: Path, content: bytes, tmp_path: Path
) -> None:
    for name in ("old.parquet", "old.jsonl"):
        copy = tmp_path / name
        copy.write_bytes(content)
        if not content and name == "old.jsonl":
            continue  # a table without rows has none of them
        with pytest.raises((DataError, ColumnError)) as refused:
            erase(request_of(shop, ADA, copies=(copy,)))
        assert len(str(refused.value).splitlines()) == 1
        assert not (tmp_path / "shop.erased").exists()


def test_platforms_of_one_name_have_weights_of_their_own_in_the_user_s_cache(
    make_platform: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    paths = [make_platform(tmp_path / name) for name in ("one", "two")]
    for path in paths:
        lines = path.read_text().splitlines()
        path.write_text("\n".join(it for it in lines if not it.startswith("cache")))
    places = []
    for path in paths:
        place = settled.place_of(load_platform(path))
        assert place is not None
        place.write_bytes(b"weights")
        places.append(place)
    assert places[0] != places[1]
    outcome = erase(request_of(paths[0], ADA, rewrite=True))
    assert [it["what"] for it in outcome.facts["deleted"]] == [
        "cache of how the platform's own signals are weighed"
    ]
    assert [place.exists() for place in places] == [False, True]
    # A link to the newest export, and another name of the folder, are the same platform.
    config = load_platform(paths[1])
    (tmp_path / "link").symlink_to(tmp_path / "two")
    linked = replace(config, events=replace(config.events, path=tmp_path / "link/interactions.tsv"))
    assert settled.place_of(linked) == places[1]
