from __future__ import annotations

import importlib
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from clients import membership
from clients.membership import (
    Membership,
    evictions_of,
    exchange_checkpoint,
    home_of,
    join,
    load,
)
from server import authority
from server.enrolment import Enrolment
from shared import enrolment as wire
from shared.audit_log import AuditLog
from shared.channel import ask
from shared.checkpoints import Checkpoints
from shared.errors import AtollError, ConfigError, IdentityError
from shared.evictions import Eviction
from shared.signing import private_pem, public_of, signing_key, write_private
from shared.token import Token

if TYPE_CHECKING:
    from tests.clients.conftest import Coordinator


def beside(platform: Path) -> list[str]:
    return sorted(it.name for it in platform.parent.iterdir())


def test_joining_makes_a_home_beside_the_platforms_file(
    coordinator: Coordinator, platform: Path, member: Membership
) -> None:
    home = platform.parent / "shop.atoll"
    assert (member.home, home) == (home, home_of(platform, "shop"))
    assert (member.server, member.name) == (coordinator.server, "shop")
    assert (member.platform, member.health) == (platform, "127.0.0.1:9094")
    assert member.coordinator == coordinator.key
    assert member.roots() == authority.ca_bundle(coordinator.home)
    assert load(home) == member
    assert sorted(it.name for it in home.iterdir()) == [
        "ca.pem",
        "client.toml",
        "coordinator.pub",
        "node.key",
        "signing.key",
    ]


def test_keys_are_for_their_owner_alone(member: Membership) -> None:
    for name in ("node.key", "signing.key"):
        assert stat.S_IMODE((member.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(member.home.stat().st_mode) == 0o700


def test_the_coordinator_knows_the_node_as_flower_will_show_it(
    coordinator: Coordinator, member: Membership
) -> None:
    flower = importlib.import_module(
        "flwr.supercore.primitives.asymmetric"
    )  # of its pinned version
    sent = flower.public_key_to_bytes(member.node_key().public_key())
    found = coordinator.store.admitted(sent)
    assert found is not None
    assert found.signing_key == public_of(member.signing_key())


def test_a_private_key_never_leaves(
    coordinator: Coordinator, platform: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[bytes] = []

    def listen(server: str, method: str, request: bytes, *, roots: bytes) -> bytes:
        sent.append(request)
        return ask(server, method, request, roots=roots)

    monkeypatch.setattr(wire, "ask", listen)
    member = join(coordinator.token(), coordinator.server, platform_file=platform)
    exchange_checkpoint(member, AuditLog(tmp_path / "audit.jsonl"))
    assert len(sent) == 2
    scalar = member.node_key().private_numbers().private_value.to_bytes(48, "big")
    for secret in (scalar, member.signing_key().private_bytes_raw()):
        assert not any(secret in it or secret.hex().encode() in it for it in sent)
    for name in ("node.key", "signing.key"):
        for line in (member.home / name).read_bytes().splitlines()[1:-1]:
            assert not any(line in request for request in sent)


def test_a_token_works_once_and_a_refusal_leaves_nothing(
    coordinator: Coordinator, platform: Path
) -> None:
    token = coordinator.token()
    before = beside(platform)
    join(token, coordinator.server, platform_file=platform, home=platform.parent / "one")
    with pytest.raises(IdentityError, match="the token was used already"):
        join(token, coordinator.server, platform_file=platform)
    assert beside(platform) == sorted([*before, "one"])


@pytest.mark.parametrize(
    "fault", ["foreign", "expired", "altered", "of another CA", "nobody there"]
)
def test_after_a_refusal_nothing_is_left_and_joining_again_works(
    fault: str, coordinator: Coordinator, platform: Path, tmp_path: Path
) -> None:
    token, server = coordinator.token(), coordinator.server
    if fault == "foreign":
        token = replace(token, secret=bytes(16))
    elif fault == "expired":
        late = Enrolment(coordinator.home / "platforms.sqlite", clock=lambda: time.time() - 601)
        token = replace(token, secret=late.invite("shop"))
    elif fault == "altered":
        token = Token.read(str(replace(token, secret=token.secret[::-1])))
    elif fault == "of another CA":
        (tmp_path / "other").mkdir()
        authority.create(tmp_path / "other", hosts=["127.0.0.1"], name="coordinator")
        token = replace(token, ca=authority.issuer(tmp_path / "other").public_bytes(Encoding.DER))
    else:
        server = "127.0.0.1:1"
    before = beside(platform)
    with pytest.raises(AtollError):
        join(token, server, platform_file=platform)
    assert beside(platform) == before
    assert coordinator.store.platforms() == []
    join(coordinator.token(), coordinator.server, platform_file=platform)


def test_the_token_is_sent_to_no_server_of_another_ca(
    coordinator: Coordinator, platform: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    authority.create(tmp_path / "other", hosts=["127.0.0.1"], name="coordinator")
    token = coordinator.token(ca=authority.issuer(tmp_path / "other").public_bytes(Encoding.DER))
    with pytest.raises(IdentityError, match="is not by the coordinator that is trusted here"):
        join(token, coordinator.server, platform_file=platform)
    # Had it come there, it would be used now: it is good.
    good = replace(token, ca=authority.issuer(coordinator.home).public_bytes(Encoding.DER))
    join(good, coordinator.server, platform_file=platform)


def test_a_server_under_another_name_than_its_certificates_is_refused(
    coordinator: Coordinator, platform: Path
) -> None:
    port = coordinator.server.rpartition(":")[2]
    before = beside(platform)
    with pytest.raises(IdentityError, match="the certificate there is for other hosts"):
        join(coordinator.token(), f"localhost:{port}", platform_file=platform)
    assert beside(platform) == before
    authority.rotate_server(coordinator.home, also=["localhost"])  # while it runs
    join(coordinator.token(), f"localhost:{port}", platform_file=platform)


def test_a_home_that_is_there_is_left_alone(
    coordinator: Coordinator, platform: Path, member: Membership
) -> None:
    before = {it: it.read_bytes() for it in member.home.iterdir()}
    with pytest.raises(ConfigError, match=r"shop\.atoll: is there already; move it away"):
        join(Token(bytes(16), 0, b""), coordinator.server, platform_file=platform)
    assert {it: it.read_bytes() for it in member.home.iterdir()} == before


def test_a_folder_without_membership_is_told(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="has not joined; join with a token"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["ca.pem", "node.key", "signing.key", "coordinator.pub"])
@pytest.mark.parametrize("spoil", ["missing", "damaged"])
def test_a_damaged_home_is_told(name: str, spoil: str, member: Membership) -> None:
    path = member.home / name
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(b"damaged")

    def use() -> None:
        found = load(member.home)
        found.roots(), found.node_key(), found.signing_key()

    with pytest.raises(IdentityError, match=name.replace(".", r"\.")):
        use()


def test_a_node_key_of_another_curve_or_kind_is_no_key(member: Membership) -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), member.signing_key()):
        write_private(member.home / "node.key", private_pem(key))
        with pytest.raises(IdentityError, match="no P-384 key"):
            member.node_key()


def test_both_sides_keep_the_others_checkpoint(
    coordinator: Coordinator, member: Membership
) -> None:
    audit = AuditLog(member.home / "audit.jsonl")
    audit.add("joined")
    assert exchange_checkpoint(member, audit) is False
    (theirs,) = Checkpoints(member.home / "checkpoints").of("coordinator")
    theirs.check(member.coordinator)
    (ours,) = Checkpoints(coordinator.home / "checkpoints").of("shop")
    assert ours.count == 1


def test_a_coordinator_that_no_longer_trusts_the_tokens_ca_is_not_joined(
    coordinator: Coordinator, platform: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    authority.create(tmp_path / "other", hosts=["127.0.0.1"], name="coordinator")
    other, token, before = (
        authority.ca_bundle(tmp_path / "other"),
        coordinator.token(),
        beside(platform),
    )
    monkeypatch.setattr(authority, "ca_bundle", lambda _home: other)
    with pytest.raises(IdentityError, match="no longer trusts the CA of the token"):
        join(token, coordinator.server, platform_file=platform)
    assert beside(platform) == before


def test_cas_that_the_coordinator_did_not_sign_are_not_joined(
    coordinator: Coordinator, platform: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, before = coordinator.token(), beside(platform)
    monkeypatch.setattr("server.enrolment_service.sign", lambda *_words: "0" * 128)
    with pytest.raises(IdentityError, match="the ca signature does not hold"):
        join(token, coordinator.server, platform_file=platform)
    assert beside(platform) == before


def test_a_coordinator_that_has_forgotten_an_eviction_is_told(
    coordinator: Coordinator, member: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing_key(coordinator.home / "signing.key")
    eviction = Eviction("bazaar", "a" * 64, 1.0).signed(key)
    evictions_of(member).keep([eviction], member.coordinator)
    sent: list[tuple[object, list[Eviction]]] = []

    def ask(*words: Any, held: Any = None, evictions: Any = (), **more: Any) -> Any:
        sent.append((held, list(evictions)))
        return asked(*words, held=held, evictions=evictions, **more)

    asked = membership.ask
    monkeypatch.setattr(membership, "ask", ask)
    audit = AuditLog(member.home / "audit.jsonl")
    exchange_checkpoint(member, audit)
    exchange_checkpoint(member, audit)
    kept = Checkpoints(member.home / "checkpoints").of("coordinator")
    assert [evictions for _, evictions in sent] == [[], [eviction], [], [eviction]]
    assert [held for held, _ in sent] == [None, None, kept[0], kept[0]]
