"""What a platform lets leave it: [privacy] and [sums] of its file. Nobody else can loosen them.

[privacy]                      # without this section a platform trains for nobody
epsilon = 3.0                  # the budget of this data set, for all rounds of all runs
shoppers_at_least = 4000       # a public lower bound of the number of shoppers
sampling_rate = 0.064          # the chance of each shopper to be in a step
steps = 16                     # of a round
rounds = 20                    # how many the budget is to last for; or noise_multiplier
clip = 1.0                     # largest norm of one shopper's gradient
delta = 1e-5                   # left out: 1 / shoppers_at_least^1.1
expected_batch = 256.0         # left out: sampling_rate · shoppers_at_least
update_norm = 100.0            # largest norm of an Update
dataset = "shop"               # whose budget it is; left out, the platform's name
ledger = "shop.ledger"         # left out: the platform's name with .ledger
head = "shop.head"             # better on another disk than the ledger
key = "shop.key"               # signs reports; made when first needed
answer_seconds = 1.0           # replies leave at whole multiples of this, 0 at once

[sums]                         # without it nothing is told of which items go together
pairs = "pairs.safetensors"    # the public list that is counted over
epsilon = 2.5                  # of the budget, for one release; or noise_multiplier, its 1/ε
releases = 1                   # how many in all; set aside from the start, asked for or not

[privacy]                      # for public or made-up rows: nothing is protected
unprotected = true
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from shared.accounting import LARGEST_NOISE, SMALLEST_LAPLACE, Charge, scale_for
from shared.config import Section
from shared.errors import ConfigError, PlanError
from shared.plan import Plan, plan

UPDATE_NORM = 100.0  # far beyond what a round moves: it bounds what a fault could send


@dataclass(frozen=True)
class Policy:
    """What may leave a platform, and where it is written down.

    Attributes:
        plan: how its shoppers are protected; None where its file says unprotected.
        dataset: public name of the rows that the budget belongs to.
        ledger: file of the Ledger.
        head: file of the Ledger's head counter, kept apart.
        key: file of the platform's signing key.
        answer_seconds: replies leave at whole multiples of this; 0 is at once.
        metrics_noise: σ of a release of validation metrics, or None: never released under a Plan.
        pairs: file of the pairs whose sums may leave, or None: none may.
        sums_noise: b of that release, 1/ε; None where there is no Plan.
        sums_releases: how many releases of sums are set aside from the start.
        metrics_releases: likewise of metrics; None is one more than there are rounds, 0 where the
            platform shares none.
    """

    plan: Plan | None
    dataset: str
    ledger: Path
    head: Path
    key: Path
    answer_seconds: float = 1.0
    metrics_noise: float | None = None
    pairs: Path | None = None
    sums_noise: float | None = None
    sums_releases: int = 1
    metrics_releases: int | None = 0

    def metrics_for(self, rounds: int) -> int:
        """How many releases of metrics are set aside beside so many rounds."""
        return rounds + 1 if self.metrics_releases is None else self.metrics_releases

    @property
    def refused(self) -> Path:
        """File that tells, a line each, which requests were refused."""
        return self.ledger.with_name(f"{self.ledger.name}.refused")


class PrivacySection(Section):
    """The keys of [privacy]."""

    unprotected: bool = False
    epsilon: float | None = None
    delta: float | None = None
    shoppers_at_least: int | None = None
    sampling_rate: float | None = None
    steps: int | None = None
    rounds: int | None = None
    noise_multiplier: float | None = None
    clip: float = 1.0
    expected_batch: float | None = None
    update_norm: float = UPDATE_NORM
    dataset: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)
    ledger: str | None = None
    head: str | None = None
    key: str | None = None
    answer_seconds: float = Field(default=1.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _protected_or_not(self) -> Self:
        needed = ("epsilon", "shoppers_at_least", "sampling_rate", "steps")
        missing = [name for name in needed if getattr(self, name) is None]
        numbers = {*needed, "delta", "rounds", "noise_multiplier", "clip", "expected_batch"}
        if self.unprotected and self.model_fields_set & (numbers | {"update_norm"}):
            raise ValueError("give either unprotected = true or a Plan, not both")
        if not self.unprotected and missing:
            raise ValueError(f"a Plan needs {', '.join(missing)} as well")
        return self


class SumsSection(Section):
    """The keys of [sums]."""

    pairs: str
    epsilon: float | None = None
    noise_multiplier: float | None = Field(default=None, ge=SMALLEST_LAPLACE, le=LARGEST_NOISE)
    releases: int = Field(default=1, ge=1, le=1000)


def sums_noise(section: PrivacySection, sums: SumsSection, *, where: str) -> float | None:
    """b of the one release of sums; None where nothing is protected.

    Raises:
        ConfigError: ε and b are both or neither given under a Plan, or one without.
        PlanError: ε is out of range.
    """
    given = (sums.epsilon is not None) + (sums.noise_multiplier is not None)
    if given != (0 if section.unprotected else 1):
        raise ConfigError(
            "has noise for rows that are unprotected"
            if section.unprotected
            else "needs either epsilon or noise_multiplier under a Plan",
            where=f"{where} [sums]",
            todo="leave both out" if section.unprotected else "give exactly one of the two",
        )
    if sums.epsilon is None:
        return sums.noise_multiplier
    return scale_for(sums.epsilon)


def policy_of(
    section: PrivacySection | None,
    sums: SumsSection | None,
    *,
    name: str,
    base: Path,
    metrics_noise: float | None,
    metrics_releases: int | None = 0,
    where: str,
) -> Policy | None:
    """The Policy of a [privacy] section and a [sums] section; None where neither is there.

    Args:
        section: parsed, if it is there.
        sums: likewise.
        name: of the platform.
        base: the folder where relative paths start.
        metrics_noise: σ of the [evaluation] section.
        metrics_releases: of the same, as of Policy.
        where: the file, for errors.

    Raises:
        PlanError: its numbers make no Plan.
        ConfigError: two of its files are one.
    """
    if section is None:
        if sums is not None:
            raise ConfigError(
                "stands without [privacy]",
                where=f"{where} [sums]",
                todo="write a [privacy] section, or leave [sums] out",
            )
        return None
    made = noise = None
    try:
        noise = sums_noise(section, sums, where=where) if sums is not None else None
    except PlanError as fault:
        raise PlanError(fault.what, where=f"{where} [sums]", todo=fault.todo) from None
    if not section.unprotected:
        try:
            made = plan(
                epsilon=section.epsilon or 0.0,
                shoppers_at_least=section.shoppers_at_least or 0,
                sampling_rate=section.sampling_rate or 0.0,
                steps=section.steps or 0,
                clip=section.clip,
                update_norm=section.update_norm,
                noise_multiplier=section.noise_multiplier,
                rounds=section.rounds,
                delta=section.delta,
                expected_batch=section.expected_batch,
                beside=[] if sums is None or noise is None else [_sums_charge(noise, sums)],
                metrics=None if metrics_releases == 0 else metrics_noise,
                metrics_releases=metrics_releases,
            )
        except PlanError as fault:
            raise PlanError(fault.what, where=f"{where} [privacy]", todo=fault.todo) from None
    files = {
        kind: Path(os.path.abspath(base / (getattr(section, kind) or f"{name}.{kind}")))
        for kind in ("ledger", "head", "key")
    }
    if len(set(files.values())) < len(files):
        raise ConfigError(
            "ledger, head and key are not three files",
            where=f"{where} [privacy]",
            todo="name each differently, and head best on another disk",
        )
    return Policy(
        plan=made,
        dataset=section.dataset or name,
        **files,
        answer_seconds=section.answer_seconds,
        metrics_noise=metrics_noise,
        pairs=None if sums is None else Path(os.path.abspath(base / sums.pairs)),
        sums_noise=noise,
        sums_releases=1 if sums is None else sums.releases,
        metrics_releases=0 if made is None else metrics_releases,
    )


def _sums_charge(noise: float, sums: SumsSection) -> Charge:
    """What all releases of sums cost."""
    return Charge(noise, steps=sums.releases, mechanism="laplace")


def check_metrics(policy: Policy | None, *, share_metrics: bool, where: str) -> None:
    """Refuse to share metrics of protected shoppers without noise.

    Raises:
        ConfigError: share_metrics under a Plan, without a noise multiplier.
    """
    protected = policy is not None and policy.plan is not None
    if share_metrics and protected and policy is not None and policy.metrics_noise is None:
        raise ConfigError(
            "share_metrics under a Plan needs noise",
            where=f"{where} [evaluation]",
            todo="set noise_multiplier there (20 is much), or share_metrics = false",
        )
