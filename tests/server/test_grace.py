from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from server.aggregate import ServerState, fedavg
from server.app import GridNodes
from server.config import FederationSection, federation_from
from server.registry import Registry, RoundReport
from server.rounds import federate
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.records import Content
from shared.update import BoundedUpdate

ADAPTER = Adapter({"w": np.zeros(1, np.float32)}, backbone="backbone", task="task")
TICK = 0.01  # seconds between two looks of these nodes
GRACE = 0.15


class Slow:
    """Platforms that answer a request to train after so many seconds, by name."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.names = dict(enumerate(seconds, start=1))
        self.refusing: set[str] = set()
        self.closed: list[str] = []
        self.evaluated: list[list[str]] = []

    def present(self) -> Sequence[int]:
        return list(self.names)

    def called(self, node: int) -> str | None:
        return None

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError] | None]:
        if kind == wire.EVALUATE:
            self.evaluated.append([self.names[node] for node in nodes])
            return
        if kind == wire.HELLO:
            for node in nodes:
                yield node, wire.hello_reply(wire.Member(self.names[node], 1, "backbone", "task"))
            return
        adapter, _ = asking.read_request(content)
        update = BoundedUpdate({"w": np.ones(1, np.float32)}, base=adapter.digest, weight=1.0)
        began, waiting = time.monotonic(), list(nodes)
        try:
            while waiting and time.monotonic() - began < timeout:
                time.sleep(TICK)
                for node in list(waiting):
                    name = self.names[node]
                    if time.monotonic() - began < self.seconds[name]:
                        continue
                    waiting.remove(node)
                    no = ReplyError("no", todo="x")
                    yield node, no if name in self.refusing else wire.update_reply(update)
                yield None
        finally:
            self.closed = [self.names[node] for node in waiting]


def run(nodes: Slow, folder: Path, **keys: Any) -> RoundReport:
    registry = Registry(folder)
    plan = replace(federation_from(FederationSection(rounds=1, quorum=2, timeout=60)), **keys)
    federate(nodes, ServerState(ADAPTER), plan, fedavg(), registry)
    return registry.load(1)[1]


def test_with_a_quorum_the_rest_is_waited_for_as_long_as_the_grace(tmp_path: Path) -> None:
    nodes = Slow(a=0, b=0, near=GRACE / 3, far=59)
    report = run(nodes, tmp_path, grace=GRACE)
    assert (list(report.replied), list(report.missing)) == (["a", "b", "near"], ["far"])
    assert list(report.asked) == ["a", "b", "far", "near"]
    assert GRACE <= report.seconds < 20
    assert nodes.closed == ["far"]  # what it sends later is dropped


def test_the_grace_begins_with_the_quorum_and_not_before(tmp_path: Path) -> None:
    nodes = Slow(a=0, b=3 * GRACE, c=59)
    report = run(nodes, tmp_path, grace=GRACE)
    assert (list(report.replied), list(report.missing)) == (["a", "b"], ["c"])
    assert report.seconds >= 4 * GRACE


def test_a_refusal_is_no_part_of_the_quorum(tmp_path: Path) -> None:
    nodes = Slow(no=0, a=0, b=3 * GRACE)
    nodes.refusing = {"no"}
    report = run(nodes, tmp_path, grace=GRACE)
    assert (list(report.replied), list(report.refused)) == (["a", "b"], ["no"])


def test_when_all_have_answered_nothing_is_waited_for(tmp_path: Path) -> None:
    assert run(Slow(a=0, b=0), tmp_path, grace=50.0).seconds < 20


def test_without_a_grace_everyone_is_waited_for_to_the_deadline(tmp_path: Path) -> None:
    nodes = Slow(a=0, b=0, late=3 * GRACE, never=99)
    report = run(nodes, tmp_path, timeout=8 * GRACE)
    assert (list(report.replied), list(report.missing)) == (["a", "b", "late"], ["never"])


@pytest.mark.parametrize(("grace", "last"), [(GRACE, ["a", "b"]), (0.0, ["a", "b", "far"])])
def test_who_still_trains_is_not_asked_to_evaluate_if_it_is_not_waited_for(
    grace: float, last: list[str], tmp_path: Path
) -> None:
    nodes = Slow(a=0, b=0, far=59)
    run(nodes, tmp_path, grace=grace, timeout=2 * GRACE)
    assert nodes.evaluated == [["a", "b", "far"], last]


class Ticking:
    """A Grid that says when nothing came, and remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def send_and_receive(
        self, messages: Sequence[Message], *, timeout: float | None = None
    ) -> Iterator[Message | None]:
        try:
            yield None
            for message in messages:
                yield Message(RecordDict(), reply_to=message)
        finally:
            self.closed = True


def test_what_a_grid_says_of_nothing_is_passed_on_and_closing_reaches_it() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    grid = Ticking()
    replies = GridNodes(cast(Grid, grid)).ask(wire.TRAIN, RecordDict(), [7, 8], round_=1, timeout=9)
    assert next(replies) is None
    first = next(replies)
    assert first is not None
    assert first[0] == 7
    assert not grid.closed
    replies.close()  # type: ignore[attr-defined]
    assert grid.closed
