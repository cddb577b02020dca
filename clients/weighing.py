"""How loudly each signal speaks, by how long ago the item was taken that it comes from.

    Shares ─spread→ Weighing      six numbers, by hand or found by trying
                    ─refined→ Weighing
                                  some sixty numbers, by how likely they make what was taken next

The last is a conditional logit over candidates (McFadden, "Conditional Logit Analysis of
Qualitative Choice Behavior", 1974), drawn towards the Shares by a ridge. Which of these own
shoppers speak for, and how strong the ridge is, is told by the half that was not fitted to. How
much of it a platform weighs by, beside what was learnt elsewhere, is clients/mixing.py's.

    Q  shoppers whose target is among their candidates      C  candidates
    F  features      K  kinds of pairs      L  LAST, events of a context that speak
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from clients.memory import DECAY, LAST
from clients.signals import OWN
from shared.metrics import ndcg

KINDS = (*OWN, "shared")
RIDGES = (10.0, 30.0, 100.0)  # of a feature of standard deviation 1 among the candidates
Way = float | None
WAYS: tuple[Way, ...] = (None, 0.0, *reversed(RIDGES))  # by hand, Shares, refined: simplest first
TEMPERATURE = 10.0  # of the logit: units of a cosine, at first
ITERATIONS = 40


@dataclass(frozen=True)
class Shares:
    """How loudly each signal speaks beside a cosine of texts.

    The first three were found by hand on Amazon Beauty, the last two on Amazon Toys (docs/log.md).

    Attributes:
        similar: of own co-visitation.
        next: of what came next in own rows.
        popularity: of log(1 + own rows).
        lately: of log(1 + own rows of the last weeks), where the table has times.
        shared: of the others' co-visitation.
        shared_popularity: of the others' popularity.
    """

    similar: float = 2.0
    next: float = 2.0
    popularity: float = 0.02
    lately: float = 0.0
    shared: float = 1.0
    shared_popularity: float = 0.08


SILENCE = Shares(similar=0.0, next=0.0, popularity=0.0)  # of own rows
# What listening by hand is believed to add to NDCG@10 before anybody is asked, about a twentieth of
# it, and the standard deviation of that belief.
BELIEF = 0.003

# In this order: the louder a signal may be, the sooner it is settled.
STEPS: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("similar", "next"), (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0)),
    (("popularity",), (0.0, 0.01, 0.02, 0.04)),
    (("lately",), (0.0, 0.02, 0.04, 0.08)),
)


@dataclass(frozen=True)
class Weighing:
    """What each signal adds to a score, in units of the prior's cosine.

    Attributes:
        loud: [K, L] times the value of a pair, by kind and by events since its first item.
        met: [K, L] for a pair that has any value; of `shared` that is to be in the public list.
        words: [L] times the words that two titles share.
        liked: [3] times own popularity, that of the last weeks, and the others'.
    """

    loud: NDArray[np.float64]
    met: NDArray[np.float64]
    words: NDArray[np.float64]
    liked: NDArray[np.float64]

    @property
    def flat(self) -> NDArray[np.float64]:
        """[F] with the prior's own, which is 1, first; the order of a Field's features."""
        return np.concatenate([[1.0], self.loud.ravel(), self.met.ravel(), self.words, self.liked])

    @property
    def hears(self) -> bool:
        """Whether it listens to the others at all."""
        return bool(self.flat[OTHERS].any())

    def silent(self) -> Weighing:
        """The same, not listening to the others."""
        return self.hearing(0.0)

    def hearing(self, others: float | None = None) -> Weighing:
        """The same, listening to the others so loudly; left out, as loudly as Shares by hand."""
        flat = self.flat
        flat[OTHERS] = spread(Shares()).flat[OTHERS] if others is None else others
        return weighing_of(flat)


FEATURES = 1 + 2 * len(KINDS) * LAST + LAST + 3
_LOUD = 1 + len(KINDS) * LAST  # where `met` begins
# Features that come from the others, whose kind is the last.
OTHERS = np.r_[_LOUD - LAST : _LOUD, 2 * _LOUD - 1 - LAST : 2 * _LOUD - 1, FEATURES - 1]


def spread(shares: Shares) -> Weighing:
    """Shares by DECAY^k, k events ago; nothing for having met, and nothing for words."""
    loud = np.zeros((len(KINDS), LAST))
    for kind in ("similar", "next", "shared"):
        loud[KINDS.index(kind)] = getattr(shares, kind) * DECAY ** np.arange(LAST)
    liked = np.array([shares.popularity, shares.lately, shares.shared_popularity])
    return Weighing(loud, np.zeros_like(loud), np.zeros(LAST), liked)


def weighing_of(flat: NDArray[np.float64]) -> Weighing:
    """The other way round: [F] in units of its first, which is above 0."""
    size = len(KINDS) * LAST
    loud, met, words, liked = np.split(flat[1:] / flat[0], [size, 2 * size, 2 * size + LAST])
    return Weighing(loud.reshape(-1, LAST), met.reshape(-1, LAST), words, liked)


@dataclass(frozen=True)
class Field:
    """Candidates of shoppers whose next item is known.

    Attributes:
        features: [Q, C, F] of each candidate; the first is the prior's cosine.
        valid: [Q, C] False where a column stands for nothing.
        target: [Q] which candidate was taken.
        asked: shoppers, those among them whose target is no candidate.
    """

    features: NDArray[np.float32]
    valid: NDArray[np.bool_]
    target: NDArray[np.int64]
    asked: int

    def half(self, which: int) -> Field:
        """Every other shopper."""
        part = slice(which, None, 2)
        return Field(self.features[part], self.valid[part], self.target[part], self.asked)

    def silent(self) -> Field:
        """The same, as if the others had let nothing out."""
        said = self.features.copy()
        said[:, :, OTHERS] = 0
        return replace(self, features=said)

    def persuades(self, more: NDArray[np.float64]) -> bool:
        """Whether gains more [Q] outweigh BELIEF that there are none.

        Their mean m has a standard error s, the belief is normal, so its posterior mean changes
        sides where m / s² = BELIEF / BELIEF²: a few shoppers must be very sure, many need not.
        """
        count = max(self.asked, 1)
        mean = more.sum() / count
        variance = max((more**2).sum() / count - mean**2, 0.0)
        return bool(mean > variance / count / BELIEF)

    def gains(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """[Q] NDCG@10 among the candidates."""
        scores = self.features @ weights.astype(np.float32)
        scores[~self.valid] = -np.inf
        own = np.take_along_axis(scores, self.target[:, None], axis=1)
        # As in shared/ranking.py, a target level with others has the mean of their ranks.
        ranks = 0.5 + np.count_nonzero(scores > own, axis=1) + 0.5 * (scores == own).sum(axis=1)
        return np.asarray(ndcg(ranks.astype(np.float32)), np.float64)

    def gain(self, weights: NDArray[np.float64]) -> float:
        """Mean over all who were asked."""
        return float(self.gains(weights).sum() / max(self.asked, 1))


def tried(field: Field, start: Shares) -> Shares:
    """The Shares that are best in a Field.

    Coordinate by coordinate, twice, from `start` and from silence; of equals the earlier. Where
    nobody's target is among the candidates, they stay as they are.
    """
    found, most, told = start, -1.0, field.features.any(axis=(0, 1))
    for begin in (start, SILENCE):
        best, reached = begin, field.gain(spread(begin).flat)
        for names, values in (*STEPS, *STEPS):
            for value in values:
                offered = replace(best, **dict.fromkeys(names, value))
                flat = spread(offered).flat
                # Else it is as before: nobody is told anything else.
                if (flat != spread(best).flat)[told].any() and (gain := field.gain(flat)) > reached:
                    best, reached = offered, gain
        if reached > most:
            found, most = best, reached
    return found


def best_way(field: Field) -> tuple[list[Weighing], Way]:
    """The way that is best on the half not fitted to; what it gave on either half, and which.

    By hand, by Shares that are tried, or refined from them under a ridge; of equals the simpler.
    """
    halves = field.half(0), field.half(1)
    starts = [spread(tried(half, Shares())) for half in halves]
    best: tuple[list[Weighing], Way] = [], WAYS[0]
    most = -1.0
    for way in WAYS:
        found = [_fitted(half, start, way) for half, start in zip(halves, starts, strict=True)]
        gain = reached(found, field).sum()
        if gain > most:
            best, most = (found, way), gain
    return best


def reached(halves: Sequence[Weighing], field: Field) -> NDArray[np.float64]:
    """[Q] gains of each shopper by what was fitted to the half without them."""
    gains = np.zeros(len(field.target))
    for place, found in enumerate(halves):
        gains[1 - place :: 2] = field.half(1 - place).gains(found.flat)
    return gains


def fitted(field: Field, way: Way) -> Weighing:
    """What this way finds for all these shoppers."""
    return _fitted(field, spread(tried(field, Shares())), way)


def _fitted(field: Field, start: Weighing, way: Way) -> Weighing:
    """One way: None by hand, 0 the Shares of `start`, above it a ridge from there."""
    if way is None:
        return spread(Shares())
    if not way:
        return start
    return refined(field, start, way)


def refined(field: Field, start: Weighing, ridge: float) -> Weighing:
    """The likeliest Weighing for these shoppers, drawn towards `start`."""
    weights = _likeliest(field, start, ridge)
    return weighing_of(weights) if weights[0] > 0 else start


def _likeliest(field: Field, start: Weighing, ridge: float) -> NDArray[np.float64]:
    """[F] weights by penalised likelihood, within ITERATIONS of L-BFGS.

    A feature that is alike for all has no say, so that one more of them changes no last bit.
    """
    begin = TEMPERATURE * start.flat
    known = field.features[field.valid]
    deviation = known.std(axis=0, dtype=np.float64) if len(known) else np.zeros(FEATURES)
    tells = deviation >= 1e-9
    if not tells.any():
        return begin
    deviation = deviation[tells]
    shape = field.features.shape
    features = field.features.reshape(-1, shape[2])[:, tells] / deviation.astype(np.float32)
    centre = begin[tells] * deviation
    rows = np.arange(shape[0])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = (features @ weights.astype(np.float32)).reshape(shape[:2]).astype(np.float64)
        logits[~field.valid] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        chance = np.exp(logits)
        chance /= chance.sum(axis=1, keepdims=True)
        away = weights - centre
        value = -np.log(chance[rows, field.target] + 1e-300).sum() + ridge * float(away @ away)
        chance[rows, field.target] -= 1
        slope = chance.astype(np.float32).ravel() @ features
        return float(value), np.asarray(slope, np.float64) + 2 * ridge * away

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    begin[tells] = found.x / deviation
    return begin
