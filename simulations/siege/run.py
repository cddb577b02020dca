"""The siege: every attack against real server processes on loopback, one after another.

Row ─a process each→ Finding ─→ a table: attack, observed, required, passed
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigError
from simulations.deployed import ROOT
from simulations.siege.every import ROWS, row_of
from simulations.siege.rows import Finding, Row


@dataclass(frozen=True)
class Outcome:
    """A row that was run, what was found, and how many seconds it took."""

    row: Row
    finding: Finding
    seconds: float


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names; all rows where none is given.

    Raises:
        ConfigError: there is no such row.
    """
    try:
        return [row_of(name) for name in names] if names else list(ROWS)
    except KeyError as fault:
        known = ", ".join(row.name for row in ROWS)
        raise ConfigError(f"no attack is called {fault}", todo=f"choose from {known}") from None


def besieged(row: Row) -> Outcome:
    """Run a row, in an empty folder that is removed afterwards."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="siege-") as place:
        finding = in_its_own_process(row, Path(place))
    return Outcome(row, finding, time.monotonic() - began)


def in_its_own_process(row: Row, folder: Path) -> Finding:
    """What a row finds, or that it was killed at its limit or ended without a word."""
    file, work = folder / "finding.json", folder / "work"
    work.mkdir()
    words = [sys.executable, "-m", "simulations.siege.one", row.name, str(work), str(file)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait(row.limit)
        except subprocess.TimeoutExpired:
            return Finding(f"not finished after {row.limit:.0f} s", passed=False)
        finally:
            with suppress(ProcessLookupError):  # whatever it left running
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not file.exists():
        last = (
            (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        )
        told = f"the attacker ended with {process.returncode}: {''.join(last)[:200]}"
        return Finding(told, passed=False)
    return Finding(**json.loads(file.read_text(encoding="utf-8")))


def lines(outcome: Outcome) -> list[str]:
    """An outcome for people."""
    row, finding = outcome.row, outcome.finding
    return [
        f"{'passed' if finding.passed else 'FAILED'}  {row.name}  ({outcome.seconds:.0f} s)",
        f"    attack    {row.attack}",
        f"    required  {row.required}",
        f"    observed  {finding.observed}",
    ]


def figures(outcome: Outcome) -> dict[str, str | float | bool]:
    """An outcome for a program."""
    row = outcome.row
    return {
        "name": row.name,
        "attack": row.attack,
        "required": row.required,
        "observed": outcome.finding.observed,
        "passed": outcome.finding.passed,
        "seconds": round(outcome.seconds, 1),
    }


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table in Markdown."""
    lines = ["| attack | required | observed | |", "| --- | --- | --- | --- |"]
    for it in outcomes:
        passed = "passed" if it.finding.passed else "**failed**"
        cells = (it.row.attack, it.row.required, it.finding.observed, passed)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
