"""What a platform adds to the co-visitation of all: sums over a public list of pairs.

    History ─bounded→ a vector of L1 norm ≤ 1 ─Σ over Histories, + noise→ Update, paid for once
    Histories ─exact→ whole counts, where nobody is to be protected

Guarantee of `bounded`: a History more or less changes the sum by at most 1 in L1 norm, whatever is
in it. So the release is one Laplace mechanism over all shoppers (Dwork et al., TCC 2006): noise of
scale 1/ε, at any δ. A History has few pairs, and of few numbers an L1 norm asks for less noise
than an L2 norm (docs/decisions/0024-laplace-noise-for-sums.md).

    S  Histories      P  pairs      M  items of the list      N  items of the Catalogue
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clients.memory import REACH, Memory, latest
from clients.randomness import Randomness, Stream
from shared.catalogue import Catalogue
from shared.events import Histories
from shared.pairs import Pairs, met
from shared.tasks import co_visitation as task

MOST = 4  # pairs of one History that are counted; those nearest in its order first
ON_PAIRS = 0.9  # of a History's norm; the rest is on an item, which needs little
# A History is in MOST + 1 numbers at most, and rounding to a grid adds 2^-24 to each of them.
SENSITIVITY = 1 + 2.0**-20


@dataclass(frozen=True)
class Places:
    """Where a Catalogue's items stand in a list of pairs, and the other way round.

    Attributes:
        pairs: the list.
        position: by identifier, the place in the Catalogue.
    """

    pairs: Pairs
    position: dict[str, int]

    @cached_property
    def ours(self) -> NDArray[np.int64]:
        """[M] place in the Catalogue of each item of the list; -1 where it is not sold here."""
        return np.array([self.position.get(item, -1) for item in self.pairs.items], np.int64)

    @cached_property
    def theirs(self) -> NDArray[np.int64]:
        """[N] place in the list of each item of the Catalogue; -1 where it is not in it."""
        found = np.full(len(self.position), -1, np.int64)
        here = np.flatnonzero(self.ours >= 0)
        found[self.ours[here]] = here
        return found

    @cached_property
    def both(self) -> NDArray[np.int64]:
        """Pairs of which both items are sold here."""
        return np.flatnonzero(
            (self.ours[self.pairs.left] >= 0) & (self.ours[self.pairs.right] >= 0)
        )


def bounded(histories: Histories, places: Places) -> NDArray[np.float64]:
    """[P + M] the sum of every History's vector, whose L1 norm is at most 1.

    Of a History's last REACH events MOST pairs count, alike, and the last item.

    | a History | adds |
    | --- | --- |
    | no item of the list | nothing |
    | items, and no pair of the list | its last item, of norm 1 |
    | the same pair again | nothing to any pair |
    | more than MOST pairs | those fewest events apart, of these the first in the list |
    """
    owner, item, _age = latest(histories, REACH)
    place = places.theirs[item]  # [E]
    shopper, pair = _counted_pairs(owner, place, places.pairs)
    size = np.bincount(shopper, minlength=len(histories))  # pairs of each History
    pairs = np.bincount(pair, ON_PAIRS / size[shopper], minlength=len(places.pairs))
    known = np.flatnonzero(place >= 0)
    final = known[np.append(np.diff(owner[known]) > 0, True)[: len(known)]]  # of each History
    rest = np.where(size[owner[final]] > 0, 1 - ON_PAIRS, 1.0)
    items = np.bincount(place[final], rest, minlength=len(places.pairs.items))
    return np.concatenate([pairs, items]).astype(np.float64)


def _counted_pairs(
    owner: NDArray[np.int64], place: NDArray[np.int64], pairs: Pairs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(History, pair) of each pair that counts; `owner` and `place` [E] are of each event."""
    shoppers, gaps, hits = [], [], []
    for gap in range(1, REACH):
        one_shopper = owner[gap:] == owner[:-gap]
        if not one_shopper.any():
            break  # nor is anybody's History longer
        pair = pairs.find(place[:-gap][one_shopper], place[gap:][one_shopper])
        hit = pair >= 0
        shoppers.append(owner[gap:][one_shopper][hit])
        gaps.append(np.full(int(hit.sum()), gap))
        hits.append(pair[hit])
    if not hits:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    shopper, apart, pair = map(np.concatenate, (shoppers, gaps, hits))
    # Each pair once, at its smallest gap.
    order = np.lexsort((apart, pair, shopper))
    shopper, apart, pair = shopper[order], apart[order], pair[order]
    once = np.ones(len(pair), bool)
    once[1:] = (shopper[1:] != shopper[:-1]) | (pair[1:] != pair[:-1])
    shopper, apart, pair = shopper[once], apart[once], pair[once]
    # Of each shopper the MOST fewest events apart.
    order = np.lexsort((pair, apart, shopper))
    shopper, pair = shopper[order], pair[order]
    nth = np.arange(len(shopper)) - np.searchsorted(shopper, shopper)
    return shopper[nth < MOST], pair[nth < MOST]


def own_pairs(histories: Histories, catalogue: Catalogue) -> Pairs:
    """The pairs that occur here, for rows that nobody protects."""
    count = len(catalogue)
    one, other = Memory.of(histories, items=count).together.nonzero()
    upper = one < other
    return met(catalogue.items, one[upper].astype(np.int64) * count + other[upper])


def exact(
    histories: Histories,
    places: Places,
    *,
    weight: float,
    weighing: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Counts as a Memory has them, over a directed list; nobody is protected.

    They are divided by the weight with which they will be added up: a shopper counts as one. How
    loudly signals speak, [F] `weighing`, is not, so that what is summed is a weighted mean.
    """
    pairs = places.pairs
    memory = Memory.of(histories, items=len(places.position))
    zeros = task.untrained(pairs).tensors
    sums = {name: np.zeros(it.shape, np.float32) for name, it in zeros.items()}
    sums[task.WEIGHT][:] = 1
    if len(places.both):  # scipy gives a matrix for no places at all
        left, right = (places.ours[side[places.both]] for side in (pairs.left, pairs.right))
        sums[task.TOGETHER][places.both] = memory.together[left, right]
        sums[task.FOLLOWING][places.both, 0] = memory.following[left, right]
        sums[task.FOLLOWING][places.both, 1] = memory.following[right, left]
    sold = np.flatnonzero(places.ours >= 0)
    sums[task.ITEMS][sold] = memory.together.diagonal()[places.ours[sold]]
    told = {name: (it / weight).astype(np.float32) for name, it in sums.items()}
    if weighing is not None:
        told[task.WEIGHING] = weighing
    return told


def unprotected(
    histories: Histories,
    places: Places,
    *,
    weight: float,
    weighing: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What leaves where nobody is protected: exact counts, or `bounded` where a list has texts'."""
    if places.pairs.directed:
        return exact(histories, places, weight=weight, weighing=weighing)
    unused = Randomness(bytes(32), "simulated")  # without noise nothing is drawn
    return released(histories, places, weight=weight, noise_multiplier=0.0, randomness=unused)


def released(
    histories: Histories,
    places: Places,
    *,
    weight: float,
    noise_multiplier: float,
    randomness: Randomness,
) -> dict[str, NDArray[np.float32]]:
    """The sums of `bounded` with noise, by tensor of the task.

    Guarantee: one Laplace mechanism of this noise multiplier over all Histories, post-processed.

    Args:
        histories: of the platform.
        places: of its Catalogue in an undirected list.
        weight: the platform's public one.
        noise_multiplier: b, which costs ε = 1/b; 0 adds no noise and promises nothing.
        randomness: of the platform.
    """
    return noised(
        bounded(histories, places),
        places,
        weight=weight,
        noise_multiplier=noise_multiplier,
        randomness=randomness,
    )


def noised(
    total: NDArray[np.float64],
    places: Places,
    *,
    weight: float,
    noise_multiplier: float,
    randomness: Randomness,
) -> dict[str, NDArray[np.float32]]:
    """`released`, of sums that `bounded` gave.

    Args:
        total: [P + M] of `bounded`: it is their bound that the guarantee rests on.
        places: that they were counted over.
        weight: the platform's public one.
        noise_multiplier: b; 0 adds no noise and promises nothing.
        randomness: of the platform.
    """
    if noise_multiplier > 0:
        total = randomness.on_grid(
            total,
            sensitivity=SENSITIVITY,
            multiplier=noise_multiplier,
            number=0,
            stream=Stream.SUMS,
            mechanism="laplace",
        )
    together, items = np.split(total, [len(places.pairs)])
    # Added up with public weights, so one more of them here makes the sum that of a variance.
    variance = weight * 2 * (noise_multiplier * SENSITIVITY) ** 2
    return {
        task.TOGETHER: together.astype(np.float32),
        task.ITEMS: items.astype(np.float32),
        task.VARIANCE: np.array([variance], np.float32),
        task.WEIGHT: np.ones(1, np.float32),
    }
