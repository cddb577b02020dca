"""The SuperNode's loop over real links: what it answers without approval, and how it comes back."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from clients.approvals import Approvals
from clients.link import linked
from clients.supernode import SuperNode
from shared.audit_log import AuditLog, entries
from shared.bundle import PROJECT, Bundle, pack
from shared.health import Health
from shared.wire import Refusal
from simulations.lagoon import Lagoon, ask, echo, here

CONTENT = pack({PROJECT: b"[project]\n", "clients/app.py": b"open('/tmp/never', 'w')\n"})
OFFERED = Bundle(CONTENT, hashlib.sha256(CONTENT).hexdigest(), "1")


@pytest.fixture
def node(lagoon: Lagoon, tmp_path: Path) -> Iterator[SuperNode]:
    made = SuperNode(
        connect=lambda: linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]),
        approvals=Approvals(tmp_path / "approvals"),
        scratch=tmp_path / "running",
        config={"platform": "shop.toml"},
        audit=AuditLog(tmp_path / "audit.jsonl"),
        health=Health(),
    )
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.stop.set()
    lagoon.link.stop(grace=0.1)
    thread.join(30)


def says(node: SuperNode, what: Callable[[str], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what(str(node.health.told().get("state"))):
        assert time.monotonic() < until, node.health.told()
        time.sleep(0.02)


def connected(state: str) -> bool:
    return state == "connected"


def test_unknown_code_is_queued_and_answered_by_a_number(
    lagoon: Lagoon, node: SuperNode, tmp_path: Path
) -> None:
    says(node, connected)
    with lagoon.link.run(OFFERED, {}) as (grid, _context):
        (reply,) = ask(grid)
    assert reply.error.code == Refusal.UNAPPROVED
    assert node.approvals.standing(OFFERED.digest) == "waiting"
    told = [entry.event for entry in entries(tmp_path / "audit.jsonl")]
    assert told == ["connected", "bundle arrived", "asked", "answered"]
    assert not (tmp_path / "running").exists()


def test_code_that_was_rejected_is_answered_so_and_not_fetched_again(
    lagoon: Lagoon, node: SuperNode, tmp_path: Path
) -> None:
    node.approvals.offered(CONTENT, claimed=OFFERED.digest)
    node.approvals.reject(OFFERED.digest)
    says(node, connected)
    with lagoon.link.run(OFFERED, {}) as (grid, _context):
        (reply,) = ask(grid)
    assert reply.error.code == Refusal.UNAPPROVED
    assert node.approvals.standing(OFFERED.digest) == "rejected"
    assert "bundle arrived" not in [entry.event for entry in entries(tmp_path / "audit.jsonl")]


def test_a_node_without_work_ends_at_once_when_it_is_told_to(
    lagoon: Lagoon, node: SuperNode
) -> None:
    says(node, connected)
    time.sleep(0.5)  # its question is held by now, for 20 s
    began = time.monotonic()
    node.stop.set()
    here(lagoon)  # it has said good-bye
    says(node, lambda state: state == "stopping")
    assert time.monotonic() - began < 2.0


def test_a_request_that_has_come_as_a_question_is_given_up_is_returned(lagoon: Lagoon) -> None:
    with (
        linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link,
        lagoon.link.run(OFFERED, {}) as (grid, _context),
        ThreadPoolExecutor(1) as pool,
    ):
        asking: list[Future[list[Message]]] = []

        def over() -> bool:
            if not asking:  # while the question is held
                asking.append(pool.submit(ask, grid))
                time.sleep(1.0)  # by now it is answered
            return True

        message = link.receive(over)
        assert message is not None
        echo(link, message)
        assert len(asking[0].result(20)) == 1


def test_a_request_that_comes_as_a_question_is_given_up_is_asked_again(lagoon: Lagoon) -> None:
    with lagoon.link.run(OFFERED, {}) as (grid, _context), ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            asking: list[Future[list[Message]]] = []

            def over(asking: list[Future[list[Message]]] = asking) -> bool:
                rung = grid.counter.asked.count()
                asking.append(pool.submit(ask, grid))
                grid.counter.asked.wait(rung, 10)  # it is at the server, on its way or not
                return True

            with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
                if (message := link.receive(over)) is not None:
                    echo(link, message)
            with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
                while not asking[0].done():
                    if (message := link.receive(asking[0].done)) is not None:
                        echo(link, message)
            assert len(asking[0].result(1)) == 1


def test_a_server_that_goes_and_comes_back_is_found_again(lagoon: Lagoon, node: SuperNode) -> None:
    says(node, connected)
    port = lagoon.link.port
    lagoon.link.stop(grace=0.0)
    says(node, lambda state: "cannot be reached" in state)
    assert node.health.told()["ready"] is False
    lagoon.link = lagoon.started(port)
    says(node, connected)
    with lagoon.link.run(OFFERED, {}) as (grid, _context):
        assert len(ask(grid)) == 1


def test_a_platform_that_is_evicted_says_so_and_is_back_when_that_was_a_mistake(
    lagoon: Lagoon, node: SuperNode
) -> None:
    says(node, connected)
    lagoon.evicted.add("a")
    says(node, lambda state: "turned this platform away" in state, 2.0)
    lagoon.evicted.clear()
    says(node, connected)


def test_new_certificates_are_taken_up_by_a_new_connection(
    lagoon: Lagoon, node: SuperNode, tmp_path: Path
) -> None:
    says(node, connected)
    node.renew.set()
    with lagoon.link.run(OFFERED, {}) as (grid, _context):
        ask(grid)  # so that it has not to wait for the end of its question
        says(node, lambda _state: not node.renew.is_set())
        TaskIdentity.node_id = 1  # of this process, in which the node's thread has left its own
        assert len(ask(grid)) == 1
    told = [entry.event for entry in entries(tmp_path / "audit.jsonl")]
    assert told.count("connected") == 2


APP = b"""
import time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    wait = Path(context.node_config["platform"])
    while wait.exists():
        time.sleep(0.02)
    return Message(RecordDict({"told": ConfigRecord({"answer": 1})}), reply_to=message)
"""


def test_a_bundle_that_is_rejected_while_it_answers_sends_nothing(
    lagoon: Lagoon, node: SuperNode, tmp_path: Path
) -> None:
    files = {PROJECT: b"[project]\n", "clients/__init__.py": b"", "clients/app.py": APP}
    content = pack(files)
    bundle = Bundle(content, hashlib.sha256(content).hexdigest(), "1")
    node.config["platform"] = str(tmp_path / "wait")
    node.approvals.offered(content, claimed=bundle.digest)
    node.approvals.approve(bundle.digest)
    says(node, connected)
    with lagoon.link.run(bundle, {}) as (grid, _context), ThreadPoolExecutor(1) as pool:
        (reply,) = ask(grid)
        assert not reply.has_error()  # its worker is warm
        (tmp_path / "wait").touch()
        TaskIdentity.node_id = 1  # of this process, in which the node's thread has left its own
        asking = pool.submit(ask, grid)
        says(node, lambda state: state.startswith("answering"))
        node.approvals.reject(bundle.digest)
        (reply,) = asking.result(60)
    assert reply.error.code == Refusal.UNAPPROVED
    says(node, lambda state: state.startswith("connected; refused"))
    assert "has not approved this code" in str(node.health.told()["state"])
    told = [entry.event for entry in entries(tmp_path / "audit.jsonl")]
    assert told.count("worker ended") == 1


def test_an_approvals_file_that_cannot_be_read_lets_nothing_run_and_ends_no_connection(
    lagoon: Lagoon, node: SuperNode
) -> None:
    node.approvals.offered(CONTENT, claimed=OFFERED.digest)
    node.approvals.approve(OFFERED.digest)
    (node.approvals.folder / f"{OFFERED.digest}.json").write_text("{")
    says(node, connected)
    with lagoon.link.run(OFFERED, {}) as (grid, _context):
        (reply,) = ask(grid)
    assert reply.error.code == Refusal.UNAPPROVED
    assert node.health.told()["ready"] is True
