from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.beside import remembered
from clients.daemon import main
from clients.platform import Platform, open_platform
from clients.recommend import history_of, recommend
from shared.adapter import save_adapter
from shared.tables.config import load_platform

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def shop(make_platform: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_platform(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def opened(shop: Path) -> Platform:
    return open_platform(load_platform(shop))


def printed(typed: Typed, *words: str | Path) -> Any:
    """The one JSON value a command prints; it must print nothing else, and no error."""
    code, out, err = typed(main, *words)
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--history", "shop-03,shop-99"], "shop: item 'shop-99' is not in the catalogue"),
        (["--history", " , "], "shop: the History is empty"),
        (["--shopper", "nobody"], "no History of this shopper"),
        ([], "need either --history or --shopper, or --item; give exactly one"),
        (["--item", "shop-03,shop-04"], "shop: item 'shop-03,shop-04' is not in the catalogue"),
        (["--history", "shop-03", "--shopper", "x"], "need either --history or --shopper"),
    ],
)
def test_a_history_that_cannot_be_used_is_told(
    words: list[str], told: str, refused: Refused, shop: Path
) -> None:
    assert refused(main, "recommend", "-p", shop, *words).startswith(told)


def test_check_tells_what_was_read_and_dropped(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    with (tmp_path / "interactions.tsv").open("a") as events:
        events.write("shop-shopper-00\tno-such-item\t9\n")
    code, out, _ = typed(main, "check", "-p", path)
    assert code == 0
    lines = out.splitlines()
    assert lines.pop(3).endswith(": 0.0% of the catalogue's tokens are unknown to it")
    assert lines == [
        "shop: read 46 rows of events",  # ten shoppers of four and five events, and one more
        "shop: dropped 1 events of items not in the catalogue",
        "shop: kept 45 events of 10 shoppers, 16 items",
        "shop: unprotected: whatever it trains leaves as it is",
    ]
    report = printed(typed, "check", "-p", path, "--json")
    assert (report["platform"], report["rows"], report["unknown_items"]) == ("shop", 46, 1)


def test_check_warns_of_a_catalogue_that_the_encoder_cannot_read(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    rows = (tmp_path / "items.tsv").read_text().splitlines()
    texts = [f"{row.split(chr(9))[0]}\ttea 茶壶{at}" for at, row in enumerate(rows[1:])]
    (tmp_path / "items.tsv").write_text("\n".join([rows[0], *texts]) + "\n", encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark
    code, out, _ = typed(main, "check", "-p", path)
    assert code == 0
    assert "warning: the encoder cannot read these texts" in out
    assert "multilingual encoder" in out
    assert printed(typed, "check", "-p", path, "--json")["unknown_tokens"] == 0.75


def test_check_refuses_what_compare_would_refuse(
    refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    short = [f"s{s}\tshop-0{k}\t{k}\n" for s in range(3) for k in range(3)]
    (tmp_path / "interactions.tsv").write_text("user\titem\tpos\n" + "".join(short))
    assert "no History has the 4 events that training needs" in refused(main, "check", "-p", path)


def test_an_item_whose_identifier_holds_a_comma_can_be_named(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    for name in ("interactions.tsv", "items.tsv"):
        file = tmp_path / name
        file.write_text(file.read_text().replace("shop-03", "shop,03"))
    words = ("recommend", "-p", path, "--no-memory")
    found = printed(typed, *words, "--item", "shop-07", "--item", "shop,03", "--json")
    assert {"shop,03", "shop-07"}.isdisjoint(line["item"] for line in found)


def test_check_tells_of_sections_by_their_name(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    text = path.read_text()
    start = text.index("[privacy]")
    end = text.find("\n[", start)
    path.write_text(text[:start] + (text[end:] if end > 0 else ""))
    code, out, _ = typed(main, "check", "-p", path)
    assert code == 0
    assert out.splitlines()[-1] == "shop: no [privacy] section: trains for nobody"


def test_check_refuses_a_backbone_that_is_named_and_missing(
    refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, backbone=tmp_path / "gone.safetensors")
    assert "gone.safetensors: no such backbone file; make one" in refused(main, "check", "-p", path)


def test_check_reads_tables_before_there_is_a_backbone(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    path.write_text(path.read_text().replace("[backbone]\npath", "[backbone]\n# path"))
    assert typed(main, "check", "-p", path)[0] == 0


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_check_refuses_a_lower_bound_above_the_shoppers_in_either_form(
    form: list[str], refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    plan = "epsilon = 3.0\nshoppers_at_least = 11\nsampling_rate = 0.5\nsteps = 2\nrounds = 2"
    path = make_platform(tmp_path, privacy=plan)
    told = refused(main, "check", "-p", path, *form)
    assert told.startswith("[privacy]: shoppers_at_least 11 is more than there are; set a public")


def test_a_slate_as_json_is_the_slate(typed: Typed, shop: Path, opened: Platform) -> None:
    words = ("recommend", "-p", shop, "--history", "shop-03, shop-07", "--count", "4", "--json")
    history = ["shop-03", "shop-07"]
    for form, beside in (("--memory", remembered(opened, None)[0]), ("--no-memory", None)):
        found = printed(typed, *words, form)
        expected = recommend(opened, opened.untrained, history, count=4, beside=beside)
        assert [line["item"] for line in found] == [line.item for line in expected.lines]
        assert list(found[0]) == ["item", "text", "score", "learnt", "popular", "reasons"]
        assert found[0]["score"] == pytest.approx(expected.lines[0].score)
        assert sorted(found[0]["reasons"][0]) == ["item", "share", "text", "together"]
    assert printed(typed, *words) == printed(typed, *words, "--memory")


def test_sums_without_a_list_of_pairs_or_own_memory_are_refused(
    refused: Refused, shop: Path, tmp_path: Path
) -> None:
    words = ("recommend", "-p", shop, "--history", "shop-03", "--sums", tmp_path / "s.safetensors")
    assert "leave --no-memory out" in refused(main, *words, "--no-memory")
    assert "has no [sums] section" in refused(main, *words)


def test_a_known_shopper_stands_for_their_history(
    typed: Typed, shop: Path, opened: Platform
) -> None:
    history = ",".join(history_of(opened, "shop-shopper-02"))
    words = ("recommend", "-p", shop, "--json")
    known = printed(typed, *words, "--shopper", "shop-shopper-02")
    assert known == printed(typed, *words, "--history", history)


def test_an_adapter_changes_the_slate(
    typed: Typed, shop: Path, opened: Platform, tmp_path: Path
) -> None:
    untrained = opened.untrained
    moved = untrained.plus({k: v + 1 for k, v in untrained.tensors.items()}, version=1)
    save_adapter(moved, tmp_path / "a.safetensors")
    words = ("recommend", "-p", shop, "--history", "shop-03", "--json")
    plain = printed(typed, *words)
    learnt = printed(typed, *words, "--adapter", tmp_path / "a.safetensors")
    assert {line["learnt"] for line in plain} != {line["learnt"] for line in learnt}


def test_a_slate_for_people_shows_texts_as_they_are(
    typed: Typed, make_platform: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = make_platform(tmp_path)
    rows = (tmp_path / "items.tsv").read_text().splitlines()
    # Brackets are common in titles, and markup to the library that draws the table.
    marked = [rows[0], *(f"{row} [bold] [/]" for row in rows[1:])]
    (tmp_path / "items.tsv").write_text("\n".join(marked) + "\n")
    code, out, err = typed(main, "recommend", "-p", path, "--history", "shop-03", "--count", "3")
    assert code == 0, err
    assert out.count("[bold] [/] shop-") == 3
