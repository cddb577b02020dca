"""Mutations that keep a case well formed, so that it gets past the first check of its parser.

case ─mutate(form)→ case        about half of all; the other half changes bytes anywhere
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from tests.fuzz.fuzz_target import Form

# Values on which parsers stumble: the wrong type, too large, not finite, not encodable, too deep.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63 - 1,
    2**64,
    -(2**63),
    10**400,
    0.0,
    -0.0,
    1.5,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    "a",
    "0",
    "-1",
    "nan",
    "\ud800",
    "\x00",
    "\n",
    "é\u202e\U0001f600",
    "a" * 5000,
    "9" * 5000,
    "0" * 64,
    "f" * 128,
    [],
    [[]],
    {},
    {"a": {}},
    [1, "a", None],
)
ODD_TOML = (
    "0",
    "-1",
    "1e308",
    "nan",
    "inf",
    "true",
    '""',
    "''",
    '"a"',
    "[]",
    "[[]]",
    "{}",
    "{ a = 1 }",
    "9223372036854775807",
    "9223372036854775808",
    "0xffffffffffffffffff",
    "1e-320",
    "2024-02-30",
    "2024-01-02T03:04:05Z",
    "12:00:00",
    '"\\u0000"',
    '"\\ud800"',
    "[0.0, 1.0]",
    '["a", 1]',
    "9" * 4400,
)


def mutate(form: Form, case: bytes, seed: int) -> bytes | None:
    """A changed case of the form; None where the case is not of that form."""
    dice = random.Random(seed)
    if form == "json":
        return _json(case, dice)
    if form == "toml":
        return _toml(case, dice)
    if form == "tensors":
        return _tensors(case, dice)
    return None


def _json(case: bytes, dice: random.Random) -> bytes | None:
    try:
        value = json.loads(case)
    except (ValueError, RecursionError):
        return None
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        value = changed(value, dice)
    separators = dice.choice(((",", ":"), (", ", ": ")))
    try:
        return json.dumps(value, separators=separators, sort_keys=dice.random() < 0.5).encode()
    except (ValueError, RecursionError, TypeError):
        return None


def changed(value: Any, dice: random.Random) -> Any:
    """A JSON value of which one part is another."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        name = dice.choice(list(value))
        deed = dice.random()
        if deed < 0.08:
            return {key: it for key, it in value.items() if key != name}
        if deed < 0.16:
            return {**value, dice.choice(("", "a", "x" * 200, "\ud800", name + "_")): value[name]}
        if deed < 0.22:
            other = dice.choice(list(value))
            return {**value, name: value[other], other: value[name]}
        return {**value, name: changed(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        place = dice.randrange(len(value))
        deed = dice.random()
        if deed < 0.1:
            return value[:place] + value[place + 1 :]
        if deed < 0.3:
            return value[:place] + [value[place]] * dice.choice((2, 3, 50)) + value[place + 1 :]
        return [*value[:place], changed(value[place], dice), *value[place + 1 :]]
    if isinstance(value, str) and value and dice.random() < 0.5:
        place = dice.randrange(len(value))
        put = dice.choice(("", value[place] * 2, "0", "\x00", "\ud800", "é", "/", "..", "\n", "a"))
        return value[:place] + put + value[place + 1 :]
    if isinstance(value, int | float) and not isinstance(value, bool) and dice.random() < 0.5:
        moved = (value + 1, value - 1, -value, value * 2, float(value) if abs(value) < 1e300 else 0)
        return dice.choice(moved)
    if dice.random() < 0.05:
        return wrapped(value, dice.choice((10, 31, 33, 500, 990)))
    return copy.deepcopy(dice.choice(ODD))


def wrapped(value: Any, levels: int) -> Any:
    """A value inside so many lists."""
    for _ in range(levels):
        value = [value]
    return value


def _toml(case: bytes, dice: random.Random) -> bytes | None:
    lines = case.decode(errors="surrogateescape").split("\n")
    for _ in range(dice.choice((1, 1, 2, 4))):
        place = dice.randrange(len(lines))
        line, deed = lines[place], dice.random()
        key, equals, _value = line.partition("=")
        if deed < 0.1:
            del lines[place]
        elif deed < 0.2:
            lines.insert(dice.randrange(len(lines) + 1), line)
        elif deed < 0.3 and equals:
            lines[place] = f"{key.strip()}x = {_value}"
        elif deed < 0.4:
            lines.insert(place, dice.choice(("[a]", "[[a]]", "a.b.c = 1", f"[{'a.' * 40}a]", "#")))
        elif deed < 0.45 and equals:
            deep = dice.choice((20, 40, 400))
            lines[place] = f"{key}= {'[' * deep}{']' * deep}"
        elif equals:
            lines[place] = f"{key}= {dice.choice(ODD_TOML)}"
        if not lines:
            return b""
    return "\n".join(lines).encode(errors="surrogateescape")


def _tensors(case: bytes, dice: random.Random) -> bytes | None:
    """A safetensors file whose header is another, and whose length fits again."""
    size = int.from_bytes(case[:8], "little")
    header = _json(case[8 : 8 + size], dice)
    if header is None:
        return None
    data = case[8 + size :]
    if dice.random() < 0.2:
        data = data[: dice.randrange(len(data) + 1)] + dice.randbytes(dice.randrange(9))
    return len(header).to_bytes(8, "little") + header + data
