"""Times of events as seconds since 1970, written in one of these ways through the whole column.

| written | is read as |
| --- | --- |
| 1704225040, 1704225040.5 | seconds since 1970 |
| 2024-01-02 | a date |
| 20240102 | a date, where every row is one from 1990 to 2100 |
| 20240102195040 | a date and time, where every row is one |
| 2024-01-02T19:50:40, 2024-01-02 19:50 | a date and time, in UTC |
| 20240102T195040 | the same |
| … Z, … +02:00, … UTC | a date and time with its zone |

Dates without separators beside other numbers are refused: the dates would be read as days of 1970.
A column whose every row would lie between 1970 and 1990 is refused: a counter, a month and day, or
a wrong unit looks like that, and no shop's rows do.
"""

from __future__ import annotations

import polars as pl

from shared.errors import DataError
from shared.tables.config import EventTable
from shared.tables.numbers import as_number, refuse

LATEST = 1e11  # seconds, year 5138: a larger time is in milliseconds
EARLIEST = 631_152_000.0  # seconds: the start of 1990
_COMPACT_BELOW = 1e9  # 20240102 as a number is below, seconds since 2001 are above

_DATE = r"^\d{4}-\d{2}-\d{2}"
_CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?"
_ZONE = r" ?(Z|UTC|GMT|[+-]\d{2}:?\d{2})$"
_BASIC = r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2}(?:\.\d+)?)?"
TODO = "write seconds (no milliseconds) or ISO 8601, or map the column as order"


def seconds_of(rows: pl.DataFrame, table: EventTable) -> tuple[pl.Series, str]:
    """Times as seconds since 1970; a time without a zone counts as UTC.

    Args:
        rows: of text, with a column `time` without nulls.
        table: of the rows.

    Returns:
        The times, and how their numbers are written, as of `as_number`.

    Raises:
        DataError: two ways of writing, one that is not known, or all rows before 1990.
    """
    number, written = as_number(rows, "time", table)
    if number.null_count() == 0:
        seconds = _compact(rows, number, table)
    else:
        seconds = _from_text(rows, number, table)
    bad = ~(pl.lit(seconds).abs() < LATEST).fill_null(False)
    refuse(rows, bad, "is no time in seconds since 1970 or ISO 8601", "time", table, TODO)
    if len(seconds) and bool(((seconds >= 0) & (seconds < EARLIEST)).all()):
        raise DataError(
            f"every time in column {table.columns['time']!r} would be before 1990",
            where=table.path,
            todo="write seconds since 1970 or ISO 8601 with the year; map a counter as order",
        )
    return seconds.rename("time"), written


def _compact(rows: pl.DataFrame, number: pl.Series, table: EventTable) -> pl.Series:
    """Numbers as they are, or dates that are written without separators.

    Raises:
        DataError: some are such dates and some are not.
    """
    text, largest = rows["time"], number.max()
    if not isinstance(largest, float):
        return number
    if largest < _COMPACT_BELOW and text.str.contains(r"^(19[9]|20)\d{6}$").all():
        days = text.str.to_date("%Y%m%d", strict=False)
        if days.null_count() == 0:
            return days.dt.epoch("s").cast(pl.Float64)
    if largest > LATEST and text.str.contains(r"^(19[9]|20)\d{12}$").all():
        moments = text.str.to_datetime("%Y%m%d%H%M%S", strict=False)
        if moments.null_count() == 0:
            return moments.dt.epoch("us") / 1e6
    whole = number.is_between(19_900_101, 20_991_231) & (number % 1 == 0)
    digits = pl.select(pl.when(pl.lit(whole)).then(pl.lit(number).cast(pl.Int64, strict=False)))
    is_date = digits.to_series().cast(pl.String).str.to_date("%Y%m%d", strict=False).is_not_null()
    if is_date.any() and not is_date.all():
        date, other = (rows.filter(it)["row"][0] for it in (is_date, ~is_date))
        raise _mixed(table, f"row {date} holds a date without separators, row {other} does not")
    return number


def _mixed(table: EventTable, said: str) -> DataError:
    return DataError(
        f"column {table.columns['time']!r} has mixed time formats: {said}",
        where=table.path,
        todo="write every time of the column in one format",
    )


def _from_text(rows: pl.DataFrame, number: pl.Series, table: EventTable) -> pl.Series:
    time = pl.col("time")
    forms = {
        "seconds since 1970": pl.lit(number).is_not_null(),
        "a date": time.str.contains(_DATE + "$"),
        "a date and time": time.str.contains(_DATE + _CLOCK + "$"),
        "a date and time with its zone": time.str.contains(_DATE + _CLOCK + _ZONE),
        "a date and time without separators": time.str.contains(_BASIC + "$"),
        "a date and time with its zone, without separators": time.str.contains(_BASIC + _ZONE),
    }
    first = [(rows.filter(form)["row"].min(), name) for name, form in forms.items()]
    found = sorted((row, name) for row, name in first if isinstance(row, int))
    if len(found) > 1:
        said = ", ".join(f"row {row} holds {name}" for row, name in found)
        raise _mixed(table, said)
    if found and found[0][1].endswith("separators"):
        time = time.str.replace(_BASIC, "${1}-${2}-${3}T${4}:${5}:${6}")
        time = time.str.replace(r":([^0-9]|$)", ":00${1}")
    whole = (
        time.str.replace(r" ?(UTC|GMT)$", "Z")
        .str.replace(" ", "T")
        .str.replace(" ", "")
        .str.replace(_DATE + "$", "${0}T00:00")
        .str.replace(r"T(\d{2}:\d{2})(Z|[+-]|$)", "T${1}:00${2}")
        .str.replace(r"T([\d:.]+)$", "T${1}Z")
    )
    moment = whole.str.to_datetime("%FT%T%.f%#z", time_unit="us", time_zone="UTC", strict=False)
    seconds = rows.select(moment.dt.epoch("us") / 1e6).to_series()
    return pl.select(pl.coalesce(number, seconds)).to_series()
