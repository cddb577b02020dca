from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clients.ledger import Asked, Ledger, entries
from shared.accounting import Charge
from shared.errors import LedgerError
from shared.plan import Plan
from shared.signing import digest
from shared.tables.policy import Policy

ROUND = Charge(100.0)
PLAN = Plan(
    clip=1.0,
    noise_multiplier=100.0,
    sampling_rate=1.0,
    steps=1,
    expected_batch=10.0,
    epsilon=0.1,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=10.0,
)
YEAR = 365 * 24 * 3600.0
TODAY = 1_800_000_000.0  # a day of 2027


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    ledger, head, key = (tmp_path / f"shop.{name}" for name in ("ledger", "head", "key"))
    return Policy(plan=PLAN, dataset="shop", ledger=ledger, head=head, key=key)


def take(policy: Policy, number: int, now: float = TODAY) -> None:
    with Ledger.open(policy, noise="secure", clock=lambda: now) as ledger:
        asked = Asked("update", "run", number, "adapter")
        ledger.release(ledger.reserve(asked, ROUND), b"update")


def test_a_clock_that_was_ahead_once_does_not_lock_the_ledger(policy: Policy) -> None:
    take(policy, 1, now=TODAY + 10 * YEAR)
    take(policy, 2)
    take(policy, 3, now=TODAY + 60)
    assert [entry.time for entry in entries(policy)][2:] == [TODAY] * 2 + [TODAY + 60] * 2


@pytest.mark.parametrize("now", [TODAY - 1800, 0.0, float("nan"), float("-inf"), float("inf")])
def test_a_clock_that_is_set_back_a_little_or_beyond_belief_is_refused(
    policy: Policy, now: float
) -> None:
    take(policy, 1)
    with pytest.raises(LedgerError, match="set the clock right"):
        take(policy, 2, now=now)


def test_a_head_that_is_a_link_stays_one_and_the_file_it_leads_to_is_written(
    policy: Policy, tmp_path: Path
) -> None:
    disk = tmp_path / "other disk"
    disk.mkdir()
    policy.head.symlink_to(disk / "shop.head")
    take(policy, 1)
    first = (disk / "shop.head").read_bytes()
    take(policy, 2)
    assert policy.head.is_symlink()
    assert (disk / "shop.head").read_bytes() != first
    assert sorted(path.name for path in disk.iterdir()) == ["shop.head"]
    assert len(entries(replace(policy, head=disk / "shop.head"))) == 4


def test_a_head_that_leads_nowhere_is_told_in_one_line(policy: Policy, tmp_path: Path) -> None:
    policy.head.symlink_to(tmp_path / "not mounted" / "shop.head")
    with pytest.raises(LedgerError, match=r"cannot be read or written \(No such file"):
        take(policy, 1)
    policy.head.unlink()
    policy.head.symlink_to(policy.head)
    with pytest.raises(LedgerError, match="symbolic links") as caught:
        take(policy, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET text = CAST(x'7bff41' AS TEXT) WHERE number = 1",
        "UPDATE entries SET hash = CAST(x'ff' AS TEXT) WHERE number = 2",
        "UPDATE meta SET id = CAST(x'fffe' AS TEXT)",
    ],
)
def test_bytes_that_are_not_utf_8_are_damage_in_one_line(policy: Policy, statement: str) -> None:
    take(policy, 1)
    with closing(sqlite3.connect(policy.ledger)) as base, base:
        base.execute(statement)
    for read in (lambda: take(policy, 2), lambda: entries(policy)):
        with pytest.raises(LedgerError, match="is damaged") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert str(caught.value).isprintable()


def test_an_entry_that_is_nested_too_deeply_is_refused_by_its_number(policy: Policy) -> None:
    take(policy, 1)
    with closing(sqlite3.connect(policy.ledger)) as base, base:
        text = "[" * 100_000
        base.execute("UPDATE entries SET text = ?, hash = ? WHERE number = 2", (text, digest(text)))
    with pytest.raises(LedgerError, match="entry 2 was edited, removed or moved"):
        entries(policy)
