"""What an enrolled platform may send, and that whatever it sends hurts no other's reply."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing, suppress
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from clients.link import Link
from server import replies
from server.grid import LinkGrid
from shared import records, wire
from shared.errors import ReplyError
from simulations.lagoon import BUNDLE, Lagoon, ask, content, echo, here
from simulations.siege import members


def replies_of(grid: LinkGrid, kind: str) -> Generator[Message | None, None, None]:
    """What comes of a request to all, and None now and then."""
    nodes = grid.get_node_ids()
    requests = [grid.create_message(content(), kind, node, "1", 60.0) for node in nodes]
    yield from grid.send_and_receive(requests, timeout=60.0)


NAMED = {
    "another_request": "replied to a request that is over, or that it was not asked",
    "unasked_objects": "sent an object that nobody waits for",
    "object_flood": "announced more than 4,096 objects",
    "oversized_head": "sent a head of more than",
    "oversized_reply": "sent a reply of more than",
    "oversized_message": "sent no message, or one that is too large",
    "another_number": "replied under another platform's number",
    "junk": "sent an object that is not what it announced",
    "bomb": "sent tensors of more than",
    "other_header": "sent a reply under another header",
}


def test_every_misdeed_has_a_line() -> None:
    assert NAMED.keys() == members.MISDEEDS.keys()


@pytest.mark.parametrize("misdeed", NAMED)
def test_a_misdeed_is_named_takes_no_memory_and_leaves_the_round_to_the_others(
    lagoon: Lagoon, misdeed: str, caplog: pytest.LogCaptureFixture
) -> None:
    done, kept = threading.Event(), list[int]()

    def misbehaves(link: Link, message: Message) -> None:
        with suppress(grpc.RpcError):
            members.MISDEEDS[misdeed](link, message)
        kept.append(lagoon.link.counter.replies.size())
        done.set()

    lagoon.node("a", echo)
    lagoon.node("b", misbehaves)
    here(lagoon, "a", "b")
    answered = dict[str | None, bool]()
    with (
        lagoon.link.run(BUNDLE, {}) as (grid, _context),
        closing(replies_of(grid, wire.TRAIN)) as came,
    ):
        for reply in came:
            if reply is not None:
                answered[grid.name_of(reply.metadata.src_node_id)] = reply.has_error()
            if "a" in answered and done.is_set() and NAMED[misdeed] in caplog.text:
                break
    assert answered["a"] is False
    assert answered.get("b", True)  # an error in its place, or nothing
    assert NAMED[misdeed] in caplog.text
    assert any(line.startswith("b") for line in caplog.messages if NAMED[misdeed] in line)
    assert kept[0] <= 2 * replies.LEAST_BYTES
    assert lagoon.link.counter.replies.size() == 0


def test_what_a_platform_announces_is_not_in_the_way_of_an_equal_part_of_another_s_reply(
    lagoon: Lagoon,
) -> None:
    """It announces an empty record of metrics, whose name can be known, with a child of its own."""
    poisoned = threading.Event()

    def poisons(link: Link, message: Message) -> None:
        reply = Message(wire.metrics_reply({}), reply_to=message)
        tree = get_object_tree(reply)
        for node in tree.children:
            node.children.append(ObjectTree(object_id="0" * 64))
        header = Message(RecordDict(), reply_to=message)
        members.announce(link, header, tree)
        poisoned.set()

    def honest(link: Link, message: Message) -> None:
        assert poisoned.wait(20)
        link.send(Message(wire.metrics_reply({}), reply_to=message))

    lagoon.node("a", honest)
    lagoon.node("b", poisons)
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        for reply in grid.send_and_receive(
            [
                grid.create_message(content(), "evaluate", it, "1", 20.0)
                for it in grid.get_node_ids()
            ],
            timeout=20.0,
        ):
            if reply is not None:
                break
    assert reply is not None
    assert grid.name_of(reply.metadata.src_node_id) == "a"
    assert not reply.has_error()


def test_a_request_takes_one_reply_and_of_the_node_that_was_asked() -> None:
    kept = replies.Replies()
    kept.asked("request", 1, 100)

    def announced(node: int, number: str) -> list[str] | None:
        metadata = SimpleNamespace(
            src_node_id=node, message_id=number, reply_to_message_id="request"
        )
        header = SimpleNamespace(metadata=metadata)
        return kept.announced(node, header, ObjectTree(object_id=number))  # type: ignore[arg-type]

    with pytest.raises(ReplyError, match="another platform's request"):
        announced(2, "other")
    assert kept.spoilt() == []  # the one that was asked can still answer
    assert announced(1, "first") == ["first"] == announced(1, "first")
    with pytest.raises(ReplyError, match="replied twice"):
        announced(1, "second")
    assert kept.spoilt() == ["request"]


def test_a_reply_that_is_whole_counts_though_its_node_goes_in_the_same_moment(
    lagoon: Lagoon,
) -> None:
    """As when new CAs have a platform connect anew right after its answer."""

    def goes(link: Link, message: Message) -> None:
        reply = Message(wire.metrics_reply({}), reply_to=message)
        names = get_all_nested_objects(reply)
        pieces = {name: it.deflate() for name, it in names.items()}
        tree, node = get_object_tree(reply), link.node.node_id
        *first, last = members.announce(link, Message(RecordDict(), reply_to=message), tree)
        for name in first:
            members.push(link, message, name, pieces[name])
        time.sleep(0.5)  # the Grid has taken the head
        lagoon.link.state.deactivate_node(node)
        assert lagoon.link.counter.replies.stored(node, last, pieces[last])
        lagoon.link.counter.answered.ring()

    lagoon.node("a", goes)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        (reply,) = ask(grid, kind=wire.EVALUATE)
    assert not reply.has_error()


def test_a_reply_of_another_kind_is_no_reply(lagoon: Lagoon) -> None:
    """Else a hello would pass for something else, and its name would not be looked at."""

    def lies(link: Link, message: Message) -> None:
        reply = Message(message.content, reply_to=message)
        reply.metadata.__dict__["_message_type"] = wire.TRAIN
        link.send(reply)

    lagoon.node("a", lies)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        (reply,) = ask(grid, kind=wire.HELLO)
    assert reply.has_error()


def test_a_reply_may_be_four_times_as_large_as_its_request_and_no_larger(lagoon: Lagoon) -> None:
    sizes = {"a": 3.5, "b": 4.5}
    what = content()
    sent = records.size(what)

    def grown(name: str) -> members.Misdeed:
        def answer(link: Link, message: Message) -> None:
            extra = int(sizes[name] * sent + (replies.LEAST_BYTES if name == "b" else 0))
            filled = RecordDict({wire.UPDATE: records.pack({"w": np.ones(extra // 4, np.float32)})})
            with suppress(grpc.RpcError, ValueError):
                link.send(Message(filled, reply_to=message))

        return answer

    for name in sizes:
        lagoon.node(name, grown(name))
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        answered = {
            grid.name_of(it.metadata.src_node_id): it.has_error()
            for it in ask(grid, what=what, timeout=10.0)
        }
    assert answered == {"a": False, "b": True}
