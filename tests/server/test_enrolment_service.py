from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from server import authority
from server.enrolment import Enrolment
from server.enrolment_service import ALL_FAILURES, FAILURES, Attempts, handlers
from shared import enrolment as wire
from shared.audit_log import AuditLog, entries
from shared.channel import ask
from shared.checkpoints import Checkpoint, Checkpoints
from shared.enrolment import CheckpointReply, packed
from shared.errors import AtollError, IdentityError
from shared.signing import public_of, signing_key
from shared.token import Token
from shared.trust import fingerprint

if TYPE_CHECKING:
    from tests.server.conftest import Clock, Keys, MakeKeys


@dataclass
class Port:
    """A coordinator on a port of its own."""

    home: Path
    store: Enrolment
    clock: Clock
    address: str = ""

    @property
    def roots(self) -> bytes:
        return authority.ca_bundle(self.home)

    def token(self, name: str = "shop", seconds: int = 600) -> Token:
        issuer = authority.issuer(self.home).public_bytes(Encoding.DER)
        secret = self.store.invite(name, seconds=seconds)
        return Token(secret, int(self.clock.now) + seconds, issuer)

    def joined(self, keys: Keys, name: str = "shop") -> wire.JoinReply:
        token = self.token(name)
        return wire.join(self.address, token, keys.request(token.secret, name))

    def exchange(
        self, keys: Keys, checkpoint: Checkpoint | None, *, off: float = 0.0, ca: str = "0" * 64
    ) -> CheckpointReply:
        return wire.exchange(
            self.address,
            checkpoint.as_dict() if checkpoint else None,
            platform="shop",
            signing=keys.signing,
            roots=self.roots,
            ca=ca,
            now=self.clock.now + off,
        )

    def events(self) -> list[str]:
        path = self.home / "audit.jsonl"
        return [it.event for it in entries(path)] if path.exists() else []


@pytest.fixture
def port(tmp_path: Path, clock: Clock) -> Iterator[Port]:
    home = tmp_path / "server"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="coordinator")
    key, audit = signing_key(home / "signing.key"), AuditLog(home / "audit.jsonl")
    made = Port(home, Enrolment(home / "platforms.sqlite", clock=clock), clock)
    service = handlers(
        made.store,
        key=key,
        checkpoint=lambda: audit.checkpoint(key),
        keep=Checkpoints(home / "checkpoints").keep,
        ca_bundle=lambda: authority.ca_bundle(home),
        audit=audit,
        clock=clock,
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((service,))
    secrets = grpc.ssl_server_credentials([authority.credentials(home)])
    made.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', secrets)}"
    server.start()
    yield made
    server.stop(0).wait()


def test_a_platform_joins_and_is_told_whom_it_joined(port: Port, make_keys: MakeKeys) -> None:
    keys = make_keys()
    reply = port.joined(keys)
    assert reply.coordinator == public_of(signing_key(port.home / "signing.key"))
    assert reply.ca.encode() == port.roots
    assert port.store.admitted(keys.node_key) is not None
    assert port.events() == ["joined"]


def test_a_refusal_crosses_as_one_line_without_a_path(port: Port, make_keys: MakeKeys) -> None:
    token = port.token()
    with pytest.raises(IdentityError) as told:
        wire.join(port.address, token, make_keys().request(bytes(16)))
    assert str(told.value) == (
        f"{port.address}: the token is unknown, or a newer one has taken its place;"
        " ask the coordinator for a new one"
    )
    assert port.store.platforms() == []
    assert port.events() == ["join refused"]


def test_a_fault_of_the_coordinator_crosses_without_its_cause(
    port: Port, make_keys: MakeKeys
) -> None:
    token = port.token()
    (port.home / "ca.pem").rename(port.home / "gone")
    with pytest.raises(IdentityError) as told:
        wire.join(port.address, token, make_keys().request(token.secret))
    assert str(port.home) not in str(told.value)
    assert "the coordinator cannot answer" in str(told.value)
    assert port.store.platforms() == []


def test_nobody_is_in_of_whom_the_audit_log_does_not_tell(port: Port, make_keys: MakeKeys) -> None:
    (port.home / "audit.jsonl").mkdir()
    token = port.token()
    with pytest.raises(IdentityError, match="cannot"):
        wire.join(port.address, token, make_keys().request(token.secret))
    assert port.store.named("shop") is None


def test_after_many_wrong_tokens_others_are_refused_for_a_minute_and_a_valid_one_never(
    port: Port, make_keys: MakeKeys
) -> None:
    token, keys = port.token(), make_keys()
    for _ in range(FAILURES):
        with pytest.raises(IdentityError, match="the token is unknown"):
            wire.join(port.address, token, keys.request(bytes(16)))
    for _ in range(2):
        with pytest.raises(IdentityError, match="too many joins failed; try again in a minute"):
            wire.join(port.address, token, keys.request(bytes(16)))
    wire.join(port.address, token, keys.request(token.secret))
    port.clock.now += 60
    with pytest.raises(IdentityError, match="the token is unknown"):
        wire.join(port.address, token, keys.request(bytes(16)))


def test_nonsense_from_many_addresses_does_not_keep_a_valid_token_out(
    clock: Clock, tmp_path: Path, make_keys: MakeKeys
) -> None:
    attempts = Attempts(clock)
    for address in range(ALL_FAILURES):
        attempts.check(f"10.0.0.{address}")
        attempts.failed(f"10.0.0.{address}")
    with pytest.raises(IdentityError, match="too many joins failed"):
        attempts.check("10.9.9.9")  # the limit of all addresses, for who has no valid token


def test_one_who_tries_wrong_tokens_for_hours_adds_a_line_an_hour(
    port: Port, make_keys: MakeKeys
) -> None:
    keys, hours = make_keys(), 3
    token = port.token(seconds=hours * 3600)
    for _ in range(hours):
        for _ in range(5):
            with pytest.raises(IdentityError, match="the token is unknown"):
                wire.join(port.address, token, keys.request(bytes(16)))
        port.clock.now += 3600
    told = [it.fields["why"] for it in entries(port.home / "audit.jsonl")]
    assert len(told) == hours
    assert str(told[-1]).endswith("; 4 times more in the hour before")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"token": 1}'])
@pytest.mark.parametrize("method", [wire.JOIN, wire.CHECKPOINT])
def test_nonsense_is_refused_in_one_line(method: str, content: bytes, port: Port) -> None:
    with pytest.raises(IdentityError, match="of this version; use the same Atoll version"):
        ask(port.address, method, content, roots=port.roots)
    assert port.store.platforms() == []


def test_both_sides_hold_what_the_others_log_stood_at(
    port: Port, tmp_path: Path, make_keys: MakeKeys
) -> None:
    keys = make_keys()
    reply = port.joined(keys)
    own = AuditLog(tmp_path / "audit.jsonl", clock=port.clock)
    own.add("joined")
    sent = own.checkpoint(keys.signing)
    told = Checkpoint.from_dict(port.exchange(keys, sent, ca="7" * 64).checkpoint or {})
    told.check(reply.coordinator)
    assert told.count == 1
    assert Checkpoints(port.home / "checkpoints").of("shop") == [sent]
    (member,) = port.store.platforms()
    assert (member.last_seen, member.ca_seen) == (port.clock.now, "7" * 64)


def test_a_log_that_went_back_is_told_to_its_owner(
    port: Port, tmp_path: Path, make_keys: MakeKeys
) -> None:
    keys = make_keys()
    port.joined(keys)
    own = AuditLog(tmp_path / "audit.jsonl", clock=port.clock)
    own.add("one")
    early = own.checkpoint(keys.signing)
    own.add("two")
    port.exchange(keys, own.checkpoint(keys.signing))
    with pytest.raises(IdentityError, match="went back"):
        port.exchange(keys, early)


@pytest.mark.parametrize(
    ("off", "told"), [(61.0, "61 s ahead of"), (-75.0, "75 s behind"), (1e300, " s ahead of")]
)
def test_a_clock_that_is_off_is_refused_with_how_much(
    off: float, told: str, port: Port, make_keys: MakeKeys
) -> None:
    keys = make_keys()
    port.joined(keys)
    with pytest.raises(
        IdentityError, match=rf"clock is .*{told} the coordinator's, more than 60 s"
    ):
        port.exchange(keys, None, off=off)
    port.exchange(keys, None, off=59.0)


def test_a_checkpoint_needs_the_key_of_an_admitted_platform(
    port: Port, make_keys: MakeKeys
) -> None:
    keys = make_keys()
    with pytest.raises(IdentityError, match="no platform 'shop' is enrolled here"):
        port.exchange(keys, None)
    port.joined(keys)
    with pytest.raises(IdentityError, match="the exchange signature does not hold"):
        port.exchange(make_keys(), None)
    port.exchange(keys, None)
    port.store.evict("shop")
    with pytest.raises(IdentityError, match="or it was evicted"):
        port.exchange(keys, None)


def test_a_request_that_was_changed_on_the_way_is_refused(port: Port, make_keys: MakeKeys) -> None:
    keys = make_keys()
    port.joined(keys)
    seen: list[bytes] = []

    def catch(server: str, method: str, request: bytes, *, roots: bytes) -> bytes:
        seen.append(request)
        return ask(server, method, request, roots=roots)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.enrolment.ask", catch)
        port.exchange(keys, None)
    told = json.loads(seen[0]) | {"ca": "1" * 64}
    with pytest.raises(IdentityError, match="signature does not hold"):
        ask(port.address, wire.CHECKPOINT, json.dumps(told).encode(), roots=port.roots)


def test_a_certificate_of_another_ca_is_refused_before_anything_is_sent(
    port: Port, tmp_path: Path, make_keys: MakeKeys
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    authority.create(other, hosts=["127.0.0.1"], name="coordinator")
    foreign = Token(bytes(16), 0, authority.issuer(other).public_bytes(Encoding.DER))
    with pytest.raises(IdentityError, match="is not by the coordinator that is trusted here"):
        wire.join(port.address, foreign, make_keys().request(bytes(16)))
    assert port.events() == []  # it would tell of a token that is unknown


def test_hello_tells_the_coordinators_clock_and_nothing_else(port: Port) -> None:
    assert wire.hello(port.address, roots=port.roots) == port.clock.now
    answer = ask(port.address, wire.HELLO, b"{}", roots=port.roots)
    assert list(json.loads(answer)) == ["now"]


def test_nobody_there_is_told(port: Port) -> None:
    with pytest.raises(AtollError, match="nobody answers there"):
        wire.hello("127.0.0.1:1", roots=port.roots)


def test_a_signed_bundle_is_the_servers_own(port: Port, make_keys: MakeKeys) -> None:
    keys = make_keys()
    port.joined(keys)
    authority.rotate_ca(port.home)
    reply = port.exchange(keys, None)
    assert fingerprint(reply.ca.encode()) == fingerprint(port.roots)
    assert packed(reply)
