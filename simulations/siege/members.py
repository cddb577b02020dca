"""Attacks by an enrolled platform: it has a key, and answers as it likes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from clients.link import Link, linked
from server.registry import Registry
from shared import records, wire
from shared.tasks import next_item
from simulations.siege.outsiders import GROWTH, HELLO, MIB, connections, greet
from simulations.siege.rows import Finding, Row
from simulations.siege.target import HONEST, MEMBER, Target, target

PULLS, HELD_SECONDS = 3000, 40.0
A_CONNECTION = 30  # calls
MISDEED_SECONDS = 60.0
OBJECTS = 10_000

Misdeed = Callable[[Link, Message], None]


def pulls(folder: Path) -> Finding:
    """3,000 questions for work by one platform, each asked again when it is ended."""
    with target(folder) as made:
        calm, began = greet(made, 5.0), time.time()
        with held(made, PULLS) as asked:
            hellos = greet(made, HELD_SECONDS)
            rounds, pace = made.pace(began, time.time())
            return Finding(
                f"{made.ending()}, {asked():,} questions, Hello {max(hellos):.2f} s at most"
                f" ({max(calm):.2f} s before), {rounds} rounds of {pace:.2f} s",
                made.alive() and max(hellos) <= HELLO and rounds > 1,
            )


@contextmanager
def held(made: Target, count: int) -> Iterator[Callable[[], int]]:
    """So many questions of one node at a time while the body runs; yields how many were asked."""
    key = made.keys[MEMBER]
    with linked(made.address, roots=made.roots, key=key) as link:
        node = link.node  # known to the server, and offline from here on
    ended, asked = threading.Event(), [0]
    signer = NodeAuthClientInterceptor(key, key.public_key())
    with connections(made, count // A_CONNECTION) as channels:
        stubs = [FleetStub(grpc.intercept_channel(it, signer)) for it in channels]

        def ask_again(stub: FleetStub) -> None:
            waiting: list[grpc.Future] = []
            while not ended.is_set():
                waiting = [it for it in waiting if not it.done()]
                for _ in range(A_CONNECTION - len(waiting)):
                    request = PullMessagesRequest(node=node)
                    waiting.append(stub.PullMessages.future(request, timeout=60.0))
                    asked[0] += 1
                ended.wait(1.0)
            for it in waiting:
                it.cancel()

        threads = [threading.Thread(target=ask_again, args=(stub,)) for stub in stubs]
        for thread in threads:
            thread.start()
        try:
            yield lambda: asked[0]
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def misdeeds(folder: Path) -> Finding:
    """A platform that answers each request otherwise than it should, round after round."""
    with target(folder) as made:
        before, began = made.memory(), time.time()
        made.forget_highest()
        ended, done = threading.Event(), dict[str, int]()
        thread = threading.Thread(target=misbehave, args=(made, ended, done))
        thread.start()
        try:
            while time.time() < began + MISDEED_SECONDS and made.alive():
                time.sleep(0.5)
            rounds, pace = made.pace(began, time.time())
            highest = made.memory("VmHWM") if made.alive() else float("nan")
        finally:
            ended.set()
            thread.join()
        named = sum(
            f'"{MEMBER}' in line or f"{MEMBER}: " in line for line in made.log().splitlines()
        )
        registry = Registry(made.deployment.home / "run")
        numbers = [number for number, when in made.rounds() if when >= began]
        whole = sum(set(HONEST) <= set(registry.load(it)[1].replied) for it in numbers)
        return Finding(
            f"{made.ending()}, {sum(done.values())} misdeeds of {len(done)} kinds,"
            f" {before:.0f} → {highest:.0f} MiB, named in {named} lines; {rounds} rounds of"
            f" {pace:.2f} s, {whole} of {len(numbers)} with all honest platforms",
            made.alive()
            and highest - before <= GROWTH
            and named > 0
            and rounds > 1
            and whole == len(numbers),
        )


def misbehave(made: Target, ended: threading.Event, done: dict[str, int]) -> None:
    """Take part under the member's key, with one misdeed after another; count them by name."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    while not ended.is_set():
        with (
            suppress(grpc.RpcError, ValueError),
            linked(made.address, roots=made.roots, key=made.keys[MEMBER]) as link,
        ):
            while not ended.is_set():
                if (message := link.receive(ended.is_set)) is None:
                    continue
                if message.metadata.message_type == wire.HELLO:
                    member = wire.Member(MEMBER, 1.0, backbone=made.backbone, task=next_item.NAME)
                    link.send(Message(wire.hello_reply(member), reply_to=message))
                    continue
                name = list(MISDEEDS)[sum(done.values()) % len(MISDEEDS)]
                done[name] = done.get(name, 0) + 1
                with suppress(grpc.RpcError):
                    MISDEEDS[name](link, message)


def announce(link: Link, header: Message, tree: ObjectTree) -> list[str]:
    """Begin a reply with this head and tree; the objects that the server wants."""
    header.metadata.__dict__["_message_id"] = tree.object_id
    request = PushMessagesRequest(
        node=link.node, messages_list=[message_to_proto(header)], message_object_trees=[tree]
    )
    return list(link.stub.PushMessages(request, timeout=30.0).objects_to_push)


def push(link: Link, message: Message, name: str, content: bytes) -> None:
    """Send an object."""
    run = message.metadata.run_id
    request = PushObjectRequest(node=link.node, run_id=run, object_id=name, object_content=content)
    link.stub.PushObject(request, timeout=30.0)


def replying(message: Message, content: RecordDict | None = None) -> Message:
    """A reply to this."""
    return Message(content or RecordDict(), reply_to=message)


def object_flood(link: Link, message: Message) -> None:
    """Announces far more objects than any reply has."""
    children = [ObjectTree(object_id=os.urandom(32).hex()) for _ in range(OBJECTS)]
    announce(link, replying(message), ObjectTree(object_id=os.urandom(32).hex(), children=children))


def oversized_head(link: Link, message: Message) -> None:
    """Announces so many objects that their names alone take megabytes."""
    children = [ObjectTree(object_id=os.urandom(32).hex()) for _ in range(5 * OBJECTS)]
    announce(link, replying(message), ObjectTree(object_id=os.urandom(32).hex(), children=children))


def oversized_reply(link: Link, message: Message) -> None:
    """Sends tensors far larger than those that it was sent."""
    tensors = {f"t{n}": np.full(2**20, n, np.float32) for n in range(8)}
    link.send(replying(message, RecordDict({wire.UPDATE: records.pack(tensors)})))


def oversized_message(link: Link, message: Message) -> None:
    """Sends a message that is larger than the port takes."""
    push(link, message, os.urandom(32).hex(), bytes(40 * MIB))


def another_number(link: Link, message: Message) -> None:
    """Replies under the number of another node."""
    reply = replying(message)
    reply.metadata.__dict__["_src_node_id"] = link.node.node_id + 1
    announce(link, reply, ObjectTree(object_id=os.urandom(32).hex()))


def another_request(link: Link, message: Message) -> None:
    """Replies to a request that it was not asked."""
    reply = replying(message)
    reply.metadata.__dict__["_reply_to_message_id"] = os.urandom(32).hex()
    announce(link, reply, ObjectTree(object_id=os.urandom(32).hex()))


def unasked_objects(link: Link, message: Message) -> None:
    """Sends objects that it never announced."""
    for _ in range(10):
        content = os.urandom(MIB)
        push(link, message, hashlib.sha256(content).hexdigest(), content)


def junk(link: Link, message: Message) -> None:
    """Sends bytes that are no object, under their right name."""
    content = os.urandom(1000)
    name = hashlib.sha256(content).hexdigest()
    announce(link, replying(message), ObjectTree(object_id=name))
    push(link, message, name, content)


def bomb(link: Link, message: Message) -> None:
    """Sends a tensor that names one piece of half a MB a hundred thousand times."""
    chunk = packed("ArrayChunk", [], bytes(MIB // 2))
    shape = {
        "dtype": "float32",
        "shape": [1],
        "stype": records.RAW,
        "arraychunk_ids": [0] * 100_000,
    }
    array = packed("Array", [chunk], json.dumps(shape).encode())
    send_objects(link, message, [chunk, array], wire.UPDATE, array)


def other_header(link: Link, message: Message) -> None:
    """Sends a right head, and in the message after it that it comes from another node."""
    reply = replying(message, RecordDict({records.REQUEST: ConfigRecord({"base": "x"})}))
    header = replying(message)
    reply.metadata.__dict__["_src_node_id"] = link.node.node_id + 1
    tree = get_object_tree(reply)
    announce(link, header, tree)
    for name, it in get_all_nested_objects(reply).items():
        push(link, message, name, it.deflate())


def packed(kind: str, children: list[bytes], body: bytes) -> bytes:
    """An object in Flower's form."""
    names = ",".join(hashlib.sha256(it).hexdigest() for it in children)
    return f"{kind} {names} {len(body)}".encode() + b"\x00" + body


def send_objects(
    link: Link, message: Message, objects: list[bytes], record: str, array: bytes
) -> None:
    """Send a reply whose one record holds this array."""
    name = hashlib.sha256(array).hexdigest()
    arrays = packed("ArrayRecord", [array], json.dumps({"w": name}).encode())
    inside = json.dumps({record: hashlib.sha256(arrays).hexdigest()}).encode()
    content = packed("RecordDict", [arrays], inside)
    body = message_to_proto(replying(message)).SerializeToString()
    whole = packed("Message", [content], body)
    every = [*objects, arrays, content, whole]
    names = {hashlib.sha256(it).hexdigest(): it for it in every}
    root = hashlib.sha256(whole).hexdigest()
    tree = ObjectTree(
        object_id=root, children=[ObjectTree(object_id=it) for it in names if it != root]
    )
    announce(link, replying(message), tree)
    for it, bytes_ in names.items():
        push(link, message, it, bytes_)


MISDEEDS: Mapping[str, Misdeed] = {
    it.__name__: it
    for it in (
        another_request,
        unasked_objects,
        object_flood,
        oversized_head,
        oversized_reply,
        oversized_message,
        another_number,
        junk,
        bomb,
        other_header,
    )
}

ROWS = (
    Row(
        "held-questions",
        f"a member holds {PULLS:,} PullMessages on {PULLS // A_CONNECTION} connections and asks"
        f" again each second, for {HELD_SECONDS:.0f} s",
        f"Hello within {HELLO:.0f} s; rounds go on",
        pulls,
        300.0,
    ),
    Row(
        "misdeeds",
        f"a member answers each request with {len(MISDEEDS)} misdeeds, for"
        f" {MISDEED_SECONDS:.0f} s: floods of objects, oversized replies and messages, replies"
        " under another's number and to other requests, tensors that unfold",
        f"memory grows by at most {GROWTH:.0f} MiB; the member is named in the log; rounds of all"
        " honest platforms go on",
        misdeeds,
        300.0,
    ),
)
