"""How many joins may fail, from one address and from all of them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from server import authority
from server.enrolment import Enrolment
from server.enrolment_service import ALL_FAILURES, FAILED, FAILURES, handlers
from shared.audit_log import AuditLog
from shared.channel import REQUEST
from shared.checkpoints import Checkpoints
from shared.enrolment import JOIN, packed
from shared.signing import signing_key

if TYPE_CHECKING:
    from tests.server.conftest import Clock, MakeKeys

UNKNOWN, TOO_MANY = "the token is unknown", "too many joins failed"


class Aborted(Exception):  # noqa: N818 (what gRPC does to a call, not a fault)
    """A call that the service has ended."""


@dataclass
class Call:
    """The context of one call, from an address of the test's own."""

    address: str
    details: str = ""
    request: bytes = b""
    code: grpc.StatusCode | None = None

    def peer(self) -> str:
        return f"ipv4:{self.address}:50000"

    def invocation_metadata(self) -> list[tuple[str, bytes]]:
        return [(REQUEST, self.request)]

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = code, details
        raise Aborted


@dataclass
class Details:
    """Of a call, as gRPC tells a handler."""

    method: str
    invocation_metadata: tuple[()] = ()


def answer_to(service: Any) -> Callable[[bytes, Call], bytes]:
    """What answers a join whose request is in the headers of the call."""
    handler = service.service(Details(JOIN)).stream_unary

    def answer(request: bytes, call: Call) -> bytes:
        call.request = request
        return bytes(handler(iter(()), call))

    return answer


Refusal = Callable[[str], str]


def of_service(home: Path, store: Enrolment, clock: Clock, ca_bundle: Callable[[], bytes]) -> Any:
    """What answers a join."""
    key, audit = signing_key(home / "signing.key"), AuditLog(home / "audit.jsonl")
    service = handlers(
        store,
        key=key,
        checkpoint=lambda: audit.checkpoint(key),
        keep=Checkpoints(home / "checkpoints").keep,
        ca_bundle=ca_bundle,
        audit=audit,
        clock=clock,
    )
    return answer_to(service)


@pytest.fixture
def refusal(tmp_path: Path, clock: Clock, make_keys: MakeKeys) -> Refusal:
    """With what words a join with a token that is none is refused, from an address."""
    authority.create(tmp_path, hosts=["127.0.0.1"], name="coordinator")
    store = Enrolment(tmp_path / "platforms.sqlite", clock=clock)
    answer = of_service(tmp_path, store, clock, lambda: authority.ca_bundle(tmp_path))
    content = packed(make_keys().request(bytes(16)))

    def join(address: str) -> str:
        call = Call(address)
        with pytest.raises(Aborted):
            answer(content, call)
        assert call.code == grpc.StatusCode.PERMISSION_DENIED
        return call.details

    return join


def test_who_fails_often_is_refused_for_a_minute_and_others_are_not(
    refusal: Refusal, clock: Clock
) -> None:
    clock.now = 1_800_000_000.0 - 1_800_000_000.0 % 60  # a minute begins
    assert all(UNKNOWN in refusal("10.0.0.1") for _ in range(FAILURES))
    assert TOO_MANY in refusal("10.0.0.1")
    assert UNKNOWN in refusal("10.0.0.2")
    clock.now += 59.0
    assert TOO_MANY in refusal("10.0.0.1")
    clock.now += 1.0
    assert UNKNOWN in refusal("10.0.0.1")


def test_many_addresses_together_fail_no_more_often_than_is_allowed_to_all(
    refusal: Refusal, clock: Clock
) -> None:
    few = FAILURES // 2  # of each address: none of them reaches its own limit
    for number in range(ALL_FAILURES):
        assert UNKNOWN in refusal(f"10.0.1.{number // few}")
    assert TOO_MANY in refusal("10.0.2.1")
    assert TOO_MANY in refusal("10.0.1.0")
    clock.now += 60.0
    assert UNKNOWN in refusal("10.0.2.1")


@pytest.mark.parametrize("fault", [RuntimeError, OSError, KeyError])
def test_whatever_fails_here_crosses_without_a_word_of_it(
    fault: type[Exception], tmp_path: Path, clock: Clock, make_keys: MakeKeys
) -> None:
    def failing() -> bytes:
        raise fault(f"{tmp_path}/server.key is missing")

    store = Enrolment(tmp_path / "platforms.sqlite", clock=clock)
    content, call = packed(make_keys().request(store.invite("shop"))), Call("10.0.0.1")
    with pytest.raises(Aborted):
        of_service(tmp_path, store, clock, failing)(content, call)
    assert (call.code, call.details) == (grpc.StatusCode.INTERNAL, FAILED)
    assert store.platforms() == []
