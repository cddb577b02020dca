"""A state that a platform could serve with, and the better of two by its own validation part.

    rows ─train→ an adapter after each epoch ─validated→ Kept ─better→ the one to keep

The untrained one is among those it chooses from, so that training and sharing need not be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clients.beside import dated
from clients.platform import Platform
from clients.recall import Recall
from shared import metrics
from shared.adapter import Adapter
from shared.events import Part
from shared.ranking import Ranking, Scorer, rank
from shared.text import Progress
from shared.training import Recipe, train

VALIDATED = 4000  # shoppers by whom states are compared


@dataclass(frozen=True)
class Kept:
    """The state of a training that a platform keeps.

    Attributes:
        adapter: the state.
        validation: its mean NDCG@10 on the platform's validation part.
        name: which one it is, such as "round 3".
        beside: what is added to its scores; None adds nothing.
        to_date: whether the test part is ranked with all that is remembered on that day, as it
            is served, and not with train rows alone.
    """

    adapter: Adapter
    validation: float
    name: str
    beside: Recall | None = None
    to_date: bool = True

    def rank(self, platform: Platform, part: Part, *, most: int | None = None) -> Ranking:
        """Rank a part of the platform's split, or evenly spaced ones of it, with all it has."""
        scorer: Scorer = platform.scorer(self.adapter)
        if self.beside is not None:
            late = part == "test" and self.to_date
            beside = dated(platform, self.beside) if late else self.beside
            scorer = replace(beside, prior=scorer)
        asked = platform.question(part)
        if most is not None:
            asked = asked.spaced(most)
        return rank(scorer, asked, items=len(platform.rows.catalogue))

    def offered(self, platform: Platform, adapter: Adapter, name: str) -> Kept:
        """Another state beside the same, validated."""
        return validated(platform, adapter, name, self.beside)


def better(best: Kept, offered: Kept) -> Kept:
    """The offered state only if it is strictly better; the earlier one wins a tie."""
    return offered if offered.validation > best.validation else best


def preferred(alone: Kept, joined: Kept) -> Kept:
    """Of the best alone and the best with what others let out, the one to serve with.

    Where something else stands beside the Adapter, that was chosen by shoppers it was not fitted to
    (clients/beside.py), and what stood there before is judged too well by those it was fitted to.
    """
    return better(alone, joined) if joined.beside is alone.beside else joined


def validated(
    platform: Platform, adapter: Adapter, name: str = "untrained", beside: Recall | None = None
) -> Kept:
    """A state with its mean NDCG@10 on the platform's validation part, or VALIDATED of it."""
    state = Kept(adapter, 0.0, name, beside)
    ranks = state.rank(platform, "validation", most=VALIDATED).ranks
    return replace(state, validation=float(metrics.ndcg(ranks).mean()))


def trained(
    platforms: Sequence[Platform],
    start: Mapping[str, Kept],
    recipe: Recipe,
    *,
    seed: Sequence[int],
    progress: Progress,
) -> dict[str, Kept]:
    """Train one adapter on the rows of all these platforms; each keeps its best epoch.

    Args:
        platforms: one for training at home; several as if rows could be pooled.
        start: by name, the state to beat; training begins from the first platform's.
        recipe: how.
        seed: of the order of Histories.
        progress: called after each batch.
    """
    best = dict(start)

    def offer(epoch: int, adapter: Adapter) -> None:
        for platform in platforms:
            name = platform.config.name
            state = start[name].offered(platform, adapter, f"epoch {epoch}")
            best[name] = better(best[name], state)

    first = platforms[0]
    train(
        first.copy().backbone,
        start[first.config.name].adapter,
        [platform.training for platform in platforms],
        recipe,
        rng=np.random.default_rng(list(seed)),
        progress=progress,
        after_epoch=offer,
    )
    return best
