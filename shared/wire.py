"""Between our types and Flower's records; no other module of `shared` knows Flower.

    hello      server → platform   nothing              platform → server   Member
    train      server → platform   Adapter, Training    platform → server   BoundedUpdate, Receipt
    evaluate   server → platform   Adapter              platform → server   metrics, or none
    any                                                 platform → server   a Refusal, by number

Whatever does not parse is a ReplyError that says what was wrong with it (shared/records.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.records import (
    LARGEST,
    MAX_NAME,
    REQUEST,
    SAME_VERSION,
    Content,
    config,
    number,
    pack,
    text,
    unpack,
    whole,
)
from shared.training import SCHEDULES, Schedule
from shared.update import PROTECTIONS, BoundedUpdate, Protection, Receipt, check_weight

HELLO = "query.hello"
TRAIN = "train"
EVALUATE = "evaluate"

ADAPTER = "adapter"
UPDATE = "update"
RECEIPTS = "receipts"
METRICS = "metrics"
NDCG, HIT_RATE = "ndcg@10", "hr@10"
METRIC_NAMES = (NDCG, HIT_RATE)  # all that a platform may say of its validation part


class Refusal(IntEnum):
    """Why a platform does not answer; all that leaves of a failure."""

    FAILED = 2  # Flower's number for an exception in a ClientApp
    EXHAUSTED = 101
    POLICY = 102
    LEDGER = 103


REFUSALS = {
    Refusal.FAILED: "the platform could not answer",
    Refusal.EXHAUSTED: "the platform's privacy budget is exhausted",
    Refusal.POLICY: "the platform's own policy forbids what was asked",
    Refusal.LEDGER: "the platform's ledger cannot be used",
}


def refused(code: int) -> ReplyError:
    """What the server is told by a Refusal's number, or by another of Flower's."""
    if code in REFUSALS:
        return ReplyError(REFUSALS[Refusal(code)], todo="look at the platform's log")
    return ReplyError(f"answered with error code {code}", todo="look at the platform's log")


def nothing() -> Content:
    """An empty body."""
    return RecordDict()


@dataclass(frozen=True)
class Member:
    """What a platform says of itself before the first round; all of it public.

    Attributes:
        platform: its name.
        weight: its public weight in the average.
        backbone: digest of its backbone.
        task: name of its task.
    """

    platform: str
    weight: float
    backbone: str
    task: str


@dataclass(frozen=True)
class Training:
    """How the server asks a platform to train in one round.

    Attributes:
        round: from 1.
        rounds: in the whole federation, for the schedule.
        epochs: passes over the Histories.
        batch: Histories a step.
        learning_rate: Adam's, at its highest.
        schedule: how it falls over all rounds.
        seed: makes the order of Histories repeatable, where no Plan forbids it.
        clip: a smaller clip than the Plan's, if not 0.
        noise_multiplier: a larger one than the Plan's, if not 0.
        steps: fewer than the Plan's, if not 0.
    """

    round: int
    rounds: int
    epochs: int
    batch: int
    learning_rate: float
    schedule: Schedule
    seed: int
    clip: float = 0.0
    noise_multiplier: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Standing:
    """What the server remembers beside the Adapter.

    Attributes:
        run: names this federation, over all its restarts.
        receipts: of the platforms' Ledgers, by platform.
    """

    run: str = "-"
    receipts: Mapping[str, Receipt] = field(default_factory=dict)


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
    )
    check_weight(member.weight)
    return member


def request(
    adapter: Adapter, training: Training | None = None, *, standing: Standing | None = None
) -> Content:
    """What the server sends: an Adapter, for training how, and what it remembers."""
    standing = standing or Standing()
    fields: dict[str, str | int | float] = {
        "backbone": adapter.backbone,
        "task": adapter.task,
        "version": adapter.version,
        "digest": adapter.digest,
        "run": standing.run,
    }
    if training is not None:
        fields |= asdict(training)
    receipts = {name: f"{it.count} {it.head}" for name, it in standing.receipts.items()}
    return RecordDict(
        {
            ADAPTER: pack(adapter.tensors),
            REQUEST: ConfigRecord(dict(fields)),
            RECEIPTS: ConfigRecord(dict(receipts)),
        }
    )


def read_request(content: Content) -> tuple[Adapter, Training | None]:
    """What the platform received, checked against the digest it came with.

    Raises:
        ReplyError: a field is missing or of another type, or the digest is of other tensors.
    """
    fields = config(content)
    adapter = Adapter(
        tensors=unpack(content, ADAPTER),
        backbone=text(fields, "backbone"),
        task=text(fields, "task"),
        version=whole(fields, "version"),
    )
    if adapter.digest != text(fields, "digest"):
        raise ReplyError("the adapter is not that of its digest", todo="send it again")
    if "round" not in fields:
        return adapter, None
    training = Training(
        round=whole(fields, "round"),
        rounds=whole(fields, "rounds"),
        epochs=whole(fields, "epochs"),
        batch=whole(fields, "batch"),
        learning_rate=number(fields, "learning_rate"),
        schedule=_schedule(fields),
        seed=whole(fields, "seed"),
        clip=number(fields, "clip"),
        noise_multiplier=number(fields, "noise_multiplier"),
        steps=whole(fields, "steps"),
    )
    return adapter, training


def read_standing(content: Content) -> Standing:
    """What the server says that it remembers.

    Raises:
        ReplyError: a field is missing or of another type.
    """
    receipts = {}
    for name, value in (content.config_records.get(RECEIPTS) or ConfigRecord()).items():
        if isinstance(value, str) and (read := _receipt(value)) is not None:
            receipts[name] = read
        else:
            raise ReplyError(f"the receipt of {name[:MAX_NAME]!r} is none", todo=SAME_VERSION)
    return Standing(text(config(content), "run"), receipts)


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
        noise=_protection(fields),
    )


def read_receipt(content: Content) -> Receipt | None:
    """The Receipt of a reply, or None. Raises: ReplyError if it is malformed."""
    fields = config(content)
    if "receipt" not in fields:
        return None
    value = fields["receipt"]
    read = _receipt(value) if isinstance(value, str) else None
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


def _schedule(fields: ConfigRecord) -> Schedule:
    named = text(fields, "schedule")
    for known in SCHEDULES:
        if named == known:
            return known
    raise ReplyError(f"schedule {named!r} is none of {', '.join(SCHEDULES)}", todo=SAME_VERSION)


def _protection(fields: ConfigRecord) -> Protection:
    named = text(fields, "noise")
    for known in PROTECTIONS:
        if named == known:
            return known
    raise ReplyError(f"noise {named!r} is none of {', '.join(PROTECTIONS)}", todo=SAME_VERSION)


def _receipt(text: str) -> Receipt | None:
    found = re.fullmatch(r"([0-9]{1,12}) ([0-9a-f]{64})", text)
    return Receipt(int(found[1]), found[2]) if found else None
