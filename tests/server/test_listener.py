"""The port: what an outsider may do to it, and what a new certificate does to calls under way."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from cryptography.x509 import load_pem_x509_certificate
from flwr.app import Message
from flwr.proto.fleet_pb2 import PullMessagesRequest

from clients.link import CALL, Link, linked
from server import authority, calls, listener
from server.listener import METADATA, check_free, more_descriptors
from server.superlink import SuperLink
from shared.channel import REQUEST
from shared.errors import ConfigError
from simulations.lagoon import BUNDLE, Lagoon, ask, content, echo, here
from simulations.siege.outsiders import TLS_HELLO

PUSH_OBJECT = "/flwr.proto.Fleet/PushObject"


def serial(lagoon: Lagoon) -> int:
    """The serial number of the certificate that the port shows now."""
    told = ssl.get_server_certificate(("127.0.0.1", lagoon.link.port))
    return load_pem_x509_certificate(told.encode()).serial_number


def wait(until: Callable[[], bool], seconds: float = 20.0) -> None:
    patience = time.monotonic() + seconds
    while True:
        with suppress(OSError):  # the old server closes its port at this moment
            if until():
                return
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_a_new_certificate_is_shown_soon_and_a_call_under_way_ends_as_it_would_have(
    lagoon: Lagoon,
) -> None:
    lagoon.node("b", echo)
    here(lagoon, "b")
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
        held = link.held.PullMessages.future(PullMessagesRequest(node=link.node), timeout=CALL)
        time.sleep(0.3)
        before = serial(lagoon)
        authority.rotate_server(lagoon.home)
        wait(lambda: serial(lagoon) != before)
        assert not held.done()
        with lagoon.link.run(BUNDLE, {}) as (grid, _context):
            # The question that the old server holds is answered, and what follows goes to the new.
            replies = grid.send_and_receive(
                [
                    grid.create_message(content(), "train", node, "1", 20.0)
                    for node in grid.get_node_ids()
                ],
                timeout=20.0,
            )
            came: Iterator[Message | None] = iter(replies)
            reply = next(it for it in came if it is not None)
            assert grid.name_of(reply.metadata.src_node_id) == "b"
            assert held.result(CALL).messages_list
    assert [node.fault for node in lagoon.nodes] == [None]


def test_a_certificate_that_cannot_be_read_leaves_the_one_that_is_shown(
    lagoon: Lagoon, caplog: pytest.LogCaptureFixture
) -> None:
    before = serial(lagoon)
    (lagoon.home / "server.pem").rename(lagoon.home / "gone")
    wait(lambda: "the certificate cannot be renewed" in caplog.text)
    assert serial(lagoon) == before


def test_a_second_server_does_not_share_the_port(lagoon: Lagoon, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen there"):
        SuperLink(
            listen=lagoon.address,
            database=tmp_path / "other.sqlite",
            credentials=lambda: authority.credentials(lagoon.home),
            name_of=lambda _key: None,
        )


def test_a_port_is_not_free_for_one_who_would_share_it() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            check_free("127.0.0.1", taken.getsockname()[1])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lagoon]:
    """A port that gives a handshake half a second."""
    monkeypatch.setattr(listener, "HANDSHAKE", 0.5)
    (tmp_path / "hasty").mkdir()
    made = Lagoon(tmp_path / "hasty")
    yield made
    made.end()


def test_who_connects_and_says_nothing_is_dropped_and_others_are_served(hasty: Lagoon) -> None:
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", hasty.link.port)))
            for _ in range(60)
        ]
        for one in idle[::2]:
            one.sendall(TLS_HELLO)
        for one in idle:
            one.settimeout(20.0)
            while one.recv(100):  # an alert may come first
                pass
        hasty.node("a", echo)
        here(hasty, "a")
        with hasty.link.run(BUNDLE, {}) as (grid, _context):
            assert len(ask(grid)) == 1


@pytest.mark.parametrize("method", [PUSH_OBJECT, "/flwr.proto.Fleet/PullMessages"])
def test_an_outsiders_message_is_refused_before_it_came(lagoon: Lagoon, method: str) -> None:
    never: list[bytes] = []

    def message() -> Iterator[bytes]:
        while not never:
            time.sleep(0.05)
        yield b""

    secrets = grpc.ssl_channel_credentials(lagoon.roots)
    with grpc.secure_channel(lagoon.address, secrets) as channel:
        call = channel.stream_unary(method).future(message(), timeout=20.0)
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        never.append(b"")
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_headers_are_bounded(lagoon: Lagoon) -> None:
    secrets = grpc.ssl_channel_credentials(lagoon.roots)
    with grpc.secure_channel(lagoon.address, secrets) as channel:
        call = channel.unary_unary(PUSH_OBJECT)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20.0, metadata=((REQUEST, bytes(4 * METADATA)),))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_process_may_hold_as_many_connections_as_its_hard_limit_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        more_descriptors()
        now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert now == min(listener.DESCRIPTORS, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def question(link: Link) -> grpc.Future:
    return link.held.PullMessages.future(PullMessagesRequest(node=link.node), timeout=CALL)


def test_a_newer_question_of_a_node_ends_its_older_one(lagoon: Lagoon) -> None:
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
        first = question(link)
        time.sleep(0.3)
        more = [question(link) for _ in range(20)]
        assert first.exception(CALL).code() == grpc.StatusCode.ABORTED
        wait(lambda: sum(not it.done() for it in more) == 1)


def test_questions_that_wait_hold_no_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calls, "THREADS", 1)
    made = Lagoon(tmp_path)
    try:
        for name in "abc":
            made.node(name, echo)
        here(made, *"abc")
        with made.link.run(BUNDLE, {}) as (grid, _context):
            assert len(ask(grid)) == 3
    finally:
        made.end()
