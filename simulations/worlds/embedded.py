"""A made-up world of shopping platforms, so that a federation can be tried without a download.

    words ─┬─ catalogue ─┐
           │             ├─ walk → events, items → tables → files
    tastes ┴─ members  ──┘

The law is in `journeys`: within a department needs follow one another, in a style that the shopper
keeps. It is the same law on every ordinary platform, while items, brands and wordings are each
platform's own. Titles alone do not tell which need follows which. A small platform has too few rows
to see every transition and all of them together have enough, so sharing can help. A platform under
the contrary law runs every journey backwards: what the others teach is wrong there, so sharing can
hurt it once it has rows enough to learn its own law. The largest has little to gain or to lose.

Every platform draws from streams of its own, keyed by its name, and people's tastes from another:
adding a platform leaves the others as they were, byte for byte.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from shared.files import made_folder, replacing
from simulations.worlds.catalogues import draw_items
from simulations.worlds.journeys import Habits, Tastes, draw_lengths, draw_tastes, walk
from simulations.worlds.specs import Dealt, PlatformSpec, WorldSpec, check
from simulations.worlds.vocabulary import Vocabulary, load_vocabulary

START = 1_704_067_200  # 2024-01-01 00:00 UTC, in seconds since 1970
YEAR = 365 * 86_400  # seconds
BETWEEN = 2 * 86_400  # seconds between two events of a shopper, on average
KINDS = {"view": 0.7, "cart": 0.1, "purchase": 0.2}  # chance of each kind of event

# Category and brand are not mapped, because what is mapped becomes part of the text: the category
# would tell the department outright, and a brand is one platform's own.
PLATFORM_TOML = """\
[platform]
name = "{name}"
weight = {weight}

[events]
path = "{tables}interactions.csv.gz"
columns = {{ shopper = "user", item = "item", time = "time", kind = "kind" }}
min_length = {shortest}
{shoppers}
[items]
path = "{tables}items.csv"
columns = {{ item = "item", title = "title", price = "price" }}
{items}"""


@dataclass(frozen=True)
class PlatformTables:
    """What one platform would export.

    Attributes:
        events: user, item, time (seconds since 1970), kind; sorted by time.
        items: item, title, category, brand, price.
    """

    events: pl.DataFrame
    items: pl.DataFrame


@dataclass(frozen=True)
class World:
    """The tables of every platform by name, in the order of the spec they were made from."""

    spec: WorldSpec
    platforms: dict[str, PlatformTables]


def generate(spec: WorldSpec, *, seed: int) -> World:
    """Make every platform's tables; the same spec and seed give the same tables.

    Raises:
        ConfigError: a platform that cannot be made, named with the number that is wrong.
    """
    words = load_vocabulary()
    check(spec, words)
    tastes = draw_tastes(spec.people, words, spec.habits, _stream(seed, "tastes"))
    return World(
        spec,
        {
            platform.name: _platform(platform, tastes, spec.habits, words, seed)
            for platform in spec.platforms
        },
    )


def write(world: World, folder: Path) -> dict[str, Path]:
    """Write every platform as a folder of its own; the same world gives the same bytes.

    Args:
        world: what `generate` made.
        folder: made if missing; gets NAME/interactions.csv.gz, NAME/items.csv, NAME/platform.toml.
            A platform that these are dealt out to has a platform.toml alone.

    Returns:
        The platform.toml of each platform that meets, by name.
    """
    for name, tables in world.platforms.items():
        place = made_folder(folder / name)
        for file, data in (
            ("interactions.csv.gz", _gzip(tables.events.write_csv().encode())),
            ("items.csv", tables.items.write_csv().encode()),
        ):
            with replacing(place / file) as part:
                part.write_bytes(data)
    paths = {}
    for platform in world.spec.dealt or world.spec.platforms:
        path = made_folder(folder / platform.name) / "platform.toml"
        with replacing(path) as part:
            part.write_text(_described(platform, world.spec), encoding="utf-8")
        paths[platform.name] = path
    return paths


def _described(platform: PlatformSpec | Dealt, spec: WorldSpec) -> str:
    """Its platform.toml."""
    tables = shoppers = items = ""
    if isinstance(platform, Dealt):
        tables = f"../{spec.platforms[0].name}/"
        shoppers, items = (f"part = {list(it)}\n" for it in (platform.shoppers, platform.items))
    return PLATFORM_TOML.format(
        name=platform.name,
        weight=platform.weight,
        shortest=spec.habits.shortest,
        tables=tables,
        shoppers=shoppers,
        items=items,
    )


def _platform(
    spec: PlatformSpec, tastes: Tastes, habits: Habits, words: Vocabulary, seed: int
) -> PlatformTables:
    items, wares = draw_items(
        spec.name,
        spec.items,
        spec.departments,
        template=spec.template,
        popularity=habits.popularity,
        words=words,
        rng=_stream(seed, f"{spec.name}/items"),
    )
    rng = _stream(seed, f"{spec.name}/events")
    people = rng.choice(len(tastes.style), size=spec.shoppers, replace=False)
    pull = np.array([spec.departments.get(name, 0.0) for name in words.departments])
    path = walk(
        Tastes(tastes.style[people], tastes.departments[people] * pull),
        np.minimum(draw_lengths(spec.shoppers, habits, rng), spec.items),
        wares,
        follows=words.follows if spec.law == "journeys" else np.argsort(words.follows),
        department_of=words.department_of,
        habits=habits,
        rng=rng,
    )
    # A shopper first comes at any time of the year, and again after minutes or days.
    gaps = 60 + rng.exponential(BETWEEN, size=path.shape).astype(np.int64)
    times = START + rng.integers(YEAR, size=(spec.shoppers, 1)) + np.cumsum(gaps, axis=1)
    kinds = rng.choice(len(KINDS), size=path.shape, p=list(KINDS.values()))
    shopper, step = np.nonzero(path >= 0)
    events = pl.DataFrame(
        {
            "user": np.array([f"person-{k:06d}" for k in people])[shopper],
            "item": items["item"].to_numpy()[path[shopper, step]],
            "time": times[shopper, step],
            "kind": np.array(list(KINDS))[kinds[shopper, step]],
        },
        schema={"user": pl.String, "item": pl.String, "time": pl.Int64, "kind": pl.String},
    )
    return PlatformTables(events.sort("time", "user"), items)


def _stream(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each name, whatever other names there are."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(name.encode())))


def _gzip(data: bytes) -> bytes:
    """Compressed without a time or a file name, so that equal data gives equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()
