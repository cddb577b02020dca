"""Between our types and Flower's records; no other module of `shared` knows Flower.

    hello      server → platform   nothing              platform → server   Member
    train      server → platform   Adapter, Training    platform → server   Update
    evaluate   server → platform   Adapter              platform → server   metrics, or none

Tensors travel as raw little-endian float32 with their names and shapes: nothing is pickled, and
reading copies nothing. Whatever does not parse is a ReplyError that says what was wrong with it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from shared.adapter import Adapter, Tensors
from shared.errors import ReplyError
from shared.training import SCHEDULES, Schedule
from shared.update import Update, check_weight

HELLO = "query.hello"
TRAIN = "train"
EVALUATE = "evaluate"

RAW = "raw.little-endian"
ADAPTER = "adapter"
UPDATE = "update"
REQUEST = "request"
METRICS = "metrics"
NDCG, HIT_RATE = "ndcg@10", "hr@10"
METRIC_NAMES = (NDCG, HIT_RATE)  # all that a platform may say of its validation part
SAME_VERSION = "check that both sides run the same version"
LARGEST = sys.float_info.max  # compared with, an int beyond it is refused and does not raise
MAX_NAME = 64  # characters of a platform's name
MAX_TENSOR_NAME = 128

Content = RecordDict  # the body of a message; whoever need not know Flower names it so


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
        seed: makes the order of Histories repeatable.
    """

    round: int
    rounds: int
    epochs: int
    batch: int
    learning_rate: float
    schedule: Schedule
    seed: int


def hello_reply(member: Member) -> Content:
    """A platform's answer to hello."""
    return RecordDict({REQUEST: ConfigRecord(asdict(member))})


def read_member(content: Content) -> Member:
    """Raises: ReplyError if a field is missing, of another type or out of range."""
    fields = _config(content)
    member = Member(
        platform=_text(fields, "platform"),
        weight=_number(fields, "weight"),
        backbone=_text(fields, "backbone"),
        task=_text(fields, "task"),
    )
    check_weight(member.weight)
    return member


def request(adapter: Adapter, training: Training | None = None) -> Content:
    """What the server sends: an Adapter, and for training how."""
    fields: dict[str, str | int | float] = {
        "backbone": adapter.backbone,
        "task": adapter.task,
        "version": adapter.version,
        "digest": adapter.digest,
    }
    if training is not None:
        fields |= asdict(training)
    return RecordDict({ADAPTER: pack(adapter.tensors), REQUEST: ConfigRecord(dict(fields))})


def read_request(content: Content) -> tuple[Adapter, Training | None]:
    """What the platform received, checked against the digest it came with.

    Raises:
        ReplyError: a field is missing or of another type, or the digest is of other tensors.
    """
    fields = _config(content)
    adapter = Adapter(
        tensors=unpack(content, ADAPTER),
        backbone=_text(fields, "backbone"),
        task=_text(fields, "task"),
        version=_whole(fields, "version"),
    )
    if adapter.digest != _text(fields, "digest"):
        raise ReplyError("the adapter is not that of its digest", todo="send it again")
    if "round" not in fields:
        return adapter, None
    training = Training(
        round=_whole(fields, "round"),
        rounds=_whole(fields, "rounds"),
        epochs=_whole(fields, "epochs"),
        batch=_whole(fields, "batch"),
        learning_rate=_number(fields, "learning_rate"),
        schedule=_schedule(fields),
        seed=_whole(fields, "seed"),
    )
    return adapter, training


def update_reply(update: Update) -> Content:
    """A platform's answer to train."""
    fields = ConfigRecord({"base": update.base, "weight": update.weight})
    return RecordDict({UPDATE: pack(update.delta), REQUEST: fields})


def read_update(content: Content) -> Update:
    """Raises: ReplyError if a record is missing or malformed. `check_update` checks the rest."""
    fields = _config(content)
    return Update(unpack(content, UPDATE), _text(fields, "base"), _number(fields, "weight"))


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


def pack(tensors: Tensors) -> ArrayRecord:
    """Named float32 tensors → raw arrays."""
    arrays = {}
    for name in sorted(tensors):
        # Not ascontiguousarray, which makes a scalar a vector.
        tensor = np.asarray(tensors[name], "<f4", order="C")
        shape = tuple(int(size) for size in tensor.shape)
        arrays[name] = Array("float32", shape, RAW, tensor.tobytes())
    return ArrayRecord(arrays)


def unpack(content: Content, key: str) -> dict[str, NDArray[np.float32]]:
    """Raw arrays → named tensors over the same memory, read-only.

    Raises:
        ReplyError: no such record, another encoding, or a length that is not that of its shape.
    """
    record = content.array_records.get(key)
    if record is None:
        raise ReplyError(f"no {key!r} record", todo=SAME_VERSION)
    tensors = {}
    for name, array in record.items():
        if len(name) > MAX_TENSOR_NAME:
            raise ReplyError(f"a tensor's name has {len(name)} characters", todo=SAME_VERSION)
        shape = tuple(array.shape)
        if array.stype != RAW or array.dtype != "float32" or any(size < 0 for size in shape):
            raise ReplyError(
                f"tensor {name!r} is {array.dtype} in {array.stype!r}, not float32 in {RAW!r}",
                todo=SAME_VERSION,
            )
        if len(array.data) != 4 * math.prod(shape):
            raise ReplyError(
                f"tensor {name!r} of shape {shape} has {len(array.data)} bytes",
                todo=SAME_VERSION,
            )
        try:
            tensors[name] = np.frombuffer(array.data, "<f4").reshape(shape)
        except ValueError as fault:  # more axes, or a longer one, than numpy has
            raise ReplyError(f"tensor {name!r} has no possible shape", todo=SAME_VERSION) from fault
    return tensors


def size(content: Content) -> int:
    """Bytes of the tensors in a message."""
    records = content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


def _config(content: Content) -> ConfigRecord:
    record = content.config_records.get(REQUEST)
    if record is None:
        raise ReplyError(f"no {REQUEST!r} record", todo=SAME_VERSION)
    return record


def _text(fields: ConfigRecord, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ReplyError(
            f"field {name!r} is not a text of 1 to {MAX_NAME} characters",
            todo=SAME_VERSION,
        )
    return value


def _schedule(fields: ConfigRecord) -> Schedule:
    named = _text(fields, "schedule")
    for known in SCHEDULES:
        if named == known:
            return known
    raise ReplyError(f"schedule {named!r} is none of {', '.join(SCHEDULES)}", todo=SAME_VERSION)


def _number(fields: ConfigRecord, name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ReplyError(f"field {name!r} is not a finite number", todo=SAME_VERSION)
    return float(value)


def _whole(fields: ConfigRecord, name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ReplyError(f"field {name!r} is not a whole number", todo=SAME_VERSION)
    return value
