"""The SuperLink over real TLS on loopback, with real links on its far side."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from clients.link import Link, linked
from server import authority
from server.app import GridNodes
from server.superlink import SuperLink
from shared import records, wire
from shared.enrolment import node_public
from simulations.lagoon import BUNDLE, Lagoon, ask, content, echo, here


def test_every_enrolled_platform_answers_and_under_its_own_name(lagoon: Lagoon) -> None:
    for name in "abc":
        lagoon.node(name, echo)
    here(lagoon, "a", "b", "c")
    with lagoon.link.run(BUNDLE, {}) as (grid, context):
        replies = ask(grid)
        assert sorted(str(grid.name_of(it.metadata.src_node_id)) for it in replies) == [*"abc"]
        assert {it.metadata.run_id for it in replies} == {context.run_id}
        for reply in replies:
            sent = records.unpack(reply.content, "adapter")["secret-slot"]
            assert (sent == 1.0).all()
        assert not list(
            grid.state.get_message_ids_from_run_id(context.run_id)
        )  # nothing is left behind


def test_a_key_that_nobody_enrolled_is_turned_away_at_its_first_call(lagoon: Lagoon) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1())
    with (
        pytest.raises(grpc.RpcError) as caught,
        linked(lagoon.address, roots=lagoon.roots, key=stranger),
    ):
        pass
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_an_evicted_platform_is_refused_within_a_second_while_it_waits_for_work(
    lagoon: Lagoon,
) -> None:
    node = lagoon.node("a", echo)
    here(lagoon, "a")
    time.sleep(0.3)  # it is asking now
    began = time.monotonic()
    lagoon.evicted.add("a")
    node.join(5.0)
    assert node.fault is not None
    assert node.fault.code() == grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - began < 1.0


def test_who_is_turned_away_is_told_with_method_address_and_key(tmp_path: Path) -> None:
    told: list[tuple[str, str, bytes]] = []
    home = tmp_path / "home"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="test")
    link = SuperLink(
        listen="127.0.0.1:0",
        database=tmp_path / "superlink.sqlite",
        credentials=lambda: authority.credentials(home),
        name_of=lambda _key: None,
        refused=lambda *what: told.append(what),
    )
    link.start()
    stranger = ec.generate_private_key(ec.SECP384R1())
    roots = (home / "ca.pem").read_bytes()
    with (
        pytest.raises(grpc.RpcError),
        linked(f"127.0.0.1:{link.port}", roots=roots, key=stranger),
    ):
        pass
    link.stop(0)
    assert told[0][1:] == ("127.0.0.1", node_public(stranger.public_key()))
    assert "Node" in told[0][0]


def test_the_state_is_its_owners_alone_also_where_an_earlier_one_was_not(tmp_path: Path) -> None:
    (tmp_path / "superlink.sqlite").touch(mode=0o644)
    made = Lagoon(tmp_path)
    files = list(tmp_path.glob("superlink.sqlite*"))
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    made.end()


def test_a_node_is_called_by_its_platform_and_by_what_was_evicted(lagoon: Lagoon) -> None:
    keys = {node_public(key.public_key()): name for name, key in lagoon.keys.items()}

    def whose(key: bytes) -> str:
        return f"evicted {keys[key]}" if keys[key] in lagoon.evicted else keys[key]

    lagoon.link.whose = whose
    lagoon.node("a", echo)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        (node,) = grid.get_node_ids()
        assert GridNodes(grid).called(node) == "a"
        lagoon.evicted.add("a")
        assert GridNodes(grid).called(node) == "evicted a"
        assert GridNodes(grid).called(1) is None


def test_an_evicted_platform_is_not_among_those_that_are_asked(lagoon: Lagoon) -> None:
    for name in "ab":
        lagoon.node(name, echo)
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        lagoon.evicted.add("b")
        assert [grid.name_of(node) for node in grid.get_node_ids()] == ["a"]


def test_a_server_of_another_authority_is_not_spoken_to(lagoon: Lagoon, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    authority.create(other, hosts=["127.0.0.1"], name="other")
    with (
        pytest.raises(grpc.RpcError) as caught,
        linked(lagoon.address, roots=(other / "ca.pem").read_bytes(), key=lagoon.keys["a"]),
    ):
        pass
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_node_that_dies_over_a_request_and_comes_back_is_asked_the_same_again(
    lagoon: Lagoon,
) -> None:
    died = threading.Event()

    def dies(_link: Link, _message: Message) -> None:
        died.set()
        raise grpc.RpcError

    dying = lagoon.node("a", dies)
    here(lagoon, "a")

    def comes_back() -> None:
        died.wait(10)
        dying.join(10)  # its last call says that it goes
        lagoon.node("a", echo)

    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        back = threading.Thread(target=comes_back)
        back.start()
        (reply,) = ask(grid, what=content(7.0))
        back.join()
    assert (records.unpack(reply.content, "adapter")["secret-slot"] == 7.0).all()


def test_a_reply_that_comes_after_its_round_is_in_nobodys_way(lagoon: Lagoon) -> None:
    asked, over = list[Message](), threading.Event()

    def late(link: Link, message: Message) -> None:
        asked.append(message)
        over.wait(30)
        with suppress(ObjectPushError):  # nobody waits for the first
            echo(link, message)

    lagoon.node("a", late)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        assert ask(grid, timeout=2.0) == []
        over.set()
        (reply,) = ask(grid, what=content(2.0))
        assert reply.metadata.reply_to_message_id == asked[1].metadata.message_id
        assert (records.unpack(reply.content, "adapter")["secret-slot"] == 2.0).all()


def test_a_server_that_starts_again_keeps_its_nodes_and_ends_the_run_before(
    lagoon: Lagoon,
) -> None:
    first = lagoon.node("a", echo)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (_grid, context):
        lagoon.link.listener.stop(0)  # as a killed process leaves it: the run was never ended
        first.join(10)
        lagoon.link = lagoon.started()
        again = lagoon.node("a", echo)
        here(lagoon, "a")
        with lagoon.link.run(BUNDLE, {}) as (grid, again_context):
            number = context.run_id
            assert again_context.run_id != number
            status = grid.state.get_run_status({number})[number]
            assert status.status == "finished"
            assert len(ask(grid)) == 1
    assert again.number == first.number


@pytest.mark.parametrize(("anew", "times"), [(False, 1), (True, 2)])
def test_a_node_is_asked_again_only_what_it_was_asked_before_it_began(
    anew: bool, times: int, lagoon: Lagoon
) -> None:
    asked, told = list[Message](), threading.Event()

    def slow(link: Link, message: Message) -> None:
        asked.append(message)
        told.wait(10)
        time.sleep(0.5)
        with suppress(ObjectPushError):  # the first answer may have been given up
            echo(link, message)

    node = lagoon.node("a", slow)
    here(lagoon, "a")
    before = time.monotonic()
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        message = Message(content(), node.number, wire.TRAIN, ttl=20.0, group_id="1")
        replies: Iterator[Message | None] = grid.send_and_receive([message], timeout=20.0)
        until = time.monotonic() + 10
        while not asked and time.monotonic() < until:
            next(iter(replies))
        # As the Fleet API tells of a node: a moment late, or because it was killed.
        grid.counter.returned.put((node.number, time.monotonic() if anew else before))
        grid.counter.answered.ring()
        told.set()
        assert len([reply for reply in replies if reply is not None]) == 1
    assert len(asked) == times


def test_a_new_certificate_is_shown_to_new_links_and_ends_no_old_one(lagoon: Lagoon) -> None:
    lagoon.node("a", echo)
    here(lagoon, "a")
    before = authority.credentials(lagoon.home)[1]
    authority.rotate_server(lagoon.home)
    after = authority.credentials(lagoon.home)[1]
    assert before != after
    lagoon.node("b", echo)
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        assert len(ask(grid)) == 2


def test_a_reply_may_not_be_of_another_node(lagoon: Lagoon) -> None:
    taken: list[Message] = []

    def forges(link: Link, message: Message) -> None:
        taken.append(message)
        reply = Message(message.content, reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = honest.number
        link.send(reply)

    honest = lagoon.node("a", lambda _link, _message: None)
    here(lagoon, "a")
    lagoon.node("b", forges)
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        (reply,) = ask(grid, timeout=2.0)
    assert taken
    assert reply.has_error()
    assert reply.metadata.src_node_id != honest.number


def test_platforms_that_send_what_is_equal_are_all_heard(lagoon: Lagoon) -> None:
    def same(link: Link, message: Message) -> None:
        link.send(Message(content(0.0), reply_to=message))

    for name in "abc":
        lagoon.node(name, same)
    here(lagoon, "a", "b", "c")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        for _ in range(20):
            assert len(ask(grid)) == 3
    assert [node.fault for node in lagoon.nodes] == [None, None, None]


def test_a_platform_that_says_hello_under_another_s_name_is_not_heard(lagoon: Lagoon) -> None:
    def hello(link: Link, message: Message) -> None:
        member = wire.Member("b", 1.0, backbone="0" * 64, task="next-item")
        link.send(Message(wire.hello_reply(member), reply_to=message))

    for name in "ab":
        lagoon.node(name, hello)
    here(lagoon, "a", "b")
    with lagoon.link.run(BUNDLE, {}) as (grid, _context):
        (reply,) = ask(grid, kind=wire.HELLO)
        assert grid.name_of(reply.metadata.src_node_id) == "b"
