from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients.ledger import Asked, Ledger, entries
from shared.signing import digest
from simulations.benchmarks.ledger import PHASES, PLAN, Site, compare, measure

ASKED = Asked("update", "run", 1, "adapter")


def test_a_platform_that_is_killed_at_any_moment_never_counts_too_little() -> None:
    told: list[tuple[str, int, int]] = []
    found = measure(kills=40, seed=0, progress=lambda *step: told.append(step))
    assert found["kills"] == 40
    assert found["under_counts"] == 0
    assert found["max_over_count"] <= 1
    assert list(found["phases"]) == list(PHASES)
    assert sum(found["phases"].values()) == 40
    assert told[-1] == ("killing a platform", 40, 40)
    json.dumps(found)


def test_a_ledger_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(ledger: Ledger, number: int, payload: bytes) -> None:
        ledger.abandon(number)  # a child is forked, so it has this one too

    monkeypatch.setattr(Ledger, "release", forget)
    assert measure(kills=10, seed=0)["under_counts"] > 0


def test_releases_that_never_leave_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "answered", lambda ledger, asked: None)  # so it trains anew
    monkeypatch.setattr(Site, "send", lambda site, payload: None)
    monkeypatch.setattr("simulations.benchmarks.ledger.PATIENCE", 0.1)
    assert measure(kills=5, seed=0)["max_over_count"] > 1


def test_a_child_that_fails_by_itself_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ledger: Ledger, asked: Asked) -> bytes:
        raise ZeroDivisionError("of its own making")

    monkeypatch.setattr(Ledger, "answered", broken)
    monkeypatch.setattr("simulations.benchmarks.ledger.PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match="of its own making"):
        measure(kills=1, seed=0)


def test_counts_follow_from_the_entries_and_the_wire(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    with Ledger.open(site.policy, noise="simulated") as ledger:
        assert compare(entries(site.policy), []) == (set(), 0)
        number = ledger.reserve(ASKED, PLAN.charge)
        assert compare(entries(site.policy), []) == (set(), 1)
        ledger.release(number, b"sent")
        assert compare(entries(site.policy), []) == (set(), 1)
        site.send(b"sent")
        assert site.left() == [digest(b"sent")]
        assert compare(entries(site.policy), site.left()) == (set(), 0)
        site.send(b"smuggled")
        assert compare(entries(site.policy), site.left()) == ({digest(b"smuggled")}, 0)
        ledger.abandon(ledger.reserve(ASKED, PLAN.charge))
        assert compare(entries(site.policy), [digest(b"sent")]) == (set(), 0)
