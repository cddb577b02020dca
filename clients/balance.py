"""What the entries of a ledger add up to: spent, reserved, set aside, left, rounds that may come.

A released charge is spent for ever, an open reservation counts as if it were, an abandoned one
costs nothing. All of one data set and unit compose, at the δ of the Plan in force. What may still
be released was fixed before the first release: see `clients.allowance`.
"""

from __future__ import annotations

from dataclasses import dataclass

from clients.allowance import (
    allowance_of,
    amounts,
    counted,
    metrics_charge,
    rounds_left,
    sums_charge,
)
from clients.chain import Entries
from shared.accounting import Charge, epsilon
from shared.tables.policy import Policy


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
        set_aside: ε that is kept for sums, for metrics and for what earlier Plans allowed.
        left: ε of the budget that rounds of this Plan may still take; 0 if there is none.
        rounds: how many rounds of the Plan there are in all, 100,000 at most.
        rounds_left: how many of them are not taken yet.
        sums_left: how many releases of sums are not taken yet.
        metrics_left: how many releases of metrics are not taken yet.
        releases: how many there were.
    """

    dataset: str
    unit: str
    epsilon: float
    delta: float
    spent: float
    reserved: float
    set_aside: float
    left: float
    rounds: int
    rounds_left: int
    sums_left: int
    metrics_left: int
    releases: int


def balance_of(entries: Entries, *, policy: Policy) -> Balance:
    """The Balance of the policy's data set under its Plan.

    Raises:
        ValueError: the policy protects nothing.
    """
    found, plan = allowance_of(entries, policy=policy), policy.plan
    assert plan is not None
    released = charges(entries, dataset=policy.dataset, unit=plan.unit, reserved=False)
    spent, with_reserved = epsilon(released, plan.delta), epsilon(found.taken, plan.delta)
    set_aside, left = amounts(found, plan)
    sums, metrics = sums_charge(policy), metrics_charge(policy)
    return Balance(
        dataset=policy.dataset,
        unit=plan.unit,
        epsilon=plan.epsilon,
        delta=plan.delta,
        spent=spent,
        reserved=with_reserved - spent,
        set_aside=set_aside,
        left=left,
        rounds=max(0, found.rounds),
        rounds_left=rounds_left(found, plan),
        sums_left=0 if sums is None else min(found.sums, found.left(sums)),
        metrics_left=0 if metrics is None else min(found.metrics, found.left(metrics)),
        releases=len(released),
    )


def charges(entries: Entries, *, dataset: str, unit: str, reserved: bool = True) -> list[Charge]:
    """What a data set has released and, if wanted, what is reserved."""
    found = counted(entries, dataset=dataset, unit=unit, reserved=reserved)
    return [entry.charge for entry in found]
