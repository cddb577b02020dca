"""Files of a platform's folder, and a worker's replies, that are damaged on purpose: one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.task_identity import TaskIdentity

from clients import egress, ledger
from clients.approvals import Approvals
from clients.daemon import read_audit
from clients.ledger_file import read_head
from clients.link import announced
from clients.workers import message_of
from shared.errors import BundleError, ConfigError, LedgerError, ReplyError
from shared.tables.policy import Policy

CASES = Path(__file__).parents[1] / "fuzz" / "regressions"
DIGEST = "d" * 64
DEEP = b"[" * 5_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        b"\xff",
        json.dumps({"digest": DIGEST, "standing": "approved", "time": 10**400, "by": ""}).encode(),
        json.dumps({"digest": DIGEST, "standing": "approved", "time": 1e300, "by": ""}).encode(),
        json.dumps({"digest": DIGEST, "standing": "approved", "time": "1", "by": ""}).encode(),
        b" " * 100_000,
    ],
)
def test_a_damaged_decision_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.json").write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        Approvals(tmp_path).entries()


def test_a_ledger_whose_schema_is_not_utf_8_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes((CASES / "ledger" / "schema-not-utf-8").read_bytes())
    policy = Policy(plan=None, dataset="d", ledger=path, head=tmp_path / "head", key=tmp_path / "k")
    with pytest.raises(LedgerError, match="is damaged"):
        ledger.entries(policy)


@pytest.mark.parametrize("content", [DEEP, b"\xff", b" " * 5_000, b'{"count": 1e400, "head": ""}'])
def test_a_head_file_that_is_damaged_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="is no head file, or damaged"):
        read_head(path)


def test_of_the_refusals_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "refused"
    path.write_bytes(b'{"why": "a"}\n' + DEEP + b'\n{"why": 1}\n[["why", "b"]]\n{"why": "c"}\n{"w')
    policy: Any = SimpleNamespace(refused=path)
    assert egress.notes(policy) == [{"why": "a"}, {"why": "c"}]


@pytest.mark.parametrize("content", [DEEP, b'{"audits": [{"claim": 1}]}', b'{"audits": {}}'])
def test_audit_results_that_are_none_are_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no audit"):
        read_audit(path)


@pytest.mark.parametrize("content", [b"\xff" * 9, b"\x12\x02\x0a\x00", b"\x0a"])
def test_a_worker_that_answers_what_is_no_message_is_a_fault_of_its_bundle(content: bytes) -> None:
    with pytest.raises(BundleError, match="answered what is no message"):
        message_of(content, where="bundle")


def test_a_server_that_announces_no_message_is_told() -> None:
    with pytest.raises(ReplyError, match="the server's request is none"):
        announced(PullMessagesResponse())
    many = PullMessagesResponse()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    many.messages_list.append(message_to_proto(Message(RecordDict(), 1, "train")))
    tree = many.message_object_trees.add()
    for _ in range(20_001):
        tree.children.add()
    with pytest.raises(ReplyError, match="more than 20,000 objects"):
        announced(many)
