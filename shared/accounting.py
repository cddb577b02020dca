"""What releases cost: exact composition of mechanisms, by privacy loss distributions.

Every release of Atoll is a Gaussian mechanism, on a Poisson sample of the shoppers or on all of
them (q = 1), or a Laplace mechanism on all of them. The distributions, their composition and their
pessimistic rounding are dp-accounting's (Doroshenko et al., arXiv 2207.04380): what is told is an
upper bound, never below the truth.

    Charges ─epsilon→ ε at δ        ε, δ, q, steps ─noise_for→ σ
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq

from shared.errors import PlanError

# From how many nats of loss a grid is used, and the widths of its steps: an ε of thousands is told
# as well, if coarsely, and takes no gigabytes.
GRIDS = ((30.0, 1e-4), (300.0, 1e-3), (3000.0, 1e-2))
FINE = 1e-4  # width of a step of the loss distribution, nats: ε is then right to about 1e-4
SMALL_LOSS = 0.1  # standard deviation of the loss, nats, below which the step is finer
MOST_POINTS = 1e6  # of the loss distribution of one mechanism, so that it takes no gigabyte
COARSE = 10  # times as wide a step for the search; ten times as fast
LARGEST_NOISE = 10_000.0  # standard deviations a clip; beyond it nothing is learnt
SMALLEST_NOISE = 0.05  # below it a step is told to cost everything, which is not far from true
SMALLEST_LAPLACE = 0.02  # likewise: ε = 50
NUDGE = 1e-4  # relative; what the search may have missed on the side of too little noise
WASTE = 5e-4  # relative; how much more noise than needed the search may leave
Mechanism = Literal["gaussian", "laplace"]


@dataclass(frozen=True)
class Charge:
    """Mechanisms of one kind that were, or may be, released.

    Attributes:
        noise_multiplier: σ, a Gaussian's standard deviation over the L2 sensitivity; or b, the
            scale of a Laplace distribution over the L1 sensitivity, which costs 1/b at any δ.
        sampling_rate: q, the chance of a shopper to be in one step; 1 takes everyone.
        steps: how many.
        mechanism: of which kind.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1
    mechanism: Mechanism = "gaussian"

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
        if self.mechanism not in SMALLEST:
            raise PlanError(
                f"mechanism {self.mechanism!r} is not known", todo="use 'gaussian' or 'laplace'"
            )
        if self.mechanism == "laplace" and self.sampling_rate != 1:
            raise PlanError("Laplace noise on a sample is not accounted for", todo="take everyone")


def epsilon(charges: Iterable[Charge], delta: float) -> float:
    """ε at δ of all these releases together, under adding or removing one shopper.

    Exact but for the grid of the distributions, which rounds up by about 1e-4 nats, or by about a
    thousandth of ε where that is less.

    | charges | δ | ε |
    | --- | --- | --- |
    | none | any | 0 |
    | any | ≥ 1 | 0 |
    | any σ below 0.05, any b below 0.02 | < 1 | ∞ |
    | a loss of thousands of nats | < 1 | ∞ |
    | σ above 10^4 | < 1 | as of 10^4, which is more |
    | Laplace noise | below 1e-14 | up to ∞ |

    Args:
        charges: of one data set; their order does not matter.
        delta: probability that the bound may fail, in (0, 1).
    """
    return _told(_grouped(charges), delta)


def noise_for(
    epsilon: float,
    delta: float,
    *,
    sampling_rate: float,
    steps: int,
    beside: Sequence[Charge] = (),
) -> float:
    """The smallest σ of Gaussians whose `steps` cost at most ε at δ, to one part in a thousand.

    Never less than it: what it gives costs at most ε by `epsilon`.

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

    def excess(log_noise: float, coarser: int = COARSE) -> float:
        groups = _grouped([*beside, Charge(math.exp(log_noise), sampling_rate, steps)])
        return min(_told(groups, delta, coarser), 1e9) - epsilon

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
    if excess(root - WASTE, 1) <= 0:  # the coarse grid rounded up by too much
        width, high = WASTE, root - WASTE
        while excess(root - 2 * width, 1) <= 0 and root - width > math.log(SMALLEST_NOISE):
            width, high = 2 * width, root - 2 * width
        root = float(brentq(excess, root - 2 * width, high, args=(1,), xtol=NUDGE / 4))
    while excess(root, 1) > 0:
        root += NUDGE
    return math.exp(root)


def scale_for(epsilon: float) -> float:
    """The smallest b of one Laplace mechanism that costs at most ε, at any δ.

    Raises:
        PlanError: ε is not a positive number, or no noise within reason is enough.
    """
    check_budget(epsilon, 0.5)
    if 1 / epsilon > LARGEST_NOISE:
        raise PlanError(
            f"epsilon {epsilon:g} is out of reach of noise within reason", todo="raise epsilon"
        )
    return max(1 / epsilon, SMALLEST_LAPLACE)


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


SMALLEST: Mapping[Mechanism, float] = {"gaussian": SMALLEST_NOISE, "laplace": SMALLEST_LAPLACE}
Group = tuple[Mechanism, float, float, int]  # kind, σ or b, q, steps


def _grouped(charges: Iterable[Charge]) -> tuple[Group, ...]:
    """Equal mechanisms together, in an order of their own, so that equal sums are told once."""
    steps: Counter[tuple[Mechanism, float, float]] = Counter()
    for charge in charges:
        steps[charge.mechanism, charge.noise_multiplier, charge.sampling_rate] += charge.steps
    return tuple((*kind, count) for kind, count in sorted(steps.items()))


def _told(groups: tuple[Group, ...], delta: float, coarser: int = 1) -> float:
    """ε, on a grid so many times coarser than it could be; ∞ where losses are of thousands."""
    if delta >= 1:
        return 0.0
    grid = _grid(groups)
    return math.inf if grid is None else _epsilon(groups, delta, min(grid * coarser, GRIDS[-1][1]))


def _grid(groups: tuple[Group, ...]) -> float | None:
    """Width of the steps of the loss distribution, nats; None where losses are of thousands.

    Finer by powers of ten where losses are small, so that most of them share one distribution.
    """
    nats = _nats(groups)
    width = next((width for most, width in GRIDS if nats < most), None)
    if width is None or width > FINE or nats <= 0:
        return width
    deviation = math.sqrt(2 * nats)  # of a Gaussian mechanism's loss; of others about
    powers = max(0, math.ceil(math.log10(SMALL_LOSS / deviation)))
    largest = max(_largest(kind, noise, rate) for kind, noise, rate, _steps in groups)
    while powers > 0 and largest / (FINE * 10.0**-powers) > MOST_POINTS:
        powers -= 1
    return FINE * 10.0**-powers


def _largest(kind: Mechanism, noise: float, rate: float) -> float:
    """About the largest loss of one mechanism that has to be looked at, nats."""
    if kind == "laplace":
        return 1 / max(noise, 1e-6)
    noise = min(max(noise, 1e-3), LARGEST_NOISE)
    far = 1 + 9 * noise  # a sum nine standard deviations out
    exponent = (2 * far - 1) / (2 * noise**2)
    return max(exponent + math.log(rate), math.log1p(rate * math.expm1(min(exponent, 700.0))))


def _nats(groups: tuple[Group, ...]) -> float:
    """About how much loss is expected: a step's χ² divergence, or where it is less, KL at q = 1.

    Of Laplace noise the most there is.
    """
    total = 0.0
    for kind, noise, rate, steps in groups:
        if kind == "laplace":
            total += steps / max(noise, 1e-6)
            continue
        inverse = min(max(noise, 1e-3), 1e6) ** -2
        total += steps * min(inverse / 2, rate**2 * math.expm1(min(inverse, 50.0)))
    return total


@lru_cache(maxsize=1024)
def _epsilon(groups: tuple[Group, ...], delta: float, grid: float) -> float:
    if not groups:
        return 0.0
    if any(noise < SMALLEST[kind] for kind, noise, _rate, _steps in groups):
        return math.inf
    whole = None
    for kind, noise, rate, steps in groups:
        part = _one(kind, noise, rate, grid).self_compose(steps)
        whole = part if whole is None else whole.compose(part)
    assert whole is not None
    return float(whole.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _one(kind: Mechanism, noise: float, rate: float, grid: float) -> pld.PrivacyLossDistribution:
    """The loss of one step."""
    if kind == "laplace":
        scale = min(noise, LARGEST_NOISE)
        return pld.from_laplace_mechanism(scale, value_discretization_interval=grid)
    return pld.from_gaussian_mechanism(
        min(noise, LARGEST_NOISE), sampling_prob=rate, value_discretization_interval=grid
    )
