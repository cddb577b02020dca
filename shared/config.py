"""TOML in, checked values out; every fault is one line that names its key.

    file ─read_toml→ model        mapping ─parse→ model

A model is a pydantic `Section`. It lives at the edge: a caller turns it into a frozen dataclass of
its own and passes that inward.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import ConfigError

# A key of so many parts; Python's reader takes time that grows with their square.
_LONG_KEY = re.compile(r"""(?<!["'\w-])(?:["'\w-]++[ \t]*\.[ \t]*){100}""")

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A table of a TOML file: frozen, no unknown keys, TOML's own types, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_toml(path: Path, model: type[M]) -> M:
    """The file's content as `model`.

    Raises:
        ConfigError: the file is missing, is not TOML, or `parse` refuses what it holds.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors write a byte order mark
        if _LONG_KEY.search(text):
            raise too_deep(path)
        mapping = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError("no such file", where=path, todo="give the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})", where=path, todo="give a readable TOML file"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"line {line} is not UTF-8", where=path, todo="save the file as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=path, todo="mend that line") from None
    except RecursionError:
        raise too_deep(path) from None
    return parse(mapping, model, str(path))


def parse(mapping: Mapping[str, Any], model: type[M], where: str) -> M:
    """A parsed TOML table as `model`; `where` names its file, and its section if it has one.

    Of several faults one is told; unknown keys go first, since a misspelt key is missing as well.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range.
    """
    try:
        # As JSON, because pydantic's strict mode then takes a list for a tuple and a string for a
        # path, and still no string or truth value for a number.
        text = json.dumps(mapping, default=str)
    except RecursionError:
        raise too_deep(where) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":  # TOML gives no other fault of JSON
            raise too_deep(where) from None
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise _told(faults[0], model, where) from None


def too_deep(where: str | Path) -> ConfigError:
    """The error for a file that no reader can follow."""
    return ConfigError(
        "is nested too deeply", where=where, todo="give a TOML file as the documentation describes"
    )


def _told(fault: ErrorDetails, model: type[BaseModel], where: str) -> ConfigError:
    """One pydantic fault as one line."""
    loc = fault["loc"]
    key = _dotted(loc)
    if fault["type"] == "extra_forbidden":
        return ConfigError(
            f"unknown key {key!r}", where=where, todo=_known(model, loc[:-1], str(loc[-1]))
        )
    if fault["type"] == "missing":
        return ConfigError(f"missing key {key!r}", where=where, todo=f"write {key} = …")
    allowed = fault["msg"].removeprefix("Value error, ")
    for article in ("Input", "String", "List", "Tuple"):
        allowed = allowed.replace(f"{article} should ", "it must ")
    if fault["type"].startswith("value_error"):
        what = f"{key!r} is not valid" if key else "not valid"
        return ConfigError(what, where=where, todo=allowed)
    value = json.dumps(fault["input"], ensure_ascii=False, default=str)
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return ConfigError(
        f"{key!r} is {shown}", where=where, todo=allowed.replace("an object", "a table")
    )


def _known(model: type[BaseModel], loc: tuple[str | int, ...], key: str) -> str:
    """The next step for an unknown `key` of the section at `loc`."""
    known = _keys(model, loc)
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"the nearest known key is {_dotted((*loc, near[0]))!r}"
    return f"known keys there are {', '.join(known)}" if known else "remove it"


def _keys(kind: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Keys of the section that `loc` leads to from the type `kind`; empty if it is no section."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        if not loc:
            return list(fields)
        field = fields.get(str(loc[0]))
        return _keys(field.annotation, loc[1:]) if field else []
    # A list's index or a mapping's name leads one step down; a union or an annotation does not.
    inward = loc if get_origin(kind) in (Union, UnionType) else loc[1:]
    return next((keys for inner in get_args(kind) if (keys := _keys(inner, inward))), [])


def _dotted(loc: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in loc)
