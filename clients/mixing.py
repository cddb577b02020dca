"""How much of what was learnt elsewhere a platform weighs by, beside what its own shoppers say.

own fit, what was learnt elsewhere ─mixed→ Weighing      by halves that neither was fitted to
    and what others let out        ─listened→ Weighing   by hand, unless own shoppers persuade us

Elsewhere is a public table (clients/pretrained_weighing.py), and other platforms that protect
nobody (clients/taught.py). Where a number is not known there, NaN, the own one stands.

The others' sums are another matter. They are what is believed after the noise, so a platform has
reason to listen before its own shoppers say so: it does, as loudly as Shares do by hand, unless
there are enough who say that it should not, or that another loudness is better.

    Q  shoppers whose target is among their candidates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.weighing import Field, Way, Weighing, best_way, fitted, reached, weighing_of

OF_OWN = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the own fit: of equals the larger


@dataclass(frozen=True)
class _Mixture:
    """What serves halves of a platform's shoppers best that it was not fitted to.

    Attributes:
        halves: what either half found, mixed.
        way: in which it was found.
        share: how much of that is in the mixture.
        elsewhere: what the rest of it is of.
        gains: [Q] of each shopper by the half without them.
    """

    halves: list[Weighing]
    way: Way
    share: float
    elsewhere: Weighing
    gains: NDArray[np.float64]


@dataclass(frozen=True)
class Mixed:
    """How a platform weighs, and what of it is its own.

    Attributes:
        weighing: for its shoppers.
        own: what they say by themselves.
        held_out: mean NDCG@10 of shoppers that such a Weighing was not fitted to, among candidates.
    """

    weighing: Weighing
    own: Weighing
    held_out: float


def mixed(field: Field, elsewhere: Sequence[Weighing]) -> Mixed:
    """The Weighing for these shoppers.

    What halves found by themselves is mixed with what was learnt elsewhere, and judged by the half
    that it has not seen; how much of which is best there is taken of the fit to all.

    Args:
        field: of this platform's shoppers.
        elsewhere: one or several to choose from, fitted to none of them.
    """
    best = _mixture(field, elsewhere)
    own = fitted(field, best.way)
    held_out = float(best.gains.sum() / max(field.asked, 1))
    return Mixed(between(own, best.elsewhere, best.share), own, held_out)


def listened(field: Field, own: Weighing, elsewhere: Sequence[Weighing]) -> Weighing:
    """The Weighing for these shoppers where the others let something out.

    Own signals are weighed as they were without the others, and the others' as Shares have them by
    hand, unless halves that were not fitted to persuade us to learn all anew, or not to listen.

    Args:
        field: with what the others let out.
        own: what was found for own signals alone.
        elsewhere: as for `mixed`.
    """
    alone = _mixture(field.silent(), elsewhere).halves
    heard = reached([it.hearing() for it in alone], field)
    if field.persuades(reached([it.silent() for it in alone], field) - heard):
        return own.silent()
    learnt = _mixture(field, [it.hearing() for it in elsewhere])
    if field.persuades(learnt.gains - heard):
        return between(fitted(field, learnt.way), learnt.elsewhere, learnt.share)
    return own.hearing()


def between(own: Weighing, elsewhere: Weighing, share: float) -> Weighing:
    """So large a share of the one, and the rest of the other, as far as it is known there."""
    rest = np.where(np.isnan(elsewhere.flat), own.flat, elsewhere.flat)
    return weighing_of(share * own.flat + (1 - share) * rest)


def _mixture(field: Field, elsewhere: Sequence[Weighing]) -> _Mixture:
    found, way = best_way(field)
    offers = []
    for other in elsewhere:
        for share in OF_OWN:
            halves = [between(it, other, share) for it in found]
            offers.append(_Mixture(halves, way, share, other, reached(halves, field)))
    return max(offers, key=lambda it: float(it.gains.sum()))
