"""All rows of the siege, in the order in which they run."""

from __future__ import annotations

from simulations.siege import members, operators, outsiders
from simulations.siege.rows import Row

ROWS: tuple[Row, ...] = (*outsiders.ROWS, *members.ROWS, *operators.ROWS)


def row_of(name: str) -> Row:
    """The row of this name.

    Raises:
        KeyError: there is none.
    """
    return {row.name: row for row in ROWS}[name]
