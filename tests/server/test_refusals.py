from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.enrolment import Enrolment
from server.refusals import MOST, Refusals, TurnedAway, host_of
from shared.audit_log import AuditLog, entries

if TYPE_CHECKING:
    from tests.server.conftest import Clock, MakeKeys


def test_the_same_refusal_is_told_once_an_hour_with_how_often_it_came(clock: Clock) -> None:
    refusals = Refusals(clock=clock)
    told = [refusals.told("10.0.0.1", "kiosk") for _ in range(1000)]
    assert (told[0], set(told[1:])) == ("", {None})
    assert refusals.told("10.0.0.2", "kiosk") == ""
    clock.now += 3600
    assert refusals.told("10.0.0.1", "kiosk") == "; 999 times more in the hour before"
    assert refusals.told("10.0.0.2", "kiosk") == ""
    clock.now += 7200
    assert refusals.told("10.0.0.1", "kiosk") == ""


def test_however_many_are_refused_an_hour_has_so_many_lines(clock: Clock) -> None:
    refusals = Refusals(clock=clock)
    told = [refusals.told(f"2001:db8::{number:x}") for number in range(5000)]
    lines = [it for it in told if it is not None]
    assert len(lines) == MOST
    assert lines[-1] == f"; others are not told of before the next hour, {MOST} were"
    clock.now += 3600
    assert refusals.told("2001:db8::ffff") == ""


def test_who_is_turned_away_is_named_by_its_key_and_its_address_in_both_logs(
    tmp_path: Path, make_keys: MakeKeys, caplog: pytest.LogCaptureFixture
) -> None:
    store, audit = Enrolment(tmp_path / "platforms.sqlite"), AuditLog(tmp_path / "audit.jsonl")
    keys = make_keys()
    store.admit(keys.request(store.invite("shop")))
    store.evict("shop")
    turned = TurnedAway(store, audit)
    for _ in range(50):
        turned("PullMessages", "10.0.0.1", keys.node_key)
        turned("ActivateNode", "10.0.0.2", b"")
    assert [it.getMessage() for it in caplog.records] == [
        "turned away at PullMessages: 10.0.0.1 with the key of evicted shop",
        "turned away at ActivateNode: 10.0.0.2 with a key that nobody enrolled",
    ]
    evicted, stranger = entries(audit.path)
    assert evicted.event == stranger.event == "turned away"
    assert (evicted.fields["peer"], evicted.fields["platform"]) == ("10.0.0.1", "evicted shop")
    assert (stranger.fields["peer"], stranger.fields["platform"]) == ("10.0.0.2", "")


def test_a_full_disk_is_no_reason_to_fail_over_who_is_turned_away(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    turned = TurnedAway(Enrolment(tmp_path / "p.sqlite"), AuditLog(tmp_path / "audit.jsonl"))
    turned("PullMessages", "10.0.0.1", b"")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:[::1]:5000", "[::1]"),
        ("ipv6:%5B::1%5D:5000", "[::1]"),
        ("ipv4:10.0.0.1%0Aforged:5000", "10.0.0.1 forged"),
        ("", "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_an_address_is_told_without_its_port(peer: str, host: str) -> None:
    assert host_of(peer) == host
