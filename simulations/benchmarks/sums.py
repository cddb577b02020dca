"""What sums of co-visitation are worth to channels of one table, over many splits of its shoppers.

    shoppers ─drawn anew→ channels ─sums, exact or under ε→ Recall
    Recall ─half of the validation part fits, the other half tells→ NDCG@10

The test part is never read, and nothing is trained: the prior is text alone. So that it can be run
often: of the channels only the smaller ones are asked, by MOST shoppers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients.beside import remembering
from clients.memory import Memory
from clients.platform import Platform
from clients.randomness import simulated
from clients.recall import Recall
from clients.shared_memory import SharedMemory, others
from clients.sums import Places, released
from server.pairs import listed
from shared.accounting import noise_for
from shared.adapter import Adapter
from shared.events import Histories, training_part
from shared.metrics import ndcg
from shared.plan import default_delta
from shared.ranking import rank
from shared.tables.config import PlatformConfig
from shared.tasks import co_visitation as task
from shared.text import Progress, silent
from simulations.benchmarks.untrained import opened

CHANNELS = {"app": 0.60, "web": 0.28, "mini-program": 0.09, "newcomer": 0.03}
MOST = 2500  # shoppers of a channel that is asked; larger channels only add to the sums
ALONE, EXACT = "alone", "no noise"


@dataclass(frozen=True)
class Channel:
    """One channel of a split.

    Attributes:
        platform: with the channel's shoppers alone.
        weight: in the sums.
    """

    platform: Platform
    weight: float

    @property
    def training(self) -> Histories:
        """What it tells of."""
        return training_part(self.platform.rows.histories)


def measure(
    config: PlatformConfig,
    *,
    splits: int,
    epsilons: Sequence[float],
    nearest: int,
    cache: Path | None,
    progress: Progress = silent,
) -> dict[str, dict[str, dict[str, float]]]:
    """By channel and by what it has beside the prior: mean NDCG@10, its gain and standard error.

    Args:
        config: of the table.
        splits: drawn anew.
        epsilons: each the whole budget of a release of sums.
        nearest: pairs of each item with so many.
        cache: folder of item vectors.
        progress: called after each split.
    """
    whole = opened(config, cache=cache, progress=progress)
    catalogue = whole.rows.catalogue
    pairs = listed([catalogue], encoder=whole.config.encoder, nearest=nearest, cache=cache)
    places = Places(pairs, catalogue.position)
    reached: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for split in range(splits):
        progress("splits", split, splits)
        channels = drawn(whole, seed=split)
        noised = {
            epsilon: {
                name: let_out(channel, places, epsilon=epsilon, seed=split, name=name)
                for name, channel in channels.items()
            }
            for epsilon in epsilons
        }
        for name, channel in channels.items():
            if len(channel.platform.rows.histories) > MOST:
                continue
            alone = remembering(channel.platform)
            has = {ALONE: alone, EXACT: with_all(alone, name, channels)}
            for epsilon, told in noised.items():
                found = believed(channels, told, places, name)
                has[f"ε={epsilon:g}"] = replace(alone, shared=found)
            for what, recall in has.items():
                reached[name][what].append(held_out(channel.platform, recall))
    progress("splits", splits, splits)
    return {name: summed(table) for name, table in reached.items()}


def drawn(whole: Platform, *, seed: int) -> dict[str, Channel]:
    """The shoppers of a table in channels, no two with the same one."""
    histories = whole.rows.histories
    order = np.random.default_rng(seed).permutation(len(histories))
    cuts = (np.cumsum(list(CHANNELS.values()))[:-1] * len(histories)).astype(int)
    found = {}
    for (name, weight), mine in zip(CHANNELS.items(), np.split(order, cuts), strict=True):
        rows = replace(whole.rows, histories=histories.take(np.sort(mine)))
        found[name] = Channel(replace(whole, rows=rows), weight)
    return found


def let_out(
    channel: Channel, places: Places, *, epsilon: float, seed: int, name: str
) -> Mapping[str, np.ndarray]:
    """What a channel adds under ε at 1/N^1.1; its number of shoppers is taken as public."""
    delta = default_delta(len(channel.platform.rows.histories))
    return released(
        channel.training,
        places,
        weight=channel.weight,
        noise_multiplier=noise_for(epsilon, delta, sampling_rate=1.0, steps=1),
        randomness=simulated(seed, str(epsilon), name),
    )


def believed(
    channels: Mapping[str, Channel],
    told: Mapping[str, Mapping[str, np.ndarray]],
    places: Places,
    name: str,
) -> SharedMemory:
    """What one channel makes of the sums of all."""
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
    """Own memory, and that of the others' training rows."""
    memory = alone.memory
    for other, channel in channels.items():
        if other != name:
            memory = memory.plus(Memory.of(channel.training, items=len(memory.rows)))
    return replace(alone, memory=memory)


def held_out(platform: Platform, recall: Recall) -> float:
    """Mean NDCG@10 of the validation part, of each half by Shares that the other fitted."""
    asked = platform.question("validation")
    items = len(platform.rows.catalogue)
    halves = [np.arange(start, len(asked.contexts), 2) for start in (0, 1)]
    found = []
    for fits, tells in (halves, reversed(halves)):
        fitted = recall.fitted(asked.take(fits))
        found.append(ndcg(rank(fitted, asked.take(tells), items=items).ranks))
    return float(np.concatenate(found).mean())


def summed(table: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Means over the splits, gains over being alone, and their standard errors."""
    base = np.array(table[ALONE])
    found = {}
    for what, values in table.items():
        gains = np.array(values) / base - 1
        found[what] = {
            "ndcg@10": float(np.mean(values)),
            "gain": float(np.mean(values) / base.mean() - 1),
            "standard error": float(gains.std(ddof=1) / np.sqrt(len(gains)))
            if len(gains) > 1
            else 0.0,
        }
    return found
