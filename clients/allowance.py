"""The allowance of a data set: every mechanism that may ever run on it, fixed before the first one.

A coordinator adapts: what it asks for next, and whether it asks for sums or for one more round, may
depend on all that was released before. Two rules make that harmless:

    the Policy  ─allowance_of→  how many of each mechanism may run in all: a fixed multiset
    a request   ─check_fits→    takes its mechanisms out of that multiset, or is refused

Sums and metrics are therefore set aside from the start, whether they are ever asked for or not, and
a round takes a whole round of the Plan, even if the server asked for fewer steps or more noise.

Theorem. Fix two neighbouring data sets D and D', and mechanisms 1 … k, each with a pair (P_i, Q_i)
that dominates it: H_a(M_i(D, s) ‖ M_i(D', s)) ≤ H_a(P_i ‖ Q_i) for every a ≥ 0 and every auxiliary
input s, where H_a(P ‖ Q) = ∫ (dP − a dQ)_+. Let an adversary choose, step by step and from all
outputs so far, which mechanism runs next and on which s; each runs at most once, and it may stop
early. Then its whole transcript T satisfies, for every a ≥ 0,

    H_a(T(D) ‖ T(D')) ≤ H_a(P_1 × … × P_k ‖ Q_1 × … × Q_k),

so T is (ε, δ)-DP with the ε and δ of the fixed composition, whatever the order.

Proof. By induction over k. Let i be the mechanism that the adversary runs first, o its output, and
r(o) the likelihood ratio of o. Given o the rest is a game with one mechanism less, so

    H_a(T(D) ‖ T(D')) = E_{o ~ M_i(D')} [r H_{a/r}(rest | o)] ≤ E_{o ~ M_i(D')} [f(r(o))],
    f(r) = r H_{a/r}(∏_{j≠i} P_j ‖ ∏_{j≠i} Q_j) = ∫ (r dP − a dQ)_+.

f is convex and positive, so the right side is an f-divergence: a mixture of H_b over b ≥ 0, each of
which is largest for (P_i, Q_i). With that pair in place of M_i it is H_a(∏ P ‖ ∏ Q), which no
longer depends on i. Stopping early, or leaving mechanisms unused, is post-processing. ∎
(An equal view: draw a sample of every pair beforehand and reveal it when its mechanism is run; the
order of revealing cannot change the law of what is revealed.)

Conditions, and what holds each of them:

| condition | held by |
| --- | --- |
| the multiset is fixed before any output | it follows from the platform's file; entries record it |
| it stays fixed when the file changes | what an earlier file set aside stays set aside, in full |
| one neighbouring relation | every entry is of one unit: one History added or removed |
| a pair holds for every auxiliary input | of shared/accounting.py: for every Adapter and recipe |
| a mechanism runs once | the ledger; a request that comes again gets the same bytes |
| less noise or more steps never run | `Plan.tightened`; what runs instead is dominated |
| the file does not depend on releases | only its operator can see to it: docs/threat-model.md |

Both directions of the relation are composed on their own; ε is the larger (dp-accounting).

Source: dominating pairs and their adaptive composition in a fixed order, Zhu, Dong and Wang,
Optimal Accounting of Differential Privacy via Characteristic Function (arXiv 2106.08567),
definition 7 and theorem 10; the same for trade-off functions, Dong, Roth and Su (arXiv 1905.02383),
theorem 3.2. The proof above adds that the order may be chosen on the way. Not used: privacy filters
for mechanisms that are themselves chosen on the way (Feldman and Zrnic, arXiv 2008.11193;
Whitehouse et al., arXiv 2203.05481). They compose Rényi or advanced-composition bounds, which cost
more, and for privacy loss distributions we know of no proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clients.chain import Asked, Entries, Entry
from shared.accounting import Charge, Mechanism, epsilon
from shared.errors import BudgetError
from shared.plan import Plan
from shared.tables.policy import Policy

MOST_ROUNDS = 100_000  # that an allowance holds
Kind = tuple[Mechanism, float, float]  # mechanism, noise multiplier, sampling rate
NOUNS = {"update": "rounds", "sums": "releases of sums", "metrics": "releases of metrics"}


@dataclass(frozen=True)
class Allowance:
    """What may run on one data set in all, and how much of it has run.

    Attributes:
        total: every mechanism that may run; of one kind together.
        taken: every mechanism that was released or is reserved; likewise.
        rounds: of the Plan in force, in all; −1 if its sums and metrics alone do not fit beside
            what earlier Plans set aside.
        sums: releases of sums in all.
        metrics: releases of metrics in all.
    """

    total: tuple[Charge, ...]
    taken: tuple[Charge, ...]
    rounds: int
    sums: int
    metrics: int

    def left(self, charge: Charge) -> int:
        """How often this charge can still be taken."""
        kind = _kind(charge)
        return (_steps(self.total)[kind] - _steps(self.taken)[kind]) // charge.steps

    def without(self, charge: Charge, times: int) -> tuple[Charge, ...]:
        """The total, less so many of this charge that are not taken yet."""
        steps = _steps(self.total)
        steps[_kind(charge)] -= charge.steps * times
        return _charges(steps)


def counted(entries: Entries, *, dataset: str, unit: str, reserved: bool = True) -> list[Entry]:
    """The entries of a data set that count: releases and, if wanted, an open reservation."""

    def counts(entry: Entry) -> bool:
        is_open = entry.kind == "reserve" and entry is entries[-1]
        return entry.kind == "release" or (reserved and is_open)

    mine = (entry for entry in entries if (entry.dataset, entry.unit) == (dataset, unit))
    return [entry for entry in mine if counts(entry)]


def sums_charge(policy: Policy) -> Charge | None:
    """What one release of sums costs; None where none may leave, or nothing is protected."""
    if policy.plan is None or policy.sums_noise is None:
        return None
    return Charge(policy.sums_noise, mechanism="laplace")


def metrics_charge(policy: Policy) -> Charge | None:
    """What one release of metrics costs; None where none may leave, or nothing is protected."""
    if policy.plan is None or policy.metrics_noise is None or policy.metrics_releases == 0:
        return None
    return Charge(policy.metrics_noise)


def allowance_of(entries: Entries, *, policy: Policy) -> Allowance:
    """The allowance of the policy's data set.

    | entries | count |
    | --- | --- |
    | none | the multiset of the policy: sums, metrics, and as many rounds as fit beside them |
    | under this policy | the same multiset: it does not depend on what was asked for |
    | under another policy | all that was set aside then, used or not, and rounds of this one |
    | of a ledger from before allowances were recorded | what was released |

    Args:
        entries: of the ledger, verified.
        policy: in force, with a Plan.
    """
    plan = policy.plan
    if plan is None:
        raise ValueError("a ledger needs a Plan")
    found = counted(entries, dataset=policy.dataset, unit=plan.unit)
    taken = _steps(entry.charge for entry in found)
    committed = Counter(taken)
    for recorded in {entry.allowance for entry in found}:
        committed |= _steps(recorded)

    def total(rounds: int) -> tuple[Charge, ...]:
        return _charges(committed | _steps(_wanted(policy, plan, rounds)))

    rounds = _most(
        lambda count: epsilon(total(count), plan.delta) <= plan.epsilon,
        guess=committed[_kind(plan.charge)] // plan.steps,
    )
    sums, metrics = sums_charge(policy), metrics_charge(policy)
    return Allowance(
        total=total(rounds) if rounds >= 0 else _charges(committed),
        taken=_charges(taken),
        rounds=rounds,
        sums=0 if sums is None or rounds < 0 else policy.sums_releases,
        metrics=0 if metrics is None or rounds < 0 else policy.metrics_for(rounds),
    )


def check_fits(
    asked: Asked, charge: Charge, entries: Entries, *, policy: Policy, where: Path
) -> Allowance:
    """Refuse a charge that is not in the allowance any more.

    Args:
        asked: the request.
        charge: what it takes.
        entries: of the ledger, verified.
        policy: in force, with a Plan.
        where: the ledger, for errors.

    Returns:
        The allowance that it is taken from.

    Raises:
        BudgetError: names what is left, and what is set aside for something else.
    """
    found = allowance_of(entries, policy=policy)
    if found.rounds >= 0 and found.left(charge) >= 1:
        return found
    plan, name = policy.plan, policy.dataset
    assert plan is not None
    set_aside, left = amounts(found, plan)
    if found.rounds < 0:
        raise BudgetError(
            f"the budget of {name} is exhausted: what this Plan sets aside does not fit beside"
            f" epsilon {plan.epsilon - left:.4g} of {plan.epsilon:g} that is released or that an"
            " earlier Plan set aside",
            where=where,
            todo="put the earlier numbers back, or raise epsilon of [privacy]",
        )
    whole = {"update": found.rounds, "sums": found.sums, "metrics": found.metrics}[asked.purpose]
    rest = f", {set_aside:.4g} is set aside for other releases" if set_aside >= 1e-4 else ""
    raise BudgetError(
        f"the budget of {name} is exhausted: epsilon {left:.4g} of {plan.epsilon:g} is left{rest},"
        f" and all {whole} {NOUNS[asked.purpose]} of the Plan are taken",
        where=where,
        todo="train no more on these rows",
    )


def amounts(allowance: Allowance, plan: Plan) -> tuple[float, float]:
    """(ε that is set aside for all but rounds of this Plan, ε that is left for these), at its δ."""
    taken = epsilon(allowance.taken, plan.delta)
    rounds = rounds_left(allowance, plan)
    kept = epsilon(allowance.without(plan.charge, rounds), plan.delta)
    return max(0.0, kept - taken), max(0.0, plan.epsilon - max(kept, taken))


def rounds_left(allowance: Allowance, plan: Plan) -> int:
    """How many rounds of the Plan in force may still be released."""
    return max(0, min(allowance.left(plan.charge), allowance.rounds))


def _wanted(policy: Policy, plan: Plan, rounds: int) -> list[Charge]:
    """The multiset of a policy alone, with so many rounds."""
    counts = [(plan.charge, rounds), (sums_charge(policy), policy.sums_releases)]
    counts.append((metrics_charge(policy), policy.metrics_for(rounds)))
    return [
        replace(charge, steps=charge.steps * count)
        for charge, count in counts
        if charge is not None and count > 0
    ]


def _most(fits: Callable[[int], bool], *, guess: int) -> int:
    """The largest number from 0 to MOST_ROUNDS that fits, −1 if none does; looks near the guess.

    Doubles before it bisects, so that no composition is much larger than the budget.
    """
    low, high = -1, guess
    if fits(guess):
        low, high, width = guess, guess + 1, 1
        while high <= MOST_ROUNDS and fits(high):
            low, width = high, width * 2
            high = low + width
        high = min(high, MOST_ROUNDS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _kind(charge: Charge) -> Kind:
    return charge.mechanism, charge.noise_multiplier, charge.sampling_rate


def _steps(charges: Iterable[Charge]) -> Counter[Kind]:
    """How many of each mechanism."""
    steps = Counter[Kind]()
    for charge in charges:
        steps[_kind(charge)] += charge.steps
    return steps


def _charges(steps: Counter[Kind]) -> tuple[Charge, ...]:
    """Mechanisms of one kind together, in one order whatever came first."""
    found: Sequence[tuple[Kind, int]] = sorted((kind, n) for kind, n in steps.items() if n > 0)
    return tuple(Charge(noise, rate, count, mechanism) for (mechanism, noise, rate), count in found)
