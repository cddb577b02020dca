"""Targets of Flower's messages: their objects, their records, and a worker's replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from clients import workers
from shared import asking, wire
from shared.message_objects import whole_message
from shared.records import size
from shared.update import BoundedUpdate, Receipt, check_update
from tests.fuzz.fuzz_target import Target, each
from tests.fuzz.material import ADAPTER, document, document_of

READERS: tuple[Callable[[RecordDict], Any], ...] = (
    wire.read_hello,
    wire.read_member,
    lambda content: check_update(wire.read_update(content), ADAPTER),
    wire.read_receipt,
    wire.read_metrics,
    asking.read_request,
    asking.read_standing,
    asking.read_signature,
    size,
)
TRAINING = asking.Training(
    round=1, rounds=3, epochs=1, batch=64, learning_rate=0.003, schedule="cosine", seed=0
)


def _read_all(content: RecordDict) -> None:
    for read in READERS:
        each(partial(read, content))


def _records(case: bytes) -> None:
    """Records that the case lists: name → kind, then tensors or fields."""
    told = document_of(case)
    if not isinstance(told, dict):
        return
    content = RecordDict()
    for name, (kind, values) in _pairs(told):
        try:
            content[name] = _record(kind, values)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, UnicodeError):
            continue  # Flower makes no record of it
    _read_all(content)


def _pairs(told: dict[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    return [
        (name, (it[0], it[1])) for name, it in told.items() if isinstance(it, list) and len(it) == 2
    ]


def _record(kind: Any, values: Any) -> Any:
    if kind == "arrays":
        arrays = {
            name: Array(
                it["dtype"], tuple(it["shape"]), it["stype"], bytes(int(it["bytes"]) % 4096)
            )
            for name, it in values.items()
        }
        return ArrayRecord(arrays)
    return (MetricRecord if kind == "metrics" else ConfigRecord)(values)


def _listed(content: RecordDict) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = {
                key: {
                    "dtype": it.dtype,
                    "shape": list(it.shape),
                    "stype": it.stype,
                    "bytes": len(it.data),
                }
                for key, it in record.items()
            }
            told[name] = ["arrays", arrays]
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            told[name] = [kind, dict(record)]
    return told


def _contents() -> list[RecordDict]:
    delta = {name: np.zeros_like(tensor) for name, tensor in ADAPTER.tensors.items()}
    update = BoundedUpdate(delta, base=ADAPTER.digest, bound=1.0, noise="none")
    receipt = Receipt(4, "c" * 64)
    return [
        wire.hello("next-item"),
        wire.hello_reply(wire.Member("kiosk", 1.0, "b" * 64, "next-item")),
        wire.update_reply(update, receipt),
        wire.metrics_reply({wire.NDCG: 0.25, wire.HIT_RATE: 0.5}),
        asking.request(
            ADAPTER, TRAINING, standing=asking.Standing("r", {"kiosk": receipt}), signature="ab"
        ),
    ]


def _record_seeds() -> Sequence[bytes]:
    return [document(_listed(content)) for content in _contents()]


def _message(content: RecordDict) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(content, 1, "train")
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def _objects(case: bytes) -> None:
    """A tree of objects: [kind, body, [children]]; `$0` in a body stands for the first child."""
    contents: dict[str, bytes] = {}
    top = _put(document_of(case), contents, 0)
    if top is None:
        return
    message = whole_message(top, contents)
    if message.has_content():
        _read_all(message.content)


def _put(node: Any, contents: dict[str, bytes], depth: int) -> str | None:
    """Put an object and its children into contents; its identifier."""
    if not isinstance(node, list) or len(node) != 3 or depth > 90:
        return None
    kind, body, below = node
    if not isinstance(below, list):
        return None
    names = [name for it in below if (name := _put(it, contents, depth + 1)) is not None]
    if isinstance(body, str):
        raw = body.encode("latin-1", errors="replace")
    else:
        text = json.dumps(body)
        for place, name in enumerate(names):
            text = text.replace(f'"${place}"', json.dumps(name))
        raw = text.encode(errors="surrogatepass")
    head = f"{kind} {','.join(names)} {len(raw)}".encode(errors="surrogatepass")
    content = head + b"\0" + raw
    name = hashlib.sha256(content).hexdigest()
    contents[name] = content
    return name


def _tree(name: str, objects: dict[str, bytes]) -> Any:
    """What `_put` makes into these objects again."""
    head, _, raw = objects[name].partition(b"\0")
    kind, below, _size = head.decode().split(" ")
    children = below.split(",") if below else []
    try:
        text = raw.decode("ascii")
        for place, child in enumerate(children):
            text = text.replace(child, f"${place}")
        body = json.loads(text)
    except ValueError:
        body = raw.decode("latin-1")
    return [kind, body, [_tree(child, objects) for child in children]]


def _object_seeds() -> Sequence[bytes]:
    seeds = []
    for content in _contents():
        message = _message(content)
        objects = {name: it.deflate() for name, it in get_all_nested_objects(message).items()}
        seeds.append(document(_tree(message.object_id, objects)))
    return seeds


def _pipe(case: bytes) -> None:
    message = workers.message_of(case, where="bundle")
    if message.has_content():
        _read_all(message.content)


def _pipe_seeds() -> Sequence[bytes]:
    return [message_to_proto(_message(content)).SerializeToString() for content in _contents()]


TARGETS = (
    Target("records of a message", _records, _record_seeds, "json", share=2.0),
    Target("objects of a message", _objects, _object_seeds, "json", share=2.0),
    Target("worker's reply", _pipe, _pipe_seeds, share=2.0),
)
