"""The SuperNode's loop over real links: what it answers without approval, and how it comes back."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from clients.approvals import Approvals
from clients.link import linked
from clients.supernode import SuperNode
from shared.audit_log import AuditLog, entries
from shared.bundle import PROJECT, Bundle, pack
from shared.health import Health
from shared.wire import Refusal
from simulations.lagoon import Lagoon, ask

CONTENT = pack({PROJECT: b"[project]\n", "clients/app.py": b"open('/tmp/never', 'w')\n"})
OFFERED = Bundle(CONTENT, hashlib.sha256(CONTENT).hexdigest(), "1")


@pytest.fixture
def lagoon(tmp_path: Path) -> Iterator[Lagoon]:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    made = Lagoon(tmp_path)
    yield made
    made.end()


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
