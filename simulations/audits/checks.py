"""What each check makes of what was seen: green or red, a line that says why, and its figures.

All but the Ledger's are functions of what a run left behind, so that each can be tested by hand.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import PRVAccountant
from scipy import stats

from clients.ledger import Asked, Ledger
from shared.accounting import Charge
from shared.adapter import Adapter
from shared.errors import BudgetError
from shared.plan import Plan
from shared.tables.policy import Policy
from shared.training import Engine, Recipe, train
from simulations.audits.attacks import Shadows, likelihood_ratios, recovered, roc
from simulations.audits.canaries import CONFIDENCE, lower_bound, p_value, right_guesses
from simulations.audits.ground import Ground

Found = tuple[dict[str, bool | str], dict[str, Any]]
SURE = 1e-4  # a draw stranger than this is no Poisson sampling; three are tested in an audit
EPS_ERROR = 0.005  # of the independent accountant, nats
WORKS = 0.5  # share of items that an inversion must find without a Plan, or it tells nothing
FAILS = 0.25  # of that share; a protected Update must give less
RATES = (0.01, 0.1)  # false positive rates at which true positives are told
POINTS = 60  # of a curve that is kept to be drawn


def one_run_check(
    scores: NDArray[np.float64], coins: NDArray[np.bool_], *, guesses: int, plan: Plan
) -> Found:
    """Green unless the guesses refute the Plan's ε."""
    right = right_guesses(scores, coins, guesses)
    least = lower_bound(canaries=len(coins), guesses=guesses, right=right, delta=plan.delta)
    chance = p_value(
        canaries=len(coins), guesses=guesses, right=right, epsilon=plan.epsilon, delta=plan.delta
    )
    told = (
        f"{right} of {guesses} guesses right on {len(coins)} canaries: epsilon is at least "
        f"{least:.2f} with {CONFIDENCE:.0%} confidence, claimed is {plan.epsilon:g}"
    )
    figures = {
        "epsilon": least,
        "confidence": CONFIDENCE,
        "canaries": len(coins),
        "guesses": guesses,
        "right": right,
        "p_value_of_claim": chance,
    }
    return _check("one run", least <= plan.epsilon, told), figures


def sampling_check(drawn: Sequence[NDArray[np.int64]], *, records: int, plan: Plan) -> Found:
    """Green if batches look like Poisson samples: participation, batch sizes and their sum."""
    rate, steps = plan.sampling_rate, len(drawn)
    parts = np.bincount(np.concatenate(drawn), minlength=records)
    sizes = np.array([len(batch) for batch in drawn])
    found = {
        "participation": spread_p(parts, trials=steps, rate=rate),
        "batch_sizes": spread_p(sizes, trials=records, rate=rate),
        "rate": float(stats.binomtest(int(sizes.sum()), records * steps, rate).pvalue),
    }
    worst = min(found, key=lambda name: found[name])
    told = (
        f"{records} records over {steps} steps at rate {rate:g}: least likely under Poisson "
        f"sampling is {worst.replace('_', ' ')}, p = {found[worst]:.2g}"
    )
    return _check("sampling", found[worst] >= SURE, told), {"records": records, **found}


def spread_p(counts: NDArray[np.int64], *, trials: int, rate: float) -> float:
    """Two-sided p-value of the spread of counts that should be Binomial(trials, rate).

    The sum of squared deviations over the variance is told against the gamma distribution with its
    mean and variance; where trials·rate is large that is χ².
    """
    variance = trials * rate * (1 - rate)
    found = float(np.square(counts - trials * rate).sum() / variance)
    each = 2 + (1 - 6 * rate * (1 - rate)) / variance  # variance of one summand
    law = stats.gamma(len(counts) / each, scale=each)
    return float(2 * min(law.cdf(found), law.sf(found)))


def ledger_check(
    ground: Ground,
    *,
    plan: Plan,
    rounds: int,
    engine: Callable[[Plan, int], Callable[..., Engine]],
    open_ledger: Callable[..., Ledger],
    folder: Path,
) -> Found:
    """Train until the Ledger refuses; green if it counts no less than what left.

    The process "restarts" before every round, and one reservation is abandoned.

    Args:
        ground: where.
        plan: of each round.
        rounds: that its ε is for; after twice as many it is left at that.
        engine: makes the engine of a round.
        open_ledger: as Ledger.open.
        folder: for the ledger.
    """
    policy = Policy(plan, "audit", folder / "a.ledger", folder / "a.head", folder / "a.key")
    adapter = ground.start
    left: list[Charge] = []
    for number in range(1, 2 * rounds + 1):
        with open_ledger(policy, noise="simulated") as book:
            try:
                if number == 1:
                    book.abandon(book.reserve(_asked(0, adapter), plan.charge))
                place = book.reserve(_asked(number, adapter), plan.charge)
            except BudgetError:
                break
            after = train(
                ground.backbone,
                adapter,
                [ground.rows],
                Recipe(),
                rng=np.random.default_rng(0),
                engine=engine(plan, number),
            )
            book.release(place, after.digest.encode())
        left.append(plan.charge)
        adapter = after
    with open_ledger(policy, noise="simulated") as book:
        told = book.balance().spent
    least, most = independent_epsilon(left, plan.delta)
    line = (
        f"{len(left)} releases left, which cost {(least + most) / 2:.3f} ± {EPS_ERROR:g} by "
        f"another accountant; the ledger says {told:.3f} of {plan.epsilon:g}"
    )
    figures = {"releases": len(left), "told": told, "least": least, "most": most}
    return _check("ledger", told >= least, line), figures


def _asked(number: int, adapter: Adapter) -> Asked:
    return Asked("update", "audit", number, adapter.digest)


def independent_epsilon(charges: Sequence[Charge], delta: float) -> tuple[float, float]:
    """Between which two numbers ε of these releases is, by Opacus' PRV accountant (2106.02848)."""
    accountant = PRVAccountant()
    for charge, times in Counter(charges).items():
        steps = times * charge.steps
        accountant.history.append((charge.noise_multiplier, charge.sampling_rate, steps))
    with warnings.catch_warnings():
        # Of a first guess by Rényi orders, from which nothing but the width of a grid is taken.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        most = float(accountant.get_epsilon(delta, eps_error=EPS_ERROR))
    return max(0.0, most - 2 * EPS_ERROR), most


def membership_check(plain: Shadows, protected: Shadows, *, plan: Plan) -> Found:
    """Green if no advantage is found that (ε, δ) forbids, with 95 % confidence.

    The margin is Dvoretzky, Kiefer and Wolfowitz's for both rates at every threshold at once; runs
    of one audit share their targets, so it is a guide and no proof.
    """
    odds, delta = math.exp(plan.epsilon), plan.delta
    allowed = {
        "advantage": (odds - 1 + 2 * delta) / (odds + 1),
        **{f"tpr_at_{rate:g}": allowed_tpr(rate, plan.epsilon, delta) for rate in RATES},
    }
    figures: dict[str, Any] = {
        "targets": protected.inside.shape[1],
        "runs": len(protected.inside),
        "unprotected": _rates(plain),
        "protected": _rates(protected),
        "allowed": allowed,
    }
    inside, outside = protected.inside.sum(), (~protected.inside).sum()
    margin = sum(math.sqrt(math.log(4 / (1 - CONFIDENCE)) / (2 * n)) for n in (inside, outside))
    found, open_ = figures["protected"]["advantage"], figures["unprotected"]["advantage"]
    line = (
        f"advantage {found:.2f} under the Plan, which allows {allowed['advantage']:.2f}; "
        f"{open_:.2f} without one"
    )
    return _check("membership", found - margin <= allowed["advantage"], line), figures


def allowed_tpr(rate: float, epsilon: float, delta: float) -> float:
    """The most true positives at a rate of false ones (Kairouz et al., arXiv 1311.0776)."""
    return min(
        1.0,
        math.exp(epsilon) * rate + delta,
        1 - math.exp(-epsilon) * (1 - delta - rate),
    )


def _rates(shadows: Shadows) -> dict[str, Any]:
    false, true = roc(likelihood_ratios(shadows), shadows.inside)
    at = np.unique(np.searchsorted(false, np.geomspace(1e-3, 1, POINTS), side="right") - 1)
    return {
        "advantage": float((true - false).max()),
        **{f"tpr_at_{rate:g}": float(true[false <= rate].max()) for rate in RATES},
        "roc": [[float(false[it]), float(true[it])] for it in at],
    }


def inversion_check(
    histories: Sequence[NDArray[np.int32]],
    plain: Sequence[NDArray[np.int64]],
    protected: Sequence[NDArray[np.int64]],
    *,
    titles: Sequence[str],
) -> Found:
    """Green if items are found without a Plan, and hardly any under it."""
    whole = sum(len(set(history.tolist())) for history in histories)
    shares = [
        sum(recovered(g, h) for g, h in zip(guesses, histories, strict=True)) / whole
        for guesses in (plain, protected)
    ]
    chance = sum(len(history) ** 2 for history in histories) / len(titles) / whole
    # Shown is the one whose items were found best, the longest of these.
    shown = max(
        range(len(histories)),
        key=lambda it: (recovered(plain[it], histories[it]) / len(histories[it]), len(plain[it])),
    )
    kinds = {"taken": histories[shown].tolist(), "unprotected": plain[shown].tolist()}
    kinds["protected"] = protected[shown].tolist()
    line = (
        f"{shares[0]:.0%} of {whole} items found without a Plan, {shares[1]:.0%} under it, "
        f"{chance:.0%} by chance"
    )
    figures = {
        "histories": len(histories),
        "items": whole,
        "unprotected": shares[0],
        "protected": shares[1],
        "chance": chance,
        "example": {name: [titles[it] for it in places] for name, places in kinds.items()},
    }
    passed = shares[0] >= WORKS and shares[1] < FAILS * shares[0]
    return _check("inversion", passed, line), figures


def _check(name: str, passed: bool, told: str) -> dict[str, bool | str]:
    return {"name": name, "passed": bool(passed), "told": told}
