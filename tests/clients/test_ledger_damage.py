from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clients.chain import verified
from clients.ledger import Asked, Ledger, entries
from shared.accounting import Charge
from shared.errors import LedgerError
from shared.plan import Plan
from shared.signing import digest
from shared.tables.policy import Policy
from shared.update import Receipt

ROUND = Charge(100.0)  # cheap: budgets are another file's matter
PLAN = Plan(
    clip=1.0,
    noise_multiplier=100.0,
    sampling_rate=1.0,
    steps=1,
    expected_batch=10.0,
    epsilon=4.0,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=10.0,
)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    ledger, head, key = (tmp_path / f"shop.{name}" for name in ("ledger", "head", "key"))
    return Policy(plan=PLAN, dataset="shop", ledger=ledger, head=head, key=key)


@pytest.fixture
def used(policy: Policy) -> Policy:
    """With three rounds in its ledger."""
    with Ledger.open(policy, noise="secure") as ledger:
        for number in range(3):
            spend(ledger, number)
    return policy


def asked(number: int, *, run: str = "run") -> Asked:
    return Asked("update", run, number, "adapter")


def spend(ledger: Ledger, number: int) -> None:
    ledger.release(ledger.reserve(asked(number), ROUND), os.urandom(2000))


def refused(policy: Policy, why: str, *, receipt: Receipt | None = None) -> None:
    """By the writer and, unless only the server knows, by readers; in one line that names it."""
    with pytest.raises(LedgerError, match=why) as found:
        Ledger.open(policy, noise="secure", receipt=receipt)
    assert "\n" not in str(found.value)
    assert found.value.where is not None
    if receipt is None:
        with pytest.raises(LedgerError, match=why):
            entries(policy)


def changed(policy: Policy, statement: str) -> None:
    """By somebody who knows SQLite."""
    with closing(sqlite3.connect(policy.ledger)) as base, base:
        base.execute(statement)


def copied(policy: Policy, folder: Path) -> None:
    """The ledger as it stands, whatever SQLite keeps beside it included."""
    folder.mkdir(exist_ok=True)
    for path in policy.ledger.parent.glob(f"{policy.ledger.name}*"):
        shutil.copy(path, folder)


def restored(policy: Policy, folder: Path) -> None:
    for path in policy.ledger.parent.glob(f"{policy.ledger.name}*"):
        path.unlink()
    for path in folder.iterdir():
        shutil.copy(path, policy.ledger.parent)


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("UPDATE entries SET text = replace(text, '100.0', '900.0') WHERE number = 2", 2),
        ("UPDATE entries SET hash = lower(hex(randomblob(32))) WHERE number = 4", 4),
        ("UPDATE entries SET text = 7 WHERE number = 3", 3),
        ("UPDATE entries SET text = '[]' WHERE number = 1", 1),
        ("UPDATE entries SET number = 9 WHERE number = 6", 6),
        ("DELETE FROM entries WHERE number = 1", 1),
        ("DELETE FROM entries WHERE number = 5", 5),
        ("INSERT INTO entries SELECT 7, text, hash FROM entries WHERE number = 5", 7),
        ("UPDATE meta SET id = lower(hex(randomblob(32)))", 1),
        ("UPDATE meta SET noise = 'simulated'", 1),
    ],
)
def test_an_edited_removed_or_added_row_is_named(used: Policy, statement: str, number: int) -> None:
    changed(used, statement)
    refused(used, f"entry {number} was edited, removed or moved")


def test_rows_that_change_places_are_named(used: Policy) -> None:
    for old, new in ((3, 100), (5, 3), (100, 5)):
        changed(used, f"UPDATE entries SET number = {new} WHERE number = {old}")
    refused(used, "entry 3 was edited, removed or moved")


def test_a_row_that_is_sealed_anew_breaks_the_row_after_it(used: Policy) -> None:
    entry = entries(used)[1]
    changed(used, "UPDATE entries SET text = replace(text, 'release', 'abandon') WHERE number = 2")
    with closing(sqlite3.connect(used.ledger)) as base, base:
        (text,) = base.execute("SELECT text FROM entries WHERE number = 2").fetchone()
        assert digest(text) != entry.hash
        base.execute("UPDATE entries SET hash = ? WHERE number = 2", (digest(text),))
    refused(used, "entry 3 was edited, removed or moved")


@pytest.mark.parametrize(
    ("noise", "why"),
    [("900.0", "is not the one that its head file knows"), ("0.0", "was edited")],
)
def test_a_forger_who_seals_anew_is_found_out(used: Policy, noise: str, why: str) -> None:
    before = entries(used)[3].hash
    with closing(sqlite3.connect(used.ledger)) as base, base:
        for number in (5, 6):
            (text,) = base.execute(f"SELECT text FROM entries WHERE number = {number}").fetchone()
            text = text.replace('"noise_multiplier":100.0', f'"noise_multiplier":{noise}')
            text = text.replace(entries(used)[number - 2].hash, before)
            before = digest(text)
            row = (text, before, number)
            base.execute("UPDATE entries SET text = ?, hash = ? WHERE number = ?", row)
    refused(used, why)


def test_rows_removed_from_the_end_are_missed(used: Policy) -> None:
    changed(used, "DELETE FROM entries WHERE number > 4")
    refused(used, "is an old copy: it has 4 entries, its head file knows 6")


def test_an_edited_payload_is_not_sent_again(used: Policy) -> None:
    changed(used, "UPDATE answers SET payload = x'00'")
    with (
        Ledger.open(used, noise="secure") as ledger,
        pytest.raises(LedgerError, match="payload of entry 6 was edited"),
    ):
        ledger.answered(asked(2))


def test_a_row_that_is_added_beneath_a_writer_is_noticed(used: Policy) -> None:
    with Ledger.open(used, noise="secure") as ledger:
        changed(used, "DELETE FROM entries WHERE number = 6")
        with pytest.raises(LedgerError, match="changed by something else"):
            ledger.reserve(asked(9), ROUND)
    refused(used, "old copy")


def test_an_old_copy_of_the_ledger_is_refused(used: Policy, tmp_path: Path) -> None:
    copied(used, tmp_path / "copy")
    with Ledger.open(used, noise="secure") as ledger:
        spend(ledger, 3)
    restored(used, tmp_path / "copy")
    refused(used, "old copy: it has 6 entries, its head file knows 8; put the newest copy back")


def test_an_old_copy_with_its_head_file_is_refused_by_what_the_server_knows(
    used: Policy, tmp_path: Path
) -> None:
    copied(used, tmp_path / "copy")
    head = used.head.read_bytes()
    with Ledger.open(used, noise="secure") as ledger:
        spend(ledger, 3)
        receipt = ledger.receipt
    restored(used, tmp_path / "copy")
    used.head.write_bytes(head)
    refused(used, "it has 6 entries, the server knows 8", receipt=receipt)


def test_an_old_copy_that_went_on_by_itself_is_refused_too(used: Policy, tmp_path: Path) -> None:
    copied(used, tmp_path / "copy")
    head = used.head.read_bytes()
    with Ledger.open(used, noise="secure") as ledger:
        spend(ledger, 3)
        receipt = ledger.receipt
    restored(used, tmp_path / "copy")
    used.head.write_bytes(head)
    with Ledger.open(used, noise="secure") as ledger:
        spend(ledger, 3)
        spend(ledger, 4)
    refused(used, "entry 8 is not the one that the server knows", receipt=receipt)


@pytest.mark.parametrize("count", [-1, -4])
def test_a_receipt_of_no_ledger_is_refused(used: Policy, count: int) -> None:
    known = Receipt(count, entries(used)[count - 1].hash)
    refused(used, "another ledger", receipt=known)


def test_a_ledger_that_is_gone_is_not_made_anew(used: Policy) -> None:
    with Ledger.open(used, noise="secure") as ledger:
        receipt = ledger.receipt
    used.ledger.unlink()
    refused(used, "is missing; put the newest copy back")
    used.head.unlink()
    refused(used, "is missing; put the newest copy back", receipt=receipt)
    assert not used.ledger.exists()


def test_a_head_file_that_is_gone_is_not_made_anew(used: Policy) -> None:
    used.head.unlink()
    refused(used, "its head file is missing")
    assert not used.head.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"count": "6", "head": "x"}', '{"count": 6}'])
def test_a_damaged_head_file_is_refused(used: Policy, content: str) -> None:
    used.head.write_text(content)
    refused(used, r"shop\.head: is no head file, or damaged")


def test_the_head_file_of_another_ledger_is_refused(used: Policy) -> None:
    other = replace(used, ledger=used.ledger.with_name("b"), head=used.head.with_name("b.head"))
    Ledger.open(other, noise="secure").close()
    refused(replace(used, head=other.head), "entry 0 is not the one that its head file knows")


def refusal(policy: Policy) -> str | None:
    """Why the ledger cannot be used, if it cannot."""
    try:
        with Ledger.open(policy, noise="secure") as ledger:
            ledger.answered(asked(2))
    except LedgerError as fault:
        return str(fault)
    return None


def test_a_truncated_ledger_is_refused_or_has_lost_nothing(used: Policy, tmp_path: Path) -> None:
    whole, before = used.ledger.read_bytes(), entries(used)
    lengths, refusals = range(0, len(whole), 97), 0
    for length in lengths:
        cut = tmp_path / "cut" / "shop.ledger"
        shutil.rmtree(cut.parent, ignore_errors=True)
        cut.parent.mkdir()
        cut.write_bytes(whole[:length])
        why = refusal(replace(used, ledger=cut))
        if why is None:
            assert entries(replace(used, ledger=cut)) == before
        else:
            refusals += 1
            assert "\n" not in why
            assert cut.read_bytes() == whole[:length]  # left for whoever looks into it
    assert refusals > len(lengths) / 2


def test_a_truncated_log_of_a_crashed_process_is_refused_or_has_lost_nothing(
    used: Policy, tmp_path: Path
) -> None:
    with Ledger.open(used, noise="secure") as ledger:
        spend(ledger, 3)
        ledger.reserve(asked(4), ROUND)
        copied(used, tmp_path / "copy")  # what a crash at this moment would leave
    log, head = tmp_path / "copy" / "shop.ledger-wal", used.head.read_bytes()
    whole, reasons = log.read_bytes(), []
    for length in (*range(0, len(whole), 97 * 7), len(whole)):
        log.write_bytes(whole[:length])
        restored(used, tmp_path / "copy")
        used.head.write_bytes(head)
        reasons.append(refusal(used))
        if reasons[-1] is None:
            assert len(entries(used)) == 10  # the reservation was there, and is abandoned
    assert reasons[-1] is None
    assert sum(why is not None and "is an old copy" in why for why in reasons) > 10


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 400])
def test_a_file_that_is_no_ledger_is_refused(used: Policy, content: bytes) -> None:
    used.ledger.write_bytes(content)
    refused(used, r"shop\.ledger: is damaged")


def test_another_database_is_no_ledger(policy: Policy) -> None:
    with closing(sqlite3.connect(policy.ledger)) as base:
        base.execute("CREATE TABLE things (name TEXT)")
    refused(policy, "is damaged")


def test_an_entry_from_before_mechanisms_were_named_is_a_gaussian(used: Policy) -> None:
    with closing(sqlite3.connect(used.ledger)) as base:
        (text,) = base.execute("SELECT text FROM entries WHERE number = 1").fetchone()
    old = text.replace('"mechanism":"gaussian",', "")
    assert old != text
    start = entries(used)[0].before
    (entry,) = verified([(1, old, digest(old))], start=start, where=used.ledger)
    assert entry.charge == ROUND == Charge(100.0, mechanism="gaussian")
