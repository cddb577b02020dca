"""What sums of co-visitation are worth to channels of one table, over many splits of its shoppers.

    shoppers ─drawn anew→ channels ─sums, exact or under ε→ Recall ─held out→ NDCG@10

So that it can be run often, only the smaller channels are asked, those of at most MOST shoppers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clients.beside import remembering
from clients.taught import Taught
from shared.metrics import gained
from shared.tables.config import PlatformConfig
from shared.text import Progress, silent
from simulations.channels import believed, drawn, held_out, let_out, near_pairs, with_all
from simulations.untrained import opened

CHANNELS = {"app": 0.60, "web": 0.28, "mini-program": 0.09, "newcomer": 0.03}
MOST = 2500  # shoppers of a channel that is asked; larger channels only add to the sums
ALONE, COUNTS, EXACT = "alone", "counts alone", "no noise"


def measure(
    config: PlatformConfig,
    *,
    splits: int,
    epsilons: Sequence[float],
    nearest: int,
    cache: Path | None,
    progress: Progress = silent,
) -> dict[str, dict[str, dict[str, float]]]:
    """By channel and by what it has beside the prior: mean NDCG@10, its gain, half its interval.

    Args:
        config: of the table.
        splits: drawn anew.
        epsilons: each the whole budget of a release of sums, at any δ.
        nearest: pairs of each item with so many.
        cache: folder of item vectors.
        progress: called after each split.
    """
    whole = opened(config, cache=cache, progress=progress)
    places = near_pairs(whole, nearest=nearest, cache=cache)
    sizes = sizes_of(len(whole.rows.histories))
    reached: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for split in range(splits):
        progress("splits", split, splits)
        channels = drawn(whole, sizes, weights=CHANNELS, seed=split)
        told = {
            name: let_out(channel, places, epsilons=epsilons, seed=split, name=name)
            for name, channel in channels.items()
        }
        own = {name: remembering(it.platform, texts=whole.texts) for name, it in channels.items()}
        # What leaves beside exact sums: fitted to all of a channel's validation part.
        sent = {}
        for name, it in channels.items():
            fitted = own[name].fitted(it.platform.question("validation"))
            sent[name] = it.weight * fitted.own.flat
        total = np.sum(list(sent.values()), axis=0)
        for name, channel in channels.items():
            if len(channel.platform.rows.histories) > MOST:
                continue
            alone = own[name]
            everything = with_all(alone, name, channels)
            has = {ALONE: alone, COUNTS: everything, EXACT: everything}
            for epsilon in epsilons:
                under = {it: sums[epsilon] for it, sums in told.items()}
                found = believed(channels, under, places, name)
                has[f"ε={epsilon:g}"] = replace(alone, shared=found)
            others = Taught(total, sent[name]).others
            for what, recall in has.items():
                taught = others if what == EXACT else None
                reached[name][what].append(held_out(channel.platform, recall, taught=taught))
    progress("splits", splits, splits)
    return {name: summed(table) for name, table in reached.items()}


def sizes_of(shoppers: int) -> dict[str, int]:
    """How many of a table's shoppers each channel has."""
    cuts = (np.cumsum(list(CHANNELS.values()))[:-1] * shoppers).astype(int)
    ends = [0, *cuts.tolist(), shoppers]
    return {name: ends[k + 1] - ends[k] for k, name in enumerate(CHANNELS)}


def summed(table: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Means over the splits, gains over being alone, and half their 95 % intervals."""
    found = {}
    for what, values in table.items():
        told = gained(table[ALONE], values)
        found[what] = {"ndcg@10": float(np.mean(values)), "gain": told.gain, "half": told.half}
    return found
