"""What releases cost: exact composition of Gaussian mechanisms, by privacy loss distributions.

Every release of Atoll is a Gaussian mechanism, on a Poisson sample of the shoppers or on all of
them (q = 1), so one kind of Charge is enough. The distributions, their composition and their
pessimistic rounding are dp-accounting's (Doroshenko et al., arXiv 2207.04380): what is told is an
upper bound, never below the truth.

    Charges ─epsilon→ ε at δ        ε, δ, q, steps ─noise_for→ σ
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq

from shared.errors import PlanError

# From how many nats of loss a grid is used, and the widths of its steps: an ε of thousands is told
# as well, if coarsely, and takes no gigabytes.
GRIDS = ((30.0, 1e-4), (300.0, 1e-3), (3000.0, 1e-2))
FINE = 1e-4  # width of a step of the loss distribution, nats: ε is then right to about 1e-4
COARSE = 1e-3  # for the search; ten times as fast
LARGEST_NOISE = 10_000.0  # standard deviations a clip; beyond it nothing is learnt
SMALLEST_NOISE = 0.2  # below it a step is told to cost everything, which is not far from true
NUDGE = 1e-4  # relative; what the search may have missed on the side of too little noise


@dataclass(frozen=True)
class Charge:
    """Subsampled Gaussian mechanisms that were, or may be, released.

    Attributes:
        noise_multiplier: σ, the noise's standard deviation over the sensitivity.
        sampling_rate: q, the chance of a shopper to be in one step; 1 takes everyone.
        steps: how many.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no mechanism."""
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise PlanError(
                f"noise_multiplier {self.noise_multiplier} is not a positive number",
                todo="set it above 0, or let epsilon and rounds find it",
            )
        if not 0 < self.sampling_rate <= 1:
            raise PlanError(
                f"sampling_rate {self.sampling_rate} is not in (0, 1]",
                todo="set the chance of a shopper to be in one step",
            )
        if self.steps < 1:
            raise PlanError(f"steps {self.steps} are fewer than 1", todo="set at least 1")


def epsilon(charges: Iterable[Charge], delta: float) -> float:
    """ε at δ of all these releases together, under adding or removing one shopper.

    Exact but for the grid of the distributions, which rounds up by about 1e-4 nats.

    | charges | δ | ε |
    | --- | --- | --- |
    | none | any | 0 |
    | any | ≥ 1 | 0 |
    | any σ below 0.2 | < 1 | ∞ |
    | a loss of thousands of nats | < 1 | ∞ |
    | σ above 10^4 | < 1 | as of 10^4, which is more |

    Args:
        charges: of one data set; their order does not matter.
        delta: probability that the bound may fail, in (0, 1).
    """
    return _told(_grouped(charges), delta, FINE)


def noise_for(
    epsilon: float,
    delta: float,
    *,
    sampling_rate: float,
    steps: int,
    beside: Sequence[Charge] = (),
) -> float:
    """The smallest σ, to one part in ten thousand, whose `steps` cost at most ε at δ.

    Where `beside` leaves less than a thirtieth of ε, it may be a few parts in a thousand more.

    Args:
        epsilon: ε.
        delta: δ.
        sampling_rate: q of each step.
        steps: how many.
        beside: what is released of the same rows besides, and has to fit in.

    Raises:
        PlanError: no noise within reason is enough, or a number is out of range.
    """
    check_budget(epsilon, delta)
    Charge(1.0, sampling_rate, steps)

    def excess(log_noise: float, grid: float = COARSE) -> float:
        groups = _grouped([*beside, Charge(math.exp(log_noise), sampling_rate, steps)])
        return min(_told(groups, delta, grid), 1e9) - epsilon

    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + 1.0
        if high > math.log(LARGEST_NOISE):
            raise PlanError(
                f"epsilon {epsilon:g} is out of reach of {steps} steps at rate {sampling_rate:g}",
                todo="lower rounds, steps or sampling_rate, or raise epsilon",
            )
    while excess(low) <= 0:
        low -= 0.5
        if low < math.log(SMALLEST_NOISE):
            low = math.log(SMALLEST_NOISE)
            if excess(low) <= 0:
                return SMALLEST_NOISE
            break
    root = float(brentq(excess, low, high, xtol=NUDGE / 4))
    while excess(root, FINE) > 0:
        root += NUDGE
    return math.exp(root)


def check_budget(epsilon: float, delta: float) -> None:
    """Refuse a budget that promises nothing.

    Raises:
        PlanError: ε is not a positive number, or δ is not in (0, 1).
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PlanError(
            f"epsilon {epsilon} is not a positive number", todo="set the budget above 0"
        )
    if not 0 < delta < 1:
        raise PlanError(f"delta {delta} is not in (0, 1)", todo="leave delta out, or lower it")


Group = tuple[float, float, int]  # σ, q, steps


def _grouped(charges: Iterable[Charge]) -> tuple[Group, ...]:
    """Equal mechanisms together, in an order of their own, so that equal sums are told once."""
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.noise_multiplier, charge.sampling_rate] += charge.steps
    return tuple((noise, rate, count) for (noise, rate), count in sorted(steps.items()))


def _told(groups: tuple[Group, ...], delta: float, grid: float) -> float:
    """ε on this grid, on a coarser one where losses are large, or ∞ where they are of thousands."""
    if delta >= 1:
        return 0.0
    coarser = next((width for nats, width in GRIDS if _nats(groups) < nats), None)
    return math.inf if coarser is None else _epsilon(groups, delta, max(grid, coarser))


def _nats(groups: tuple[Group, ...]) -> float:
    """About how much loss is expected: a step's χ² divergence, or where it is less, KL at q = 1."""
    total = 0.0
    for noise, rate, steps in groups:
        inverse = min(max(noise, 1e-3), 1e6) ** -2
        total += steps * min(inverse / 2, rate**2 * math.expm1(min(inverse, 50.0)))
    return total


@lru_cache(maxsize=1024)
def _epsilon(groups: tuple[Group, ...], delta: float, grid: float) -> float:
    if not groups:
        return 0.0
    if min(noise for noise, _rate, _steps in groups) < SMALLEST_NOISE:
        return math.inf
    whole = None
    for noise, rate, steps in groups:
        part = _one(noise, rate, grid).self_compose(steps)
        whole = part if whole is None else whole.compose(part)
    assert whole is not None
    return float(whole.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _one(noise: float, rate: float, grid: float) -> pld.PrivacyLossDistribution:
    """The loss of one step."""
    return pld.from_gaussian_mechanism(
        min(noise, LARGEST_NOISE), sampling_prob=rate, value_discretization_interval=grid
    )
