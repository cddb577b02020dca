"""Columns of nested tables: `name.en` reaches into objects, `explode` makes rows of a list.

    { "order": 7, "lines": [{ "item": "a" }, { "item": "b" }] }
      └─ explode = "lines" → two rows: order 7 and lines.item a, order 7 and lines.item b

JSON Lines has objects and lists, Parquet has structs and lists; they are the same here.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataTypeClass

Kinds = Mapping[str, pl.DataType]


def reach(column: str, kinds: Kinds) -> tuple[pl.Expr, pl.DataType] | None:
    """A column, or the field of an object that a name with dots leads to; None if there is none."""
    parts = column.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        if name not in kinds:
            continue
        value, kind = pl.col(name), kinds[name]
        for part in parts[cut:]:
            fields = (
                {it.name: it.dtype for it in kind.fields} if isinstance(kind, pl.Struct) else {}
            )
            if part not in fields:
                return None
            value, kind = value.struct.field(part), _made(fields[part])
        return value, kind
    return None


def outermost(column: str, kinds: Kinds) -> str | None:
    """The column of the table that a name leads into."""
    parts = column.split(".")
    names = (".".join(parts[:cut]) for cut in range(len(parts), 0, -1))
    return next((name for name in names if name in kinds), None)


def inner(kind: pl.DataType) -> pl.DataType | None:
    """What a list holds; None for what is no list."""
    return _made(kind.inner) if isinstance(kind, (pl.List, pl.Array)) else None


def as_text(kind: pl.DataType) -> pl.DataType:
    """The same nesting with text for every value."""
    if isinstance(kind, pl.Struct):
        return pl.Struct([pl.Field(it.name, as_text(_made(it.dtype))) for it in kind.fields])
    held = inner(kind)
    return pl.String() if held is None else pl.List(as_text(held))


def paths(kinds: Kinds) -> list[str]:
    """All names that lead to one value."""
    found = []
    for name, kind in kinds.items():
        if isinstance(kind, pl.Struct):
            below = {it.name: _made(it.dtype) for it in kind.fields}
            found += [f"{name}.{path}" for path in paths(below)]
        else:
            found.append(name)
    return found


def _made(kind: pl.DataType | DataTypeClass) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()
