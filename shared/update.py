"""What a platform sends after training: an adapter delta. One type per promise.

Update ─bound→ BoundedUpdate → EncodedUpdate → MaskedUpdate       (the first two are there so far)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.adapter import Adapter, Tensors
from shared.errors import LedgerError, ReplyError
from shared.strict_parsing import json_value

MAX_WEIGHT = 1000.0  # a slip of the pen is caught; that weights are fair is for people to agree
MAX_NORM = 1e9  # of an Update that no Plan bounds; float32 squares stay finite
Noise = Literal["simulated", "secure"]  # drawn from a seed, or from what nobody can foretell
Protection = Literal["none", "simulated", "secure"]
PROTECTIONS: tuple[Protection, ...] = ("none", "simulated", "secure")


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


@dataclass(frozen=True)
class BoundedUpdate(Update):
    """An Update whose L2 norm over all its tensors is at most `bound`; only `bound` makes one.

    Attributes:
        bound: public.
        noise: how it was protected. "none": not at all. "simulated": by noise that a seed can
            repeat, so not at all either. "secure": by a Plan, with noise nobody can foretell.
    """

    bound: float = MAX_NORM
    noise: Protection = "none"


@dataclass(frozen=True)
class Receipt:
    """How far a platform's Ledger has come; the server keeps the last one, so that none is reset.

    Attributes:
        count: entries.
        head: hash of the last one, hexadecimal; it says nothing of what they hold.
    """

    count: int
    head: str


def bound(update: Update, limit: float, *, noise: Protection) -> BoundedUpdate:
    """Scale an Update down to norm `limit`, if it is longer.

    Guarantee: the result's L2 norm, summed in double precision, is at most `limit`, for any float32
    input. Names and shapes stay.

    | update | gives |
    | --- | --- |
    | no tensors, empty tensors, all zero | itself |
    | norm ≤ limit | itself, to the last bit |
    | norm > limit, squares overflowing float32 too | itself, scaled; same direction |
    | any NaN or infinity | zeros |
    | so small a limit that float32 cannot hold the result | zeros |

    Args:
        update: any.
        limit: positive and finite.
        noise: how it was protected.

    Raises:
        ValueError: limit is not positive and finite.
    """
    if not 0 < limit < math.inf:
        raise ValueError(f"limit {limit} is not positive and finite")
    delta = {name: np.asarray(tensor, np.float32) for name, tensor in update.delta.items()}
    length = norm(delta)
    if not math.isfinite(length):
        delta = {name: np.zeros_like(tensor) for name, tensor in delta.items()}
    elif length > limit:
        # A little less than limit/length: rounding to float32 may lengthen by 2^-24.
        factor = limit / length * (1 - 2.0**-22)
        delta = {
            name: (tensor.astype(np.float64) * factor).astype(np.float32)
            for name, tensor in delta.items()
        }
        if norm(delta) > limit:  # below float32's normal range rounding has no such limit
            delta = {name: np.zeros_like(tensor) for name, tensor in delta.items()}
    return BoundedUpdate(delta, base=update.base, weight=update.weight, bound=limit, noise=noise)


def norm(delta: Tensors) -> float:
    """L2 norm over all tensors, in double precision; ∞ if a number is not finite."""
    squares = [float(np.square(it, dtype=np.float64).sum()) for it in delta.values()]
    return math.sqrt(math.fsum(squares)) if np.isfinite(squares).all() else math.inf


def check_update(update: Update, adapter: Adapter) -> None:
    """Refuse an Update that does not answer this Adapter.

    Raises:
        ReplyError: another digest, other names or shapes, a value that is not finite, a norm beyond
            its bound, a weight out of (0, MAX_WEIGHT].
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
    if isinstance(update, BoundedUpdate) and not norm(update.delta) <= update.bound:
        raise ReplyError(
            f"update has norm {norm(update.delta):g}, more than its bound {update.bound:g}",
            todo="have the platform run the same version",
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


def to_bytes(update: BoundedUpdate) -> bytes:
    """As a Ledger keeps it, so that a request that comes again is answered again at no cost."""
    header = {
        "base": update.base,
        "weight": repr(update.weight),
        "bound": repr(update.bound),
        "noise": update.noise,
    }
    tensors = {name: np.asarray(it, np.float32, order="C") for name, it in update.delta.items()}
    return save(tensors, metadata=header)


def from_bytes(data: bytes) -> BoundedUpdate:
    """What `to_bytes` wrote; the Ledger has checked its hash.

    Raises:
        LedgerError: it is something else.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        header = json_value(data[8 : 8 + length])["__metadata__"]
        return BoundedUpdate(
            load(data),
            base=header["base"],
            weight=float(header["weight"]),
            bound=float(header["bound"]),
            noise=header["noise"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as fault:
        raise LedgerError(
            f"keeps an answer that is no Update ({type(fault).__name__})",
            todo="put the newest copy of the ledger back",
        ) from fault
