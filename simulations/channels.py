"""One table's shoppers as several platforms that sum what goes together, by text alone beside it.

    table ─opened→ Platform ─drawn→ Channels, no two with a shopper in common
    Channel ─let_out→ its sums under ε     all of them ─believed→ what one makes of the others'
    Recall ─half of the validation part fits, the other half tells→ NDCG@10

Nothing is trained, and the test part is never read: what is measured may be measured often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.memory import Memory
from clients.platform import Platform
from clients.randomness import simulated
from clients.recall import Recall
from clients.shared_memory import SharedMemory, others
from clients.sums import Places, bounded, noised
from clients.weighing import Weighing
from server.pairs import listed
from shared.accounting import scale_for
from shared.adapter import Adapter
from shared.metrics import ndcg
from shared.ranking import rank
from shared.tasks import co_visitation as task

Sums = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Channel:
    """One platform out of a table.

    Attributes:
        platform: with the channel's shoppers alone.
        weight: in the sums.
    """

    platform: Platform
    weight: float


def near_pairs(whole: Platform, *, nearest: int, cache: Path | None) -> Places:
    """The public list of pairs over a table's Catalogue: each item with so many nearest."""
    catalogue, encoder = whole.rows.catalogue, whole.config.encoder
    pairs = listed([catalogue], encoder=encoder, nearest=nearest, cache=cache)
    return Places(pairs, catalogue.position)


def drawn(
    whole: Platform,
    sizes: Mapping[str, int],
    *,
    weights: Mapping[str, float],
    seed: int | Sequence[int],
) -> dict[str, Channel]:
    """Shoppers of a table in channels, no two with the same one; those left over are in none.

    Args:
        whole: the table.
        sizes: shoppers of each channel; together no more than there are.
        weights: of each in the sums.
        seed: of who is where. With the same one a larger channel that stands first holds a
            smaller one.
    """
    histories = whole.rows.histories
    order = np.random.default_rng(seed).permutation(len(histories))
    cuts = np.cumsum(list(sizes.values()))
    found = {}
    for name, mine in zip(sizes, np.split(order, cuts)[:-1], strict=True):
        rows = replace(whole.rows, histories=histories.take(np.sort(mine)))
        found[name] = Channel(replace(whole, rows=rows), weights[name])
    return found


def let_out(
    channel: Channel, places: Places, *, epsilons: Sequence[float], seed: int, name: str
) -> dict[float, Sums]:
    """What a channel adds under each ε."""
    total = bounded(channel.platform.told, places)
    return {
        epsilon: noised(
            total,
            places,
            weight=channel.weight,
            noise_multiplier=scale_for(epsilon),
            randomness=simulated(seed, str(epsilon), name),
        )
        for epsilon in epsilons
    }


def believed(
    channels: Mapping[str, Channel], told: Mapping[str, Sums], places: Places, name: str
) -> SharedMemory:
    """What one channel makes of the sums that all let out, by name."""
    total = {
        tensor: np.asarray(
            sum(channels[it].weight * sums[tensor] for it, sums in told.items()), np.float32
        )
        for tensor in told[name]
    }
    found = others(
        Adapter(total, places.pairs.digest, task.NAME, version=1),
        places,
        own=told[name],
        weight=channels[name].weight,
    )
    assert isinstance(found, SharedMemory)  # the list is undirected
    return found


def with_all(alone: Recall, name: str, channels: Mapping[str, Channel]) -> Recall:
    """Own memory, and that of what the others tell of."""
    memory = alone.memory
    for other, channel in channels.items():
        if other != name:
            memory = memory.plus(Memory.of(channel.platform.told, items=len(memory.rows)))
    return alone.with_memory(memory)


def held_out(
    platform: Platform,
    recall: Recall,
    *,
    taught: Weighing | None = None,
    most: int | None = None,
) -> float:
    """Mean NDCG@10 of the validation part, of each half by the Weighing that the other fitted.

    Args:
        platform: whose shoppers are asked.
        recall: what ranks.
        taught: how others weigh, beside what was learnt on a public table (`Recall.fitted`).
        most: of more shoppers so many, evenly spaced, are asked; None asks all.
    """
    asked = platform.question("validation")
    if most is not None:
        asked = asked.spaced(most)
    items = len(platform.rows.catalogue)
    halves = [np.arange(start, len(asked.contexts), 2) for start in (0, 1)]
    found = []
    for fits, tells in (halves, reversed(halves)):
        fitted = recall.fitted(asked.take(fits), others=taught)
        found.append(ndcg(rank(fitted, asked.take(tells), items=items).ranks))
    return float(np.concatenate(found).mean())
