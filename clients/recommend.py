"""Adapter + History ─rank→ Slate: ranked items, each with its score and what drove it.

A score is a sum, so its reasons are exact and not an estimate:

    score(i) = Σ over the last items h of  a·(w_h·<v_h, v_i> / |pool| + words[h, i] + pairs[h, i])
               └ one reason for each item of the History: alike, or taken together ┘
               + a·popularity[i]  +  <correction, v_i>
                                     └ what was learnt ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from clients.memory import LAST
from clients.platform import Platform
from clients.recall import Recall
from shared.adapter import Adapter
from shared.errors import DataError
from shared.events import Histories, from_lists
from shared.ranking import Scorer


@dataclass(frozen=True)
class Reason:
    """How much one item of the History adds to a score.

    Attributes:
        item: identifier.
        text: of the item.
        share: the part of the score that comes from it; may be below zero.
        together: what of it comes from shoppers who took both, not from the texts.
    """

    item: str
    text: str
    share: float
    together: float = 0.0


@dataclass(frozen=True)
class Line:
    """One ranked item.

    Attributes:
        item: identifier.
        text: of the item.
        score: higher is better; comparable within a Slate only.
        learnt: the part of the score that the adapter adds to the prior.
        popular: the part that comes from how often the item was taken, ever and lately.
        reasons: the rest of it, by item of the History, strongest first.
    """

    item: str
    text: str
    score: float
    learnt: float
    popular: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Slate:
    """Ranked items for one History, best first."""

    lines: tuple[Line, ...]


def history_of(platform: Platform, shopper: str) -> list[str]:
    """The items of a known shopper, in time order.

    Raises:
        DataError: the platform has no History of this shopper.
    """
    histories = platform.rows.histories
    if shopper not in histories.shoppers:
        raise DataError(
            "no History of this shopper", todo="give the items themselves with --history or --item"
        )
    items = platform.rows.catalogue.items
    return [items[place] for place in histories[histories.shoppers.index(shopper)]]


def recommend(
    platform: Platform,
    adapter: Adapter,
    history: Sequence[str],
    *,
    count: int = 10,
    beside: Recall | None = None,
) -> Slate:
    """Rank the Catalogue for a History; items already in it are left out.

    Args:
        platform: with its Catalogue; the shopper need not be known to it.
        adapter: what was learnt.
        history: item identifiers in time order; they need not have been in training.
        count: lines of the Slate, at most the Catalogue's other items.
        beside: what the platform remembers, and others let it know; None leaves it out.

    Raises:
        DataError: the History is empty or names an item that is not in the Catalogue.
    """
    catalogue = platform.rows.catalogue
    unknown = [item for item in history if item not in catalogue.position]
    if unknown or not history:
        raise DataError(
            f"item {unknown[0]!r} is not in the catalogue" if unknown else "the History is empty",
            where=platform.config.name,
            todo="give identifiers of the catalogue, the latest last",
        )
    places = np.array([catalogue.position[item] for item in history], np.int32)
    contexts: Histories = from_lists([places], ("",))
    prior = platform.scorer(adapter)
    scorer: Scorer = prior if beside is None else replace(beside, prior=prior)
    scores = scorer.scores(contexts)[0]  # [N]
    scores[places] = -np.inf
    best = np.argsort(-scores, kind="stable")[: min(count, len(catalogue) - len(set(history)))]
    recent = places[-max(platform.backbone.spec.window, LAST) :]
    alike = _alike(platform, recent, best)  # [H, K]
    together = np.zeros_like(alike)
    if beside is not None:
        together, words = beside.said(recent, best)
        alike = alike + words
    shares = alike + together
    popular = np.zeros(len(best))
    if beside is not None:
        popular = beside.scale * beside.liked(contexts)[0, best]
    lines = []
    for column, place in enumerate(best):
        reasons = [
            Reason(
                catalogue.items[item],
                catalogue.texts[item],
                float(shares[row, column]),
                float(together[row, column]),
            )
            for row, item in enumerate(recent)
        ]
        lines.append(
            Line(
                item=catalogue.items[place],
                text=catalogue.texts[place],
                score=float(scores[place]),
                learnt=float(scores[place] - shares[:, column].sum() - popular[column]),
                popular=float(popular[column]),
                reasons=tuple(sorted(reasons, key=lambda reason: -reason.share)),
            )
        )
    return Slate(tuple(lines))


def _alike(
    platform: Platform, recent: NDArray[np.int32], best: NDArray[np.int64]
) -> NDArray[np.float32]:
    """[H, K] what each of the last items adds to the prior's score of each ranked item."""
    spec = platform.backbone.spec
    vectors = platform.table[torch.from_numpy(recent.astype(np.int64))]  # [H, W]
    ages = torch.arange(len(recent) - 1, -1, -1.0, device=vectors.device)
    weights = torch.where(ages < spec.window, spec.decay**ages, 0.0)
    parts = spec.prior_scale * weights[:, None] * vectors
    pooled = (weights @ vectors).norm().clamp(min=1e-12)
    return cast(NDArray[np.float32], (parts / pooled @ platform.table[best].T).cpu().numpy())
