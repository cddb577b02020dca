from __future__ import annotations

import math
from typing import cast

import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from shared.accounting import Charge, Mechanism, epsilon, scale_for
from shared.errors import PlanError


def laplace(noise: float, steps: int = 1) -> Charge:
    return Charge(noise, steps=steps, mechanism="laplace")


@pytest.mark.parametrize("delta", [1e-12, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("noise", [0.02, 0.125, 1 / 3, 1.0, 10.0])
def test_laplace_noise_costs_one_over_its_scale_less_what_delta_allows(
    noise: float, delta: float
) -> None:
    # Its privacy profile: δ(ε) = 1 - exp((ε - 1/b) / 2) for ε up to 1/b.
    true = max(0.0, 1 / noise + 2 * math.log1p(-delta))
    assert true - 1e-12 <= epsilon([laplace(noise)], delta) <= true * 1.001 + 1e-4


def test_laplace_and_gaussian_noise_compose_to_what_an_integral_over_both_says() -> None:
    # ε of both at δ: E over Laplace's loss of the Gaussian's δ at what is left of ε.
    scale, noise, delta = 0.5, 2.0, 1e-5

    def gaussian(eps: float) -> float:
        ahead = norm.cdf(0.5 / noise - eps * noise)
        return float(ahead - math.exp(eps) * norm.cdf(-0.5 / noise - eps * noise))

    def excess(eps: float) -> float:
        # Under x + Laplace(b) with x = 1: loss 1/b below 0, -1/b above 1, linear between.
        top, bottom = 0.5, 0.5 * math.exp(-1 / scale)
        between = quad(
            lambda z: math.exp(-z / scale) / (2 * scale) * gaussian(eps - (1 - 2 * z) / scale), 0, 1
        )[0]
        ends = top * gaussian(eps - 1 / scale) + bottom * gaussian(eps + 1 / scale)
        return float(ends + between - delta)

    true = float(brentq(excess, 0, 20))
    told = epsilon([laplace(scale), Charge(noise)], delta)
    assert true - 1e-9 <= told <= true * 1.001
    assert 1 / scale < told < 1 / scale + epsilon([Charge(noise)], delta)


def test_the_order_of_kinds_does_not_matter_to_the_last_bit() -> None:
    charges = [laplace(2.0), Charge(3.0), laplace(1.0), Charge(2.0, 0.1, 5)]
    assert epsilon(charges, 1e-6) == epsilon(charges[::-1], 1e-6)


def test_many_laplace_releases_cost_less_than_their_sum() -> None:
    assert epsilon([laplace(10.0, 100)], 1e-6) < 0.6 * 100 / 10.0
    assert epsilon([laplace(10.0)] * 100, 1e-6) == epsilon([laplace(10.0, 100)], 1e-6)


@pytest.mark.parametrize("noise", [0.0199, 1e-9])
def test_laplace_noise_below_what_is_accounted_for_costs_everything(noise: float) -> None:
    assert epsilon([laplace(noise)], 1e-6) == math.inf


@pytest.mark.parametrize("target", [1e-4, 0.5, 1.0, 7.6, 50.0])
def test_the_scale_for_an_epsilon_costs_it_and_no_more(target: float) -> None:
    assert scale_for(target) == 1 / target
    assert 0.999 * target - 1e-4 < epsilon([laplace(scale_for(target))], 1e-6) < target + 1e-4


def test_a_scale_for_more_than_is_accounted_for_costs_less() -> None:
    assert epsilon([laplace(scale_for(1e6))], 1e-6) <= 50


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, 1e-5])
def test_no_scale_within_reason_is_refused_in_one_line(bad: float) -> None:
    with pytest.raises(PlanError, match=r"^epsilon \S+ is (not a positive number|out of reach)"):
        scale_for(bad)


def test_laplace_noise_on_a_sample_and_unknown_mechanisms_are_refused() -> None:
    with pytest.raises(PlanError, match=r"^Laplace noise on a sample is not accounted for; "):
        Charge(1.0, 0.5, mechanism="laplace")
    unknown = cast(Mechanism, "cauchy")
    with pytest.raises(PlanError, match=r"^mechanism 'cauchy' is not known; use 'gaussian' or"):
        Charge(1.0, mechanism=unknown)
