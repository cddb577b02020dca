"""Identifiers that are alike: counted, never changed, unless `normalise` says so.

Two shoppers may be one person if their identifiers agree after these steps, which are the rule:
NFKC (full-width letters become ASCII ones), lower case, runs of white space as one space; and of an
e-mail address what follows a + is dropped, and at gmail.com the dots of the local part.

Items of the two tables may be one if they agree after NFKC, lower case, without white space,
without a .0 behind a whole number and without leading zeros.
"""

from __future__ import annotations

import polars as pl

from shared.tables.dialect import Normalisation, normalised

SHOWN = 3  # examples in a message
_ALIKE: tuple[Normalisation, ...] = ("unicode", "case", "spaces", "numbers")
_PLAIN = r"^[\x21-\x40\x5b-\x7e]*$"  # neither upper case, space nor letters beyond ASCII


def shopper_pairs(shoppers: pl.Series) -> tuple[int, int]:
    """How many pairs of shoppers may be one person, and how many differ in case alone.

    Args:
        shoppers: identifiers, each once.
    """
    names = pl.DataFrame({"name": shoppers})
    plain = names.filter(~pl.col("name").str.contains(r"\+.*@|@g(?:oogle)?mail\.com$"))
    if plain.height == names.height and names["name"].str.contains(_PLAIN).all():
        return 0, 0
    local, at, domain = (
        pl.col("key").str.extract(r"^([^@\s]+)(@)([^@\s]+)$", it) for it in (1, 2, 3)
    )
    local = local.str.replace(r"\+.*$", "")
    google = domain.is_in(["gmail.com", "googlemail.com"])
    local = pl.when(google).then(local.str.replace_all(".", "", literal=True)).otherwise(local)
    key = names.select(normalised(pl.col("name"), ("unicode", "case", "spaces")).alias("key"))
    address = pl.when(at.is_not_null() & (local != "")).then(local + at + domain)
    return (
        _pairs(key.select(pl.coalesce(address, "key")).to_series()),
        _pairs(names["name"].str.to_lowercase()),
    )


def _pairs(keys: pl.Series) -> int:
    """How many pairs of rows have one key."""
    counts = keys.value_counts(name="rows")["rows"].cast(pl.Int64)
    return int((counts * (counts - 1) // 2).sum())


def near_items(unknown: pl.DataFrame, catalogue: tuple[str, ...]) -> pl.DataFrame:
    """Unknown items that one of the catalogue resembles.

    Args:
        unknown: columns item and events, each item once.
        catalogue: identifiers.

    Returns:
        Columns item, events and the `like` one of the catalogue.
    """
    key = normalised(pl.col("item"), _ALIKE).str.replace_all(r"\s+", "")
    key = key.str.replace(r"^0+([0-9])", "${1}").alias("key")
    known = pl.DataFrame({"item": catalogue}, schema={"item": pl.String})
    known = known.select(key, pl.col("item").alias("like")).unique("key", keep="first")
    return (
        unknown.with_columns(key)
        .join(known, on="key")
        .sort("item")
        .select("item", "events", "like")
    )


def how_alike(one: str, other: str) -> str:
    """Which normalisation makes two identifiers equal, as TOML; "" if none does."""
    steps: tuple[Normalisation, ...] = ("case", "spaces", "numbers", "unicode")
    every: list[tuple[Normalisation, ...]] = [(it,) for it in steps] + [steps]
    for how in every:
        made = pl.Series([one, other]).to_frame("key").select(normalised(pl.col("key"), how))
        if made["key"].n_unique() == 1:
            return "[" + ", ".join(f'"{it}"' for it in how) + "]"
    return ""
