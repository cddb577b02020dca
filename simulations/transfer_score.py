"""How near a platform is to the others, told before anything is trained and for little ε.

    History ─pairs of what followed what, by text→ unit vector (L2) ─Σ, + noise→ what each lets out
    others' sums, own Histories ─at home→ Score: near or contrary, and what sharing should bring

The untrained prior is a cosine: which of two items came first is all the same to it. So the order
of needs is what training has to add, and two platforms can teach each other as far as they agree on
it. A History's vector is the antisymmetric part of Σ next ⊗ before over its consecutive pairs, in K
public random directions of the text vectors: the mirror image of a law has exactly the opposite.

    S  Histories      N  items      W  width of the text vectors      K  directions
    D  numbers of a vector: K·(K-1)/2 of the order, and one that counts the Histories
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.platform import Platform
from clients.randomness import Randomness, Stream, simulated
from shared.accounting import noise_for
from shared.events import Histories
from shared.plan import default_delta

EPSILON = 0.5  # of the one release that the score needs
K = 32  # directions, chosen on the embedded world: fewer blur the law, more add to the noise
ON_COUNT = 0.1  # of a vector's squared norm; one number among 497 needs little
# What rounding to a grid adds to a vector of norm 1 is √D·2^-24.
SENSITIVITY = 1 + 2.0**-10
SURE = 1.64  # standard errors from zero beyond which the sign is believed: 5 % of each side
PUBLIC = 20_260_101  # seed of the directions, the same everywhere

Verdict = Literal["near", "contrary", "unclear"]
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Released:
    """What one platform lets out, and what everyone may know of it.

    Attributes:
        total: [D] noised sum of its Histories' vectors.
        noise: standard deviation of the noise of each number.
        epsilon: what the release costs, at `delta`.
        delta: δ.
    """

    total: Vectors
    noise: float
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Score:
    """What a platform expects of the others before it trains; made at home, told to nobody.

    Attributes:
        nearness: cosine between its law and the others', corrected for noise and for few Histories;
            -1 is the mirror image. None where either law is lost in noise.
        certainty: how many standard errors the agreement is from none.
        expected: how much nearer the others' mean is to its own law than its own Histories' mean,
            as a share of both errors, in [-1, 1]: above 0 sharing should help.
    """

    nearness: float | None
    certainty: float
    expected: float

    @property
    def verdict(self) -> Verdict:
        """In a word."""
        if self.certainty > SURE:
            return "near"
        return "contrary" if self.certainty < -SURE else "unclear"


def vectors(histories: Histories, table: NDArray[np.float32]) -> Vectors:
    """[S, D] each of norm 1 at most, whatever is in a History, and from that History alone.

    | a History | its vector |
    | --- | --- |
    | without two events | √ON_COUNT, on the count |
    | the same item throughout, or there and back | the same |
    | anything else | norm 1: the order on √(1 - ON_COUNT) |

    Args:
        histories: over the Catalogue.
        table: [N, W] text vectors; public, as the Catalogue is.
    """
    width = table.shape[1]
    directions = np.random.default_rng([PUBLIC, width]).standard_normal((width, K))
    short = table.astype(np.float64) @ directions  # [N, K]
    upper = np.triu_indices(K, 1)
    found = np.zeros((len(histories), len(upper[0]) + 1))
    for place in range(len(histories)):
        seen = short[histories[place]]  # [T, K]
        follows = seen[1:].T @ seen[:-1]  # [K, K]
        order = (follows - follows.T)[upper]
        length = float(np.linalg.norm(order))
        # What cancels leaves rounding, which must not be blown up to a vector.
        if length > 1e-9 * float(np.square(seen).sum() or 1.0):
            found[place, :-1] = order * (math.sqrt(1 - ON_COUNT) / length)
    found[:, -1] = math.sqrt(ON_COUNT)
    return found


def release(
    mine: Vectors, *, epsilon: float = EPSILON, delta: float, randomness: Randomness
) -> Released:
    """A platform's sum with noise: one Gaussian mechanism over all its shoppers, no sampling.

    Guarantee: a History more or less changes the sum by at most 1 in L2 norm (`vectors`), and the
    grid's rounding is within SENSITIVITY, so the release is (ε, δ) for whole Histories. The noise's
    size follows from ε and δ alone. Drawn from a seed it protects nobody: `Randomness` says which.

    Args:
        mine: [S, D] of all its Histories; S may be 0.
        epsilon: ε.
        delta: δ.
        randomness: of the noise; its stream of sums is used.

    Raises:
        PlanError: ε or δ is out of range.
    """
    multiplier = noise_for(epsilon, delta, sampling_rate=1.0, steps=1)
    total = randomness.on_grid(
        mine.sum(0), sensitivity=SENSITIVITY, multiplier=multiplier, number=0, stream=Stream.SUMS
    )
    return Released(total, multiplier * SENSITIVITY, epsilon, delta)


def score(mine: Vectors, others: Sequence[Released]) -> Score:
    """How the others' law agrees with one's own, whose Histories stay at home.

    Means of vectors err: one's own by having few Histories (e), the others' by theirs (f) and by
    the noise. Their product is unbiased; a squared length is once its error is taken off. With
    the distance b² between the laws themselves, the others' mean is the better guess of one's own
    law where b² + f < e: `expected` is (e - b² - f) / (e + b² + f). The noise is the score's alone.

    | case | gives |
    | --- | --- |
    | no others, or fewer than two own Histories | unclear, 0 |
    | others whose noised count is below 1 | taken for 1 |
    | a corrected length of 0 or below | nearness None |
    """
    count, numbers = len(mine), mine.shape[1] - 1
    if count < 2 or not others:
        return Score(None, 0.0, 0.0)
    scale = math.sqrt(1 - ON_COUNT)
    own = mine[:, :-1] / scale  # [S, D-1]
    mean = own.mean(0)
    unit = float(np.square(own).sum(1).mean())  # 1, less Histories without an order
    total = np.sum([it.total for it in others], axis=0)
    size = max(1.0, float(total[-1]) / math.sqrt(ON_COUNT))
    theirs = total[:-1] / (scale * size)
    noise = sum(it.noise**2 for it in others) / (scale * size) ** 2  # variance of each number
    own_length = (count * float(mean @ mean) - unit) / (count - 1)
    own_error = max(0.0, unit - own_length) / count
    # Their Histories are unit vectors at most, so the error of their mean is at most 1 / size.
    length = float(theirs @ theirs) - numbers * noise - 1 / size
    agreement = float(mean @ theirs)
    # The others' Histories are taken to differ among themselves as one's own do.
    blur = noise * float(mean @ mean)
    blur += float((own @ theirs).var()) / count + float((own @ mean).var()) / size
    apart = max(0.0, own_length) + max(0.0, length) - 2 * agreement
    error = max(0.0, apart) + 1 / size
    known = own_length > 0 and length > 0
    nearness = agreement / math.sqrt(own_length * length) if known else None
    return Score(
        nearness=None if nearness is None else max(-1.0, min(1.0, nearness)),
        certainty=agreement / math.sqrt(blur) if blur > 0 else 0.0,
        expected=(own_error - error) / (own_error + error),
    )


def scores(
    platforms: Sequence[Platform], *, seed: int, epsilon: float = EPSILON
) -> dict[str, Score]:
    """The score of each platform among these, with simulated noise; δ is 1/N^1.1 of each.

    The number of shoppers, which a real platform keeps to itself, is taken as public here.
    """
    mine: dict[str, Vectors] = {}
    told: dict[str, Released] = {}
    for platform in platforms:
        name, rows = platform.config.name, platform.training
        mine[name] = vectors(rows.histories, rows.table.cpu().numpy())
        told[name] = release(
            mine[name],
            epsilon=epsilon,
            delta=default_delta(max(2, len(rows.histories))),  # of one shopper it would be 1
            randomness=simulated(seed, "transfer", name),
        )
    return {name: score(own, without(told, name)) for name, own in mine.items()}


def without(told: Mapping[str, Released], name: str) -> list[Released]:
    """What the others let out, in the order of their names."""
    return [told[other] for other in sorted(told) if other != name]
