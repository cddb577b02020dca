"""The examples of docs/tables.md read tables as they say, and the guide names every key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from shared.tables.config import _Events, _Items, platform_from
from shared.tables.dialect import NULL_WORDS
from shared.tables.table import read_platform

GUIDE = (Path(__file__).parents[3] / "docs" / "tables.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", GUIDE, re.S)
PAIRS = [(f"u{s}", f"i{(s + k) % 4}", f"2024-01-0{k + 2}") for s in range(3) for k in range(3)]
NAMES = ("pot", "hose", "lamp", "scarf")


def tables(number: int) -> dict[str, str]:
    if number == 0:
        return {
            "events.csv": "user,item,ts\n" + "".join(",".join(row) + "\n" for row in PAIRS),
            "items.csv": "item,title\n" + "".join(f"i{n},{t}\n" for n, t in enumerate(NAMES)),
        }
    if number == 1:
        orders = "".join(
            f'{{"customer": {{"id": "{u}"}}, "at": "{at}", "number": "{at}-{u}",'
            f' "lines": [{{"sku": "{i}"}}]}}\n'
            for u, i, at in PAIRS
        )
        items = (f'{{"sku": "i{n}", "name": {{"en": "{t}"}}}}\n' for n, t in enumerate(NAMES))
        return {"orders.jsonl": orders, "items.jsonl": "".join(items)}
    events = "".join(";".join((*row, "1,5")) + "\n" for row in PAIRS)
    items = (f"i{n};thé {t};2,50\n" for n, t in enumerate(NAMES))
    return {
        "events.csv": "user;item;ts;paid\n" + events,
        "items.csv": "item;title;price\n" + "".join(items),
    }


@pytest.mark.parametrize("number", range(3))
def test_every_example_of_the_guide_reads_its_tables(tmp_path: Path, number: int) -> None:
    assert len(EXAMPLES) == 3
    for name, text in tables(number).items():
        code = "cp1252" if number == 2 and name.startswith("items") else "utf-8"
        (tmp_path / name).write_text(text, encoding=code)
    mapping = tomllib.loads(EXAMPLES[number])
    rows = read_platform(platform_from(mapping, where="p.toml", base=tmp_path))
    assert (rows.report.events, rows.report.shoppers, len(rows.catalogue)) == (9, 3, 4)


def test_the_guide_names_every_key_and_null_word() -> None:
    for section in (_Events, _Items):
        assert all(f"| `{key}` |" in GUIDE for key in section.model_fields)
    assert all(f"`{word}`" in GUIDE for word in NULL_WORDS if word)
