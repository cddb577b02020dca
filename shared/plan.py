"""A Plan: every number that privacy depends on, public, from the platform's own file.

    unit        one shopper's History: neighbours differ by one whole History
    a step      each History is in it with chance q; gradients clipped to C; noise of σ·C added
    a round     `steps` of them, one Charge of the Ledger
    the budget  ε at δ, for all rounds of all runs on one data set, for ever

Whatever makes training faster or slower is no part of it: see `shared.training.Speed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from shared.accounting import (
    LARGEST_NOISE,
    SMALLEST_NOISE,
    Charge,
    check_budget,
    noise_for,
)
from shared.accounting import epsilon as cost
from shared.errors import PlanError

LARGE_DELTA = 1e-5  # from which a Plan is warned of: a shopper in 100,000 may go unprotected
DELTA_POWER = 1.1  # δ = 1/N^1.1 where a file names none: below 1/N, and the field's habit
MOST_BESIDES = 0.999  # of ε; with less left no noise within reason is enough for rounds
LEAST, MOST = 1e-12, 1e9  # of every number of a Plan: sums then keep their digits in float64


@dataclass(frozen=True)
class Plan:
    """What a platform spends in a round, and may spend in all.

    Attributes:
        clip: C, the largest L2 norm of one History's gradient in a step.
        noise_multiplier: σ; noise of standard deviation σ·C goes on the sum of a step.
        sampling_rate: q, the chance of each History to be in a step, in (0, 1].
        steps: of one round.
        expected_batch: what the noised sum of a step is divided by; q·N for a public guess of N.
        epsilon: ε, the budget of this data set.
        delta: δ of the budget; below 1/shoppers_at_least.
        shoppers_at_least: a public lower bound of the number of shoppers.
        update_norm: the largest L2 norm of an Update that leaves.
        unit: what one record is.
    """

    clip: float
    noise_multiplier: float
    sampling_rate: float
    steps: int
    expected_batch: float
    epsilon: float
    delta: float
    shoppers_at_least: int
    update_norm: float
    unit: Literal["shopper"] = "shopper"

    def __post_init__(self) -> None:
        """Refuse, by name, a number with which the promise cannot hold."""
        for name in ("clip", "noise_multiplier", "expected_batch", "update_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PlanError(f"{name} {value} is not a positive number", todo="set it above 0")
            if not LEAST <= value <= MOST:
                raise PlanError(
                    f"{name} {value:g} is not from {LEAST:g} to {MOST:g}",
                    todo="set it within reason",
                )
        if not SMALLEST_NOISE <= self.noise_multiplier <= LARGEST_NOISE:
            raise PlanError(
                f"noise_multiplier {self.noise_multiplier:g} is not from {SMALLEST_NOISE:g} to"
                f" {LARGEST_NOISE:g}",
                todo="set it within reason, or let epsilon and rounds find it",
            )
        check_budget(self.epsilon, self.delta)
        if self.shoppers_at_least < 2:
            raise PlanError(
                f"shoppers_at_least {self.shoppers_at_least} is fewer than 2",
                todo="set a public lower bound of the number of shoppers",
            )
        if self.delta >= 1 / self.shoppers_at_least:
            raise PlanError(
                f"delta {self.delta:g} is not below 1/{self.shoppers_at_least}, so some shopper's"
                " rows could be published whole",
                todo="leave delta out, or lower it",
            )
        if self.unit != "shopper":
            raise PlanError(f"unit {self.unit!r} is not 'shopper'", todo="leave unit out")
        _ = self.charge  # refuses q, steps

    @property
    def charge(self) -> Charge:
        """What one round costs."""
        return Charge(self.noise_multiplier, self.sampling_rate, self.steps)

    def epsilon_after(self, rounds: int) -> float:
        """ε at δ of so many rounds of this Plan and nothing else."""
        return cost([self.charge] * rounds, self.delta)

    def tightened(
        self,
        *,
        clip: float | None = None,
        noise_multiplier: float | None = None,
        steps: int | None = None,
    ) -> Plan:
        """This Plan with what a server asks for, which can only be less.

        Raises:
            PlanError: the server asks for a larger clip, less noise or more steps.
        """
        asked = {"clip": clip, "noise_multiplier": noise_multiplier, "steps": steps}
        looser = {
            "clip": clip is not None and not clip <= self.clip,
            "noise_multiplier": noise_multiplier is not None
            and not noise_multiplier >= self.noise_multiplier,
            "steps": steps is not None and not steps <= self.steps,
        }
        for name, is_looser in looser.items():
            if is_looser:
                raise PlanError(
                    f"the server asks for {name} {asked[name]}, the Plan has {getattr(self, name)}",
                    todo="have the coordinator ask for less, or change the platform's file",
                )
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(self, **given)  # type: ignore[arg-type]

    def public(self) -> dict[str, float | int | str]:
        """Every number, by name, as a ledger or a report holds it."""
        return asdict(self)


def large_delta(delta: float) -> str | None:
    """A warning where δ is larger than is good practice (NIST SP 800-226); None where it is not."""
    if delta <= LARGE_DELTA:
        return None
    return (
        f"LARGE δ: δ = {delta:.3g} is above {LARGE_DELTA:g}. The definition alone would allow that"
        f" each shopper's rows come out whole with a chance of {delta:.3g}. Choose a smaller delta"
        " in [privacy], far below 1 divided by the number of shoppers."
    )


def default_delta(shoppers_at_least: int) -> float:
    """δ where a file names none."""
    return math.pow(shoppers_at_least, -DELTA_POWER)


def plan(
    *,
    epsilon: float,
    shoppers_at_least: int,
    sampling_rate: float,
    steps: int,
    clip: float,
    update_norm: float,
    noise_multiplier: float | None = None,
    rounds: int | None = None,
    delta: float | None = None,
    expected_batch: float | None = None,
    beside: Sequence[Charge] = (),
    metrics: float | None = None,
    metrics_releases: int | None = None,
) -> Plan:
    """A Plan from what a platform's file says: σ from the number of rounds, or as it is given.

    Args:
        epsilon: the budget.
        shoppers_at_least: public lower bound of the number of shoppers.
        sampling_rate: q.
        steps: of a round.
        clip: C.
        update_norm: bound of an Update.
        noise_multiplier: σ; give it or `rounds`.
        rounds: how many the budget is to last for; σ follows.
        delta: 1/shoppers_at_least^1.1 if None.
        expected_batch: sampling_rate · shoppers_at_least if None.
        beside: what is released of the same rows besides its rounds, out of the same budget.
        metrics: σ of releases of metrics, which come out of the same budget too.
        metrics_releases: how many of them; None is one more than there are rounds.

    Raises:
        PlanError: a number is out of range, both or neither of σ and rounds are given, or the
            budget does not last for one round.
    """
    if (noise_multiplier is None) == (rounds is None):
        raise PlanError(
            "needs either noise_multiplier or rounds", todo="give exactly one of the two"
        )
    if shoppers_at_least < 2:
        raise PlanError(
            f"shoppers_at_least {shoppers_at_least} is fewer than 2",
            todo="set a public lower bound of the number of shoppers",
        )
    Charge(1.0 if noise_multiplier is None else noise_multiplier, sampling_rate, steps)
    delta = default_delta(shoppers_at_least) if delta is None else delta
    if metrics is not None:
        count = (rounds or 1) + 1 if metrics_releases is None else metrics_releases
        beside = [*beside, Charge(metrics, steps=count)] if count > 0 else beside
    if rounds is not None:
        if rounds < 1:
            raise PlanError(f"rounds {rounds} are fewer than 1", todo="set at least 1")
        if beside and (taken := cost(beside, delta)) > MOST_BESIDES * epsilon > 0:
            raise PlanError(
                f"what is released besides costs epsilon {taken:.4g} of {epsilon:g}, which leaves"
                " nothing for rounds",
                todo="lower epsilon or releases of [sums] and [evaluation], or raise this one",
            )
        noise_multiplier = noise_for(
            epsilon, delta, sampling_rate=sampling_rate, steps=steps * rounds, beside=beside
        )
    assert noise_multiplier is not None
    made = Plan(
        clip=clip,
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
        steps=steps,
        expected_batch=(
            sampling_rate * shoppers_at_least if expected_batch is None else expected_batch
        ),
        epsilon=epsilon,
        delta=delta,
        shoppers_at_least=shoppers_at_least,
        update_norm=update_norm,
    )
    if rounds is None and (first := cost([*beside, made.charge], delta)) > epsilon:
        besides = " with what is released besides" if beside else ""
        raise PlanError(
            f"one round{besides} costs epsilon {first:.4g}, the budget is {epsilon:g}",
            todo="raise noise_multiplier, or lower steps or sampling_rate",
        )
    return made
