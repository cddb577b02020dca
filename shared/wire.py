"""Between our types and Flower's records: what platforms answer, and of what kind messages are.

    hello      server → platform   name of a task       platform → server   Member
    train      server → platform   Adapter, Training    platform → server   BoundedUpdate, Receipt
    evaluate   server → platform   Adapter              platform → server   metrics, or none
    any                                                 platform → server   a Refusal, by number

What the server asks is shared/asking.py's matter. Whatever does not parse is a ReplyError that says
what was wrong with it (shared/records.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shared.errors import ReplyError
from shared.records import (
    LARGEST,
    REQUEST,
    SAME_VERSION,
    Content,
    choice,
    config,
    number,
    pack,
    text,
    unpack,
    whole,
)
from shared.update import PROTECTIONS, BoundedUpdate, Receipt, check_weight

HELLO = "query.hello"
TRAIN = "train"
EVALUATE = "evaluate"

UNBOUNDED = -1  # rounds left without a budget
MOST_ROUNDS = 1_000_000  # left that a platform may say
UPDATE = "update"
METRICS = "metrics"
NDCG, HIT_RATE = "ndcg@10", "hr@10"
METRIC_NAMES = (NDCG, HIT_RATE)  # all that a platform may say of its validation part


class Refusal(IntEnum):
    """Why a platform does not answer; all that leaves of a failure."""

    FAILED = 2  # Flower's number for an exception in a ClientApp
    EXHAUSTED = 101
    POLICY = 102
    LEDGER = 103
    NOT_NOW = 104
    UNAPPROVED = 105


REFUSALS = {
    Refusal.FAILED: "the platform could not answer",
    Refusal.EXHAUSTED: "the platform's privacy budget is exhausted",
    Refusal.POLICY: "the platform's own policy forbids what was asked",
    Refusal.LEDGER: "the platform's ledger cannot be used",
    Refusal.NOT_NOW: "the platform does not train at this hour",
    Refusal.UNAPPROVED: "the platform's operator has not approved this code",
}


def refused(code: int) -> ReplyError:
    """What the server is told by a Refusal's number, or by another of Flower's."""
    if code in REFUSALS:
        return ReplyError(REFUSALS[Refusal(code)], todo="look at the platform's log")
    return ReplyError(f"answered with error code {code}", todo="look at the platform's log")


@dataclass(frozen=True)
class Member:
    """What a platform says of itself before the first round; all of it public.

    Attributes:
        platform: its name.
        weight: its public weight in the average.
        backbone: digest of its backbone.
        task: name of its task.
        rounds_left: how many more Updates for it the budget holds, MOST_ROUNDS at most; UNBOUNDED
            where there is no Plan, or the ledger cannot be read.
    """

    platform: str
    weight: float
    backbone: str
    task: str
    rounds_left: int = UNBOUNDED


def hello(task: str) -> Content:
    """Who are you, for this task?"""
    return RecordDict({REQUEST: ConfigRecord({"task": task})})


def read_hello(content: Content) -> str:
    """Raises: ReplyError if it names no task."""
    return text(config(content), "task")


def hello_reply(member: Member) -> Content:
    """A platform's answer to hello."""
    return RecordDict({REQUEST: ConfigRecord(asdict(member))})


def read_member(content: Content) -> Member:
    """Raises: ReplyError if a field is missing, of another type or out of range."""
    fields = config(content)
    member = Member(
        platform=text(fields, "platform"),
        weight=number(fields, "weight"),
        backbone=text(fields, "backbone"),
        task=text(fields, "task"),
        rounds_left=whole(fields, "rounds_left") if "rounds_left" in fields else UNBOUNDED,
    )
    check_weight(member.weight)
    if not UNBOUNDED <= member.rounds_left <= MOST_ROUNDS:
        raise ReplyError(f"has {member.rounds_left} rounds left", todo=SAME_VERSION)
    return member


def update_reply(update: BoundedUpdate, receipt: Receipt | None = None) -> Content:
    """A platform's answer to train; the receipt is of its Ledger, if it keeps one."""
    fields: dict[str, str | int | float] = {
        "base": update.base,
        "weight": update.weight,
        "bound": update.bound,
        "noise": update.noise,
    }
    if receipt is not None:
        fields["receipt"] = f"{receipt.count} {receipt.head}"
    return RecordDict({UPDATE: pack(update.delta), REQUEST: ConfigRecord(dict(fields))})


def read_update(content: Content) -> BoundedUpdate:
    """Raises: ReplyError if a record is missing or malformed. `check_update` checks the rest."""
    fields = config(content)
    return BoundedUpdate(
        unpack(content, UPDATE),
        base=text(fields, "base"),
        weight=number(fields, "weight"),
        bound=number(fields, "bound"),
        noise=choice(fields, "noise", PROTECTIONS),
    )


def read_receipt(content: Content) -> Receipt | None:
    """The Receipt of a reply, or None. Raises: ReplyError if it is malformed."""
    fields = config(content)
    if "receipt" not in fields:
        return None
    value = fields["receipt"]
    read = receipt_of(value) if isinstance(value, str) else None
    if read is None:
        raise ReplyError("the receipt is none", todo=SAME_VERSION)
    return read


def metrics_reply(metrics: Mapping[str, float]) -> Content:
    """A platform's answer to evaluate; empty where it withholds its metrics."""
    return RecordDict({METRICS: MetricRecord(dict(metrics))})


def read_metrics(content: Content) -> dict[str, float]:
    """Raises: ReplyError if a name is not in METRIC_NAMES or a value is not a finite number."""
    metrics = {}
    for name, value in (content.metric_records.get(METRICS) or {}).items():
        if name not in METRIC_NAMES:
            raise ReplyError(f"metrics other than {', '.join(METRIC_NAMES)}", todo=SAME_VERSION)
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise ReplyError(f"metric {name!r} is not a finite number", todo="look at its log")
        metrics[name] = float(value)
    return metrics


def receipt_of(text: str) -> Receipt | None:
    """What a Receipt is on the wire, read; None if it is none."""
    found = re.fullmatch(r"([0-9]{1,12}) ([0-9a-f]{64})", text)
    return Receipt(int(found[1]), found[2]) if found else None
