"""The law by which shoppers move: needs follow one another, and a style is kept.

Each event after the first is one of four moves:

    journey   the need that follows the last one (tent → sleeping bag), or under the contrary law
              the one that leads to it (sleeping bag → tent)
    similar   the same need again, another item
    switch    any need of a department the shopper likes
    wander    any item, as popular as it is; the journey goes on from where it was

Whatever the need, the item is one not seen yet, drawn by popularity, mostly in the style that the
shopper prefers. Text similarity alone can guess `similar` and the style, not which need follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.worlds.vocabulary import Vocabulary

# Weights of items that fit less well; they are so small that they are taken only when every item
# that fits better has been seen or is not sold.
OTHER_STYLE = 1e-4
ELSEWHERE = 1e-9
BLOCK = 256  # shoppers in a race at once: 3 MB of times over 3,000 items stay in a core's cache


@dataclass(frozen=True)
class Habits:
    """Chances of the moves, and how firmly tastes are held. What is left over is `switch`."""

    journey: float = 0.5
    similar: float = 0.2
    wander: float = 0.1
    keep_style: float = 0.7  # chance that an event is in the preferred style, else any
    focus: float = 0.3  # concentration of the Dirichlet over departments; smaller is choosier
    popularity: float = 0.6  # exponent of Zipf's law over a platform's items
    shortest: int = 4  # events of a History
    longest: int = 20
    stop: float = 0.45  # chance to stop after each event past the shortest


@dataclass(frozen=True)
class Tastes:
    """What people like, wherever they shop.

    Attributes:
        style: [P] preferred style.
        departments: [P, departments] weights, rows summing to one.
    """

    style: NDArray[np.int64]
    departments: NDArray[np.float64]


@dataclass(frozen=True)
class Wares:
    """What the law needs to know of a platform's items.

    Attributes:
        need: [N] need of each item.
        style: [N] style of each item.
        popularity: [N] positive weights.
    """

    need: NDArray[np.int64]
    style: NDArray[np.int64]
    popularity: NDArray[np.float32]


def draw_tastes(people: int, words: Vocabulary, habits: Habits, rng: np.random.Generator) -> Tastes:
    """Tastes of `people` people, over every department there is."""
    likes = rng.standard_gamma(habits.focus, (people, len(words.departments))) + 1e-12
    return Tastes(
        style=rng.integers(len(words.styles), size=people),
        departments=likes / likes.sum(axis=1, keepdims=True),
    )


def draw_lengths(shoppers: int, habits: Habits, rng: np.random.Generator) -> NDArray[np.int64]:
    """[S] events of each History."""
    extra = rng.geometric(habits.stop, size=shoppers) - 1
    return np.minimum(habits.shortest + extra, habits.longest)


def walk(
    tastes: Tastes,
    lengths: NDArray[np.int64],
    wares: Wares,
    *,
    follows: NDArray[np.int64],
    department_of: NDArray[np.int64],
    habits: Habits,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Histories of S shoppers on one platform.

    Args:
        tastes: of these shoppers; departments the platform lacks must weigh nothing.
        lengths: [S] events wanted; no more than there are items.
        wares: the platform's N items.
        follows: [needs] the law: the need that comes after each.
        department_of: [needs].
        habits: chances of the moves.
        rng: the platform's stream.

    Returns:
        [S, max(lengths)] item positions in time order, -1 after a History's end.
    """
    shoppers = len(lengths)
    styles = int(wares.style.max()) + 1
    moves = np.cumsum([habits.journey, habits.similar, habits.wander])
    likes = np.cumsum(tastes.departments, axis=1)
    needs_by_department = [np.flatnonzero(department_of == d) for d in range(likes.shape[1])]
    sizes = np.array([len(needs) for needs in needs_by_department])
    first = np.array([needs[0] for needs in needs_by_department])

    path = np.full((shoppers, int(lengths.max())), -1, dtype=np.int64)
    # A style that somebody likes and nobody sells has rows too.
    known = max(styles, int(tastes.style.max(initial=0)) + 1)
    fit = _fits(wares, needs=len(department_of), styles=known)
    need = np.zeros(shoppers, dtype=np.int64)
    for step in range(path.shape[1]):
        who = np.flatnonzero(lengths > step)
        count = len(who)
        move = np.searchsorted(moves, rng.random(count), side="right")  # 3 is `switch`
        if step == 0:
            move[:] = 3
        rows = likes[who]
        department = (rows < rng.random((count, 1)) * rows[:, -1:]).sum(axis=1)
        fresh = first[department] + (rng.random(count) * sizes[department]).astype(np.int64)
        need[who] = np.select([move == 0, move == 3], [follows[need[who]], fresh], need[who])
        kept = rng.random(count) < habits.keep_style
        style = np.where(kept, tastes.style[who], rng.integers(styles, size=count))

        which = np.where(move == 2, len(fit) - 1, need[who] * known + style)
        path[who, step] = race(fit, which, path[who, :step], rng)
    return path


def _fits(wares: Wares, *, needs: int, styles: int) -> NDArray[np.float32]:
    """[needs · styles + 1, N] weight of every item for a need in a style; last, for a wanderer."""
    meets = np.repeat(np.arange(needs), styles)[:, None] == wares.need
    suits = np.tile(np.arange(styles), needs)[:, None] == wares.style
    fit = np.where(meets, np.float32(OTHER_STYLE), np.float32(ELSEWHERE))
    fit[meets & suits] = 1
    return np.concatenate([fit, wares.popularity[None]])


def race(
    fit: NDArray[np.float32],
    which: NDArray[np.int64],
    seen: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    block: int = BLOCK,
) -> NDArray[np.int64]:
    """[B] the item each shopper takes: of one not seen yet, in proportion to its weight.

    An exponential race: the item with the smallest time / weight wins.

    Args:
        fit: [K, N] weights.
        which: [B] whose row of them counts for each shopper.
        seen: [B, T] items that are out of the race.
        rng: draws N times a shopper, in this order, so that no block's size changes the result.
        block: shoppers at a time.
    """
    chosen = np.empty(len(which), np.int64)
    for start in range(0, len(which), block):
        weight = fit[which[start : start + block]]  # [block, N]
        np.put_along_axis(weight, seen[start : start + block], 0, axis=1)
        times = rng.standard_exponential(weight.shape, dtype=np.float32)
        with np.errstate(divide="ignore"):
            np.divide(times, weight, out=times)
        chosen[start : start + block] = times.argmin(axis=1)
    return chosen
