from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.daemon import main
from shared.pairs import load_pairs

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
KINDS = ("tent", "kettle", "lamp", "boots", "rope")
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "brown", "grey", "pink", "gold")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two shops that sell 80 things between them, 20 of them both."""
    folder = tmp_path_factory.mktemp("shops")
    sold = [
        f"{size} {colour} {kind}"
        for size in ("large", "small")
        for kind in KINDS
        for colour in COLOURS
    ]
    found = []
    for name, part in (("north", sold[:50]), ("south", sold[30:80])):
        path = folder / f"{name}.csv"
        lines = (f"{text.replace(' ', '-')},{text}" for text in part)
        path.write_text("\n".join(["item,text", *lines]) + "\n")
        found.append(path)
    return found


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        (["--nearest", "3"], 80 * 3 / 2, 80 * 3),
        ([], 80 * 40 / 2, 80 * 40),
        (["--shoppers", "10"], 80 * 40 / 2, 80 * 40),
        (["--shoppers", "100000"], 80 * 79 / 2, 80 * 79 / 2),
    ],
)
def test_a_list_is_as_long_as_is_said_or_as_the_federation_is_large(
    typed: Typed, tables: list[Path], tmp_path: Path, options: list[str], least: int, most: int
) -> None:
    out = tmp_path / "pairs.safetensors"
    code, told, _err = typed(main, "pairs", *tables, "--out", out, *options)
    pairs = load_pairs(out)
    assert code == 0
    assert told.splitlines() == [
        f"{len(pairs):,} pairs of 80 items",
        f"pairs {pairs.digest}",
        str(out),
    ]
    assert len(pairs.items) == 80
    assert least <= len(pairs) <= most


@pytest.mark.parametrize(
    "options",
    [
        ["--shoppers", "9", "--nearest", "3"],
        ["--met", "--nearest", "3"],
        ["--met", "--shoppers", "9"],
    ],
)
def test_what_says_twice_which_pairs_are_listed_is_refused(
    refused: Refused, tables: list[Path], tmp_path: Path, options: list[str]
) -> None:
    told = refused(main, "pairs", *tables, "--out", tmp_path / "pairs.safetensors", *options)
    assert told == "--met, --nearest and --shoppers each say which pairs are listed; give one"


def test_a_list_that_is_there_is_not_replaced_unasked(
    refused: Refused, tables: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "pairs.safetensors"
    out.write_text("mine")
    assert "is there already" in refused(main, "pairs", *tables, "--out", out)
    assert out.read_text() == "mine"
