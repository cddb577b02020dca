"""The noise for an ε against other calculations, from ε = .01 to 100."""

from __future__ import annotations

import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq
from scipy.stats import norm

from shared.accounting import Charge, epsilon, noise_for

README = (3.0, 20_000**-1.1, 0.05, 400)  # and sums of ε = 2.5 beside it


def analytic_noise(target: float, delta: float, steps: int) -> float:
    """σ of so many Gaussian mechanisms (Balle and Wang, 2018, theorem 8), to ten digits."""

    def excess(log_noise: float) -> float:
        noise = math.exp(log_noise) / math.sqrt(steps)
        behind = target + float(norm.logcdf(-0.5 / noise - target * noise))
        return float(norm.cdf(0.5 / noise - target * noise) - math.exp(behind) - delta)

    return math.exp(float(brentq(excess, math.log(0.01), math.log(1e5), xtol=1e-12)))


def fine_epsilon(noise: float, rate: float, steps: int, delta: float, *, grid: float) -> float:
    """ε by the library on a grid far finer than ours, on which it no longer changes."""
    one = pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=grid)
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


@pytest.mark.parametrize(
    ("target", "delta", "steps"),
    [
        (0.01, 1e-5, 1),
        (0.01, 1e-9, 10),
        (0.03, 1e-7, 4),
        (0.1, 1e-5, 1),
        (1.0, 1e-6, 20),
        (10.0, 1e-9, 100),
        (100.0, 1e-9, 1000),
    ],
)
def test_noise_for_everyone_is_exact_to_a_thousandth_and_never_too_little(
    target: float, delta: float, steps: int
) -> None:
    exact = analytic_noise(target, delta, steps)
    assert exact <= noise_for(target, delta, sampling_rate=1.0, steps=steps) <= exact * 1.001


@pytest.mark.parametrize(
    ("target", "rate", "steps", "delta"),
    [(0.01, 0.05, 400, 1e-5), (0.1, 0.01, 1000, 1e-6), (1.0, 0.05, 400, 1e-5)],
)
def test_noise_for_a_sample_is_exact_to_a_thousandth_and_never_too_little(
    target: float, rate: float, steps: int, delta: float
) -> None:
    noise = noise_for(target, delta, sampling_rate=rate, steps=steps)
    assert epsilon([Charge(noise, rate, steps)], delta) <= target
    grid = 2e-5 * target
    less = noise / 1.001
    assert fine_epsilon(noise, rate, steps, delta, grid=grid) <= target
    assert fine_epsilon(less, rate, steps, delta, grid=grid) > target


def test_noise_beside_sums_uses_the_budget_up() -> None:
    target, delta, rate, steps = README
    sums = Charge(0.4, mechanism="laplace")
    noise = noise_for(target, delta, sampling_rate=rate, steps=steps, beside=[sums])
    assert epsilon([sums, Charge(noise, rate, steps)], delta) <= target
    assert epsilon([sums, Charge(noise / 1.001, rate, steps)], delta) > target


def test_a_small_epsilon_is_told_to_a_thousandth_of_itself() -> None:
    for target, delta in ((0.003, 1e-9), (0.01, 1e-5), (0.05, 1e-6)):
        told = epsilon([Charge(analytic_noise(target, delta, 1))], delta)
        assert target * (1 - 1e-9) <= told <= target * 1.001
