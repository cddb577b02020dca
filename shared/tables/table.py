"""A platform's tables in, its Histories and Catalogue out: row ─read→ Event ─group→ History.

    file ─scan→ text ─┬─ items  → Catalogue
                      └─ events → Events → Histories     (a ReadReport counts what fell away)

Everything is read as text and converted here, so that an error can name file, column and row. Rows
are counted from 1 at the first row of data. No message holds a value of an events table.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from shared.catalogue import Catalogue
from shared.errors import DataError
from shared.events import EVENT_SCHEMA, Histories, group
from shared.tables.config import EventTable, ItemTable, PlatformConfig
from shared.tables.draw import ITEMS, WHOLE, drawn, shoppers_key, within
from shared.tables.erasure_list import load_list, without_erased
from shared.tables.scan import read_text

DAY = 86_400  # seconds
LATEST = 1e11  # seconds, year 5138: a larger time is in milliseconds

_DATE = r"^\d{4}-\d{2}-\d{2}"
_CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?"
_ZONE = r" ?(Z|[+-]\d{2}:?\d{2})$"


@dataclass(frozen=True)
class ReadReport:
    """What was read, kept and dropped. Every row of the events table is counted once.

    rows = blank + erased_rows + duplicates + unknown_items + short_events + limited_events + events
    """

    rows: int
    blank: int
    duplicates: int
    unknown_items: int
    short_shoppers: int
    short_events: int
    limited_shoppers: int
    limited_events: int
    shoppers: int
    events: int
    items: int
    item_duplicates: int
    items_without_text: int
    min_length: int
    erased_rows: int = 0

    def lines(self) -> list[str]:
        """The report in words, what did not happen left out."""
        dropped = {
            f"{self.blank:,} blank rows": self.blank,
            f"{self.erased_rows:,} rows of erased shoppers, still in the table": self.erased_rows,
            f"{self.duplicates:,} rows that repeat another": self.duplicates,
            f"{self.unknown_items:,} events of items not in the catalogue": self.unknown_items,
            f"{self.short_shoppers:,} shoppers with fewer than {self.min_length} events"
            f" ({self.short_events:,} events)": self.short_shoppers,
            f"{self.limited_shoppers:,} shoppers outside part or limit"
            f" ({self.limited_events:,} events)": self.limited_shoppers,
            f"{self.item_duplicates:,} item rows that repeat another": self.item_duplicates,
        }
        kept = [f"kept {self.events:,} events of {self.shoppers:,} shoppers, {self.items:,} items"]
        if self.items_without_text:
            kept.append(f"{self.items_without_text:,} items without text go by their identifier")
        told = [f"dropped {what}" for what, count in dropped.items() if count]
        return [f"read {self.rows:,} rows of events", *told, *kept]


@dataclass(frozen=True)
class PlatformRows:
    """A platform's tables, read.

    Attributes:
        events: columns EVENT_SCHEMA, in the order of `histories.items`: row e is its event e.
        erased: digest of the erasure list that was in force; empty where there is none.
    """

    events: pl.DataFrame
    catalogue: Catalogue
    histories: Histories
    report: ReadReport
    erased: str = ""


def read_platform(config: PlatformConfig) -> PlatformRows:
    """Reads a platform's two tables. The order of their rows does not matter.

    Raises:
        DataError: a table is missing, damaged or empty, lacks a column, holds a row that cannot be
            used, or leaves fewer than two Histories.
    """
    table = config.events
    catalogue, item_duplicates, items_without_text = _items(config.items)
    listed = load_list(table.erased)
    every_row, blank = read_text(table)
    rows, erased_rows = without_erased(every_row, listed)
    if rows.is_empty():
        todo = "give the rows of other shoppers"
        raise DataError("holds rows of erased shoppers only", where=table.path, todo=todo)
    every = _events(rows, table).unique()
    if every["shopper"].n_unique() == 1:
        raise DataError("holds one shopper only", where=table.path, todo="give at least two")
    known = every.filter(pl.col("item").is_in(list(catalogue.items)))
    long = known.filter(pl.len().over("shopper") >= table.min_length)
    shoppers = long["shopper"].unique().to_list()
    if len(shoppers) < 2:
        raise DataError(
            f"fewer than two shoppers have the {table.min_length} events that a History needs"
            f" ({every.height - known.height} of {every.height} events are of unknown items)",
            where=table.path,
            todo="give longer Histories, or check that both tables name items alike",
        )
    key = shoppers_key(table.draw)
    inside = [shopper for shopper in shoppers if within(table.part, shopper, key)]
    if len(inside) < 2:
        raise DataError(
            f"fewer than two shoppers are in part {list(table.part)}",
            where=table.path,
            todo="give a larger part",
        )
    chosen = sorted(inside, key=lambda shopper: drawn(shopper, key))[: table.limit]
    kept = long.filter(pl.col("shopper").is_in(chosen))
    kept = kept.sort("shopper", "order", "item", "day", "kind", "value")
    report = ReadReport(
        rows=every_row.height + blank,
        blank=blank,
        duplicates=rows.height - every.height,
        unknown_items=every.height - known.height,
        short_shoppers=every["shopper"].n_unique() - len(shoppers),
        short_events=known.height - long.height,
        limited_shoppers=len(shoppers) - len(chosen),
        limited_events=long.height - kept.height,
        shoppers=len(chosen),
        events=kept.height,
        items=len(catalogue),
        item_duplicates=item_duplicates,
        items_without_text=items_without_text,
        min_length=table.min_length,
        erased_rows=erased_rows,
    )
    histories = group(kept, catalogue, min_length=table.min_length)
    in_force = "" if listed is None else listed.digest
    return PlatformRows(kept, catalogue, histories, report, in_force)


def check_erasures(rows: PlatformRows, config: PlatformConfig) -> None:
    """Refuse rows that were read before a shopper was erased; to be called before a result is kept.

    Raises:
        DataError: the erasure list is another one than when the rows were read, or is damaged.
    """
    listed = load_list(config.events.erased)
    if rows.erased != ("" if listed is None else listed.digest):
        raise DataError(
            "a shopper was erased since the rows were read",
            where=config.name,
            todo="run it again: the rows are read anew",
        )


def read_catalogue(table: ItemTable) -> Catalogue:
    """Reads a table of items alone.

    Raises:
        DataError: as of `read_platform`.
    """
    return _items(table)[0]


def _events(rows: pl.DataFrame, table: EventTable) -> pl.DataFrame:
    """Rows of text as columns EVENT_SCHEMA."""
    for role in ("shopper", "item", "order", "time"):
        if role in rows.columns:
            _refuse(rows, pl.col(role).is_null(), "is empty", role, table)
    time = _seconds(rows, table) if "time" in table.columns else None
    order = _number(rows, "order", table) if "order" in table.columns else time
    return pl.DataFrame(
        {
            "shopper": rows["shopper"],
            "item": rows["item"],
            "order": order,
            "day": None if time is None else (time // DAY).cast(pl.Int32),
            "kind": rows["kind"] if "kind" in rows.columns else None,
            "value": _number(rows, "value", table) if "value" in rows.columns else None,
        },
        schema=EVENT_SCHEMA,
    )


def _items(table: ItemTable) -> tuple[Catalogue, int, int]:
    """The Catalogue, how many rows repeated another, how many items had no text."""
    rows, _ = read_text(table)
    _refuse(rows, pl.col("item").is_null(), "is empty", "item", table)
    if table.part != WHOLE:
        rows = rows.filter([within(table.part, item, ITEMS) for item in rows["item"]])
    if rows.is_empty():
        raise DataError("no item is in its part", where=table.path, todo="give a larger part")
    parts = [role for role in ("title", "brand", "category", "text") if role in rows.columns]
    text = pl.concat_str(parts, separator=" ", ignore_nulls=True).str.replace_all(r"\s+", " ")
    rows = rows.with_columns(text=text)
    without = rows.filter(pl.col("text") == "")["item"].n_unique()
    if table.without_text == "refuse":
        role = "text" if "text" in table.columns else "title"
        todo = 'write a text, drop the item, or set without_text = "identifier" in [items]'
        _refuse(rows, pl.col("text") == "", "is empty: an item needs text", role, table, todo)
    rows = rows.with_columns(
        text=pl.when(pl.col("text") == "").then("item").otherwise("text"),
        price=_number(rows, "price", table) if "price" in rows.columns else None,
    )
    attributes = [role for role in ("category", "brand", "price", "image") if role in table.columns]
    rows = rows.sort("item", "text", *attributes)
    single = rows.unique(["item", "text"], keep="first", maintain_order=True)
    twice = single.filter(pl.col("item").is_duplicated())
    if len(twice):
        raise DataError(
            f"item {twice['item'][0]!r} has two different texts",
            where=table.path,
            todo="keep one row for each item",
        )
    columns = {role: tuple(single[role].to_list()) for role in attributes}
    catalogue = Catalogue(tuple(single["item"]), tuple(single["text"]), columns)
    return catalogue, rows.height - single.height, without


def _number(rows: pl.DataFrame, role: str, table: EventTable | ItemTable) -> pl.Series:
    """A column of text as finite numbers; null stays null."""
    number = pl.col(role).cast(pl.Float64, strict=False)
    bad = pl.col(role).is_not_null() & ~number.is_finite().fill_null(False)
    _refuse(rows, bad, "is not a finite number", role, table)
    return rows.select(number).to_series()


def _seconds(rows: pl.DataFrame, table: EventTable) -> pl.Series:
    """Times as seconds since 1970, all written in one way; a time without a zone counts as UTC."""
    time = pl.col("time")
    number = time.cast(pl.Float64, strict=False)
    forms = {
        "seconds since 1970": number.is_not_null(),
        "a date": time.str.contains(_DATE + "$"),
        "a date and time": time.str.contains(_DATE + _CLOCK + "$"),
        "a date and time with its zone": time.str.contains(_DATE + _CLOCK + _ZONE),
    }
    first = [(rows.filter(form)["row"].min(), name) for name, form in forms.items()]
    found = sorted((row, name) for row, name in first if isinstance(row, int))
    if len(found) > 1:
        said = ", ".join(f"row {row} holds {name}" for row, name in found)
        raise DataError(
            f"column {table.columns['time']!r} has mixed time formats: {said}",
            where=table.path,
            todo="write every time of the column in one format",
        )
    whole = (
        time.str.replace(" ", "T")
        .str.replace(" ", "")
        .str.replace(_DATE + "$", "${0}T00:00")
        .str.replace(r"T(\d{2}:\d{2})(Z|[+-]|$)", "T${1}:00${2}")
        .str.replace(r"T([\d:.]+)$", "T${1}Z")
    )
    moment = whole.str.to_datetime("%FT%T%.f%#z", time_unit="us", time_zone="UTC", strict=False)
    seconds = pl.coalesce(number, moment.dt.epoch("us") / 1e6)
    todo = "write seconds (no milliseconds) or ISO 8601, or map the column as order"
    bad = ~(seconds.abs() < LATEST).fill_null(False)
    _refuse(rows, bad, "is no time in seconds since 1970 or ISO 8601", "time", table, todo)
    return rows.select(seconds).to_series()


def _refuse(
    rows: pl.DataFrame,
    bad: pl.Expr,
    what: str,
    role: str,
    table: EventTable | ItemTable,
    todo: str = "mend or remove the row",
) -> None:
    """Names the first row that is bad."""
    found = rows.filter(bad)["row"]
    if len(found):
        others = len(found) - 1
        more = f" (and {others:,} more)" if others else ""
        what = f"row {found[0]}, column {table.columns[role]!r} {what}{more}"
        raise DataError(what, where=table.path, todo=todo)
