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
from shared.tables.dialect import Normalisation, normalised
from shared.tables.draw import ITEMS, WHOLE, drawn, shoppers_key, within
from shared.tables.erasure_list import load_list, without_erased
from shared.tables.numbers import finite, refuse
from shared.tables.report import ReadReport
from shared.tables.scan import read_text
from shared.tables.spelling import SHOWN, how_alike, near_items, shopper_pairs
from shared.tables.times import seconds_of

DAY = 86_400  # seconds
KNOWN = 0.5  # of the events: from here on a column is taken to hold items, so it may be shown


@dataclass(frozen=True)
class PlatformRows:
    """A platform's tables, read.

    Attributes:
        events: columns EVENT_SCHEMA, in the order of `histories.items`: row e is its event e; and
            `basket` where the table has one.
        erased: digest of the erasure list that was in force; empty where there is none.
    """

    events: pl.DataFrame
    catalogue: Catalogue
    histories: Histories
    report: ReadReport
    erased: str = ""


@dataclass(frozen=True)
class _Items:
    """A Catalogue and what was left out of its table."""

    catalogue: Catalogue
    duplicates: int
    without_text: int
    missing: int
    written: tuple[str, ...]


@dataclass(frozen=True)
class _Unknown:
    """Events of items that the catalogue lacks, and what may be wrong with them."""

    events: int = 0
    items: int = 0
    near_events: int = 0
    examples: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def read_platform(config: PlatformConfig) -> PlatformRows:
    """Reads a platform's two tables. The order of their rows does not matter.

    Raises:
        DataError: a table is missing, damaged or empty, lacks a column, holds a row that cannot be
            used, or leaves fewer than two Histories.
    """
    table = config.events
    items = _items(config.items)
    catalogue = items.catalogue
    text = read_text(table)
    listed = load_list(table.erased)
    present, erased_rows = without_erased(text.rows, listed, table.normalise)
    keyed = _with_keys(present, table, config.items.normalise)
    if keyed.is_empty():
        todo = "give the rows of other shoppers"
        raise DataError("holds rows of erased shoppers only", where=table.path, todo=todo)
    every, written = _events(keyed, table)
    every = every.unique()
    names = every["shopper"].unique()
    if len(names) == 1:
        raise DataError("holds one shopper only", where=table.path, todo="give at least two")
    known = every.filter(pl.col("item").is_in(list(catalogue.items)))
    unknown = _unknown(every, known, catalogue, config)
    long = known.filter(pl.len().over("shopper") >= table.min_length)
    shoppers = long["shopper"].unique().to_list()
    if len(shoppers) < 2:
        raise DataError(
            f"fewer than two shoppers have the {table.min_length} events that a History needs"
            f" ({unknown.events} of {every.height} events are of unknown items)",
            where=table.path,
            todo="; ".join(
                [
                    "give longer Histories, or check that both tables name items alike",
                    *unknown.hints,
                ]
            ),
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
    spellings, case_alone = shopper_pairs(names)
    report = ReadReport(
        rows=text.rows.height + text.blank,
        blank=text.blank,
        missing_keys=present.height - keyed.height,
        duplicates=keyed.height - every.height,
        unknown_items=unknown.events,
        short_shoppers=len(names) - len(shoppers),
        short_events=known.height - long.height,
        limited_shoppers=len(shoppers) - len(chosen),
        limited_events=long.height - kept.height,
        shoppers=len(chosen),
        events=kept.height,
        items=len(catalogue),
        item_duplicates=items.duplicates,
        items_without_text=items.without_text,
        min_length=table.min_length,
        item_missing=items.missing,
        near_events=unknown.near_events,
        near_items=unknown.items,
        spellings=spellings,
        case_alone=case_alone,
        examples=unknown.examples,
        hints=unknown.hints,
        written=(*_told("events", [*text.words, *written]), *items.written),
        items_in_part=config.items.part != WHOLE,
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
    return _items(table).catalogue


def _told(name: str, words: list[str]) -> list[str]:
    """What was detected of a table, in one line or none."""
    return [f"{name}: {', '.join(dict.fromkeys(words))}"] if words else []


def _with_keys(
    rows: pl.DataFrame, table: EventTable, items: tuple[Normalisation, ...]
) -> pl.DataFrame:
    """The rows that have a shopper and an item, with these normalised."""
    if rows.is_empty():
        return rows
    if rows["shopper"].null_count() or rows["item"].null_count():
        rows = rows.filter(pl.col("shopper").is_not_null() & pl.col("item").is_not_null())
    if rows.is_empty():
        raise DataError(
            "no row has a shopper and an item",
            where=table.path,
            todo="mend its columns, or set null_words if these are no missing values",
        )
    for role, how in (("shopper", table.normalise), ("item", items)):
        if how:
            rows = rows.with_columns(normalised(pl.col(role), how).alias(role))
    return rows


def _unknown(
    every: pl.DataFrame, known: pl.DataFrame, catalogue: Catalogue, config: PlatformConfig
) -> _Unknown:
    """Which events are of items that the catalogue lacks, and which of these it may have."""
    lost = every.height - known.height
    if not lost:
        return _Unknown()
    away = every.join(known.select("item").unique(), on="item", how="anti")
    counted = away.group_by("item").agg(pl.len().alias("events"))
    near = near_items(counted, catalogue.items)
    hints = []
    for both in near.select("item", "like").head(1).rows():
        how = how_alike(*both)
        one, other = (name.replace(" ", "\u2423") for name in both)  # so that spaces are seen
        todo = f"set normalise = {how} in [items]" if how else "write them alike in both tables"
        hints.append(
            f"{int(near['events'].sum()):,} of the events of unknown items differ from the"
            f" catalogue only in how the item is written: {one!r} in the events, {other!r} in the"
            f" catalogue; {todo}"
        )
    # A column of which little is known may hold shoppers by mistake, so nothing of it is shown.
    shown = counted if known.height >= KNOWN * every.height else near
    if config.items.part != WHOLE:
        shown = near
    some = shown.sort("events", "item", descending=[True, False])["item"].head(SHOWN)
    return _Unknown(
        events=lost,
        items=near.height,
        near_events=int(near["events"].sum()),
        examples=tuple(some),
        hints=tuple(hints),
    )


def _events(rows: pl.DataFrame, table: EventTable) -> tuple[pl.DataFrame, list[str]]:
    """Rows of text as columns EVENT_SCHEMA, and how their numbers are written."""
    for role in ("order", "time"):
        if role in rows.columns:
            refuse(rows, pl.col(role).is_null(), "is empty", role, table)
    numbers: dict[str, pl.Series | None] = {"time": None, "order": None, "value": None}
    words = []
    for role in numbers:
        if role in rows.columns:
            read = seconds_of(rows, table) if role == "time" else finite(rows, role, table)
            numbers[role] = read[0]
            words += [read[1]] if read[1] else []
    time = numbers["time"]
    events = pl.DataFrame(
        {
            "shopper": rows["shopper"],
            "item": rows["item"],
            "order": time if numbers["order"] is None else numbers["order"],
            "day": None if time is None else (time // DAY).cast(pl.Int32),
            "kind": rows["kind"] if "kind" in rows.columns else None,
            "value": numbers["value"],
        },
        schema=EVENT_SCHEMA,
    )
    if "basket" in rows.columns:
        # One order of one shopper is one moment: its first; an empty number is an order of its own.
        own = pl.coalesce("basket", pl.lit(rows["row"]).cast(pl.String))
        within = ["shopper", pl.col("basket").is_null(), own]
        first = [pl.col(it).min().over(within) for it in ("order", "day")]
        events = events.with_columns(rows["basket"]).with_columns(first)
    return events, words


def _items(table: ItemTable) -> _Items:
    """The Catalogue, and what was left out of its table."""
    text = read_text(table)
    rows = text.rows.filter(pl.col("item").is_not_null())
    missing = text.rows.height - rows.height
    if table.normalise:
        rows = rows.with_columns(normalised(pl.col("item"), table.normalise).alias("item"))
    if table.part != WHOLE:
        rows = rows.filter([within(table.part, item, ITEMS) for item in rows["item"]])
    if rows.is_empty():
        what, todo = "no item is in its part", "give a larger part"
        if table.part == WHOLE:
            what, todo = "no row has an item", "mend its columns, or set null_words"
        raise DataError(what, where=table.path, todo=todo)
    parts = [role for role in ("title", "brand", "category", "text") if role in rows.columns]
    joined = pl.concat_str(parts, separator=" ", ignore_nulls=True)
    rows = rows.with_columns(text=joined.str.replace_all(r"\s+", " "))
    without = rows.filter(pl.col("text") == "")["item"].n_unique()
    if table.without_text == "refuse":
        role = "text" if "text" in table.columns else "title"
        todo = 'write a text, drop the item, or set without_text = "identifier" in [items]'
        refuse(rows, pl.col("text") == "", "is empty: an item needs text", role, table, todo)
    words = list(text.words)
    price = None
    if "price" in rows.columns:
        price, written = finite(rows, "price", table)
        words += [written] if written else []
    rows = rows.with_columns(
        text=pl.when(pl.col("text") == "").then("item").otherwise("text"), price=price
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
    return _Items(
        Catalogue(tuple(single["item"]), tuple(single["text"]), columns),
        duplicates=rows.height - single.height,
        without_text=without,
        missing=missing,
        written=tuple(_told("items", words)),
    )
