"""Where the target stands among all items, found block by block.

    contexts[block] ─scores→ [B, N] ─mask seen→ [B, N] ─count→ ranks [B], top [B, k]

Every unseen item of the Catalogue is a candidate: metrics over a sample of candidates can order two
scorers the wrong way round (Krichene & Rendle, "On Sampled Metrics for Item Recommendation",
KDD 2020). Only one block of scores is alive at a time, so memory does not grow with the number of
shoppers.

    B  shoppers in a block      S  shoppers      N  items      k  length of a list
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.events import Histories, Question

BLOCK = 256  # shoppers: 12 MB of float32 scores over 12,000 items
NO_ITEM = -1  # stands in a list where fewer than k items are unseen


class Scorer(Protocol):
    """Anything that scores all items for a block of Histories."""

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] finite scores, one row per History of the block; higher is better."""
        ...


@dataclass(frozen=True)
class Ranking:
    """A scorer's answer to a Question.

    Attributes:
        ranks: [S] rank of the target among the unseen items, 1 = best; ties take their mean rank.
        top: [S, k] int32 catalogue positions of the best unseen items, best first, ties by lower
            position; NO_ITEM where fewer than k are unseen.
    """

    ranks: NDArray[np.float32]
    top: NDArray[np.int32]


def rank(
    scorer: Scorer, question: Question, *, items: int, block: int = BLOCK, k: int = 10
) -> Ranking:
    """Rank the whole Catalogue for every History of the Question.

    Args:
        scorer: gives the scores; its arrays are copied, never written to.
        question: contexts [S] and targets [S].
        items: N, the size of the Catalogue.
        block: shoppers scored at a time; it changes memory and speed, never the result.
        k: length of the lists in `top`.

    Raises:
        ValueError: scores of a wrong shape or not finite, or a target that stands in its context.
            Each is a fault of the program, not of a platform's rows.
    """
    shoppers = len(question.contexts)
    ranks = np.empty(shoppers, dtype=np.float32)
    top = np.full((shoppers, k), NO_ITEM, dtype=np.int32)
    for start in range(0, shoppers, block):
        stop = min(start + block, shoppers)
        contexts = question.contexts.take(np.arange(start, stop))
        scores = _unseen_scores(scorer, contexts, items)  # [B, N]
        ranks[start:stop] = _ranks(scores, question.targets[start:stop])
        best = _top(scores, min(k, items))
        top[start:stop, : best.shape[1]] = best
    return Ranking(ranks, top)


def _unseen_scores(scorer: Scorer, contexts: Histories, items: int) -> NDArray[np.float32]:
    """[B, N] a copy of the scores, with -inf at the items of each context."""
    scores = np.array(scorer.scores(contexts), dtype=np.float32)
    if scores.shape != (len(contexts), items):
        raise ValueError(f"scores of shape {scores.shape}, expected {(len(contexts), items)}")
    # Minimum and maximum carry NaN and infinities, and need no second array.
    if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        raise ValueError("scores hold NaN or infinity")
    owner = np.repeat(np.arange(len(contexts)), contexts.lengths)
    scores[owner, contexts.items] = -np.inf
    return scores


def _ranks(scores: NDArray[np.float32], targets: NDArray[np.int32]) -> NDArray[np.float32]:
    """[B] 1 + items above the target + half the other items level with it."""
    own = scores[np.arange(len(targets)), targets][:, None]  # [B, 1]
    if np.isneginf(own).any():
        raise ValueError("a target stands in its own context, where it is masked")
    above = np.count_nonzero(scores > own, axis=1)
    level = np.count_nonzero(scores == own, axis=1) - 1
    ranks: NDArray[np.float32] = (1 + above + 0.5 * level).astype(np.float32)
    return ranks


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """[B, k] the best positions; exact on ties, where argpartition alone would choose freely."""
    last = scores.shape[1] - k
    threshold = np.partition(scores, last, axis=1)[:, last, None]  # [B, 1] the k-th best score
    above = scores > threshold
    level = scores == threshold
    room = k - np.count_nonzero(above, axis=1)  # [B] places left for the level ones
    # Counting along a row is slow, so only where the lower positions must be told from the rest.
    crowded = np.flatnonzero(np.count_nonzero(level, axis=1) > room)
    level[crowded] &= np.cumsum(level[crowded], axis=1, dtype=np.int32) <= room[crowded, None]
    best = np.nonzero(above | level)[1].reshape(-1, k)  # in rising order of position
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    best[np.isneginf(np.take_along_axis(values, order, axis=1))] = NO_ITEM
    return best.astype(np.int32)
