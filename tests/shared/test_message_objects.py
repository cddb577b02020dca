"""A message from the objects in which it travels: whole, or a ReplyError."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from shared import wire
from shared.errors import ReplyError
from shared.message_objects import LARGEST, whole_message
from shared.update import BoundedUpdate


def reply() -> tuple[str, dict[str, bytes]]:
    """An update as it is sent: the message's name, and all objects by name."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    update = BoundedUpdate({"w": np.zeros(3, np.float32)}, base="b" * 64)
    message = Message(wire.update_reply(update), 1, "train")
    objects = {name: it.deflate() for name, it in get_all_nested_objects(message).items()}
    return message.object_id, objects


def kind_of(content: bytes) -> str:
    return content.partition(b" ")[0].decode()


def replaced(objects: Mapping[str, bytes], kind: str, **fields: object) -> dict[str, bytes]:
    """The objects, of which the one of this kind says something else, under its old name."""
    changed = dict(objects)
    (name,) = (it for it in objects if kind_of(objects[it]) == kind)
    head, _, body = objects[name].partition(b"\0")
    new = json.dumps({**json.loads(body), **fields}).encode()
    changed[name] = b" ".join([*head.split(b" ")[:2], str(len(new)).encode()]) + b"\0" + new
    return changed


def test_a_message_as_flower_sends_it_is_read() -> None:
    name, objects = reply()
    message = whole_message(name, objects)
    assert wire.read_update(message.content).delta["w"].tolist() == [0, 0, 0]
    assert len(objects) > 3  # they are still there


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"arraychunk_ids": [0] * 20_001}, "20,001 chunks"),
        ({"shape": [2**31] * 9}, "9 axes"),
        ({"shape": None}, "is no message .TypeError"),
        ({"arraychunk_ids": [7]}, "is no message .IndexError"),
        ({"arraychunk_ids": "0"}, "is no message .TypeError"),
    ],
)
def test_an_array_that_asks_for_much_or_makes_no_sense_is_refused(
    fields: dict[str, object], why: str
) -> None:
    name, objects = reply()
    with pytest.raises(ReplyError, match=why):
        whole_message(name, replaced(objects, "Array", **fields))


def test_a_small_message_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
    name, objects = reply()
    chunk = next(it for it in objects if kind_of(objects[it]) == "ArrayChunk")
    many = replaced(objects, "Array", arraychunk_ids=[0] * 10_000)
    many[chunk] = b"ArrayChunk  1000000\0" + b"\0" * 1_000_000
    with pytest.raises(
        ReplyError, match=rf"has 10,\d{{3}},\d{{3}},\d{{3}} bytes, more than {LARGEST:,}"
    ):
        whole_message(name, many)


@pytest.mark.parametrize("content", [b"", b"\0", b"Message  0\0", b"RecordDict  2\0{}", b"A  1\0a"])
def test_objects_that_make_no_message_are_refused(content: bytes) -> None:
    name = hashlib.sha256(content).hexdigest()
    with pytest.raises(ReplyError, match="is no message"):
        whole_message(name, {name: content})


def test_a_message_that_lacks_an_object_is_refused() -> None:
    name, objects = reply()
    for lost in objects:
        with pytest.raises(ReplyError, match="is no message"):
            whole_message(name, {it: objects[it] for it in objects if it != lost})


def test_objects_that_hold_each_other_are_refused() -> None:
    one, other = "1" * 64, "2" * 64
    ring = {
        one: f"RecordDict {other} 2".encode() + b"\0{}",
        other: f"RecordDict {one} 2".encode() + b"\0{}",
    }
    with pytest.raises(ReplyError, match="is no message"):
        whole_message(one, ring)
