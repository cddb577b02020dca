"""How good a Ranking is, and how sure one can be of it.

    ranks [S] ─hit_rate, ndcg, reciprocal─→ values [S] ─mean→ a figure
                                                       ─bootstrap_ci→ its 95 % interval
    values [S] of two scorers ─paired→ difference, interval, p
    figures [R] of two scorers, by seed ─gained→ ratio, interval, p

A metric is one value per shopper, and its figure is their mean: so intervals, paired tests and
subgroups all start from the same arrays. The shopper is the unit that is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shared.errors import DataError
from shared.ranking import NO_ITEM, Ranking

RESAMPLES = 2000  # of a bootstrap: between seeds its ends move by about 2 % of its width
FLIPS = 10_000  # of a permutation test: the smallest p is 1 / 10,001
CONFIDENCE = 0.95  # of an interval
ALPHA = 0.05  # above which a difference is not clear
CHUNK = 1_000_000  # numbers alive at a time while resampling: 8 MB

Values = NDArray[np.float64]


def hit_rate(ranks: NDArray[np.float32], k: int = 10) -> Values:
    """[S] 1 where the target is among the k best, else 0; the mean is HR@k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: NDArray[np.float32], k: int = 10) -> Values:
    """[S] 1 / log2(1 + rank) where the target is among the k best, else 0; the mean is NDCG@k.

    With one target the ideal gain is 1 (Järvelin & Kekäläinen, ACM TOIS 20(4), 2002).
    """
    gain: Values = np.where(ranks <= k, 1 / np.log2(1 + ranks.astype(np.float64)), 0.0)
    return gain


def mrr(ranks: NDArray[np.float32]) -> Values:
    """[S] 1 / rank over the whole Catalogue; the mean is MRR."""
    return 1 / ranks.astype(np.float64)


def coverage(top: NDArray[np.int32], items: int) -> float:
    """Share of the Catalogue that stands in at least one shopper's list; `top` is [S, k]."""
    return len(np.unique(top[top != NO_ITEM])) / items


def bootstrap_ci(
    values: Values,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of the mean over shoppers (Efron & Tibshirani 1993, chapter 13).

    Memory does not grow with `resamples`. A single value is its own interval: one shopper says
    nothing of the spread.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("no values to resample")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values.astype(np.float64),),
        np.mean,
        n_resamples=resamples,
        batch=max(1, CHUNK // len(values)),
        confidence_level=level,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Paired:
    """One scorer against another on the same shoppers.

    Attributes:
        difference: mean of the first less mean of the second.
        relative: difference over the mean of the second; None where that mean is 0.
        ci95: bootstrap interval of `difference`.
        p: two-sided, of the hypothesis that it does not matter which scorer a shopper got.
    """

    difference: float
    relative: float | None
    ci95: tuple[float, float]
    p: float


def paired(
    first: Values, second: Values, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Paired:
    """Compare per-shopper values [S] of two scorers, shopper by shopper.

    The test flips the sign of each shopper's difference at random (Smucker, Allan & Carterette,
    CIKM 2007) and counts the observed outcome among the flips, so that p is never 0 (Phipson &
    Smyth, SAGMB 9(1), 2010).

    Raises:
        ValueError: no values, or arrays of unequal length.
    """
    if first.shape != second.shape:
        raise ValueError(f"values of {len(first)} and {len(second)} shoppers are not pairs")
    differences = first.astype(np.float64) - second
    interval = bootstrap_ci(differences, rng=rng, resamples=resamples)
    difference, base = float(differences.mean()), float(second.mean())
    relative = difference / base if base else None
    return Paired(difference, relative, interval, _sign_flip_p(differences, rng))


@dataclass(frozen=True)
class Gained:
    """What one mean is over another, both of the same repetitions.

    Attributes:
        gain: a share of the other mean.
        half: half the width of its 95 % interval.
        p: of no gain and no loss, two-sided.
    """

    gain: float
    half: float
    p: float


def gained(base: Sequence[float], reached: Sequence[float]) -> Gained:
    """The gain of `reached` over `base`, each a mean of one repetition: a seed, a draw.

    A ratio of two means over the same repetitions; its error is that of the residuals reached -
    ratio · base (Cochran, Sampling Techniques, 6.4), with Student's t for so few. The mean of the
    repetitions' own ratios would be drawn upwards where they are of few shoppers.

    Args:
        base: [R] at least two, not all of them 0.
        reached: [R].
    """
    below, above = np.array(base, np.float64), np.array(reached, np.float64)
    ratio = float(above.mean() / below.mean())
    left = above - ratio * below
    error = float(left.std(ddof=1) / np.sqrt(len(left)) / below.mean())
    freedom = len(left) - 1
    half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    if error == 0:
        return Gained(ratio - 1, half, float(ratio == 1))
    return Gained(ratio - 1, half, float(2 * stats.t.sf(abs(ratio - 1) / error, freedom)))


def holm(p: Sequence[float]) -> list[float]:
    """p values that hold for all of several tests together (Holm, Scand. J. Stat. 6, 1979)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    found, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        found[place] = least
    return found


def worded(difference: float, p: float) -> str:
    """What a difference is called."""
    if p >= ALPHA:
        return "no clear difference"
    return "gain" if difference > 0 else "loss"


def _sign_flip_p(differences: Values, rng: np.random.Generator) -> float:
    """p of the sum of differences among FLIPS random choices of signs.

    Written out because scipy.stats.permutation_test takes thousands of times as long here: zeros
    cannot change a sum, and a sign needs one bit.
    """
    sizes = np.abs(differences[differences != 0])
    total = sizes.sum()
    observed = abs(differences.sum()) - 1e-9 * total  # a tie up to rounding counts as reached
    chunk = max(1, CHUNK // max(1, len(sizes)))
    reached = 1
    for start in range(0, FLIPS, chunk):
        shape = (min(chunk, FLIPS - start), -(-len(sizes) // 8))
        noise = rng.integers(0, 256, size=shape, dtype=np.uint8)
        plus = np.unpackbits(noise, axis=1, count=len(sizes))  # [chunk, S'] 1 where it stays +
        reached += int(np.count_nonzero(np.abs(2 * (plus @ sizes) - total) >= observed))
    return reached / (FLIPS + 1)


def summary(
    ranking: Ranking, items: int, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, object]:
    """The figures of one scorer on one platform, ready for JSON.

    Returns:
        n, hr@10, ndcg@10, mrr, coverage (of lists of 10) and ci95 with the intervals of the first
        three metrics.

    Raises:
        DataError: the Ranking is of no shopper.
    """
    if len(ranking.ranks) == 0:
        raise DataError(
            "no shopper is left to test on: each one's last item stands earlier in the History",
            todo="give more Histories, or a longer time",
        )
    metrics = {
        "hr@10": hit_rate(ranking.ranks),
        "ndcg@10": ndcg(ranking.ranks),
        "mrr": mrr(ranking.ranks),
    }
    return {
        "n": len(ranking.ranks),
        **{name: float(values.mean()) for name, values in metrics.items()},
        "coverage": coverage(ranking.top[:, :10], items),
        "ci95": {
            name: list(bootstrap_ci(values, rng=rng, resamples=resamples))
            for name, values in metrics.items()
        },
    }
