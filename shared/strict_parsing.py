"""JSON and TOML from outside: plain values within limits, or a ValueError whose text says why not.

    bytes ─json_value→ value        bytes ─toml_table→ dict

Python's own parsers raise RecursionError on deep nesting, accept integers of any length, infinities
and half a surrogate pair, and need quadratic time for a long dotted TOML key. What passes here can
be converted to a float, encoded as UTF-8 and written as JSON again without a further fault.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

LARGEST = 2**20  # bytes of a JSON document; the formats that hold more give their own limit
LARGEST_TOML = 2**18  # bytes; people write them by hand, and each wrong key takes 2 kB to tell of
DEEPEST = 32  # levels of nesting
LATEST = 253_402_300_799  # seconds since 1970 of the last date that Python has, in year 9999
LONGEST_INTEGER = 20  # characters: a sign and the 19 digits of 64 bits
MOST_KEY_PARTS = 32  # of one dotted TOML key; tomllib's time grows with their square

# Texts and comments, also those that nobody ends. Possessive: no step is ever taken back.
_TOML_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\\?\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?|#[^\n]*+",
    re.DOTALL,
)
_LONG_KEY = re.compile(rf"^(?:[^.,=\n]*+\.){{{MOST_KEY_PARTS}}}", re.MULTILINE)


def json_value(content: bytes | str, *, largest: int = LARGEST) -> Any:
    """The value of a JSON document: finite numbers, integers of 64 bits, at most DEEPEST levels.

    Args:
        content: the document; bytes must be UTF-8, with or without a byte order mark.
        largest: bytes, or characters, that are looked at at all.

    Raises:
        ValueError: it is not such a document.
    """
    text = _text(content, largest)
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_not_finite
        )
    except RecursionError:
        raise ValueError(f"values nested more than {DEEPEST} levels deep") from None
    _check_depth(value, text)
    if "\\u" in text:  # an escape can name half of a surrogate pair, which no encoding takes
        _check_text(value)
    return value


def json_file(path: Path, *, largest: int = LARGEST) -> Any:
    """The value of a JSON file, of which no more is read than may be in it.

    Raises:
        OSError: it cannot be read.
        ValueError: as of `json_value`.
    """
    with path.open("rb") as file:
        return json_value(file.read(largest + 1), largest=largest)


def toml_table(content: bytes, *, largest: int = LARGEST_TOML) -> dict[str, Any]:
    """The table of a TOML document: integers of 64 bits, at most DEEPEST levels.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        ValueError: it is not such a document; tomllib's own names line and column.
    """
    text = _text(content, largest)
    long = _LONG_KEY.search(_TOML_TEXT.sub("s", text))
    if long is not None:
        raise ValueError(f"a key of more than {MOST_KEY_PARTS} parts")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"values nested more than {DEEPEST} levels deep") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # int() counts the digits of a decimal number
        raise ValueError("an integer of more than 64 bits") from None
    _check_depth(table, text)
    _check_integers(table)
    return table


def _text(content: bytes | str, largest: int) -> str:
    if len(content) > largest:
        raise ValueError(f"longer than {largest:,} bytes")
    text = content.decode() if isinstance(content, bytes) else content
    return text.removeprefix("\ufeff")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


def _not_finite(word: str) -> float:
    raise ValueError(f"{word}, which is not a finite number")


def _check_depth(value: object, text: str) -> None:
    """Raises: ValueError if values are nested too deep; `text` shows quickly that they are not."""
    if text.count("[") + text.count("{") + text.count(".") <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"values nested more than {DEEPEST} levels deep")


def _inside(value: object) -> list[object]:
    """The tables and lists directly in a table or a list."""
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, dict | list)]
    return []


def _check_text(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair in a text") from None


def _check_integers(value: object) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _check_integers(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_integers(inner)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits")
