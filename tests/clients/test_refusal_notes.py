"""What a platform writes down at home of requests that it refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients import egress
from shared.errors import PlanError
from shared.tables.policy import Policy

SECRET = "shopper-4711"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    ledger, head, key = (tmp_path / f"shop.{name}" for name in ("ledger", "head", "key"))
    return Policy(plan=None, dataset="shop", ledger=ledger, head=head, key=key)


def test_a_note_has_the_words_of_an_error_of_ours_and_of_any_other_its_kind_alone(
    policy: Policy,
) -> None:
    egress.note(policy, "train", PlanError("asks for too much", todo="ask for less"))
    egress.note(policy, "evaluate", KeyError(SECRET))
    ours, other = egress.notes(policy)
    assert (ours["asked"], ours["refused"]) == ("train", "policy")
    assert ours["why"] == "asks for too much; ask for less"
    assert (other["asked"], other["refused"], other["why"]) == ("evaluate", "failed", "KeyError")
    assert SECRET not in policy.refused.read_text()


def test_notes_stop_at_a_size(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "NOTES", 1000)
    for _ in range(100):
        egress.note(policy, "train", PlanError("asks for too much", todo="ask for less"))
    assert 1000 <= policy.refused.stat().st_size < 1300


def test_a_note_that_cannot_be_written_is_lost_and_nothing_else(policy: Policy) -> None:
    policy.refused.mkdir()
    egress.note(policy, "train", PlanError("asks for too much", todo="ask for less"))
    assert egress.notes(policy) == []
