"""A SuperLink and light platforms in this process: real TLS, real links, answers of one's own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict

from clients.link import Link, linked
from server import authority
from server.grid import LinkGrid
from server.superlink import SuperLink
from shared import records, wire
from shared.bundle import Bundle
from shared.enrolment import node_public

BUNDLE = Bundle(b"a bundle", hashlib.sha256(b"a bundle").hexdigest(), "1")


class Lagoon:
    """A SuperLink, its authority and the platforms that it knows by their keys."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: for its files; there is nothing in it yet."""
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        authority.create(self.home, hosts=["127.0.0.1", "localhost"], name="test")
        self.keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in "abc"}
        self.evicted: set[str] = set()
        self.nodes: list[Node] = []
        self.link = self.started()

    def started(self, port: int = 0) -> SuperLink:
        """A SuperLink on the same home, as after a restart."""
        link = SuperLink(
            listen=f"127.0.0.1:{port}",
            database=self.folder / "superlink.sqlite",
            credentials=lambda: authority.credentials(self.home),
            name_of=self.name_of,
        )
        link.start()
        return link

    def name_of(self, key: bytes) -> str | None:
        """The platform of a node key, unless it is evicted."""
        known = {node_public(key.public_key()): name for name, key in self.keys.items()}
        name = known.get(key)
        return None if name in self.evicted else name

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.link.port}"

    @property
    def roots(self) -> bytes:
        """What platforms trust."""
        return (self.home / "ca.pem").read_bytes()

    def node(self, name: str, answer: Callable[[Link, Message], None], **at: str) -> Node:
        """A platform that answers so."""
        self.nodes.append(Node(self, name, answer, **at))
        return self.nodes[-1]

    def end(self) -> None:
        """Stop everything."""
        for node in self.nodes:
            node.ended.set()
        self.link.stop(grace=0.2)
        for node in self.nodes:
            node.join(10.0)


class Node(threading.Thread):
    """A light stand-in: real link, real protocol, an answer of the test's own."""

    def __init__(
        self, lagoon: Lagoon, name: str, answer: Callable[[Link, Message], None], address: str = ""
    ) -> None:
        """Start it."""
        super().__init__(daemon=True)
        self.lagoon, self.called, self.answer = lagoon, name, answer
        self.address = address or lagoon.address
        self.fault: grpc.RpcError | None = None
        self.ended = threading.Event()
        self.number = 0
        self.start()

    def run(self) -> None:
        """Connect, answer, until the end or a fault."""
        key = self.lagoon.keys[self.called]
        try:
            with linked(self.address, roots=self.lagoon.roots, key=key) as link:
                self.number = link.node.node_id
                while not self.ended.is_set():
                    message = link.receive()
                    if message is not None:
                        self.answer(link, message)
        except grpc.RpcError as fault:
            self.fault = fault


def echo(link: Link, message: Message) -> None:
    """Send back what came."""
    link.send(Message(message.content, reply_to=message))


def content(number: float = 1.0) -> RecordDict:
    """Something to send."""
    tensors = {"secret-slot": np.full((64, 64), number, np.float32)}
    return RecordDict({"adapter": records.pack(tensors), "request": ConfigRecord({"round": 1})})


def ask(
    grid: LinkGrid,
    *,
    timeout: float = 20.0,
    what: RecordDict | None = None,
    kind: str = wire.TRAIN,
) -> list[Message]:
    """What all who are there answer."""
    messages = [
        Message(what or content(), node, kind, ttl=timeout, group_id="1")
        for node in grid.get_node_ids()
    ]
    replies: list[Message | None] = [*grid.send_and_receive(messages, timeout=timeout)]
    return [reply for reply in replies if reply is not None]


def here(lagoon: Lagoon, *names: str) -> None:
    """Wait until just these are online."""
    until = time.monotonic() + 20
    while lagoon.link.online() != sorted(names):
        assert time.monotonic() < until, lagoon.link.online()
        time.sleep(0.02)
