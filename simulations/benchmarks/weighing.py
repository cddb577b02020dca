"""How loudly signals speak, learnt on one table of public rows, and what it is worth on others.

    shoppers ─drawn into GROUPS, DRAWS times→ a fit of each ─mean→ Weighing
    others' shoppers ─drawn into groups→ by hand, own fit, taken whole, mixed ─held out→ NDCG@10

What is printed of the first is what stands in clients/pretrained_weighing.py. A mean of several
fits is better than each, and a fit to one in four shoppers of a table serves small platforms better
than one to all. Validation parts alone are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clients.beside import remembering
from clients.mixing import mixed
from clients.platform import Platform
from clients.weighing import Field, Shares, Weighing, best_way, fitted, refined, spread, weighing_of
from shared.tables.config import PlatformConfig
from shared.text import Progress, silent
from simulations.channels import drawn
from simulations.untrained import opened

GROUPS, DRAWS, RIDGE = 4, 5, 3.0
SIZES = {600: 16, 2000: 6, 6000: 3}  # shoppers of a group that is asked, and how many groups
BY_HAND, OWN, WHOLE, MIXED = "by hand", "own fit", "taken whole", "mixed"


def measure(
    config: PlatformConfig,
    on: Sequence[PlatformConfig],
    *,
    cache: Path | None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What was learnt, and by table and size mean NDCG@10 among candidates, held out.

    Args:
        config: of the table to learn from.
        on: of those to judge it by.
        cache: folder of item vectors.
        progress: called after each fit.
    """
    found = learnt(opened(config, cache=cache, progress=progress), progress=progress)
    rows = {
        it.name: judged(opened(it, cache=cache, progress=progress), found, progress=progress)
        for it in on
    }
    return {
        "loud": found.loud.round(3).tolist(),
        "met": found.met.round(3).tolist(),
        "words": found.words.round(3).tolist(),
        "liked": found.liked.round(3).tolist(),
        "rows": rows,
    }


def learnt(whole: Platform, *, progress: Progress = silent) -> Weighing:
    """The mean of fits to groups of a table's shoppers, each with its own memory."""
    found: list[Weighing] = []
    size = len(whole.rows.histories) // GROUPS
    for draw in range(DRAWS):
        for group in groups(whole, GROUPS, size, seed=draw):
            progress("fits", len(found), GROUPS * DRAWS)
            found.append(refined(_field(whole, group), spread(Shares()), RIDGE))
    progress("fits", len(found), GROUPS * DRAWS)
    return weighing_of(np.mean([it.flat for it in found], axis=0)).silent()


def judged(
    whole: Platform, weighing: Weighing, *, progress: Progress = silent
) -> dict[int, dict[str, float]]:
    """By shoppers of a group: means over groups of what each way of weighing reaches."""
    count = len(whole.rows.histories)
    smaller = {size: most for size, most in SIZES.items() if size < count}
    asked = smaller if max(SIZES) < count else {**smaller, count: 1}
    found: dict[int, dict[str, float]] = {}
    for size, most in asked.items():
        progress("sizes", len(found), len(asked))
        reached: dict[str, list[float]] = defaultdict(list)
        for group in groups(whole, min(most, count // size), size, seed=DRAWS):
            for name, gain in told(_field(whole, group), weighing).items():
                reached[name].append(gain)
        found[size] = {name: float(np.mean(it)) for name, it in reached.items()}
    progress("sizes", len(found), len(asked))
    return found


def told(field: Field, weighing: Weighing) -> Mapping[str, float]:
    """Mean NDCG@10 of these shoppers, of each half by what the other half says."""
    parts = [(field.half(one), field.half(1 - one)) for one in (0, 1)]
    own = [(fitted(fits, best_way(fits)[1]), tells) for fits, tells in parts]
    mixture = [(mixed(fits, weighing)[0], tells) for fits, tells in parts]
    return {
        BY_HAND: field.gain(spread(Shares()).flat),
        OWN: sum(tells.gain(it.flat) for it, tells in own),  # a half counts all who were asked
        WHOLE: field.gain(weighing.flat),
        MIXED: sum(tells.gain(it.flat) for it, tells in mixture),
    }


def groups(whole: Platform, count: int, size: int, *, seed: int) -> list[Platform]:
    """So many groups of that many shoppers of a table, no two with the same one."""
    sizes = {str(number): size for number in range(count)}
    channels = drawn(whole, sizes, weights=dict.fromkeys(sizes, 1.0), seed=seed)
    return [it.platform for it in channels.values()]


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """For people: the numbers as they stand in clients/pretrained_weighing.py, and the table."""
    for name in ("loud", "met", "words", "liked"):
        rows = figures[name] if name in ("loud", "met") else [figures[name]]
        for row in rows:
            yield f"{name:<6} {', '.join(f'{it:.3f}' for it in row)}"
    for table, sizes in figures["rows"].items():
        yield ""
        yield f"{table:<22}" + "".join(f"{it:>13}" for it in (BY_HAND, OWN, WHOLE, MIXED))
        for size, row in sizes.items():
            yield f"{size:>12,} shoppers" + " " + "".join(f"{it:>13.4f}" for it in row.values())


def _field(whole: Platform, group: Platform) -> Field:
    return remembering(group, texts=whole.texts).field(group.question("validation"))
