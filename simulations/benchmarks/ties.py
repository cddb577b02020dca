"""What the order within ties is worth: events whose true order nobody knows, shuffled.

A table may hold many events of one moment, and what made the table, or `group`, sorted them by the
item's name. Whoever learns what follows what learns that sorting too, and it holds in the test part
as well. So here the order of a shopper's events is drawn anew before the split,

    within ties          events of equal order, where the table has some: most that know times
    within rising runs   stretches in which each item's name is above the one before, where it has
                         none, as positions: if ties were sorted by name, each lies within such a
                         run, so this is at least as harsh as shuffling the ties

and what a platform has by itself is measured again, with what came next heard and not heard. What
was learnt on a public table, whose own ties are as they are, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients import beside
from clients.platform import Platform
from clients.recall import Recall
from shared.events import Part
from shared.metrics import hit_rate, ndcg
from shared.ranking import rank
from shared.tables.config import PlatformConfig
from shared.tables.table import PlatformRows
from shared.text import Progress, silent
from shared.words import Texts
from simulations.untrained import opened

PARTS: tuple[Part, ...] = ("validation", "test")
TO_DATE = "test, to date"  # the same with all that is remembered on that day, as it is served
Row = dict[str, dict[str, float]]  # part → metric → figure


@dataclass(frozen=True)
class Stretches:
    """Events next to one another whose order is open.

    Attributes:
        kind: "ties" where the table's order has some, else "rising runs".
        begins: [E] whether an event is the first of its stretch.
    """

    kind: str
    begins: NDArray[np.bool_]

    @property
    def pairs(self) -> int:
        """Neighbouring events with an open order."""
        return int(np.count_nonzero(~self.begins))

    @classmethod
    def of(cls, rows: PlatformRows) -> Stretches:
        """Of a platform's events."""
        histories = rows.histories
        first = np.zeros(len(histories.items), bool)
        first[histories.offsets[:-1]] = True
        order = rows.events["order"].to_numpy()
        later = np.ones(len(order), bool)
        later[1:] = order[1:] != order[:-1]
        if not (later | first).all():
            return cls("ties", later | first)
        falls = np.ones(len(order), bool)  # the Catalogue is sorted by name
        falls[1:] = histories.items[1:] <= histories.items[:-1]
        return cls("rising runs", falls | first)


def shuffled(rows: PlatformRows, *, seed: int) -> PlatformRows:
    """The same rows with the order within every stretch drawn anew."""
    stretch = np.cumsum(Stretches.of(rows).begins)
    chance = np.random.default_rng(seed).random(len(stretch))
    drawn = np.lexsort([chance, stretch])
    days = rows.histories.days
    histories = replace(
        rows.histories,
        items=rows.histories.items[drawn],
        days=None if days is None else days[drawn],
    )
    return replace(rows, histories=histories, events=rows.events[drawn])


def measure(
    config: PlatformConfig, *, seeds: int, cache: Path | None, progress: Progress = silent
) -> dict[str, Any]:
    """HR@10 and NDCG@10 of what a platform has by itself, as given and shuffled by each seed.

    Args:
        config: of the table.
        seeds: times that the order is drawn.
        cache: folder of item vectors.
        progress: called after each of them.
    """
    whole = opened(config, cache=cache, progress=progress)
    found = Stretches.of(whole.rows)
    inside = len(found.begins) - len(whole.rows.histories)
    reached: dict[str, list[Row]] = {}
    for seed in range(seeds + 1):
        progress("orders", seed, seeds + 1)
        rows = shuffled(whole.rows, seed=seed) if seed else whole.rows
        for what, row in both(replace(whole, rows=rows), whole.texts).items():
            reached.setdefault(f"{'shuffled' if seed else 'as given'}{what}", []).append(row)
    progress("orders", seeds + 1, seeds + 1)
    return {
        "shuffled within": found.kind,
        "open pairs": found.pairs / inside,
        "rows": {what: mean(rows) for what, rows in reached.items()},
    }


def both(platform: Platform, texts: Texts) -> Mapping[str, Row]:
    """With what came next, and without; each fitted by itself."""
    own = beside.remembering(platform, texts=texts)
    return {
        "": answered(platform, own, lambda it: it),
        ", order unheard": answered(platform, own, unheard),
    }


def unheard(recall: Recall) -> Recall:
    """The same without what came next."""
    nothing = sparse.csr_array(recall.memory.following * 0)
    return recall.with_memory(replace(recall.memory, following=nothing))


def answered(platform: Platform, recall: Recall, hears: Callable[[Recall], Recall]) -> Row:
    """Fitted on the validation part, and asked for both, for the last of them to date as well."""
    fitted = hears(recall).fitted(platform.question("validation"))
    late = beside.dated(platform, fitted.with_memory(recall.memory))
    asked: list[tuple[str, Recall, Part]] = [(part, fitted, part) for part in PARTS]
    asked.append((TO_DATE, hears(late), "test"))
    found: Row = {}
    for name, scorer, part in asked:
        ranks = rank(scorer, platform.question(part), items=len(platform.rows.catalogue)).ranks
        found[name] = {"hr@10": float(hit_rate(ranks).mean()), "ndcg@10": float(ndcg(ranks).mean())}
    return found


def mean(rows: list[Row]) -> Row:
    """Over seeds, metric by metric."""
    return {
        part: {name: float(np.mean([row[part][name] for row in rows])) for name in rows[0][part]}
        for part in rows[0]
    }


def lines(figures: Mapping[str, Any]) -> list[str]:
    """The table, for people."""
    parts = (*PARTS, TO_DATE)
    found = [
        f"{'':<24}{''.join(f'{part:<18}' for part in parts)}".rstrip(),
        f"{'':<24}{'HR@10    NDCG@10  ' * len(parts)}".rstrip(),
    ]
    for what, row in figures["rows"].items():
        told = [f"{row[part][name]:<9.4f}" for part in parts for name in ("hr@10", "ndcg@10")]
        found.append(f"{what:<24}{''.join(told)}".rstrip())
    open_pairs = 100 * figures["open pairs"]
    return [
        *found,
        "",
        f"Shuffled within {figures['shuffled within']}, {open_pairs:.1f} % of neighbours.",
    ]
