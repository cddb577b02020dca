"""JSON and TOML from outside: plain values within limits, or a ValueError."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from shared.strict_parsing import DEEPEST, MOST_KEY_PARTS, json_file, json_value, toml_table

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b'{"a": [1, -2.5, "t\\u00e9a", null, true]}', {"a": [1, -2.5, "téa", None, True]}),
        (BOM + b"[1]", [1]),
        (b"-9223372036854775808", -(2**63)),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[" * DEEPEST + b"]" * DEEPEST, json.loads("[" * DEEPEST + "]" * DEEPEST)),
    ],
)
def test_json_within_the_limits_is_read(document: bytes, value: Any) -> None:
    assert json_value(document) == value
    assert json_value(document.decode()) == value


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"[" * 33 + b"]" * 33, "nested more than 32 levels"),
        (b"[" * 100_000, "nested more than 32 levels"),
        (b'{"a":' * 990 + b"1" + b"}" * 990, "nested more than 32 levels"),
        (b"9" * 4_000, "more than 64 bits"),
        (b"9" * 900_000, "more than 64 bits"),
        (b"1e999", "not finite"),
        (b"[NaN]", "not a finite number"),
        (b"-Infinity", "not a finite number"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b'"\xff"', "can't decode"),
        (b" " * 2_000_000, "longer than"),
        (b"{", "Expecting"),
    ],
)
def test_json_beyond_them_is_a_value_error(document: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        json_value(document)


def test_of_a_large_json_file_no_more_is_read_than_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: a read of all of it would end the process
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        json_file(path, largest=100)
    path.write_bytes(b'{"a": 1}')
    assert json_file(path) == {"a": 1}


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (BOM + b'a.b = "c"', {"a": {"b": "c"}}),
        (b'a = "' + b"x." * 100 + b'"', {"a": "x." * 100}),
        (b"a = '''\n" + b"x." * 100 + b"'''", {"a": "x." * 100}),
        (b"# " + b"x." * 100 + b"\na = 1", {"a": 1}),
        (b"a = [\n" + b"0.5, " * 100 + b"\n]", {"a": [0.5] * 100}),
        (b'"a.b"."c=d" = 1', {"a.b": {"c=d": 1}}),
    ],
)
def test_toml_within_the_limits_is_read(document: bytes, value: dict[str, Any]) -> None:
    assert toml_table(document) == value


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"a." * 40 + b"a = 1", f"more than {MOST_KEY_PARTS} parts"),
        (b"a = " + b"[" * 33 + b"]" * 33, "nested more than 32 levels"),
        (b"a = " + b"[" * 100_000, "nested more than 32 levels"),
        (b"a = " + b"{a = " * 20_000, "nested more than 32 levels"),
        (b"a = {" + b"a." * 40 + b"a = 1}", "nested more than 32 levels"),
        (b"a." * 100_000 + b"a = 1", f"more than {MOST_KEY_PARTS} parts"),
        (b"x = 1\n[" + b"a." * 100_000 + b"a]", f"more than {MOST_KEY_PARTS} parts"),
        (b'"=".' + b"a." * 100_000 + b"a = 1", f"more than {MOST_KEY_PARTS} parts"),
        (b"a = " + b"9" * 100_000, "more than 64 bits"),
        (b"a = 0x" + b"f" * 100_000, "more than 64 bits"),
        (b"a = [[9223372036854775808]]", "more than 64 bits"),
        (b"#" * 300_000, "longer than"),
        (b"a = ", "Invalid value"),
        (b"a = \xff", "can't decode"),
    ],
)
def test_toml_beyond_them_is_a_value_error_at_once(document: bytes, why: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=why):
        toml_table(document[: 2**18] if why.endswith("parts") else document)
    assert time.process_time() - began < 5  # minutes without the limit on a key's parts
