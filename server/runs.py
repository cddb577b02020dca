"""What the server knows beside the versions: the run it is in, its settings, and receipts.

A run is one federation over all its restarts. The receipts are of the platforms' Ledgers, which
outlive every run: so do they.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.registry_file import damaged
from shared.asking import Standing
from shared.errors import RoundError
from shared.strict_parsing import json_value
from shared.update import Receipt

_LAST = "ORDER BY number DESC LIMIT 1"


def name_of(base: sqlite3.Connection) -> str:
    """The name of the run that goes on."""
    row = base.execute(f"SELECT name FROM runs {_LAST}").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("no run is left in it")
    return str(row[0])


def standing_of(base: sqlite3.Connection) -> Standing:
    """Its name and all receipts."""
    rows = base.execute("SELECT platform, count, head FROM receipts ORDER BY platform")
    return Standing(name_of(base), {name: Receipt(count, head) for name, count, head in rows})


def remember(base: sqlite3.Connection, standing: Standing) -> None:
    """Write down receipts; a Standing of another run begins that."""
    if standing.run != name_of(base):
        query = "INSERT INTO runs SELECT max(number) + 1, ?, NULL FROM runs"
        base.execute(query, (standing.run,))
    rows = [(name, it.count, it.head) for name, it in standing.receipts.items()]
    base.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", rows)


def settings_of(base: sqlite3.Connection, path: Path) -> dict[str, Any] | None:
    """What the rounds of this run depend on; None as long as nobody wrote it down.

    Raises:
        RoundError: it is damaged.
    """
    row = base.execute(f"SELECT settings FROM runs {_LAST}").fetchone()
    try:
        return None if row[0] is None else dict(json_value(row[0]))
    except (ValueError, TypeError) as fault:
        raise damaged(path, "the settings of the run") from fault


def settle(base: sqlite3.Connection, settings: Mapping[str, object]) -> None:
    """Write down what the rounds of this run depend on."""
    query = "UPDATE runs SET settings = ? WHERE number = (SELECT max(number) FROM runs)"
    base.execute(query, (json.dumps(settings, sort_keys=True),))


def check_same(before: Mapping[str, Any], now: Mapping[str, object], *, path: Path) -> None:
    """Raises: RoundError if a setting differs, so that two federations would be mixed."""
    for name, value in before.items():
        if now.get(name) != value:
            raise RoundError(
                f"the rounds recorded have {name[:80]} = {str(value)[:200]}, not {now.get(name)}",
                where=path,
                todo="set it to what it was, or use another folder",
            )
