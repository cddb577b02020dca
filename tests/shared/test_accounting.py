from __future__ import annotations

import math
from itertools import permutations

import pytest
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from shared.accounting import Charge, check_budget, epsilon, noise_for
from shared.errors import PlanError

DELTA = 3.16e-6
FEW, MANY = (1024 / 1e5, 292), (4096 / 1e5, 244)  # q, steps of the published oracles

# σ as published, to three decimals, and the ε it stands for. σ is rounded, so ε at it is not
# 1, 3 or 8 but within a quarter of a percent; the last column is what it is, computed once on a
# grid ten times as fine as ours (1e-5 nats), on which PRV and PLD agree to 1e-6.
ORACLES = [
    (*FEW, 1, 1.079, 0.9991201900),
    (*FEW, 3, 0.735, 2.9979917596),
    (*FEW, 8, 0.531, 8.0190199043),
    (*MANY, 1, 2.752, 0.9998217926),
    (*MANY, 3, 1.252, 3.0017030855),
    (*MANY, 8, 0.777, 7.9948715051),
]
oracles = pytest.mark.parametrize(("rate", "steps", "target", "noise", "fine"), ORACLES)


def gaussian_epsilon(noise: float, delta: float) -> float:
    """ε of the Gaussian mechanism itself (Balle and Wang, 2018, theorem 8)."""

    def excess(eps: float) -> float:
        # In logarithms, so that a large ε does not overflow.
        ahead = norm.cdf(0.5 / noise - eps * noise)
        behind = math.exp(eps + float(norm.logcdf(-0.5 / noise - eps * noise)))
        return float(ahead - behind - delta)

    return float(brentq(excess, 0, 1 / noise**2 + 50 / noise, xtol=1e-12, rtol=1e-12))


def prv_epsilon(charges: list[Charge], delta: float, *, error: float) -> float:
    """An upper bound by other people's code and another method; too high by at most 2 `error`."""
    accountant = PRVAccountant()
    accountant.history = [(it.noise_multiplier, it.sampling_rate, it.steps) for it in charges]
    return float(accountant.get_epsilon(delta, eps_error=error))


@oracles
def test_epsilon_is_the_oracles_within_a_thousandth_and_never_below(
    rate: float, steps: int, target: int, noise: float, fine: float
) -> None:
    told = epsilon([Charge(noise, rate, steps)], DELTA)
    assert fine <= told <= fine * 1.001
    assert told == pytest.approx(target, rel=0.0025)  # as far as three decimals of σ say it


@pytest.mark.parametrize(
    ("rate", "steps", "target", "noise"),
    [row[:4] for row in ORACLES if row[2] < 8 and row[3] > 1],  # the rest take seconds each
)
def test_the_noise_for_an_epsilon_is_the_oracles_to_the_last_decimal_they_give(
    rate: float, steps: int, target: int, noise: float
) -> None:
    assert round(noise_for(target, DELTA, sampling_rate=rate, steps=steps), 3) == noise


@pytest.mark.filterwarnings("ignore:Optimal order is the largest")  # of its first rough guess
@pytest.mark.parametrize(
    "charges",
    [
        [Charge(2.752, *MANY)],
        [Charge(1.252, *MANY)],
        [Charge(1.0, 0.01, 50), Charge(2.0, 0.05, 20), Charge(9.0, 0.3, 3)],
    ],
)
def test_another_accountant_s_bounds_hold_ours_between_them(charges: list[Charge]) -> None:
    told = epsilon(charges, DELTA)
    above = prv_epsilon(charges, DELTA, error=0.002)
    assert above - 2 * 0.002 * 1.1 <= told <= above
    assert told == pytest.approx(above - 0.002, rel=0.001)  # its own best estimate


def test_twenty_rounds_of_fifty_steps_cost_what_a_thousand_steps_cost() -> None:
    one = Charge(1.0, 0.01, 50)
    assert epsilon([one], 1e-6) == pytest.approx(0.816, rel=0.005)
    twenty = epsilon([one] * 20, 1e-6)
    assert twenty == pytest.approx(2.125, rel=0.005)  # neither .816 nor 20 · .816
    assert twenty == epsilon([Charge(1.0, 0.01, 1000)], 1e-6)


def test_the_order_of_releases_does_not_matter_to_the_last_bit() -> None:
    charges = [Charge(1.0, 0.02, 7), Charge(3.0, 0.5, 2), Charge(20.0), Charge(1.0, 0.02, 4)]
    assert len({epsilon(order, 1e-5) for order in permutations(charges)}) == 1


def test_different_mechanisms_compose_to_more_than_each_and_less_than_their_sum() -> None:
    one, other = Charge(1.0, 0.02, 30), Charge(5.0, 1.0, 2)
    alone = [epsilon([one], 1e-5), epsilon([other], 1e-5)]
    assert max(alone) < epsilon([one, other], 1e-5) < sum(alone)


def test_gaussians_of_different_noise_are_one_gaussian_of_their_precisions() -> None:
    noises = (2.0, 4.0, 4.0, 10.0)
    as_one = 1 / math.sqrt(sum(noise**-2 for noise in noises))
    true = gaussian_epsilon(as_one, 1e-6)
    assert true <= epsilon([Charge(noise) for noise in noises], 1e-6) <= true * 1.001


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize(("noise", "steps"), [(0.5, 1), (1.0, 1), (2.0, 4), (5.0, 1), (40.0, 100)])
def test_taking_everyone_is_the_analytic_gaussian_and_never_below(
    noise: float, steps: int, delta: float
) -> None:
    true = gaussian_epsilon(noise / math.sqrt(steps), delta)
    assert true <= epsilon([Charge(noise, 1.0, steps)], delta) <= true * 1.001


def test_a_step_on_a_sample_costs_less_than_one_on_everyone_and_more_than_nothing() -> None:
    few, more, everyone = (epsilon([Charge(3.0, rate, 4)], 1e-6) for rate in (0.01, 0.2, 1.0))
    assert 0 < few < more < everyone


@pytest.mark.parametrize("delta", [1e-12, 1e-6, 0.5])
def test_nothing_released_costs_nothing(delta: float) -> None:
    assert epsilon([], delta) == 0


def test_a_promise_that_may_fail_for_certain_costs_nothing() -> None:
    assert epsilon([Charge(1.0)], 1.0) == 0


@pytest.mark.parametrize("noise", [1e-9, 1e-200])
def test_so_little_noise_that_the_loss_overflows_costs_everything(noise: float) -> None:
    assert epsilon([Charge(noise)], 1e-6) == math.inf


def test_boundless_noise_is_refused_by_name_or_costs_nothing() -> None:
    try:
        assert epsilon([Charge(1e300)], 1e-6) < 1e-3
    except PlanError as fault:
        assert "noise_multiplier" in str(fault)  # noqa: PT017


@pytest.mark.parametrize(
    ("target", "rate", "steps", "delta"),
    [(1.0, 0.05, 10, 1e-5), (3.0, 0.2, 20, 1e-6), (0.5, 1.0, 10, 1e-5)],
)
def test_noise_for_inverts_epsilon_and_never_gives_too_little(
    target: float, rate: float, steps: int, delta: float
) -> None:
    noise = noise_for(target, delta, sampling_rate=rate, steps=steps)
    assert epsilon([Charge(noise, rate, steps)], delta) <= target
    assert epsilon([Charge(noise * (1 - 5e-4), rate, steps)], delta) > target  # nor much too much


def test_what_is_released_besides_takes_its_precision_from_the_budget() -> None:
    alone = noise_for(2.0, 1e-5, sampling_rate=1.0, steps=1)
    found = noise_for(2.0, 1e-5, sampling_rate=1.0, steps=1, beside=[Charge(4.0), Charge(5.0)])
    assert found == pytest.approx((alone**-2 - 4.0**-2 - 5.0**-2) ** -0.5, rel=1e-3)


@pytest.mark.parametrize(
    "beside", [[Charge(2.0)], [Charge(6.0), Charge(1.0, 0.05, 20)], [Charge(1.5, 0.2, 3)]]
)
def test_noise_beside_other_releases_keeps_the_budget_and_wastes_little(
    beside: list[Charge],
) -> None:
    noise = noise_for(3.0, 1e-6, sampling_rate=0.1, steps=50, beside=beside)
    spent = epsilon([*beside, Charge(noise, 0.1, 50)], 1e-6)
    assert 0.999 * 3.0 < spent <= 3.0
    assert noise > noise_for(3.0, 1e-6, sampling_rate=0.1, steps=50)


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_a_budget_that_is_spent_besides_leaves_no_noise_within_reason(noise: float) -> None:
    told = "^epsilon 1 is out of reach of 10 steps at rate 0.01; "
    with pytest.raises(PlanError, match=told) as caught:
        noise_for(1.0, 1e-6, sampling_rate=0.01, steps=10, beside=[Charge(noise)])
    assert "\n" not in str(caught.value)


def test_a_budget_beyond_use_still_gets_some_noise() -> None:
    assert noise_for(1e6, 1e-6, sampling_rate=0.01, steps=1) > 0.04


def test_no_noise_within_reason_is_refused_in_one_line() -> None:
    with pytest.raises(PlanError) as caught:
        noise_for(1e-6, 1e-6, sampling_rate=0.01, steps=10)
    assert str(caught.value) == (
        "epsilon 1e-06 is out of reach of 10 steps at rate 0.01;"
        " lower rounds, steps or sampling_rate, or raise epsilon"
    )


NO_NUMBER = [0.0, -1.0, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", NO_NUMBER)
def test_a_noise_multiplier_that_is_none_is_refused_by_name(bad: float) -> None:
    with pytest.raises(PlanError, match=f"^noise_multiplier {bad} is not a positive number; "):
        Charge(bad)


@pytest.mark.parametrize("bad", [*NO_NUMBER, 1 + 1e-9, 2.0])
def test_a_sampling_rate_out_of_zero_to_one_is_refused_by_name(bad: float) -> None:
    with pytest.raises(PlanError, match=rf"^sampling_rate {bad} is not in \(0, 1\]; "):
        Charge(1.0, bad)
    with pytest.raises(PlanError, match=r"^sampling_rate .* is not in \(0, 1\]; "):
        noise_for(1.0, 1e-6, sampling_rate=bad, steps=1)


@pytest.mark.parametrize("bad", [0, -1])
def test_fewer_steps_than_one_are_refused_by_name(bad: int) -> None:
    with pytest.raises(PlanError, match=f"^steps {bad} are fewer than 1; "):
        Charge(1.0, 0.5, bad)


@pytest.mark.parametrize("bad", NO_NUMBER)
def test_a_budget_that_is_none_is_refused_by_name(bad: float) -> None:
    with pytest.raises(PlanError, match=f"^epsilon {bad} is not a positive number; "):
        check_budget(bad, 1e-6)


@pytest.mark.parametrize("bad", [*NO_NUMBER, 1.0, 2.0])
def test_a_delta_that_is_no_small_chance_is_refused_by_name(bad: float) -> None:
    with pytest.raises(PlanError, match=rf"^delta {bad} is not in \(0, 1\); ") as caught:
        check_budget(1.0, bad)
    assert "\n" not in str(caught.value)
