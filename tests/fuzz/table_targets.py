"""Targets of TOML files and of tables."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from functools import cache

import polars as pl

from clients import membership
from clients.report import Statement
from server.home import load_home, written
from shared.config import read_toml
from shared.tables.config import PlatformConfig, load_platform, platform_from
from shared.tables.table import read_platform
from simulations.scenario import SHIPPED, load_scenario
from tests.fuzz.fuzz_target import Target, each
from tests.fuzz.material import public, scratch, stored

PLATFORM = b"""[platform]
name = "kiosk"
weight = 1.0
[events]
path = "e.csv"
columns = { shopper = "user", item = "item", order = "pos" }
part = [0.0, 0.6]
[items]
path = "i.csv"
columns = { item = "item", title = "title" }
[participation]
hours = ["22:00-06:00"]
timezone = "Asia/Shanghai"
[backbone]
path = "backbone.safetensors"
[evaluation]
share_metrics = false
"""
PLAN = b"""[privacy]
epsilon = 3.0
shoppers_at_least = 1000
sampling_rate = 0.1
steps = 10
noise_multiplier = 4.0
[sums]
pairs = "pairs.safetensors"
epsilon = 0.5
"""
OPEN = b"[privacy]\nunprotected = true\n"
SCENARIO = b"""title = "Two shops"
[[platforms]]
name = "beauty"
[platforms.events]
path = "b/e.csv"
columns = { shopper = "user", item = "item", order = "pos" }
[platforms.items]
path = "b/i.csv"
columns = { item = "item", text = "text" }
[backbone]
width = 64
[federation]
rounds = 3
[privacy]
epsilons = [8.0, 3.0]
[sums]
nearest = 40
[[faults]]
platform = "beauty"
round = 1
kind = "drop"
"""
EVENTS = "user,item,ts\n" + "".join(
    f"s{shopper},i{place},2024-01-0{place + 1}\n" for shopper in range(2) for place in range(4)
)
ITEMS = "item,title\n" + "".join(f"i{place},Red tea {place}\n" for place in range(5))


def _platform(case: bytes) -> None:
    load_platform(stored("p.toml", case))


def _scenario(case: bytes) -> None:
    load_scenario(stored("s.toml", case))


def _scenario_seeds() -> Sequence[bytes]:
    return [SCENARIO, (SHIPPED / "demo.toml").read_bytes()]


def _server(case: bytes) -> None:
    stored("server.toml", case)
    load_home(scratch())


def _server_seeds() -> Sequence[bytes]:
    text = written(
        backbone=scratch() / "b", listen="0.0.0.0:9092", health="127.0.0.1:9093", name="c"
    )
    return [text.encode(), b'backbone = "b"\n[federation]\nrounds = 3\n[start]\nplatforms = 2\n']


def _client(case: bytes) -> None:
    stored("coordinator.pub", public().encode())
    stored("client.toml", case)
    membership.load(scratch())


def _statement(case: bytes) -> None:
    read_toml(stored("statement.toml", case), Statement)


@cache
def _config(suffix: str) -> PlatformConfig:
    told = {
        "platform": {"name": "kiosk"},
        "events": {
            "path": f"e.{suffix}",
            "columns": {"shopper": "user", "item": "item", "time": "ts"},
        },
        "items": {"path": f"i.{suffix}", "columns": {"item": "item", "title": "title"}},
    }
    return platform_from(told, where="p.toml", base=scratch())


def _tables(case: bytes, suffix: str) -> None:
    """The case is the events, then a zero byte, then the items; without one, each in turn."""
    config = _config(suffix)
    halves = case.split(b"\0\0\0\0SPLIT", 1)
    good_events, good_items = _good(suffix)
    stored(config.events.path.name, halves[0])
    stored(config.items.path.name, halves[1] if len(halves) == 2 else good_items)
    each(lambda: read_platform(config))
    if len(halves) == 1:
        stored(config.events.path.name, good_events)
        stored(config.items.path.name, halves[0])
        read_platform(config)


@cache
def _good(suffix: str) -> tuple[bytes, bytes]:
    return _formatted(EVENTS, suffix), _formatted(ITEMS, suffix)


def _formatted(text: str, suffix: str) -> bytes:
    frame = pl.read_csv(io.StringIO(text), infer_schema=False)
    buffer = io.BytesIO()
    if suffix == "parquet":
        frame.write_parquet(buffer, compression="uncompressed", statistics=False)
        return buffer.getvalue()
    if suffix == "jsonl":
        return frame.write_ndjson().encode()
    plain = text.replace(",", "\t").encode() if suffix.startswith("tsv") else text.encode()
    return gzip.compress(plain, mtime=0) if suffix.endswith(".gz") else plain


def _table_target(suffix: str, share: float, words: tuple[bytes, ...] = ()) -> Target:
    return Target(
        f"tables: {suffix}",
        lambda case: _tables(case, suffix),
        lambda: list(_good(suffix)),
        words=words,
        share=share,
    )


TARGETS = (
    Target("platform's TOML", _platform, lambda: [PLATFORM, PLATFORM + OPEN], "toml"),
    Target("platform's TOML with a Plan", _platform, lambda: [PLATFORM + PLAN], "toml", share=0.1),
    Target("scenario's TOML", _scenario, _scenario_seeds, "toml", share=0.5),
    Target("server.toml", _server, _server_seeds, "toml"),
    Target(
        "client.toml",
        _client,
        lambda: [b'server = "a:9092"\nname = "kiosk"\nplatform = "/p.toml"\nhealth = ""\n'],
        "toml",
        share=0.5,
    ),
    Target("statement's TOML", _statement, lambda: [b'controller = "A"\n'], "toml", share=0.3),
    _table_target("csv", 0.3, (b'"', b",", b"\n", b"\r\n", b"\xef\xbb\xbf", b"NA", b"\xff")),
    _table_target("tsv", 0.1, (b'"', b"\t", b"\n", b"\r\n")),
    _table_target("csv.gz", 0.1),
    _table_target("jsonl", 0.2, (b"{", b"}", b"[", b"null", b'"user"', b"1e999", b"\\ud800")),
    _table_target("parquet", 0.2, (b"PAR1",)),
)
