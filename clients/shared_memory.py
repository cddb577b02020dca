"""What the others' shoppers put together, out of the sums of all platforms.

    Adapter of co-visitation - own Update ─→ what the others added
        noise in it    ─posterior mean, by how near two texts are→ SharedMemory
        none           ─→ a Memory, to be added to one's own

The posterior mean is nonparametric empirical Bayes: how large sums are before the noise is read off
all of them together (Kiefer & Wolfowitz, Ann. Math. Stat. 27, 1956; by expectation maximisation as
in Jiang & Zhang, Ann. Stat. 37, 2009), apart for pairs near by text and pairs that are not. It
reads what was released and what is public, so it costs nothing.

The noise of several platforms is a sum of Laplace's, and is taken for one of the same variance,
whose tails are the heaviest it can have: to take a sum for larger than it is costs more than to
take it for smaller (docs/decisions/0024-laplace-noise-for-sums.md).

    P  pairs      M  items of the list      N  items of the Catalogue
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import Memory, Weights, undated
from clients.sums import Places
from shared.adapter import Adapter, Tensors
from shared.tasks import co_visitation as task

GROUPS = (0.3, 0.6, 0.8, 0.9, 0.97)  # quantiles of nearness between which pairs are alike
SIZES = 60  # values that a sum may have before the noise, beside 0
BINS = 2048  # of the sums, for speed
STEPS = 200  # of expectation maximisation
# In standard deviations of the noise:
SMALLEST = 0.1  # of those values
FAR = 12.0  # a sum from here on is taken for what it is
BEYOND = 4.0  # how much larger than FAR a sum below it may have been
SEEN = 2.0  # by which the mean of all sums is above its own noise, if anything is to be believed


@dataclass(frozen=True)
class SharedMemory:
    """What is believed of the others' rows.

    Attributes:
        together: [N, N] how often two items stand together, a mean over platforms; symmetric.
        popularity: [N] log(1 + how many times the mean item's share an item has).
    """

    together: Weights
    popularity: NDArray[np.float32]


def others(
    adapter: Adapter, places: Places, *, own: Tensors | None, weight: float
) -> Memory | SharedMemory:
    """What the others added, as far as their items are sold here.

    Args:
        adapter: the sums of all.
        places: of the Catalogue in the list of pairs that they are over.
        own: what this platform let out itself, if it is among them; None if it is not.
        weight: its public weight.

    Raises:
        ValueError: the adapter is of another list.
    """
    if adapter.backbone != places.pairs.digest or adapter.task != task.NAME:
        raise ValueError("sums over another list of pairs")
    sums = {name: it.astype(np.float64) for name, it in adapter.tensors.items()}
    if own is not None:
        sums = {name: it - weight * own[name].astype(np.float64) for name, it in sums.items()}
    if places.pairs.directed:
        return _memory(sums, places)
    # What adding in single precision leaves of no weight and no noise at all counts as none.
    added, variance = max(float(sums[task.WEIGHT][0]), 0.0), float(sums[task.VARIANCE][0])
    scale = added if added > 1e-4 * max(weight, 1.0) else np.inf
    noise = np.sqrt(max(variance, 0.0)) / scale
    pairs, here = places.pairs, places.both
    together = _by_nearness(sums[task.TOGETHER] / scale, pairs.nearness, noise)[here]
    left, right = places.ours[pairs.left[here]], places.ours[pairs.right[here]]
    count = len(places.position)
    upper = sparse.csr_array((together.astype(np.float32), (left, right)), shape=(count, count))
    both = sparse.csr_array(upper + upper.T)
    both.eliminate_zeros()
    items = posterior_mean(sums[task.ITEMS] / scale, noise)
    shares = items / max(float(items.mean()), 1e-12)
    popularity = np.zeros(count, np.float32)
    sold = np.flatnonzero(places.ours >= 0)
    popularity[places.ours[sold]] = np.log1p(shares[sold])
    return SharedMemory(both, popularity)


def posterior_mean(sums: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """[K] what each sum is expected to be without the noise, given all of them; never below 0.

    | sums | gives |
    | --- | --- |
    | none | none |
    | noise 0 | themselves, those below 0 as 0 |
    | far above the noise | themselves |
    | nothing but noise, by their mean | 0 |

    Args:
        sums: [K] with independent noise, as if it were Laplace's.
        noise: its standard deviation.
    """
    if not len(sums) or noise <= 0:
        return np.maximum(sums, 0.0)
    # What is summed is never below 0. A few sums of nothing but noise would find their outliers a
    # prior of their own, and noise may be larger by far than anything that was ever summed.
    if sums.mean() <= SEEN * noise / np.sqrt(len(sums)):
        return np.zeros_like(sums)
    scaled = sums / noise
    near = scaled < FAR
    if not near.any():
        return sums
    edges = np.linspace(float(scaled[near].min()), FAR, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    counts, _ = np.histogram(scaled[near], edges)
    full = counts > 0
    values, counts = middle[full], counts[full]
    sizes = np.concatenate([[0.0], np.geomspace(SMALLEST, FAR + BEYOND, SIZES)])
    apart = np.abs(values[:, None] - sizes)  # [bins, sizes]
    # Of each sum the likeliest size has 1, so that none is too far from all of them.
    likely = np.exp(-np.sqrt(2) * (apart - apart.min(axis=1, keepdims=True)))
    belief = np.full(len(sizes), 1 / len(sizes))
    for _ in range(STEPS):
        share = likely * belief
        share /= share.sum(axis=1, keepdims=True)
        belief = counts @ share / counts.sum()
    share = likely * belief
    mean = np.minimum((share @ sizes) / share.sum(axis=1), FAR)
    return np.asarray(np.where(near, np.interp(scaled, values, mean) * noise, sums))


def _by_nearness(
    sums: NDArray[np.float64], nearness: NDArray[np.float32], noise: float
) -> NDArray[np.float64]:
    """Each group of pairs by itself: how often strangers are taken together says little of kin."""
    found = np.zeros(len(sums))
    if len(sums):
        group = np.digitize(nearness, np.quantile(nearness, GROUPS))
        for number in np.unique(group):
            found[group == number] = posterior_mean(sums[group == number], noise)
    return found


def _memory(sums: Tensors | dict[str, NDArray[np.float64]], places: Places) -> Memory:
    """Whole counts as a Memory of this Catalogue; of the rows of an item it has the shoppers."""
    pairs, here, count = places.pairs, places.both, len(places.position)
    left, right = places.ours[pairs.left[here]], places.ours[pairs.right[here]]
    sold = np.flatnonzero(places.ours >= 0)
    mine = places.ours[sold]
    rows = np.zeros(count, np.int64)
    rows[mine] = np.rint(sums[task.ITEMS][sold]).astype(np.int64)
    both = np.rint(sums[task.TOGETHER][here]).astype(np.int32)
    after = np.rint(sums[task.FOLLOWING][here]).astype(np.int32)
    shape = (count, count)
    upper = sparse.csr_array((both, (left, right)), shape=shape)
    holders = sparse.csr_array((rows[mine].astype(np.int32), (mine, mine)), shape=shape)
    following = sparse.csr_array((after[:, 0], (left, right)), shape=shape) + sparse.csr_array(
        (after[:, 1], (right, left)), shape=shape
    )
    together, following = upper + upper.T + holders, sparse.csr_array(following)
    together = sparse.csr_array(together)
    for counts in (together, following):
        counts.eliminate_zeros()
    return Memory(together, following, rows, undated(count))
