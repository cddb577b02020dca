"""What the coordinator sets for a run: Flower's flat run configuration, checked once at the edge.

The same keys stand under [tool.flwr.app.config] in pyproject.toml and under [federation] in a
scenario; everything inside gets the frozen Federation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from shared.config import Section, parse
from shared.training import Schedule


class FederationSection(Section):
    """Keys of a federation, with their ranges; the field's comment is its meaning."""

    rounds: int = Field(10, ge=1, le=10_000)  # exchanges
    quorum: int = Field(2, ge=1)  # Updates without which the Adapter stays as it is
    patience: int = Field(3, ge=1)  # rounds in a row without a quorum before the run stops
    fraction: float = Field(1.0, gt=0, le=1)  # share of the platforms asked in a round
    timeout: float = Field(600.0, gt=0)  # seconds a platform has to answer
    grace: float = Field(
        0.0, ge=0
    )  # seconds for the rest, once a quorum is there; 0 waits to the timeout
    algorithm: Literal["fedavg", "fedadam"] = "fedavg"
    # left out: 1.0 for fedavg, 0.01 for fedadam
    server_learning_rate: float | None = Field(None, gt=0, le=10)
    epochs: int = Field(1, ge=1, le=100)  # passes over the Histories in a round
    batch: int = Field(64, ge=1, le=65_536)  # Histories a step
    learning_rate: float = Field(0.003, gt=0, le=1)  # of the platform's Adam
    schedule: Schedule = "cosine"
    proximal: float = Field(0.0, ge=0, le=1000)  # FedProx's µ; 0 pulls nowhere
    seed: int = Field(0, ge=0, lt=2**31)
    # What is asked of platforms with a Plan; 0 leaves it to the Plan, and only less is granted.
    clip: float = Field(0.0, ge=0)  # of a History's gradient
    noise_multiplier: float = Field(0.0, ge=0)
    steps: int = Field(0, ge=0)  # of a round


class RunSection(FederationSection):
    """A run configuration: the federation, and where its files are."""

    backbone: str = ""  # path of the backbone file; it is trained for, or
    pairs: str = ""  # path of a list of pairs, over which sums are taken in one round
    folder: str  # where rounds are recorded
    resume: bool = False
    signing: str = ""  # path of the key that signs what platforms are sent; "" signs nothing

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if bool(self.backbone) == bool(self.pairs):
            raise ValueError("give exactly one of backbone and pairs")
        if self.pairs and self.rounds != 1:
            raise ValueError("sums over pairs are taken in one round")
        return self


@dataclass(frozen=True)
class Federation:
    """How rounds go; see FederationSection for each field."""

    rounds: int
    quorum: int
    patience: int
    fraction: float
    timeout: float
    grace: float
    algorithm: Literal["fedavg", "fedadam"]
    server_learning_rate: float
    epochs: int
    batch: int
    learning_rate: float
    schedule: Schedule
    proximal: float
    seed: int
    clip: float
    noise_multiplier: float
    steps: int


@dataclass(frozen=True)
class Run:
    """A Federation and its files."""

    federation: Federation
    backbone: Path | None
    pairs: Path | None
    folder: Path
    resume: bool
    signing: Path | None


def federation_from(section: FederationSection) -> Federation:
    """The checked section as a frozen value."""
    values = {name: getattr(section, name) for name in Federation.__dataclass_fields__}
    if values["server_learning_rate"] is None:
        values["server_learning_rate"] = 1.0 if section.algorithm == "fedavg" else 0.01
    return Federation(**values)


def one_round(asked: Federation) -> Federation:
    """How sums are taken: in one round by all, and what is asked of training left out."""
    return replace(asked, rounds=1, fraction=1.0, clip=0.0, noise_multiplier=0.0, steps=0)


def run_from(config: Mapping[str, object]) -> Run:
    """Read Flower's run configuration; its keys may be written with dashes.

    Raises:
        ConfigError: an unknown key or a value out of range.
    """
    plain = {key.replace("-", "_"): value for key, value in config.items()}
    section = parse(plain, RunSection, where="run configuration")
    return Run(
        federation=federation_from(section),
        backbone=Path(section.backbone) if section.backbone else None,
        pairs=Path(section.pairs) if section.pairs else None,
        folder=Path(section.folder),
        resume=section.resume,
        signing=Path(section.signing) if section.signing else None,
    )
