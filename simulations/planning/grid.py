"""Which federations are asked about, and out of whose shoppers they are drawn.

--mine or --share, --all ─cases→ Cases            nothing given: MINE in federations of GRID
embedded world, or a platform's file ─opened→ Ground
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clients.platform import Platform
from clients.sums import Places
from shared.errors import ConfigError
from shared.pairs import nearest_for
from shared.tables.config import load_platform
from shared.text import Progress, silent
from simulations.channels import near_pairs
from simulations.planning.joining import Case, divided
from simulations.untrained import opened
from simulations.worlds.embedded import generate, write
from simulations.worlds.specs import wide_world

GRID = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)  # shoppers of a federation
MINE = (300, 1_000, 3_000)  # shoppers of the platform that asks
FEWEST = 20  # shoppers of a platform; what fewer say is luck
LARGEST = 1_000_000  # shoppers of the embedded world; they take minutes to make
MOST_EPSILONS = 4  # beside "no noise": more lines cannot be told apart


@dataclass(frozen=True)
class Ground:
    """Shoppers to draw federations from.

    Attributes:
        name: of the table, for people.
        whole: all of them.
        listed: the public list of pairs over their Catalogue, for a federation of so many.
    """

    name: str
    whole: Platform
    listed: Callable[[int], Places]

    @property
    def shoppers(self) -> int:
        """How many there are."""
        return len(self.whole.rows.histories)


def embedded(
    shoppers: int, *, nearest: int | None, cache: Path, seed: int, progress: Progress = silent
) -> Ground:
    """So many shoppers of the embedded world, over 3,000 items.

    Args:
        shoppers: to be made.
        nearest: pairs of each item with so many; None is as many as fit the federation.
        cache: folder of item vectors.
        seed: of the world.
        progress: told what is being done.
    """
    progress(f"making {shoppers:,} shoppers", 0, 1)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write(generate(wide_world(shoppers), seed=seed), Path(folder)).values()
        progress(f"making {shoppers:,} shoppers", 1, 1)
        whole = opened(load_platform(path), cache=cache, progress=progress)
    return Ground("the embedded world", whole, _lists(whole, nearest=nearest, cache=cache))


def from_table(
    path: Path, *, nearest: int | None, cache: Path, progress: Progress = silent
) -> Ground:
    """The shoppers of a platform's file.

    Raises:
        AtollError: it or a table that it names is missing or damaged.
    """
    config = load_platform(path)
    whole = opened(config, cache=cache, progress=progress)
    return Ground(config.name, whole, _lists(whole, nearest=nearest, cache=cache))


def _lists(whole: Platform, *, nearest: int | None, cache: Path) -> Callable[[int], Places]:
    items = len(whole.rows.catalogue)
    made = lru_cache(lambda count: near_pairs(whole, nearest=count, cache=cache))
    return lambda shoppers: made(nearest or nearest_for(shoppers, items))


def cases(
    mine: Sequence[int],
    shares: Sequence[float],
    everyone: Sequence[int],
    *,
    others: int,
    shoppers: int | None = None,
) -> tuple[Case, ...]:
    """The federations to be asked about, those of one kind of platform together, in rising order.

    What was asked for must be possible; of a default what is not is left out.

    Args:
        mine: shoppers of the asking platform; none and no shares are MINE.
        shares: of a federation's shoppers, in their place.
        everyone: shoppers of a federation; none are GRID, up to all there are.
        others: platforms beside the asking one.
        shoppers: how many there are; None makes as many as are asked for.

    Raises:
        ConfigError: names what cannot be.
    """
    if mine and shares:
        raise ConfigError(
            "--mine and --share both say how large the platform is", todo="leave one of them out"
        )
    for share in shares:
        if not 0 < share < 1:
            raise ConfigError(f"--share {share:g} is not between 0 and 1", todo="0.1 is a tenth")
    most = LARGEST if shoppers is None else shoppers
    for size in everyone:
        if size > most:
            there = "can be made" if shoppers is None else "the table has"
            raise ConfigError(
                f"--all {size:,} is more than the {most:,} shoppers that {there}",
                todo=f"ask for {most:,} or fewer",
            )
    sizes = sorted(set(everyone)) or _default_sizes(shoppers)
    strict = bool(everyone) and bool(mine or shares)
    found = tuple(
        case for case in _crossed(mine, shares, sizes) if _possible(case, others, strict=strict)
    )
    if not found:
        raise ConfigError(
            f"no federation of {sizes[-1]:,} shoppers or fewer has such a platform and {others} "
            f"others of at least {FEWEST} shoppers each",
            todo="ask for larger federations, or name a smaller --mine",
        )
    return found


def check_epsilons(epsilons: Sequence[float]) -> tuple[float, ...]:
    """The budgets, each once, largest first.

    Raises:
        ConfigError: one is no budget, or there are more than can be told apart.
    """
    for epsilon in epsilons:
        if not (math.isfinite(epsilon) and epsilon > 0):
            raise ConfigError(
                f"--epsilon {epsilon:g} is not a positive number", todo="3 is a usual budget"
            )
    found = tuple(sorted(set(epsilons), reverse=True))
    if len(found) > MOST_EPSILONS:
        raise ConfigError(
            f"{len(found)} budgets are more than the {MOST_EPSILONS} that one drawing can hold",
            todo="ask in two plans",
        )
    return found


def _default_sizes(shoppers: int | None) -> list[int]:
    if shoppers is None:
        return list(GRID)
    return [*(size for size in GRID if size < shoppers), shoppers]


def _crossed(mine: Sequence[int], shares: Sequence[float], sizes: Sequence[int]) -> Iterator[Case]:
    for share in sorted(set(shares)):
        for size in sizes:
            yield Case(f"{100 * share:g} % of the shoppers", round(share * size), size)
    for own in sorted(set(mine)) or ([] if shares else MINE):
        for size in sizes:
            yield Case(f"{own:,} shoppers", own, size)


def _possible(case: Case, others: int, *, strict: bool) -> bool:
    smallest = min(case.mine, (case.everyone - case.mine) // others)
    if smallest >= FEWEST:
        return True
    if strict and case.mine >= case.everyone:
        raise ConfigError(
            f"a federation of {case.everyone:,} shoppers cannot hold a platform of {case.mine:,} "
            "and others",
            todo="--all counts the platform's own; raise it",
        )
    if strict:
        sizes = ", ".join(f"{size:,}" for size in divided(case, others=others).values())
        raise ConfigError(
            f"a federation of {case.everyone:,} shoppers has platforms of {sizes}, and every "
            f"platform needs {FEWEST}",
            todo="change --all, --mine, --share or --others",
        )
    return False
