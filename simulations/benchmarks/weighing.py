"""How loudly signals speak, learnt on one table of public rows, and what it is worth on others.

    shoppers ─drawn into GROUPS, DRAWS times→ a fit of each ─mean→ Weighing
    others' shoppers ─drawn into groups→ by hand, own fit, taken whole, mixed ─held out→ NDCG@10

What is printed of the first is what stands in clients/pretrained_weighing.py; "nan" is what the
table cannot tell. Of others' groups one half fits and tells the other, so own fits and mixtures
have half of the shoppers that are named. Validation parts alone are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.beside import remembering
from clients.mixing import between, mixed
from clients.platform import Platform
from clients.weighing import (
    FEATURES,
    Field,
    Shares,
    Weighing,
    refined,
    spread,
    weighing_of,
)
from shared.errors import ConfigError, DataError, PlanError
from shared.tables.config import PlatformConfig
from shared.text import Progress, silent
from simulations.channels import drawn
from simulations.untrained import opened

GROUPS, DRAWS, RIDGE = 4, 5, 3.0
FEWEST = 10 * GROUPS  # shoppers of a table
NUMBERS = ("loud", "met", "words", "liked")
LATELY = FEATURES - 2  # its place among the numbers
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
        progress: called before each fit.

    Raises:
        ConfigError: two tables to judge by have one name.
        DataError: a table has too few shoppers.
        PlanError: a table's shoppers are protected.
    """
    for it in (config, *on):
        public(it)
    names = [it.name for it in on]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                "is the name of two tables to judge by", where=name, todo="rename one of them"
            )
    found = learnt(opened(config, cache=cache, progress=progress), progress=progress)
    rows = {
        it.name: judged(opened(it, cache=cache, progress=progress), found, progress=progress)
        for it in on
    }
    return {**{name: numbers(getattr(found, name)) for name in NUMBERS}, "rows": rows}


def public(config: PlatformConfig) -> None:
    """Refuse to print what is fitted to protected rows.

    Raises:
        PlanError: the platform's shoppers are protected by a Plan.
    """
    if config.policy is not None and config.policy.plan is not None:
        raise PlanError(
            "has a Plan: what is fitted to its rows is not to be printed",
            where=config.name,
            todo="name tables of public rows",
        )


def numbers(values: NDArray[np.float64]) -> Any:
    """To three digits, as a program reads them: None is what is not known."""
    found = (np.round(values, 3) + 0.0).astype(object)  # no -0
    found[np.isnan(values)] = None
    return found.tolist()


def learnt(whole: Platform, *, progress: Progress = silent) -> Weighing:
    """The mean of fits to groups of a table's shoppers, each with its own memory.

    A mean of several fits is better than each, and fits to a quarter of a table serve small
    platforms better than one to all.

    Raises:
        DataError: the table has too few shoppers.
    """
    found: list[Weighing] = []
    size = enough(whole) // GROUPS
    for draw in range(DRAWS):
        for group in groups(whole, GROUPS, size, seed=draw):
            progress("fits", len(found), GROUPS * DRAWS)
            found.append(refined(_field(whole, group), spread(Shares()), RIDGE))
    progress("fits", len(found), GROUPS * DRAWS)
    flat = weighing_of(np.mean([it.flat for it in found], axis=0)).hearing(np.nan).flat
    if whole.rows.histories.days is None:
        flat[LATELY] = np.nan
    return weighing_of(flat)


def enough(whole: Platform) -> int:
    """How many shoppers a table has.

    Raises:
        DataError: there are fewer than FEWEST.
    """
    count = len(whole.rows.histories)
    if count < FEWEST:
        raise DataError(
            f"has {count} shoppers, {FEWEST} are the fewest to learn from or to judge by",
            where=whole.config.name,
            todo="name a larger table",
        )
    return count


def judged(
    whole: Platform, weighing: Weighing, *, progress: Progress = silent
) -> dict[int, dict[str, float]]:
    """By shoppers of a group: means over groups of what each way of weighing reaches."""
    count = enough(whole)
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
    """Mean NDCG@10 of all who were asked, of each half by what the other half says."""
    parts = [(field.half(one), field.half(1 - one)) for one in (0, 1)]
    found = [(mixed(fits, [weighing]), tells) for fits, tells in parts]
    by_hand = spread(Shares())
    return {
        BY_HAND: field.gain(by_hand.flat),
        OWN: sum(tells.gain(it.own.flat) for it, tells in found),
        WHOLE: field.gain(between(by_hand, weighing, 0.0).flat),
        MIXED: sum(tells.gain(it.weighing.flat) for it, tells in found),
    }


def groups(whole: Platform, count: int, size: int, *, seed: int) -> list[Platform]:
    """So many groups of that many shoppers of a table, no two with the same one."""
    sizes = {str(number): size for number in range(count)}
    channels = drawn(whole, sizes, weights=dict.fromkeys(sizes, 1.0), seed=seed)
    return [it.platform for it in channels.values()]


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """For people: the numbers as they stand in clients/pretrained_weighing.py, and the table."""
    for name in NUMBERS:
        rows = figures[name] if name in ("loud", "met") else [figures[name]]
        for row in rows:
            yield f"{name:<6} {', '.join('nan' if it is None else f'{it:.3f}' for it in row)}"
    for table, sizes in figures["rows"].items():
        yield ""
        yield f"{table:<22}" + "".join(f"{it:>13}" for it in (BY_HAND, OWN, WHOLE, MIXED))
        for size, row in sizes.items():
            yield f"{size:>12,} shoppers" + " " + "".join(f"{it:>13.4f}" for it in row.values())


def _field(whole: Platform, group: Platform) -> Field:
    asked = group.question("validation")
    if not len(asked.contexts):
        raise DataError(
            "has a group of shoppers in which nobody can be asked",
            where=whole.config.name,
            todo="name a table whose shoppers took three items and more",
        )
    return remembering(group, texts=whole.texts).field(asked)
