"""Whatever is wrong with a command's input: one line that names it, exit code 2, nothing left."""

from __future__ import annotations

import gc
import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clients.daemon import main as atoll_client
from clients.platform import Platform, open_platform
from server.daemon import main as atoll_server
from shared.adapter import save_adapter
from shared.tables.config import load_platform
from simulations.cli import main as atoll_sim

Refused = Callable[..., str]
Make = Callable[..., Path]
Spoil = Callable[[Path], None]


def edit(name: str, old: str, new: str) -> Spoil:
    """Replaces the first match of a pattern in a file of a folder."""

    def spoil(folder: Path) -> None:
        text, count = re.subn(old, new, (folder / name).read_text(), count=1, flags=re.S)
        assert count == 1
        (folder / name).write_text(text)

    return spoil


def rename_in_toml(folder: Path, old: str, new: str) -> None:
    """In the platform's file, or in the scenario above it."""
    for path in (*folder.glob("*.toml"), *folder.parent.glob("*.toml")):
        path.write_text(path.read_text().replace(old, new))


def times(folder: Path) -> None:
    rename_in_toml(folder, 'order = "pos"', 'time = "pos"')
    edit("interactions.tsv", "\t1\n", "\t2024-05-01\n")(folder)


def cut_gz(folder: Path) -> None:
    path = folder / "interactions.tsv"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (folder / "interactions.tsv.gz").write_bytes(packed[: len(packed) // 2])
    rename_in_toml(folder, "a/interactions.tsv", "a/interactions.tsv.gz")
    rename_in_toml(folder, '"interactions.tsv"', '"interactions.tsv.gz"')


def latin(folder: Path) -> None:
    path = folder / "items.tsv"
    path.write_bytes(path.read_bytes().replace(b"a-03\t", b"a-03\tth\xe9 ", 1))


SHORT = "user\titem\tpos\nx\ta-00\t1\ny\ta-01\t1\n"
# How to spoil the tables of platform "a", and what must be told of them.
BAD_TABLES: dict[str, tuple[Spoil, str]] = {
    "missing file": (lambda folder: (folder / "items.tsv").unlink(), "items.tsv: no such file"),
    "missing column": (
        edit("interactions.tsv", "user", "usr"),
        "interactions.tsv: no column 'user', nearest 'usr'",
    ),
    "empty table": (edit("interactions.tsv", "\n.*", "\n"), "interactions.tsv: the table is empty"),
    "empty file": (edit("items.tsv", ".*", ""), "items.tsv: the table is empty"),
    "one shopper": (
        edit("interactions.tsv", r"(shopper-00\t[^\n]*\t3\n).*", r"\1"),
        "interactions.tsv: holds one shopper only",
    ),
    "short histories": (
        edit("interactions.tsv", ".*", SHORT),
        "interactions.tsv: fewer than two shoppers have the 3 events",
    ),
    "item without text": (
        edit("items.tsv", r"(a-03\t)[a-z ]*", r"\1"),
        "items.tsv: row 4, column 'text' is empty: an item needs text",
    ),
    "mixed times": (times, "interactions.tsv: column 'pos' has mixed time formats: row 1 holds"),
    "not UTF-8": (latin, "items.tsv: row 4, column 'text' is not UTF-8"),
    "NaN": (
        edit("interactions.tsv", "\t2\n", "\tNaN\n"),
        "interactions.tsv: row 3, column 'pos' is empty",
    ),
    "infinity": (
        edit("interactions.tsv", "\t2\n", "\tinf\n"),
        "interactions.tsv: row 3, column 'pos' is not a finite number",
    ),
    "too many fields": (
        edit("interactions.tsv", "\t2\n", "\t2\t9\n"),
        "interactions.tsv: row 3 has 4 fields, the header 3",
    ),
    "truncated gz": (cut_gz, "interactions.tsv.gz: the gz file is cut short or damaged"),
}


@pytest.fixture(params=list(BAD_TABLES))
def bad(request: pytest.FixtureRequest) -> tuple[Spoil, str]:
    return BAD_TABLES[request.param]


@pytest.mark.parametrize("command", [["check"], ["recommend", "--history", "a-03"], ["compare"]])
def test_a_platform_with_bad_tables_is_told(
    command: list[str],
    bad: tuple[Spoil, str],
    refused: Refused,
    make_platform: Make,
    tmp_path: Path,
) -> None:
    path = make_platform(tmp_path / "a", "a")
    bad[0](path.parent)
    assert refused(atoll_client, *command, "-p", path).startswith(f"{path.parent}/{bad[1]}")


def test_pretraining_on_bad_tables_is_told(
    bad: tuple[Spoil, str], refused: Refused, make_platform: Make, encoder: Path, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "a", "a")
    bad[0](path.parent)
    out = tmp_path / "out" / "b.safetensors"
    line = refused(atoll_server, "pretrain", path, "--out", out, "--encoder", encoder)
    assert line.startswith(f"{path.parent}/{bad[1]}")


@pytest.mark.parametrize("command", [["run"], ["compare"], ["compare", "--json"]])
def test_a_scenario_with_bad_tables_is_told(
    command: list[str],
    bad: tuple[Spoil, str],
    refused: Refused,
    make_scenario: Make,
    cache: Path,
    tmp_path: Path,
) -> None:
    path = make_scenario(tmp_path)
    bad[0](tmp_path / "a")
    out = tmp_path / "out"
    line = refused(atoll_sim, *command, path, "--out", out, "--cache", cache)
    assert line.startswith(f"{tmp_path}/a/{bad[1]}")


@pytest.mark.parametrize("shape", ["three events each", "always the same item"])
def test_histories_that_cannot_be_learnt_from_or_tested_on_are_told_before_any_round(
    shape: str, refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path)
    events = tmp_path / "a" / "interactions.tsv"
    same = shape == "always the same item"
    rows = [
        f"{shopper}\ta-{0 if same else place:02}\t{place}"
        for shopper in range(6)
        for place in range(5 if same else 3)
    ]
    events.write_text("\n".join(["user\titem\tpos", *rows]) + "\n")
    line = refused(atoll_sim, "compare", path, "--out", tmp_path / "out", "--cache", cache)
    assert line.startswith(f"{events}: ")


def test_a_bad_table_of_the_last_platform_leaves_nothing_of_the_first(
    refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path)
    (tmp_path / "c" / "items.tsv").unlink()
    line = refused(atoll_sim, "compare", path, "--out", tmp_path / "out", "--cache", cache)
    assert line.startswith(f"{tmp_path}/c/items.tsv: no such file")


def test_bad_tables_are_told_before_a_backbone_is_made(
    refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path, backbone=None)
    path.write_text(path.read_text().replace("[backbone]", "[backbone]\nsource_scale = 0.01"))
    (tmp_path / "a" / "items.tsv").unlink()
    line = refused(atoll_sim, "compare", path, "--out", tmp_path / "out", "--cache", cache)
    assert line.startswith(f"{tmp_path}/a/items.tsv: no such file")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[items]", "[itms]", "unknown key 'itms'; the nearest known key is 'items'"),
        ('name = "a"', 'nam = "a"', "unknown key 'platform.nam'; the nearest known key is"),
        ('shopper = "user", ', "", "missing key 'events.columns.shopper'; write"),
        ("weight = 1.0", "weight = nan", "'platform.weight' is NaN"),
        ("weight = 1.0", "weight = ", "not TOML"),
        ('name = "a"', 'name = "caf\udce9"', "line 3 is not UTF-8"),
    ],
)
def test_a_platform_file_that_is_wrong_names_the_key(
    old: str, new: str, told: str, refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, "a")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new), errors="surrogateescape")
    assert refused(atoll_client, "check", "-p", path).startswith(f"{path}: {told}")


def test_a_scenario_with_an_unknown_key_names_the_nearest(
    refused: Refused, make_scenario: Make, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path, more="[federaton]\nrounds = 2")
    line = refused(atoll_sim, "compare", path, "--out", tmp_path / "out")
    assert line == f"{path}: unknown key 'federaton'; the nearest known key is 'federation'"


def test_a_file_that_is_not_there_is_told(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert refused(atoll_client, "check", "-p", path).startswith(f"{path}: no such file")
    assert refused(atoll_sim, "run", path).startswith(f"{path}: no such scenario")


@pytest.fixture
def opened(make_platform: Make, tmp_path: Path) -> Platform:
    """A platform with a cache of its own, which is warm."""
    path = make_platform(tmp_path / "a", "a", cache=tmp_path / "cache")
    return open_platform(load_platform(path))


RECOMMEND = ("recommend", "--history", "a-03", "--platform")


def test_an_unreadable_cache_is_named(
    refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "a", "a", cache=tmp_path / "cache")
    open_platform(load_platform(path))  # it fills the cache, and nothing keeps it in memory
    gc.collect()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"no vectors")
    line = refused(atoll_client, *RECOMMEND, path)
    assert line.startswith(f"{file}: the cached item vectors cannot be read")
    assert line.endswith("delete this file; it is made again")


@pytest.mark.parametrize("option", ["--cache", "--out"])
def test_a_folder_that_cannot_be_made_is_named(
    option: str, refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path / "s")
    (tmp_path / "taken").write_text("a file")
    folders = {"--cache": cache, "--out": tmp_path / "out", option: tmp_path / "taken"}
    words = [word for pair in folders.items() for word in pair]
    assert refused(atoll_sim, "compare", path, *words).startswith(f"{tmp_path}/taken")


def test_an_adapter_of_another_backbone_is_named(
    opened: Platform, refused: Refused, tmp_path: Path
) -> None:
    adapter = tmp_path / "other.safetensors"
    save_adapter(replace(opened.untrained, backbone="x" * 64), adapter)
    line = refused(atoll_client, *RECOMMEND, tmp_path / "a" / "platform.toml", "--adapter", adapter)
    assert line.startswith(f"{adapter}: belongs to backbone xxxxxxxxxxxx…, this one is ")
    assert line.endswith("use the backbone it was trained with")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data[: len(data) // 2], "not a readable adapter"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "contents hash to"),
        (lambda _: b"", "not a readable adapter"),
        (None, "no such adapter file"),
    ],
    ids=["cut short", "one bit", "empty", "missing"],
)
def test_a_damaged_adapter_is_named(
    spoil: Callable[[bytes], bytes] | None,
    told: str,
    opened: Platform,
    refused: Refused,
    tmp_path: Path,
) -> None:
    adapter = tmp_path / "a.safetensors"
    if spoil is not None:
        save_adapter(opened.untrained, adapter)
        adapter.write_bytes(spoil(adapter.read_bytes()))
    line = refused(atoll_client, *RECOMMEND, tmp_path / "a" / "platform.toml", "--adapter", adapter)
    assert line.startswith(f"{adapter}: {told}")


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 64], ids=["missing", "empty", "zeros"])
def test_a_backbone_that_is_missing_or_damaged_is_named(
    content: bytes | None, refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    backbone = tmp_path / "b.safetensors"
    if content is not None:
        backbone.write_bytes(content)
    path = make_scenario(tmp_path / "s", backbone=backbone)
    line = refused(atoll_sim, "run", path, "--out", tmp_path / "out", "--cache", cache)
    assert line.startswith(f"{backbone}: {'not a readable' if content is not None else 'no such'}")
