from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from simulations.cli import NAMES, seed_lines
from simulations.columns import LEAST, fit, folded
from simulations.html import LONG, heading, shortened
from simulations.report import terminal_table

LETTERS = st.text("abcXYZ019-_", min_size=1, max_size=64)


def entry(score: float) -> dict[str, Any]:
    ci95 = {"ndcg@10": [score, score]}
    row = {"n": 9, "hr@10": score, "ndcg@10": score, "mrr": score, "ci95": ci95, "kept": None}
    told = {"relative": 0.2, "verdict": "no clear difference", "difference": 0.1, "ci95": [0, 1]}
    scorers = {"local": row, "federated": row, "federated ε=8": row}
    return {"scorers": scorers, "federated_vs_local": {**told, "p": 0.5}}


def shown(names: list[str], width: int) -> list[str]:
    """The lines of the comparison's table of these platforms on a terminal of this width."""
    metrics = {
        "title": "Shops",
        "scorers": ["local", "federated", "federated ε=8"],
        "platforms": {name: entry(place / 1000) for place, name in enumerate(names, start=1)},
    }
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(terminal_table(metrics, width=width))
    return captured.get().splitlines()


@given(LETTERS, st.integers(1, 70))
def test_a_folded_name_is_the_name_in_lines_that_fit(name: str, width: int) -> None:
    lines = folded(name, width)
    assert "".join(lines) == name
    assert all(0 < len(line) <= width for line in lines)


@given(st.lists(LETTERS, min_size=1, max_size=12), st.integers(14, 250))
def test_columns_fit_the_terminal_and_every_platform_has_one(
    names: list[str], available: int
) -> None:
    columns = fit(names, available=available)
    assert columns.side_by_side * (columns.width + 2) <= available or columns.side_by_side == 1
    assert [name for band in columns.bands(names) for name in band] == names


def test_names_break_after_a_dash_and_not_within_a_word() -> None:
    assert folded("boutique-milano-outlet", 10) == ["boutique-", "milano-", "outlet"]
    assert folded("a-bcdefghijklm", 10) == ["a-bcdefghi", "jklm"]


@pytest.mark.parametrize("width", [80, 120, 200, 400])
@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_a_table_of_names_of_64_letters_fits_any_terminal(count: int, width: int) -> None:
    names = [f"platform-{place:02d}-" + "q" * 52 for place in range(count)]
    lines = shown(names, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for place in range(1, count + 1):
        assert text.count(f" {place / 1000:.4f}") == 3
    assert text.count("q") == 52 * count


def test_a_wide_terminal_shows_names_in_full_on_one_line() -> None:
    names = ["boutique-barcelona", "boutique-copenhagen", "boutique-shanghai", "outlet"]
    lines = shown(names, 120)
    assert any(all(name in line for name in names) for line in lines)
    assert max(map(len, lines)) <= 120
    assert not any(all(name in line for name in names) for line in shown(names, 80))


def test_short_names_stand_five_in_a_row_in_80_columns() -> None:
    assert fit(["shop"] * 5, available=64).side_by_side == 5
    assert fit(["shop"] * 5, available=64).width == LEAST
    assert fit(["shop"] * 6, available=64).side_by_side == 3  # bands of one height


def test_seeds_of_a_long_name_stand_below_it() -> None:
    rows = [[name, "local", "0.1", "0.2", "–", "–", "–"] for name in ("kiosk", "kiosk", "app")]
    assert all(line.startswith(("kiosk ", "app ")) for line in seed_lines(rows))
    name = "n" * (NAMES + 1)
    long = [[name, *row[1:]] for row in rows]
    lines = list(seed_lines(long))
    assert lines[0] == name
    assert [line.split()[0] for line in lines[1:]] == ["local"] * 3


def test_a_long_heading_of_a_page_may_break_and_a_label_is_shortened() -> None:
    name = "boutique_" * 7
    assert "<wbr>" in heading(name)
    assert heading("NDCG@10") == "NDCG@10"
    assert len(shortened(name)) == LONG
    assert shortened("kiosk") == "kiosk"
