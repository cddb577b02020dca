from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clients.membership import Membership, exchange_checkpoint, join, renew
from server import authority
from shared import enrolment as wire
from shared.audit_log import AuditLog
from shared.errors import IdentityError
from shared.signing import sign, signing_key
from shared.trust import authorities, fingerprint, pem

if TYPE_CHECKING:
    from tests.clients.conftest import Coordinator


def test_an_evicted_platform_is_told_so(coordinator: Coordinator, member: Membership) -> None:
    coordinator.store.evict("shop")
    with pytest.raises(IdentityError, match="or it was evicted"):
        exchange_checkpoint(member, AuditLog(member.home / "audit.jsonl"))


def test_a_rotated_server_certificate_changes_nothing_for_a_platform(
    coordinator: Coordinator, member: Membership
) -> None:
    audit = AuditLog(member.home / "audit.jsonl")
    authority.rotate_server(coordinator.home)
    assert exchange_checkpoint(member, audit) is False


def test_a_platform_follows_a_ca_that_is_rotated(
    coordinator: Coordinator, member: Membership
) -> None:
    audit = AuditLog(member.home / "audit.jsonl")
    for turn in (authority.rotate_ca, authority.finish_ca):
        turn(coordinator.home)
        assert exchange_checkpoint(member, audit) is True
        assert member.roots() == authority.ca_bundle(coordinator.home)
        assert exchange_checkpoint(member, audit) is False  # and with this, the coordinator knows
        (known,) = coordinator.store.platforms()
        assert known.ca_seen == fingerprint(member.roots())


def test_a_platform_that_slept_through_a_rotation_meets_no_server_it_trusts(
    coordinator: Coordinator, member: Membership
) -> None:
    authority.rotate_ca(coordinator.home)
    authority.finish_ca(coordinator.home)
    with pytest.raises(IdentityError, match="is not by the coordinator that is trusted here"):
        exchange_checkpoint(member, AuditLog(member.home / "audit.jsonl"))


def offer(coordinator: Coordinator, bundle: bytes, *, signature: str = "") -> wire.CheckpointReply:
    key = signing_key(coordinator.home / "signing.key")
    return wire.CheckpointReply(
        checkpoint=None,
        now=0.0,
        server="0",
        ca=bundle.decode(),
        ca_signature=signature or sign(key, "ca", bundle),
    )


def test_an_altered_or_older_bundle_of_cas_is_refused(
    coordinator: Coordinator, member: Membership, tmp_path: Path
) -> None:
    old = member.roots()
    authority.rotate_ca(coordinator.home)
    both = authority.ca_bundle(coordinator.home)
    (tmp_path / "other").mkdir()
    authority.create(tmp_path / "other", hosts=["x"], name="coordinator")
    foreign = authority.ca_bundle(tmp_path / "other")
    good = offer(coordinator, both)
    key = signing_key(coordinator.home / "signing.key")
    for bundle, signature in (
        (both + foreign, good.ca_signature),
        (foreign, good.ca_signature),
        (both, sign(key, "checkpoint", both)),
        (both, sign(member.signing_key(), "ca", both)),
    ):
        with pytest.raises(IdentityError, match="the ca signature does not hold"):
            renew(member, offer(coordinator, bundle, signature=signature))
        assert member.roots() == old
    assert renew(member, good) is True
    for bundle in (old, pem(authorities(both)[::-1])):
        with pytest.raises(IdentityError, match="no newer than those trusted here"):
            renew(member, offer(coordinator, bundle))
    with pytest.raises(IdentityError, match="holds no certificates"):
        renew(member, offer(coordinator, b"none"))
    assert member.roots() == both


def test_a_platform_may_join_while_a_ca_is_rotated(
    coordinator: Coordinator, platform: Path
) -> None:
    authority.rotate_ca(coordinator.home)
    member = join(coordinator.token(), coordinator.server, platform_file=platform)
    authority.finish_ca(coordinator.home)
    assert exchange_checkpoint(member, AuditLog(member.home / "audit.jsonl")) is True
