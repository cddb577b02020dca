"""Where it starts to pay: what joining sums is worth, by the federation's size and by ε.

    table ─drawn→ the asking platform, and others that sell the same
        own memory alone ─held out→ NDCG@10
        and the others', exact or under ε ─held out→ NDCG@10 ─over draws→ gain, with its interval

What is drawn here is a plan to act by, and no privacy Plan: those are in shared/plan.py. Nothing is
trained and no test part is read (simulations/channels.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clients.beside import remembering
from clients.platform import Platform
from clients.recall import Recall
from clients.sums import Places
from shared.errors import DataError
from shared.events import Histories
from shared.metrics import gained
from shared.ranking import Scorer
from shared.text import Progress, silent
from simulations.channels import Channel, believed, drawn, held_out, let_out, with_all

MOST = 2500  # shoppers of the asking platform that are ranked, at most
ASKING = "asking"


@dataclass(frozen=True, order=True)
class Case:
    """One federation that a platform might join.

    Attributes:
        kind: which line of the drawing it is on: what is alike of the platforms that ask.
        mine: shoppers of the asking platform.
        everyone: shoppers of the federation, those of the asking platform included.
    """

    kind: str
    mine: int
    everyone: int


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes:
        cases: federations.
        epsilons: each the whole budget of every platform's one release of sums.
        draws: times that the shoppers are divided anew, at least two.
        others: platforms beside the asking one; the rest of the shoppers is theirs, evenly.
        seed: of who is where, and of the noise.
    """

    cases: tuple[Case, ...]
    epsilons: tuple[float, ...]
    draws: int
    others: int
    seed: int


@dataclass(frozen=True)
class Point:
    """What joining is worth in one case.

    Attributes:
        case: which.
        epsilon: the budget; None adds exact counts.
        alone: mean NDCG@10 of staying alone.
        ndcg: of having joined.
        gain: of joining, a share of `alone`.
        half: half the width of its interval.
    """

    case: Case
    epsilon: float | None
    alone: float
    ndcg: float
    gain: float
    half: float

    @property
    def low(self) -> float:
        """Lower end of the interval of the gain."""
        return self.gain - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval of the gain."""
        return self.gain + self.half


def measure(
    whole: Platform,
    listed: Callable[[int], Places],
    asked: Asked,
    *,
    progress: Progress = silent,
) -> list[Point]:
    """A Point for each case, in the order of `asked`, and in it without noise and for each ε.

    Args:
        whole: the table that all shoppers are drawn from.
        listed: the public list of pairs of a federation of so many shoppers.
        asked: what is to be measured.
        progress: called after each budget of each federation.

    Raises:
        DataError: alone, not one shopper's next item was among the first ten.
    """
    budgets = 1 + len(asked.epsilons)
    done, total = 0, len(asked.cases) * asked.draws * budgets
    progress("federations by budget", done, total)
    found: dict[Case, list[Point]] = {}
    # The same shoppers ask in every federation of a size of theirs, so alone they are asked once.
    for _mine, cases in groupby(sorted(asked.cases, key=_by_mine), _by_mine):
        group = tuple(cases)
        base: list[float] = []
        reached: dict[tuple[Case, float | None], list[float]] = defaultdict(list)
        for draw in range(asked.draws):
            asking = _Asking.of(whole, group[0], asked, draw=draw)
            base.append(asking.told(asking.alone))
            for case in group:
                places = listed(case.everyone)
                for epsilon, recall in _joined(whole, places, asking, case, asked, draw=draw):
                    reached[case, epsilon].append(asking.told(recall))
                    done += 1
                    progress("federations by budget", done, total)
        for case in group:
            found[case] = [
                point_of(case, epsilon, base, reached[case, epsilon])
                for epsilon in (None, *asked.epsilons)
            ]
    return [point for case in asked.cases for point in found[case]]


def divided(case: Case, *, others: int) -> dict[str, int]:
    """Shoppers of each platform of a case: the asking one first, the others as even as can be."""
    each, more = divmod(case.everyone - case.mine, others)
    sizes = {f"other-{place}": each + (place < more) for place in range(others)}
    return {ASKING: case.mine, **sizes}


def point_of(
    case: Case, epsilon: float | None, base: Sequence[float], joined: Sequence[float]
) -> Point:
    """What joining is worth, out of NDCG@10 of each draw alone and having joined.

    Raises:
        DataError: alone, not one shopper's next item was among the first ten.
    """
    if not sum(base):
        raise DataError(
            f"alone, {case.mine:,} shoppers find none of their next items, so no gain can be told",
            todo="ask for more shoppers or more draws",
        )
    told = gained(base, joined)
    alone, found = float(np.mean(base)), float(np.mean(joined))
    return Point(case, epsilon, alone, found, told.gain, told.half)


@dataclass(frozen=True)
class _Asking:
    """The platform that asks, in one draw."""

    platform: Platform
    alone: Recall

    @classmethod
    def of(cls, whole: Platform, case: Case, asked: Asked, *, draw: int) -> _Asking:
        channel = _platforms(whole, case, asked, draw=draw)[ASKING]
        alone = remembering(channel.platform, texts=whole.texts)
        return cls(channel.platform, replace(alone, prior=_Kept(alone.prior)))

    def told(self, recall: Recall) -> float:
        return held_out(self.platform, recall, most=MOST)


@dataclass(frozen=True)
class _Kept:
    """A Scorer that keeps what it said: the same few Histories are asked of in every federation."""

    scorer: Scorer
    said: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        asked = contexts.offsets.tobytes() + contexts.items.tobytes()
        if asked not in self.said:
            self.said[asked] = self.scorer.scores(contexts)
        return self.said[asked]


def _joined(
    whole: Platform, places: Places, asking: _Asking, case: Case, asked: Asked, *, draw: int
) -> Iterator[tuple[float | None, Recall]]:
    """What the asking platform has in a federation: with exact counts, and under each ε."""
    channels = _platforms(whole, case, asked, draw=draw)
    yield None, with_all(asking.alone, ASKING, channels)
    told = {
        name: let_out(
            channel,
            places,
            epsilons=asked.epsilons,
            seed=asked.seed,
            name=f"{name} of {case.everyone}, draw {draw}",
        )
        for name, channel in channels.items()
    }
    for epsilon in asked.epsilons:
        under = {name: sums[epsilon] for name, sums in told.items()}
        yield epsilon, replace(asking.alone, shared=believed(channels, under, places, ASKING))


def _platforms(whole: Platform, case: Case, asked: Asked, *, draw: int) -> dict[str, Channel]:
    sizes = divided(case, others=asked.others)
    # Where noise is what counts, weights in proportion to shoppers are best.
    weights = {name: 100 * size / case.everyone for name, size in sizes.items()}
    return drawn(whole, sizes, weights=weights, seed=(asked.seed, draw))


def _by_mine(case: Case) -> int:
    return case.mine


def rows(points: Sequence[Point]) -> list[Mapping[str, float | str | None]]:
    """The points as plan.json holds them."""
    return [
        {
            "kind": it.case.kind,
            "mine": it.case.mine,
            "everyone": it.case.everyone,
            "epsilon": it.epsilon,
            "alone ndcg@10": it.alone,
            "ndcg@10": it.ndcg,
            "gain": it.gain,
            "low": it.low,
            "high": it.high,
        }
        for it in points
    ]
