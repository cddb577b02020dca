"""Who hears a request when a platform has come back before its old question was ended."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer

from clients.link import CALL, Link, linked
from server.grid import Counter
from simulations.lagoon import BUNDLE, Lagoon, ask, echo


class Looks:
    """Each time that a question looks for a request, the second only when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.second, self.count = threading.Semaphore(0), threading.Event(), 0
        pull = FleetServicer.PullMessages

        def look(fleet: FleetServicer, *call: Any) -> PullMessagesResponse:
            self.count += 1
            self.begun.release()
            if self.count == 2:
                self.second.wait(20)
            return pull(fleet, *call)

        monkeypatch.setattr(FleetServicer, "PullMessages", look)

    def wait(self, times: int) -> None:
        for _ in range(times):
            assert self.begun.acquire(timeout=10)


def question(link: Link) -> Any:
    return link.held.PullMessages.future(PullMessagesRequest(node=link.node), timeout=CALL)


def test_a_question_of_before_a_platform_came_back_takes_no_request(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its network breaks: the old connection ends long after the new one began."""
    looks = Looks(monkeypatch)
    looks.second.set()
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as old:
        held = question(old)
        looks.wait(1)
        new, until = lagoon.node("a", echo), time.monotonic() + 10
        while not new.number:  # until it has begun
            assert time.monotonic() < until
            time.sleep(0.01)
        with lagoon.link.run(BUNDLE, {}) as (grid, _context):
            for _ in range(3):
                assert len(ask(grid, timeout=10.0)) == 1
        assert not held.result(CALL).messages_list


def test_what_an_old_question_takes_in_the_moment_of_coming_back_is_asked_again(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    with (
        linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as old,
        lagoon.link.run(BUNDLE, {}) as (grid, _context),
        ThreadPoolExecutor(1) as pool,
    ):
        held = question(old)
        looks.wait(1)
        asking = pool.submit(ask, grid)
        looks.wait(1)  # it has seen nobody come back, and is about to take what there is
        rung = grid.counter.asked.count()
        with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as new:
            grid.counter.asked.wait(rung, 10)  # now that is for the new one
            looks.second.set()
            assert not held.result(CALL).messages_list
            while not asking.done():
                if (message := new.receive(asking.done)) is not None:
                    echo(new, message)
        assert len(asking.result(1)) == 1


def test_a_node_that_began_twice_began_at_the_later_moment_in_whatever_order_it_is_told() -> None:
    counter = Counter()
    for node, began in ((1, 5.0), (2, 1.0), (1, 3.0)):
        counter.returned.put((node, began))
    assert counter.taken() == {1: 5.0, 2: 1.0}
    assert counter.taken() == {}


def test_what_is_left_for_a_node_while_it_begins_is_not_lost(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower knows that it is online some calls before its old question is put aside."""
    looks, online, go = Looks(monkeypatch), threading.Event(), threading.Event()
    looks.second.set()
    with (
        linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as old,
        lagoon.link.run(BUNDLE, {}) as (grid, _context),
        ThreadPoolExecutor(1) as pool,
    ):
        held = question(old)
        looks.wait(1)
        state = type(grid.state)
        beat = state.acknowledge_node_heartbeat

        def slow(*call: Any) -> Any:
            found = beat(*call)
            online.set()
            go.wait(10)
            return found

        monkeypatch.setattr(state, "acknowledge_node_heartbeat", slow)
        lagoon.node("a", echo)
        assert online.wait(10)
        asking = pool.submit(ask, grid, timeout=10.0)
        assert held.result(CALL).messages_list  # the old question took it
        go.set()
        assert len(asking.result(20)) == 1
