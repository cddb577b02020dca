r"""How the text of a table is written: separator, quotes, decimal sign, encoding, null words.

    [events]                       # the same keys in [items]
    separator = ";"                # one character; left out: detected from the header
    quote = '"'                    # one character, or "" for none; left out: detected
    escape = "double"              # a quote within quotes: "double" ("") or "backslash" (\")
    decimal = ","                  # "." or ","; left out: detected from the numbers
    encoding = "cp1252"            # left out: UTF-8, or UTF-16 where a mark says so
    null_words = ["", "n/a"]       # what counts as missing; left out: NULL_WORDS
    normalise = ["case", "spaces"] # of keys: items of both tables in [items], shoppers in [events]

A key that is left out is detected only where one reading alone fits the whole file. Where two
readings fit, the table is refused and the message names the key to set.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
from pydantic import field_validator

from shared.config import Section

Escape = Literal["double", "backslash"]
Decimal = Literal[".", ","]
Normalisation = Literal["case", "spaces", "unicode", "numbers"]

# What R, pandas, SQL, Excel and Python write where a value is missing; spelled exactly like this.
NULL_WORDS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT"),
    *("null", "NULL", "Null", "None", "\\N"),
)


@dataclass(frozen=True)
class Dialect:
    """How a table is written; None is detected.

    Attributes:
        separator: of the fields of a row.
        quote: around a field; "" is none.
        escape: how a quote stands within a quoted field.
        decimal: sign before the fraction of a number.
        encoding: name of a codec that Python knows.
        null_words: texts that count as missing, after surrounding spaces are removed.
    """

    separator: str | None = None
    quote: str | None = None
    escape: Escape | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    null_words: tuple[str, ...] = NULL_WORDS


class DialectKeys(Section):
    """The keys of a Dialect, and how keys of rows are normalised."""

    separator: str | None = None
    quote: str | None = None
    escape: Escape | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    null_words: tuple[str, ...] = NULL_WORDS
    normalise: tuple[Normalisation, ...] = ()

    @field_validator("separator")
    @classmethod
    def _separates(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or not value.isascii() or value in "\"'\r\n"):
            raise ValueError("give one ASCII character that is no quote and no line end")
        return value

    @field_validator("quote")
    @classmethod
    def _quotes(cls, value: str | None) -> str | None:
        if value and (len(value) != 1 or not value.isascii() or value in "\r\n\\"):
            raise ValueError('give one ASCII character, or "" for none')
        return value

    @field_validator("encoding")
    @classmethod
    def _decodes(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                "a".encode(codecs.lookup(value).name)
            except (LookupError, TypeError, ValueError):
                raise ValueError("give a text encoding, as utf-8, cp1252, gbk or utf-16") from None
        return value

    def dialect(self) -> Dialect:
        """The keys as a Dialect."""
        return Dialect(
            separator=self.separator,
            quote=self.quote,
            escape=self.escape,
            decimal=self.decimal,
            encoding=self.encoding,
            null_words=self.null_words,
        )


def normalised(key: pl.Expr, how: tuple[Normalisation, ...]) -> pl.Expr:
    """A column of keys, normalised.

    Args:
        key: of text.
        how: "unicode" applies NFKC, so that full-width letters equal ASCII ones; "case" takes lower
            case; "spaces" makes a run of white space one space; "numbers" removes the .0 behind a
            whole number.
    """
    if "unicode" in how:
        key = key.str.normalize("NFKC").str.strip_chars()
    if "case" in how:
        key = key.str.to_lowercase()
    if "spaces" in how:
        key = key.str.replace_all(r"\s+", " ").str.strip_chars()
    if "numbers" in how:
        key = key.str.replace(r"^([+-]?\d+)\.0+$", "${1}")
    return key


def normalised_keys(keys: Sequence[str], how: tuple[Normalisation, ...]) -> list[str]:
    """Keys without spaces around them, normalised as `normalised` does."""
    column = pl.DataFrame({"key": keys}, schema={"key": pl.String})
    return column.select(normalised(pl.col("key").str.strip_chars(), how))["key"].to_list()


def normalised_key(key: str, how: tuple[Normalisation, ...]) -> str:
    """One key, normalised as `normalised` does."""
    return str(pl.select(normalised(pl.lit(key.strip()), how)).item())
