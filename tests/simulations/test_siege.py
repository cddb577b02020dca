"""The siege's harness; what it attacks is tested where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import ConfigError
from simulations.siege import run
from simulations.siege.every import ROWS
from simulations.siege.rows import Finding, Row

ROW = Row("a-row", "an attack | of two", "nothing", lambda _folder: Finding("x", True), 0.2)


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert run.chosen([]) == list(ROWS)
    assert [row.name for row in run.chosen(["nonsense-joins"])] == ["nonsense-joins"]


def test_an_attack_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="no attack is called 'x'; choose from idle-connections"):
        run.chosen(["x"])


def test_a_row_that_takes_too_long_is_killed_and_has_failed(tmp_path: Path) -> None:
    finding = run.in_its_own_process(ROW, tmp_path)
    assert not finding.passed
    assert finding.observed == "not finished after 0 s"


def test_the_table_says_what_was_required_and_what_was_observed() -> None:
    outcomes = [
        run.Outcome(ROW, Finding("alive", True), 1.0),
        run.Outcome(ROW, Finding("ended with code -11", False), 2.0),
    ]
    assert run.markdown(outcomes).splitlines() == [
        "| attack | required | observed | |",
        "| --- | --- | --- | --- |",
        "| an attack \\| of two | nothing | alive | passed |",
        "| an attack \\| of two | nothing | ended with code -11 | **failed** |",
    ]
    assert run.lines(outcomes[1])[0] == "FAILED  a-row  (2 s)"
