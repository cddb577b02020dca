"""What the entries of a ledger add up to: spent, reserved, left, and rounds that still fit.

A released charge is spent for ever, an open reservation counts as if it were, an abandoned one
costs nothing. All of one data set and unit compose, at the δ of the Plan in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clients.chain import Entries, Entry
from shared.accounting import Charge, epsilon
from shared.errors import BudgetError
from shared.plan import Plan

MOST_ROUNDS = 100_000  # that a balance tells of


@dataclass(frozen=True)
class Balance:
    """The budget of one data set, and what has become of it.

    Attributes:
        dataset: its name.
        unit: what one record of it is.
        epsilon: the budget, at δ.
        delta: δ of the Plan, at which all is told.
        spent: ε of what was released.
        reserved: ε that an open reservation adds.
        left: ε of the budget that neither has taken; 0 if they took more.
        rounds_left: how many more rounds of the Plan fit, 100,000 at most.
        releases: how many.
    """

    dataset: str
    unit: str
    epsilon: float
    delta: float
    spent: float
    reserved: float
    left: float
    rounds_left: int
    releases: int


def balance_of(entries: Entries, *, dataset: str, plan: Plan) -> Balance:
    """The Balance of a data set under a Plan."""
    released = charges(entries, dataset=dataset, unit=plan.unit, reserved=False)
    taken = charges(entries, dataset=dataset, unit=plan.unit)
    spent, with_reserved = epsilon(released, plan.delta), epsilon(taken, plan.delta)
    return Balance(
        dataset=dataset,
        unit=plan.unit,
        epsilon=plan.epsilon,
        delta=plan.delta,
        spent=spent,
        reserved=with_reserved - spent,
        left=max(0.0, plan.epsilon - with_reserved),
        rounds_left=rounds_left(plan, taken),
        releases=len(released),
    )


def charges(entries: Entries, *, dataset: str, unit: str, reserved: bool = True) -> list[Charge]:
    """What a data set has released and, if wanted, what is reserved."""

    def counts(entry: Entry) -> bool:
        is_open = entry.kind == "reserve" and entry is entries[-1]
        return entry.kind == "release" or (reserved and is_open)

    mine = (entry for entry in entries if (entry.dataset, entry.unit) == (dataset, unit))
    return [entry.charge for entry in mine if counts(entry)]


def check_fits(
    charge: Charge, taken: Sequence[Charge], *, plan: Plan, dataset: str, where: Path
) -> None:
    """Refuse a charge that would take more than the budget.

    Raises:
        BudgetError: names what is left and what it would cost.
    """
    after = epsilon([*taken, charge], plan.delta)
    if not after <= plan.epsilon:
        before = epsilon(taken, plan.delta)
        raise BudgetError(
            f"the budget of {dataset} is exhausted: epsilon"
            f" {max(0.0, plan.epsilon - before):.4g} of {plan.epsilon:g} is left,"
            f" this would cost {after - before:.4g}",
            where=where,
            todo="train no more on these rows",
        )


def rounds_left(plan: Plan, taken: Sequence[Charge]) -> int:
    """How many more rounds of the Plan fit beside these charges, MOST_ROUNDS at most.

    Doubles before it bisects, so that no composition is much larger than the budget.
    """

    def fit(rounds: int) -> bool:
        more = replace(plan.charge, steps=plan.charge.steps * rounds)
        return epsilon([*taken, more], plan.delta) <= plan.epsilon

    fits, too_many = 0, 1
    while too_many <= MOST_ROUNDS and fit(too_many):
        fits, too_many = too_many, too_many * 2
    too_many = min(too_many, MOST_ROUNDS + 1)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if fit(middle) else (fits, middle)
    return fits
