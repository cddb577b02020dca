"""What a node holds to between a request and its answer, whatever the code does that it runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.task_identity import TaskIdentity

from clients.approvals import Approvals
from clients.link import COMPONENT, Link, linked
from clients.supernode import SuperNode
from clients.workers import Config, Worker
from shared.audit_log import AuditLog, entries
from shared.bundle import PROJECT, Bundle, pack
from shared.enrolment import node_public
from shared.errors import BundleError
from shared.health import Health
from shared.signing import digest
from shared.wire import REFUSALS, Refusal
from simulations.lagoon import Lagoon, ask, here


def bundle(mark: bytes) -> Bundle:
    content = pack({PROJECT: b"[project]\n", "clients/app.py": mark})
    return Bundle(content, hashlib.sha256(content).hexdigest(), "1")


ONE, OTHER = bundle(b"1\n"), bundle(b"2\n")
Answer = Callable[[Message], Message]


def honest(message: Message) -> Message:
    return Message(RecordDict({"told": ConfigRecord({"yes": 1})}), reply_to=message)


class InProcess(Worker):
    """A worker whose code runs here, once the approvals let it."""

    answers: Answer = staticmethod(honest)
    started: ClassVar[list[InProcess]] = []

    def __init__(
        self,
        approvals: Approvals,
        digest: str,
        *,
        scratch: Path,
        revoked: Callable[[], None] = lambda: None,
    ) -> None:
        self.digest, self.over = digest, False
        approvals.content(digest)
        self.started.append(self)

    def answer(self, message: Message, config: Config, *, stop: threading.Event) -> Message:
        if self.over:
            raise BundleError("is over", todo="start it again")
        return type(self).answers(message)

    @property
    def alive(self) -> bool:
        return not self.over

    def stop(self, grace: float = 5.0) -> None:
        self.over = True


@pytest.fixture
def node(
    lagoon: Lagoon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SuperNode]]:
    """Starts the node of platform "a", with one bundle approved."""
    monkeypatch.setattr("clients.supernode.Worker", InProcess)
    monkeypatch.setattr(InProcess, "answers", staticmethod(honest))
    started: list[tuple[SuperNode, threading.Thread]] = []

    def start(through: Callable[[Link], Link] = lambda link: link) -> SuperNode:
        @contextmanager
        def connect() -> Iterator[Link]:
            with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"]) as link:
                yield through(link)

        approvals = Approvals(tmp_path / "approvals")
        approvals.approve(approvals.offered(ONE.content, claimed=ONE.digest))
        made = SuperNode(
            connect=connect,
            approvals=approvals,
            scratch=tmp_path / "running",
            config={"platform": "shop.toml"},
            audit=AuditLog(tmp_path / "audit.jsonl"),
            health=Health(),
        )
        thread = threading.Thread(target=made.serve, daemon=True)
        thread.start()
        started.append((made, thread))
        here(lagoon, "a")
        return made

    yield start
    for made, thread in started:
        made.stop.set()
        lagoon.link.stop(grace=0.1)
        thread.join(30)


def error_of(lagoon: Lagoon, offered: Bundle) -> tuple[int, str] | None:
    """Number and words of the refusal with which a run of this bundle is answered, if it is one."""
    with lagoon.link.run(offered, {}) as (grid, _context):
        (reply,) = ask(grid)
    TaskIdentity.node_id = 1  # of this process, in which the node's thread has left its own
    return (int(reply.error.code), str(reply.error.reason)) if reply.has_error() else None


def code_of(lagoon: Lagoon, offered: Bundle) -> int | None:
    """The number alone."""
    error = error_of(lagoon, offered)
    return None if error is None else error[0]


def test_a_running_bundle_opens_the_door_to_no_other_and_not_to_itself_once_rejected(
    lagoon: Lagoon, node: Callable[..., SuperNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Message] = []

    def answers(message: Message) -> Message:
        seen.append(message)
        return honest(message)

    made = node()
    monkeypatch.setattr(InProcess, "answers", staticmethod(answers))
    assert code_of(lagoon, ONE) is None
    assert code_of(lagoon, OTHER) == Refusal.UNAPPROVED
    assert code_of(lagoon, ONE) is None
    made.approvals.reject(ONE.digest)
    assert code_of(lagoon, ONE) == Refusal.UNAPPROVED
    assert len(seen) == 2  # what was asked after the rejection no code of the bundle has seen


def test_an_answer_of_a_bundle_that_was_rejected_meanwhile_does_not_leave(
    lagoon: Lagoon, node: Callable[..., SuperNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node()

    def rejected(message: Message) -> Message:
        made.approvals.reject(ONE.digest)
        return honest(message)

    monkeypatch.setattr(InProcess, "answers", staticmethod(rejected))
    assert code_of(lagoon, ONE) == Refusal.UNAPPROVED


@pytest.mark.parametrize("code", [2, 101, 7777])
def test_of_a_bundles_error_a_known_number_leaves_and_none_of_its_words(
    lagoon: Lagoon,
    node: Callable[..., SuperNode],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    made = node()

    def telling(message: Message) -> Message:
        return Message(Error(code, "what a shopper bought"), reply_to=message)

    monkeypatch.setattr(InProcess, "answers", staticmethod(telling))
    expected = Refusal(code) if code in REFUSALS else Refusal.FAILED
    assert error_of(lagoon, ONE) == (expected, REFUSALS[expected])

    def rejected(message: Message) -> Message:
        made.approvals.reject(ONE.digest)
        return telling(message)

    monkeypatch.setattr(InProcess, "answers", staticmethod(rejected))
    assert code_of(lagoon, ONE) == Refusal.UNAPPROVED


def test_each_run_is_answered_by_its_own_bundle_and_a_dead_worker_by_a_new_one(
    lagoon: Lagoon, node: Callable[..., SuperNode]
) -> None:
    made = node()
    InProcess.started.clear()
    made.approvals.approve(made.approvals.offered(OTHER.content, claimed=OTHER.digest))
    for offered in (ONE, ONE, OTHER, ONE):
        assert code_of(lagoon, offered) is None
    assert [worker.digest for worker in InProcess.started] == [
        it.digest for it in (ONE, OTHER, ONE)
    ]
    assert [worker.over for worker in InProcess.started] == [True, True, False]
    InProcess.started[-1].over = True  # it died by itself
    assert code_of(lagoon, ONE) is None
    assert len(InProcess.started) == 4


def test_an_answer_to_another_request_than_was_asked_does_not_leave(
    lagoon: Lagoon, node: Callable[..., SuperNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Message] = []

    def to_another(message: Message) -> Message:
        asked.append(message)
        reply = honest(message)
        reply.metadata.__dict__["_reply_to_message_id"] = "f" * 64
        return reply

    monkeypatch.setattr(InProcess, "answers", staticmethod(to_another))
    node()
    assert code_of(lagoon, ONE) == Refusal.FAILED
    assert asked


def test_a_request_is_written_down_before_code_sees_it_and_an_answer_before_it_leaves(
    lagoon: Lagoon,
    node: Callable[..., SuperNode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, list[str]] = {}

    def looking(message: Message) -> Message:
        told["code"] = [entry.event for entry in entries(tmp_path / "audit.jsonl")]
        return honest(message)

    class Watched(Link):
        def send(self, reply: Message) -> None:
            *_, last = entries(tmp_path / "audit.jsonl")
            told["wire"] = [last.event, str(last.fields["sha256"])]
            told["sent"] = [digest(message_to_proto(reply).SerializeToString())]
            super().send(reply)

    monkeypatch.setattr(InProcess, "answers", staticmethod(looking))
    node(lambda link: Watched(link.stub, link.held, link.node))
    assert code_of(lagoon, ONE) is None
    assert "asked" in told["code"]
    assert "answered" not in told["code"]
    assert told["wire"] == ["answered", *told["sent"]]


def test_an_answer_that_cannot_be_written_down_does_not_leave(
    lagoon: Lagoon, node: Callable[..., SuperNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []

    class Watched(Link):
        def send(self, reply: Message) -> None:
            sent.append(reply)
            super().send(reply)

    add = AuditLog.add

    def full(self: AuditLog, event: str, **fields: Any) -> object:
        if event == "answered":
            raise OSError(28, "No space left on device")
        return add(self, event, **fields)

    monkeypatch.setattr(AuditLog, "add", full)
    node(lambda link: Watched(link.stub, link.held, link.node))
    with lagoon.link.run(ONE, {}) as (grid, _context):
        assert ask(grid, timeout=1.5) == []
    assert sent == []


def test_how_long_an_answer_took_is_not_told() -> None:
    requests: list[PushMessagesRequest] = []

    class Stub:
        """Takes a reply, and wants nothing more of it."""

        def PushMessages(  # noqa: N802 (Flower's name)
            self, request: PushMessagesRequest, timeout: float
        ) -> PushMessagesResponse:
            requests.append(request)
            return PushMessagesResponse()

        def PushObject(self, request: object, timeout: float) -> None:  # noqa: N802
            raise AssertionError("nothing was asked for")

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    question = Message(RecordDict(), 1, "train", ttl=60.0, group_id="1")
    question.metadata.__dict__["_message_id"] = "1"
    link = Link(Stub(), Stub(), Node(node_id=1))  # type: ignore[arg-type]
    link.send(honest(question))
    (request,) = requests
    assert list(request.clientapp_runtime_list) == [0.0]


def activated(
    lagoon: Lagoon,
    signing: ec.EllipticCurvePrivateKey,
    shown: ec.EllipticCurvePublicKey,
    named: ec.EllipticCurvePublicKey,
) -> int:
    """The number of the node that is begun.

    Args:
        lagoon: whose server is asked.
        signing: the key that the call is signed with.
        shown: the public key that is said to be its.
        named: whose node is to begin.
    """
    secrets = grpc.ssl_channel_credentials(lagoon.roots)
    with grpc.secure_channel(lagoon.address, secrets) as raw:
        channel = grpc.intercept_channel(
            raw,
            NodeAuthClientInterceptor(signing, shown),
            RuntimeVersionClientInterceptor(component_name=COMPONENT),
        )
        request = ActivateNodeRequest(public_key=node_public(named), heartbeat_interval=30.0)
        return int(FleetStub(channel).ActivateNode(request, timeout=20.0).node_id)


def test_nobody_begins_as_the_node_of_another_s_key(lagoon: Lagoon) -> None:
    mine = lagoon.keys["a"]
    own, others = mine.public_key(), lagoon.keys["b"].public_key()
    # An honest signature that names another's node; and another's key that signs nothing here.
    for shown in (own, others):
        with pytest.raises(grpc.RpcError) as caught:
            activated(lagoon, mine, shown, others)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert lagoon.link.online() == []
    assert activated(lagoon, mine, own, own) > 0
    assert lagoon.link.online() == ["a"]


def test_a_bundle_that_is_not_the_one_the_run_names_is_not_even_queued(
    lagoon: Lagoon, node: Callable[..., SuperNode]
) -> None:
    class Swapping(Link):
        def bundle(self, digest: str, run: int) -> bytes:
            return OTHER.content

    made = node(lambda link: Swapping(link.stub, link.held, link.node))
    third = bundle(b"3\n")
    assert code_of(lagoon, third) == Refusal.UNAPPROVED
    assert made.approvals.standing(third.digest) == "unknown"
    assert made.approvals.standing(OTHER.digest) == "unknown"


def test_a_node_whose_signs_of_life_are_refused_is_told_that_it_is_lost(
    lagoon: Lagoon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.link.HEARTBEAT", 0.05)
    lost = threading.Event()
    with linked(lagoon.address, roots=lagoon.roots, key=lagoon.keys["a"], lost=lost.set):
        assert not lost.wait(0.5)
        lagoon.evicted.add("a")
        assert lost.wait(20.0)
