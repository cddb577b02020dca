"""What a platform sends after training: an adapter delta. One type per promise.

Update → BoundedUpdate → EncodedUpdate → MaskedUpdate      (the first is all there is so far)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shared.adapter import Adapter, Tensors
from shared.errors import ReplyError

MAX_WEIGHT = 1000.0  # a slip of the pen is caught; that weights are fair is for people to agree


@dataclass(frozen=True)
class Update:
    """How far a platform moved an Adapter.

    Attributes:
        delta: trained minus received, by name, float32.
        base: digest of the Adapter that was received.
        weight: the platform's public weight in the average; never a count of its rows.
    """

    delta: Tensors
    base: str
    weight: float = 1.0


def check_update(update: Update, adapter: Adapter) -> None:
    """Refuse an Update that does not answer this Adapter.

    Raises:
        ReplyError: another digest, other names or shapes, a value that is not finite, a weight out
            of (0, MAX_WEIGHT].
    """
    if update.base != adapter.digest:
        raise ReplyError(
            f"update starts from {update.base[:12]!r}, the adapter is {adapter.digest[:12]!r}",
            todo="have the platform train on the adapter it was sent",
        )
    check_weight(update.weight)
    expected = adapter.shapes
    if update.delta.keys() != expected.keys():
        odd = sorted(update.delta.keys() ^ expected.keys())[0]
        raise ReplyError(
            f"update has tensors of other names (first: {odd!r})",
            todo="have the platform use this backbone",
        )
    for name, tensor in update.delta.items():
        if tensor.shape != expected[name]:
            raise ReplyError(
                f"tensor {name!r} has shape {tensor.shape}, not {expected[name]}",
                todo="have the platform use this backbone",
            )
        flat = tensor.reshape(-1)
        # A sum of squares is finite only if every value is and none overflows.
        with np.errstate(over="ignore", invalid="ignore"):
            energy = float(np.dot(flat, flat))
        if not math.isfinite(energy):
            raise ReplyError(
                f"tensor {name!r} holds values that are not finite, or overflow",
                todo="have the platform lower its learning rate",
            )


def check_weight(weight: float) -> None:
    """Refuse a public weight outside (0, MAX_WEIGHT].

    Raises:
        ReplyError: NaN, infinite, zero, negative or too large.
    """
    if not 0 < weight <= MAX_WEIGHT:
        raise ReplyError(
            f"weight {weight} is not in (0, {MAX_WEIGHT:g}]",
            todo="set [platform] weight in the platform's file",
        )
