"""The prior beside what a platform remembers and what others let it know, added up.

    prior + scale · (own pairs + shared pairs + popularity) → scores [B, N]
    validation part ─fitted→ Shares: how loudly each speaks, chosen at home

A platform of 600 shoppers remembers little, and should listen to itself less than one of 20,000. So
the Shares are the platform's own choice, on its own rows, and leave with nothing.

    B  Histories      S  shoppers      N  items      C  candidates
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import Memory, Weights, recency_weights
from clients.shared_memory import SharedMemory
from shared.events import Histories, Question
from shared.metrics import ndcg
from shared.ranking import BLOCK, Scorer

SHOPPERS = 4000  # whose validation chooses the Shares, at most
DEEP = 60  # best items by each signal alone that are candidates while Shares are chosen


@dataclass(frozen=True)
class Shares:
    """How loudly each signal speaks beside a cosine of texts.

    The first three were found by hand on Amazon Beauty (docs/log.md).

    Attributes:
        similar: of own co-visitation.
        next: of what came next in own rows.
        popularity: of log(1 + own rows).
        shared: of the others' co-visitation.
        shared_popularity: of the others' popularity.
    """

    similar: float = 2.0
    next: float = 2.0
    popularity: float = 0.02
    shared: float = 0.5
    shared_popularity: float = 0.0


SILENCE = Shares(0.0, 0.0, 0.0, 0.0, 0.0)

# In this order: the louder a signal may be, the sooner it is settled.
STEPS: tuple[tuple[tuple[str, ...], tuple[float, ...]], ...] = (
    (("similar", "next"), (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0)),
    (("shared",), (0.0, 0.12, 0.25, 0.5, 1.0)),
    (("popularity",), (0.0, 0.01, 0.02, 0.04)),
    (("shared_popularity",), (0.0, 0.01, 0.02, 0.04)),
)


@dataclass(frozen=True)
class Recall:
    """A `shared.ranking.Scorer` of everything that a platform has.

    Attributes:
        prior: scores `scale` times a cosine.
        memory: of rows that hold no target.
        scale: the prior's.
        shares: of the other signals in units of the cosine.
        shared: what is believed of the others' rows, if anything is.
    """

    prior: Scorer
    memory: Memory
    scale: float
    shares: Shares = Shares()
    shared: SharedMemory | None = None

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N]."""
        weights = recency_weights(contexts, items=len(self.memory.rows))
        known: NDArray[np.float32] = (weights @ self.pairs).toarray() + self.liked
        return np.asarray(self.prior.scores(contexts) + self.scale * known, np.float32)

    @cached_property
    def pairs(self) -> Weights:
        """[N, N] what an item in the context says of every other."""
        found = self.shares.similar * self.memory.similar + self.shares.next * self.memory.next
        if self.shared is not None and self.shares.shared:
            found = found + self.shares.shared * self.shared.together
        return sparse.csr_array(found)

    @cached_property
    def liked(self) -> NDArray[np.float32]:
        """[N] what an item has for being popular."""
        found = self.shares.popularity * self.memory.popularity
        if self.shared is not None:
            found = found + self.shares.shared_popularity * self.shared.popularity
        return np.asarray(found, np.float32)

    def fitted(self, asked: Question) -> Recall:
        """The same with the Shares that are best for these shoppers.

        Coordinate by coordinate, twice, from these Shares and from silence; of equals the earlier.
        Where nobody is asked, or nobody's target is among the candidates, they stay as they are.

        Args:
            asked: of the validation part; of more than SHOPPERS evenly spaced ones count.
        """
        if not len(asked.contexts):
            return self
        parts, hit = self._candidates(asked.spaced(SHOPPERS))
        found, most = self.shares, -1.0
        for start in (self.shares, SILENCE):
            best, reached = start, _gain(parts, hit, start, self.scale)
            for names, values in (*STEPS, *STEPS):
                for value in values:
                    offered = replace(best, **dict.fromkeys(names, value))
                    gain = _gain(parts, hit, offered, self.scale)
                    if gain > reached:
                        best, reached = offered, gain
            if reached > most:
                found, most = best, reached
        return replace(self, shares=found)

    def _candidates(
        self, asked: Question
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
        """Each signal [S, C] of the items that are best by one of them, and which is the target."""
        blocks = [self._block(asked, part) for part in _blocks(len(asked.contexts))]
        parts = {
            name: np.concatenate([signals[name] for signals, _hit in blocks])
            for name in blocks[0][0]
        }
        return parts, np.concatenate([hit for _signals, hit in blocks])

    def _block(
        self, asked: Question, part: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
        contexts = asked.contexts.take(part)
        weights = recency_weights(contexts, items=len(self.memory.rows))
        signals = {
            "prior": np.array(self.prior.scores(contexts), np.float32),
            "similar": (weights @ self.memory.similar).toarray(),
            "next": (weights @ self.memory.next).toarray(),
        }
        if self.shared is not None:
            signals["shared"] = (weights @ self.shared.together).toarray()
        owner = np.repeat(np.arange(len(contexts)), contexts.lengths)
        for signal in signals.values():
            signal[owner, contexts.items] = -1e9  # an item that was seen is no candidate
        count = min(DEEP, signals["prior"].shape[1])
        deep = [np.argpartition(-it, count - 1, axis=1)[:, :count] for it in signals.values()]
        items = np.sort(np.concatenate(deep, axis=1), axis=1)  # [B, C]
        found = {name: np.take_along_axis(it, items, axis=1) for name, it in signals.items()}
        twice = np.zeros(items.shape, bool)
        twice[:, 1:] = items[:, 1:] == items[:, :-1]
        found["prior"][twice] = -1e9
        found["popularity"] = self.memory.popularity[items]
        if self.shared is not None:
            found["shared_popularity"] = self.shared.popularity[items]
        return found, (items == asked.targets[part][:, None]) & ~twice


def _blocks(count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))


def _gain(
    parts: dict[str, NDArray[np.float32]], hit: NDArray[np.bool_], shares: Shares, scale: float
) -> float:
    """Mean NDCG@10 among the candidates."""
    scores = parts["prior"].copy()
    for name in parts:
        if name != "prior":
            scores += scale * getattr(shares, name) * parts[name]
    own = np.where(hit, scores, -np.inf).max(axis=1, keepdims=True)
    # As in shared/ranking.py, a target level with others has the mean of their ranks.
    ranks = 0.5 + np.count_nonzero(scores > own, axis=1) + 0.5 * (scores == own).sum(axis=1)
    return float(np.where(hit.any(axis=1), ndcg(ranks.astype(np.float32)), 0.0).mean())
