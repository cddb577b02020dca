"""Numbers in columns of text, with a decimal point or a decimal comma.

A decimal comma is detected where some value has one comma that cannot separate thousands, and no
value has a point. Where every comma could as well separate thousands, the key
`decimal` must be set.
"""

from __future__ import annotations

import polars as pl

from shared.errors import DataError
from shared.tables.config import EventTable, ItemTable

COMMA = "decimal comma"
_COMMA_NUMBER = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"
_SHOWN = 40  # characters of a value
_MEND = "mend or remove the row"


def as_number(
    rows: pl.DataFrame, role: str, table: EventTable | ItemTable
) -> tuple[pl.Series, str]:
    """A column of text as numbers; null where it is none.

    Returns:
        The numbers, and COMMA if a decimal comma was detected, else "".

    Raises:
        DataError: its commas may be decimal or separate thousands.
    """
    text = rows[role]
    number = text.cast(pl.Float64, strict=False)
    decimal = table.dialect.decimal
    if decimal == ",":
        return _with_comma(text), ""
    if decimal == "." or number.null_count() == text.null_count():
        return number, ""
    commas = text.filter(text.str.contains(",", literal=True))
    if not len(commas) or text.str.contains(".", literal=True).any():
        return number, ""
    if not commas.str.contains(_COMMA_NUMBER + "|" + _THOUSANDS).all():
        return number, ""
    if commas.str.contains(_THOUSANDS).all():
        row = rows.filter(pl.col(role).str.contains(",", literal=True))["row"][0]
        raise DataError(
            f"row {row}, column {table.columns[role]!r} has a comma, which may be decimal or"
            " separate thousands",
            where=table.path,
            todo='set decimal = "," for a decimal comma, or write numbers without commas',
        )
    return _with_comma(text), COMMA


def _with_comma(text: pl.Series) -> pl.Series:
    plain = text.str.replace(",", ".", literal=True)
    kept = pl.when(~pl.lit(text).str.contains(".", literal=True)).then(pl.lit(plain))
    return pl.select(kept.cast(pl.Float64, strict=False)).to_series()


def finite(rows: pl.DataFrame, role: str, table: EventTable | ItemTable) -> tuple[pl.Series, str]:
    """A column of text as finite numbers; null stays null. Returns as `as_number`.

    Raises:
        DataError: a value is none.
    """
    number, written = as_number(rows, role, table)
    bad = pl.col(role).is_not_null() & ~pl.lit(number).is_finite().fill_null(False)
    refuse(rows, bad, "is not a finite number", role, table)
    return number.rename(role), written


def refuse(
    rows: pl.DataFrame,
    bad: pl.Expr,
    what: str,
    role: str,
    table: EventTable | ItemTable,
    todo: str = _MEND,
) -> None:
    """Names the first row that is bad, with its value only in a table of items.

    Raises:
        DataError: there is one.
    """
    found = rows.filter(bad)
    if not len(found):
        return
    others = len(found) - 1
    more = f" (and {others:,} more)" if others else ""
    value = found[role][0] if isinstance(table, ItemTable) and role in found.columns else None
    shown = "" if not value else f": {value[:_SHOWN]!r}"
    said = f"row {found['row'][0]}, column {table.columns[role]!r}{shown} {what}{more}"
    raise DataError(said, where=table.path, todo=todo)
