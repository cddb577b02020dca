"""The one door: whatever leaves a platform is built here, or is not let out.

    hello      who we are and for how many rounds the budget lasts, public
    update     a BoundedUpdate of this Policy, and a Receipt
    metrics    noised sums of the validation part, charged to the Ledger; or nothing
    refusal    one of six numbers

`passed` takes a reply apart and builds it anew from the fields that are allowed, so that whatever
else is in it stays. A field that is out of range, or of another platform, stops the whole reply.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from clients.randomness import Randomness, Stream
from shared import metrics, wire
from shared.adapter import Adapter
from shared.errors import (
    AtollError,
    BudgetError,
    HoursError,
    LedgerError,
    PlanError,
    ReplyError,
)
from shared.records import Content
from shared.strict_parsing import json_value
from shared.tables.config import PlatformConfig
from shared.tables.policy import Policy
from shared.tasks import co_visitation
from shared.update import (
    MAX_NORM,
    BoundedUpdate,
    Noise,
    Protection,
    Receipt,
    check_update,
    from_bytes,
)
from shared.wire import Refusal

# A shopper changes the count by 1, the sums of NDCG and of hits by at most 1: √3, and a little.
METRICS_SENSITIVITY = math.sqrt(3) * (1 + 2.0**-10)
NOTES = 1_000_000  # bytes of notes on refused requests


def passed(
    kind: str,
    content: Content,
    config: PlatformConfig,
    noise: Noise,
    *,
    member: wire.Member,
    adapter: Adapter | None = None,
    paid: tuple[bytes, Receipt] | None = None,
) -> Content:
    """The reply of this kind, built anew from what may leave this platform.

    Guarantee: what is returned holds the fields named above and nothing else, for any content.

    Args:
        kind: of the message that is answered: hello, train or evaluate.
        content: what is to leave.
        config: of the platform, whose Policy says what may.
        noise: the kind that this process draws.
        member: who this platform is, for the task that is asked about.
        adapter: what it was asked to train from, or to evaluate.
        paid: what the Ledger says was released for this very request, and its Receipt; None where
            nothing was, or no Ledger is kept.

    Raises:
        ReplyError: a field is missing, malformed or not this platform's to send.
    """
    if kind == wire.HELLO:
        if wire.read_member(content) != member:
            raise stopped("a name, weight, backbone or task that is not its own")
        return wire.hello_reply(member)
    policy = config.policy
    if policy is None:
        raise stopped("anything, without a [privacy] section")
    if kind == wire.TRAIN:
        update = wire.read_update(content)
        if adapter is None:
            raise stopped("an update that nobody asked for")
        check_update(update, adapter)  # its base and names are those that came, and no others
        promised = protection(policy, noise)
        receipt = wire.read_receipt(content)
        limit = limit_of(policy, adapter.task)
        if update.weight != config.weight:
            raise stopped("another weight than its public one")
        if update.noise != promised or (receipt is None) != (policy.plan is None):
            raise stopped("an update of another protection")
        # A bound of its own making could tell of rows, so it is the Policy's or none.
        if update.bound != limit:
            raise stopped("an update of another bound")
        if policy.plan is not None and (
            paid is None or receipt != paid[1] or not same(update, from_bytes(paid[0]))
        ):
            raise stopped("an update that its Ledger has not released")
        return wire.update_reply(update, receipt)
    if kind == wire.EVALUATE:
        told = wire.read_metrics(content)
        if told and not config.share_metrics:
            raise stopped("metrics, which its file withholds")
        if any(not 0 <= value <= 1 for value in told.values()):
            raise stopped("metrics out of range")
        if told and policy.plan is not None and (paid is None or metrics_of(paid[0]) != told):
            raise stopped("metrics that its Ledger has not released")
        return wire.metrics_reply(told)
    raise stopped(f"a reply to {kind[:40]!r}")


def limit_of(policy: Policy, task: str) -> float:
    """What the norm of an Update is bound by: public, whatever it is.

    Sums are protected by the bound of each History and by noise, whose own norm is large.
    """
    if policy.plan is None or task == co_visitation.NAME:
        return MAX_NORM
    return policy.plan.update_norm


def same(one: BoundedUpdate, other: BoundedUpdate) -> bool:
    """Whether two Updates are one, to the last bit."""
    return (
        (one.base, one.weight, one.bound, one.noise)
        == (other.base, other.weight, other.bound, other.noise)
        and one.delta.keys() == other.delta.keys()
        and all(np.array_equal(one.delta[name], other.delta[name]) for name in one.delta)
    )


def metrics_bytes(told: Mapping[str, float]) -> bytes:
    """Metrics as a Ledger keeps them."""
    return " ".join(repr(told[name]) for name in wire.METRIC_NAMES).encode()


def metrics_of(payload: bytes) -> dict[str, float]:
    """What `metrics_bytes` wrote."""
    return dict(zip(wire.METRIC_NAMES, map(float, payload.decode().split()), strict=True))


def protection(policy: Policy, noise: Noise) -> Protection:
    """How what leaves under this Policy is protected."""
    return "none" if policy.plan is None else noise


def stopped(what: str) -> ReplyError:
    """A reply that is not let out; what is said of it stays at home."""
    return ReplyError(f"would send {what}", todo="report this fault; nothing has left")


def refusal(fault: BaseException) -> Refusal:
    """All that leaves of a fault."""
    if isinstance(fault, BudgetError):
        return Refusal.EXHAUSTED
    if isinstance(fault, LedgerError):
        return Refusal.LEDGER
    if isinstance(fault, HoursError):
        return Refusal.NOT_NOW
    if isinstance(fault, PlanError):
        return Refusal.POLICY
    return Refusal.FAILED


def note(policy: Policy, kind: str, fault: BaseException) -> None:
    """Write down at home that a request was refused, and why, for `atoll-client report`.

    The file stops at a megabyte, so that whoever asks too often cannot fill the disk. Where it
    cannot be written only the note is lost: the log has it too.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": kind,
        "refused": refusal(fault).name.lower(),
        # An error of ours holds no shopper's data; another's words might.
        "why": str(fault) if isinstance(fault, AtollError) else type(fault).__name__,
    }
    with suppress(OSError):
        if not policy.refused.exists() or policy.refused.stat().st_size < NOTES:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(policy.refused, flags, 0o600), "a", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)  # also one that an older version has made
                file.write(json.dumps(line) + "\n")


def notes(policy: Policy) -> list[dict[str, str]]:
    """What `note` wrote; a line cut short by a crash is left out."""
    told = []
    if policy.refused.is_file():
        with policy.refused.open("rb") as file:
            lines = file.read(2 * NOTES).decode(errors="replace").splitlines()
        for line in lines:
            with suppress(ValueError):
                value = json_value(line)
                if isinstance(value, dict) and all(isinstance(it, str) for it in value.values()):
                    told.append(value)
    return told


def wait(elapsed: float, step: float) -> float:
    """Seconds to hold a reply back, so that it leaves at a whole multiple of `step`.

    Args:
        elapsed: seconds since the request came.
        step: of the Policy's answer_seconds; 0 waits for nothing.
    """
    if step <= 0:
        return 0.0
    return max(0.0, max(1, math.ceil(elapsed / step)) * step - elapsed)


def noised_metrics(
    ranks: NDArray[np.float32], *, noise_multiplier: float, randomness: Randomness, number: int
) -> dict[str, float]:
    """HR@10 and NDCG@10 as ratios of noised sums.

    Guarantee: a Gaussian mechanism of this noise multiplier over the shoppers, post-processed.

    | shoppers | gives |
    | --- | --- |
    | none | ratios of noise, in [0, 1] |
    | few beside the noise | the same: it tells little, and what it tells is not trusted |

    Args:
        ranks: [shoppers] of the targets, from 1.
        noise_multiplier: σ; the noise of each sum is σ·√3.
        randomness: of the platform.
        number: of the draw, never used twice under one key.
    """
    sums = np.array(
        [len(ranks), metrics.ndcg(ranks).sum(), metrics.hit_rate(ranks).sum()], np.float64
    )
    count, gain, hits = randomness.on_grid(
        sums,
        sensitivity=METRICS_SENSITIVITY,
        multiplier=noise_multiplier,
        number=number,
        stream=Stream.METRICS,
    )
    return {
        wire.NDCG: float(np.clip(gain / max(count, 1.0), 0, 1)),
        wire.HIT_RATE: float(np.clip(hits / max(count, 1.0), 0, 1)),
    }
