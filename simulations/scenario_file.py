"""The keys of a scenario's file, section by section, with their ranges and defaults."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from server.config import FederationSection
from server.pretrain import SHAPE
from shared.config import Section
from shared.pairs import MOST_NEAREST, NEAREST
from shared.tables.config import Named
from shared.tables.draw import WHOLE, Part
from shared.tables.policy import UPDATE_NORM
from shared.text import DEFAULT_ENCODER


class DealtSection(Named):
    """[[world.platforms]]: who gets which part of one catalogue's shoppers, and of its items."""

    shoppers: Part
    items: Part = WHOLE


class WorldSection(Section):
    """[world]: platforms of the embedded world."""

    scale: float = Field(1.0, gt=0, le=100)
    platforms: list[DealtSection] = Field(default_factory=list)


class PlatformSection(Section):
    """[[platforms]]: tables of your own."""

    name: str
    weight: float = 1.0
    events: dict[str, Any]
    items: dict[str, Any]


class BackboneSection(Section):
    """[backbone]: one that is there, or how one is made."""

    path: str | None = None
    encoder: str = DEFAULT_ENCODER
    source_scale: float = Field(1.0, gt=0, le=100)
    width: int = Field(SHAPE.width, ge=4, le=4096)
    layers: int = Field(SHAPE.layers, ge=1, le=64)
    heads: int = Field(SHAPE.heads, ge=1, le=64)
    rank: int = Field(SHAPE.rank, ge=1, le=1024)
    out_rank: int = Field(SHAPE.out_rank, ge=1, le=1024)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class ComparisonSection(Section):
    """[comparison]: what is measured beside the federation."""

    personalise_epochs: int = Field(3, ge=1, le=1000)
    resamples: int = Field(2000, ge=100, le=100_000)


class PrivacySection(Section):
    """[privacy]: the same federation under Plans."""

    epsilons: list[float] = Field(default_factory=list, max_length=12)
    clip: float = Field(1.0, gt=0)
    batch: int = Field(256, ge=1)
    steps: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0, le=1)
    server_learning_rate: float | None = Field(None, gt=0, le=10)
    update_norm: float = Field(UPDATE_NORM, gt=0)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if not all(epsilon > 0 for epsilon in self.epsilons):
            raise ValueError("epsilons must all be above 0")
        if len(set(self.epsilons)) < len(self.epsilons):
            raise ValueError("each of epsilons must be named once")
        return self


class SumsSection(Section):
    """[sums]: what shoppers take together."""

    nearest: int = Field(NEAREST, ge=1, le=MOST_NEAREST)
    share: float = Field(0.95, ge=0, lt=1)


class FaultSection(Section):
    """[[faults]]: what goes wrong."""

    platform: str
    round: int = Field(ge=1)
    kind: Literal["drop", "delay", "fail", "corrupt"]
    seconds: float = Field(0.0, ge=0)
    corruption: Literal["nan", "shape", "digest", "empty"] = "nan"


class ScenarioFile(Section):
    """All of it."""

    title: str
    world: WorldSection | None = None
    platforms: list[PlatformSection] = Field(default_factory=list)
    backbone: BackboneSection = BackboneSection()
    federation: FederationSection = FederationSection()
    comparison: ComparisonSection = ComparisonSection()
    privacy: PrivacySection = PrivacySection()
    sums: SumsSection | None = None
    faults: list[FaultSection] = Field(default_factory=list)
