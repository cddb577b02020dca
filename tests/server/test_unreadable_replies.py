"""A reply that cannot be read keeps out its sender, and nobody else; so too a lost version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from server.aggregate import ServerState
from server.grid import read_reply
from server.registry import Registry, RoundReport
from shared import wire
from shared.adapter import Adapter
from shared.errors import ReplyError, RoundError


def read(spoil: bytes | None) -> Message:
    """What the server makes of a reply whose record of fields is replaced, if `spoil` says so."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    reply = Message(wire.hello_reply(wire.Member("kiosk", 1.0, "b", "t")), 7, wire.HELLO)
    objects = {name: it.deflate() for name, it in get_all_nested_objects(reply).items()}
    if spoil is not None:
        name = next(it for it in objects if objects[it].startswith(b"ConfigRecord"))
        objects[name] = spoil
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return read_reply(reply, objects)


@pytest.mark.parametrize("spoil", [b"", b"ConfigRecord  3\0\xff\xff\xff", b"Array  2\0{}"])
def test_a_reply_that_cannot_be_read_is_refused_in_one_line(spoil: bytes) -> None:
    with pytest.raises(ReplyError, match="sent a reply that is no message"):
        read(spoil)
    assert read(None).has_content()


def test_a_promoted_version_that_is_gone_is_told(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    adapter = Adapter({"a": np.ones(1, np.float32)}, backbone="b", task="t")
    registry.record(ServerState(adapter), RoundReport(0))
    registry.promote(1, who="root", why="first")
    assert registry.current() is not None
    with closing(sqlite3.connect(tmp_path / "registry.sqlite", isolation_level=None)) as base:
        base.execute("DROP TRIGGER promotions_stay")
        base.execute("UPDATE promotions SET version = 7")
    with pytest.raises(RoundError, match="version 7, which was promoted, is not there"):
        registry.current()
