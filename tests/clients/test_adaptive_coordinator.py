"""The game of a coordinator that adapts, worked out by numerical convolution of its own.

Nothing here uses the accounting of the project, but to find what the rules under test let through.
Losses lie on a grid of STEP nats; a mechanism is the law of its loss under either neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.stats import norm

from clients.allowance import allowance_of, check_fits
from clients.chain import Asked, Entry
from clients.ledger import Ledger, balance, entries
from shared.accounting import Charge, epsilon
from shared.errors import BudgetError
from shared.plan import plan
from shared.tables.policy import Policy

# README's Plan: 20 rounds of 20 steps at rate .05, sums of ε = 2.5 beside them, ε = 3 in all.
EPSILON, SUMS, ROUNDS, STEPS, RATE = 3.0, 2.5, 20, 20, 0.05
SHOPPERS = 20_000
DELTA = SHOPPERS**-1.1
STEP, HALF = 5e-4, 20_000  # width of the grid in nats, and points on either side of 0: ±10
GRID = np.arange(-HALF, HALF) * STEP
EDGES = np.append(GRID, GRID[-1] + STEP) - STEP / 2
Law = NDArray[np.float64]  # [2·HALF] probabilities of losses


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    made = plan(
        epsilon=EPSILON,
        shoppers_at_least=SHOPPERS,
        sampling_rate=RATE,
        steps=STEPS,
        rounds=ROUNDS,
        clip=1.0,
        update_norm=100.0,
        beside=[Charge(1 / SUMS, mechanism="laplace")],
    )
    ledger, head, key = (tmp_path / f"shop.{kind}" for kind in ("ledger", "head", "key"))
    return Policy(made, "shop", ledger, head, key, sums_noise=1 / SUMS)


# Laws of losses ------------------------------------------------------------------------------


def sampled_gaussian(noise: float, *, removed: bool) -> Law:
    """Of one step: (1 − q) N(0, σ²) + q N(1, σ²) against N(0, σ²), or the other way round."""

    def below(loss: NDArray[np.float64]) -> NDArray[np.float64]:
        sign = 1 if removed else -1
        inner = (np.exp(sign * loss) - (1 - RATE)) / RATE
        x = np.full_like(loss, -np.inf)
        np.log(inner, out=x, where=inner > 0)
        x = noise**2 * x + 0.5
        if removed:
            return (1 - RATE) * norm.cdf(x / noise) + RATE * norm.cdf((x - 1) / noise)
        return norm.sf(x / noise)

    return sheppard(np.diff(below(EDGES)))


def sheppard(law: Law) -> Law:
    """Without the variance STEP²/12 that rounding to a grid adds to a smooth law (Sheppard)."""
    return law - np.convolve(law, [1, -2, 1], mode="same") / 24


def laplace(scale: float) -> Law:
    """Of Laplace(0, b) against Laplace(1, b): the loss is (|x − 1| − |x|) / b."""
    x = (1 - EDGES * scale) / 2
    above = np.where(x < 0, np.exp(np.minimum(x, 0) / scale) / 2, 1 - np.exp(-x / scale) / 2)
    below = np.where(1 / scale <= EDGES, 1.0, np.where(-1 / scale > EDGES, 0.0, 1 - above))
    return np.diff(below)


def times(law: Law, count: int) -> Law:
    """Of so many mechanisms of one law."""
    found = np.fft.fftshift(irfft(rfft(np.fft.ifftshift(law)) ** count, 2 * HALF))
    return np.asarray(found, np.float64)


def ahead(value: Law, law: Law) -> Law:
    """[loss so far] the mean of a value after one mechanism more; below the grid 0, beyond it 1."""
    size = next_fast_len(6 * HALF)
    whole = np.concatenate([np.zeros(2 * HALF), value, np.ones(2 * HALF)])
    # Cross-correlation: mean over L of value(l + L).
    found = irfft(rfft(whole, size) * np.conj(rfft(law, size)), size)
    return np.asarray(found[HALF : 3 * HALF], np.float64)


def delta_now(eps: float) -> Law:
    """[loss so far] what the adversary has if it stops: (1 − e^(ε − loss))+."""
    return np.asarray(np.maximum(0.0, -np.expm1(np.minimum(eps - GRID, 0.0))), np.float64)


# The game ------------------------------------------------------------------------------------

State = tuple[int, int]  # rounds taken, sums taken
Moves = Callable[[State], list[State]]


def best_delta(moves: Moves, laws: Callable[[State, State], Law], eps: float) -> float:
    """δ at ε of the best adversary, who looks at all losses so far before each move."""

    @cache
    def value_of(state: State) -> Law:
        options = [delta_now(eps)]
        options += [ahead(value_of(new), laws(state, new)) for new in moves(state)]
        return np.asarray(np.maximum.reduce(options), np.float64)

    return float(value_of((0, 0))[HALF])


def old_rule(policy: Policy) -> Callable[[int, int], bool]:
    """Whether so many rounds and sums fit, as the ledger admitted them before: one by one."""
    made = policy.plan
    assert made is not None
    sums = Charge(1 / SUMS, mechanism="laplace")

    def fits(rounds: int, taken: int) -> bool:
        return epsilon([made.charge] * rounds + [sums] * taken, DELTA) <= EPSILON

    return fits


def in_ledger(policy: Policy, state: State) -> list[Entry]:
    """Entries of a ledger with so many rounds and sums, as check_fits looks at them."""
    made = policy.plan
    assert made is not None
    total = allowance_of([], policy=policy).total
    charges = [("update", made.charge)] * state[0]
    charges += [("sums", Charge(1 / SUMS, mechanism="laplace"))] * state[1]
    return [
        Entry(
            number=number,
            kind="release",
            of=None,
            dataset="shop",
            unit="shopper",
            asked=Asked(purpose, "run", number, "adapter"),  # type: ignore[arg-type]
            charge=charge,
            plan=made.public(),
            noise="secure",
            time=0.0,
            payload="",
            before="",
            allowance=total,
        )
        for number, (purpose, charge) in enumerate(charges, start=1)
    ]


def new_rule(policy: Policy) -> Moves:
    """The moves that `check_fits` admits."""
    made = policy.plan
    assert made is not None
    charges = {"update": made.charge, "sums": Charge(1 / SUMS, mechanism="laplace")}

    def moves(state: State) -> list[State]:
        def admitted() -> Iterator[State]:
            for purpose, new in (("update", (1, 0)), ("sums", (0, 1))):
                asked = Asked(purpose, "run", 99, "adapter")  # type: ignore[arg-type]
                before = in_ledger(policy, state)
                try:
                    check_fits(asked, charges[purpose], before, policy=policy, where=policy.ledger)
                except BudgetError:
                    continue
                yield state[0] + new[0], state[1] + new[1]

        return list(admitted())

    return moves


def laws_of(policy: Policy, *, removed: bool) -> Callable[[State, State], Law]:
    """The law of what happens between two states."""
    made = policy.plan
    assert made is not None
    step = sampled_gaussian(made.noise_multiplier, removed=removed)

    @cache
    def rounds(count: int) -> Law:
        return times(step, STEPS * count)

    def law(before: State, after: State) -> Law:
        return laplace(1 / SUMS) if after[1] > before[1] else rounds(after[0] - before[0])

    return law


def test_one_choice_after_twenty_rounds_doubled_delta_under_the_rule_of_before(
    policy: Policy,
) -> None:
    most = 460  # rounds that fit where no sums are taken
    fits = old_rule(policy)
    assert [fits(ROUNDS, 1), fits(most, 0), fits(most + 1, 0)] == [True, True, False]
    start, middle, ends = (0, 0), (ROUNDS, 0), [(ROUNDS, 1), (most, 0)]
    law = laws_of(policy, removed=True)

    def best(ends: list[State], eps: float) -> float:
        moves = {start: [middle], middle: ends}
        return best_delta(lambda state: moves.get(state, []), law, eps)

    for end in ends:  # either path alone keeps the promise, and nearly uses it up
        assert 0.98 < best([end], EPSILON) / DELTA <= 1
    assert best(ends, EPSILON) / DELTA == pytest.approx(1.98, abs=0.01)
    assert best(ends, 3.05) > DELTA > best(ends, 3.06)


@pytest.mark.parametrize("removed", [True, False])
def test_no_coordinator_however_it_adapts_gets_more_than_delta(
    policy: Policy, removed: bool
) -> None:
    law = laws_of(policy, removed=removed)
    found = best_delta(new_rule(policy), law, EPSILON)
    one_order = law((0, 0), (ROUNDS, 0))
    fixed = float((one_order * ahead(delta_now(EPSILON), law((0, 0), (0, 1)))).sum())
    assert found == pytest.approx(fixed, rel=1e-6)  # choosing the order gains nothing
    assert found <= DELTA
    assert removed == (found > 0.99 * DELTA)  # of the two directions one uses up the promise


def test_the_ledger_itself_keeps_sums_apart_and_takes_them_at_any_moment(policy: Policy) -> None:
    assert policy.plan is not None
    sums = Charge(1 / SUMS, mechanism="laplace")
    with Ledger.open(policy, noise="secure") as ledger:
        for number in range(ROUNDS):
            asked = Asked("update", "run", number, "adapter")
            ledger.release(ledger.reserve(asked, policy.plan.charge), b"update")
        stands = ledger.balance()
        assert (stands.rounds, stands.rounds_left, stands.sums_left) == (ROUNDS, 0, 1)
        assert stands.spent < 0.6 < 2.4 < stands.set_aside
        late = Asked("update", "run", ROUNDS, "adapter")
        with pytest.raises(
            BudgetError, match=r"is set aside for other releases, and all 20 rounds"
        ):
            ledger.reserve(late, policy.plan.charge)
        asked = Asked("sums", "sums", 1, "pairs")
        ledger.release(ledger.reserve(asked, sums), b"sums")
        with pytest.raises(BudgetError, match="all 1 releases of sums of the Plan are taken"):
            ledger.reserve(replace(asked, run="another"), sums)
    assert 0.999 * EPSILON < balance(policy).spent <= EPSILON
    assert len({entry.allowance for entry in entries(policy)}) == 1
