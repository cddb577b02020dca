"""What an erasure removes, what its record says, and that it can be killed at any moment."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import derived_files, settled
from clients.erasure import Outcome, erase
from clients.erasure_plan import Request
from clients.erasure_record import erasures, verify_record
from clients.ledger import Asked, Ledger, entries
from shared.accounting import Charge
from shared.adapter import Adapter, save_adapter
from shared.audit_log import entries as audit_entries
from shared.errors import ConfigError, DataError, LedgerError
from shared.tables.config import load_platform
from shared.tables.erasure_list import load_list, record_paths
from shared.tables.policy import Policy
from shared.tables.table import read_platform

PLAN = """
epsilon = 3.0
delta = 1e-6
shoppers_at_least = 5
sampling_rate = 0.5
steps = 2
noise_multiplier = 2.0
"""
CHARGE = Charge(noise_multiplier=2.0, sampling_rate=0.5, steps=2)
Make = Callable[..., Path]
ADA = "shop-shopper-03"


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    """A platform under a Plan, with a cache and a membership of its own."""
    (tmp_path / "shop.atoll").mkdir()
    return make_platform(tmp_path, cache=tmp_path / "cache", privacy=PLAN)


def request_of(path: Path, *shoppers: str, **more: Any) -> Request:
    config = load_platform(path)
    home = path.parent / f"{config.name}.atoll"
    return Request(config=config, file=path, home=home, shoppers=shoppers, **more)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


def everything(folder: Path) -> str:
    """The text of every file but the tables, and every name."""
    found = [it for it in folder.rglob("*") if it.is_file()]
    texts = [it.read_bytes().decode("latin-1") for it in found if it.suffix != ".tsv"]
    return "\n".join([*texts, *map(str, found)])


def spend(path: Path, rounds: int = 2) -> None:
    with Ledger.open(policy_of(path), noise="secure") as ledger:
        for number in range(1, rounds + 1):
            asked = Asked("update", "run-7", number, f"{number:064x}")
            ledger.release(ledger.reserve(asked, CHARGE), b"noised")


def make_model(path: Path, place: Path, seed: float = 1.0) -> None:
    """An adapter as `compare --out` leaves it."""
    made = Adapter({"a": np.full((2, 2), seed, np.float32)}, backbone="b" * 64, task="next-item")
    config = load_platform(path)
    derived_files.register(config, "adapter", place, digest=made.digest, time=1.0)
    save_adapter(made, place, private=True)


def names(path: Path) -> tuple[str, ...]:
    return read_platform(load_platform(path)).histories.shoppers


def test_an_erased_shopper_is_in_no_file_and_the_record_says_what_was_removed(shop: Path) -> None:
    table, config = shop.parent / "interactions.tsv", load_platform(shop)
    cache = settled.place_of(config)
    assert cache is not None
    cache.parent.mkdir()
    for path in (cache, cache.parent / "items-1.safetensors"):
        path.write_bytes(b"made of something")
    make_model(shop, shop.parent / "home.safetensors")
    spend(shop)
    before = table.read_text().splitlines()
    rows = sum(line.startswith(f"{ADA}\t") for line in before)
    outcome = erase(request_of(shop, ADA, rewrite=True))

    assert table.read_text().splitlines() == [x for x in before if not x.startswith(f"{ADA}\t")]
    assert ADA not in names(shop)
    assert not cache.exists()
    assert (cache.parent / "items-1.safetensors").exists()
    assert not (shop.parent / "home.safetensors").exists()
    assert ADA not in everything(shop.parent)
    assert outcome.complete
    assert outcome.record is not None
    facts = verify_record(outcome.record)["facts"]
    assert facts == outcome.facts
    (shopper,) = facts["shoppers"]
    listed = load_list(config.events.erased)
    assert listed is not None
    assert shopper["keyed_hash"] == listed.hash_of(ADA)
    (told,) = facts["tables"]
    assert (told["rows_removed"], told["rows_left"]) == (rows, 0)
    assert told["sha256_before"] != told["sha256_after"]
    assert sorted(each["file"] for each in facts["deleted"]) == [
        "cache/weighing-shop.safetensors",
        "home.safetensors",
    ]
    releases = facts["earlier_releases"]
    assert [(it["run"], it["round"]) for it in releases["releases"]] == [("run-7", 1), ("run-7", 2)]
    assert float(releases["epsilon_spent"]) >= releases["releases"][-1]["epsilon_after"] > 0
    assert "cannot be undone" in releases["explanation"]
    assert outcome.record.stat().st_mode & 0o777 == 0o600
    log = list(audit_entries(shop.parent / "shop.atoll" / "audit.jsonl"))
    assert [(it.event, it.fields["rows"]) for it in log] == [("erased", rows)]


def test_the_ledger_and_what_it_would_answer_again_stay_as_they_were(shop: Path) -> None:
    spend(shop)
    before = entries(policy_of(shop))
    erase(request_of(shop, ADA, rewrite=True))
    assert entries(policy_of(shop)) == before
    with Ledger.open(policy_of(shop), noise="secure") as ledger:
        assert ledger.answered(Asked("update", "run-7", 2, f"{2:064x}")) == b"noised"


def test_a_table_that_still_has_the_rows_is_not_read_and_the_record_not_complete(
    shop: Path,
) -> None:
    table = shop.parent / "interactions.tsv"
    before = table.read_bytes()
    first = erase(request_of(shop, ADA))
    assert not first.complete
    assert first.record is not None
    assert table.read_bytes() == before
    assert first.facts["status"] == "not complete"
    assert ADA not in names(shop)
    report = read_platform(load_platform(shop)).report
    assert report.erased_rows == first.facts["shoppers"][0]["rows"] > 0
    parts = (report.blank, report.erased_rows, report.duplicates, report.unknown_items)
    rest = (report.short_events, report.limited_events, report.events)
    assert report.rows == sum(parts) + sum(rest)
    # The same again changes nothing: it is still to be done by hand.
    assert erase(request_of(shop, ADA)).record is None
    assert erasures(load_platform(shop).events.erased)["not_complete"] == [1]

    kept = [line for line in before.splitlines(keepends=True) if not line.startswith(ADA.encode())]
    table.write_bytes(b"".join(kept))  # as its owner exports it
    last = erase(request_of(shop))
    assert last.complete
    assert last.record is not None
    assert last.facts["shoppers"][0]["keyed_hash"] == first.facts["shoppers"][0]["keyed_hash"]
    assert erasures(load_platform(shop).events.erased)["not_complete"] == []
    assert erase(request_of(shop, ADA)).record is None


def test_an_old_export_never_brings_an_erased_shopper_back(shop: Path) -> None:
    table = shop.parent / "interactions.tsv"
    before = table.read_bytes()
    erase(request_of(shop, ADA, rewrite=True))
    after = table.read_bytes()
    table.write_bytes(before)
    assert ADA not in names(shop)
    again = erase(request_of(shop, rewrite=True))
    assert again.complete
    assert again.record is not None
    assert table.read_bytes() == after


def test_a_list_that_is_missing_old_or_damaged_is_refused_and_not_read_as_nobody(
    shop: Path,
) -> None:
    path = load_platform(shop).events.erased
    assert path is not None
    erase(request_of(shop, ADA))
    first = path.read_bytes()
    erase(request_of(shop, "shop-shopper-05"))
    for content, told in (
        (None, "is missing, but shop.erasures has 2 records"),
        (first, "is an old copy: it knows 1 of 2 records"),
        (first.replace(b'"records":1', b'"records":2'), "is damaged"),
        (b"{}", "is damaged"),
        (b"\xff[", "is damaged"),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=told):
            names(shop)
        with pytest.raises(DataError, match=told):
            erase(request_of(shop, ADA))


def test_the_list_tells_nobody_without_its_key(shop: Path, tmp_path: Path) -> None:
    erase(request_of(shop, ADA))
    other = tmp_path / "other"
    shutil.copytree(shop.parent, other, ignore=lambda *_: ["other", "shop.erased", "shop.erasures"])
    erase(request_of(other / shop.name, ADA))
    lists = [load_list(load_platform(it).events.erased) for it in (shop, other / shop.name)]
    assert not {*lists[0].shoppers} & {*lists[1].shoppers}  # type: ignore[union-attr]


def test_a_shopper_nobody_knows_is_refused_and_nothing_changes(shop: Path) -> None:
    before = {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")}
    with pytest.raises(DataError, match="no row of this shopper") as refused:
        erase(request_of(shop, "nobody-here", rewrite=True))
    assert "nobody-here" not in str(refused.value)
    with pytest.raises(DataError, match=r"no row of 2 of the shoppers \(number 1, 3\)"):
        erase(request_of(shop, "x", ADA, "y"))
    with pytest.raises(DataError, match="1 in the table differ from what was given in case alone"):
        erase(request_of(shop, ADA.upper()))
    assert {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")} == before

    outcome = erase(request_of(shop, "nobody-here", absent=True))
    assert outcome.complete
    assert outcome.facts["shoppers"][0]["rows"] == 0
    listed = load_list(load_platform(shop).events.erased)
    assert listed is not None
    assert "nobody-here" in listed


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(shop: Path) -> None:
    make_model(shop, shop.parent / "home.safetensors")
    before = {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")}
    dry = erase(request_of(shop, ADA, rewrite=True), dry_run=True)
    assert {it: it.stat().st_mtime_ns for it in shop.parent.rglob("*")} == before
    real = erase(request_of(shop, ADA, rewrite=True))
    for name in ("status", "deleted", "remaining", "warnings"):
        assert dry.facts[name] == real.facts[name]
    assert dry.facts["tables"][0]["rows_removed"] == real.facts["tables"][0]["rows_removed"]
    assert dry.record is None


class Killed(BaseException):
    """The process ends: nothing more reaches the disk."""


def test_killed_at_any_moment_the_next_call_ends_what_was_begun(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(shop, shop.parent / "home.safetensors")
    spend(shop)
    clean = tmp_path / "clean"
    shutil.copytree(shop.parent, clean, ignore=lambda *_: ["clean"])
    wanted = erase(request_of(clean / shop.name, ADA, rewrite=True))
    original: dict[str, Callable[..., None]] = {"replace": os.replace, "unlink": os.unlink}
    left, steps = [0], [0]

    def counted(name: str) -> Callable[..., None]:
        def call(*given: Any, **more: Any) -> None:
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            original[name](*given, **more)

        return call

    for name in original:
        monkeypatch.setattr(os, name, counted(name))
    while True:
        folder = tmp_path / f"killed-{steps[0]}"
        ignored = shutil.ignore_patterns("clean", "killed-*")
        shutil.copytree(shop.parent, folder, ignore=ignored)
        left[0] = steps[0]
        try:
            erase(request_of(folder / shop.name, ADA, rewrite=True))
            break
        except Killed:
            pass
        left[0] = 1_000
        assert ADA in names(folder / shop.name) or load_list(folder / "shop.erased") is not None
        last = erase(request_of(folder / shop.name, ADA, rewrite=True))
        assert last.complete
        assert ADA not in everything(folder)
        assert ADA not in (folder / "interactions.tsv").read_text()
        assert not (folder / "home.safetensors").exists()
        assert not (folder / "shop.erasing").exists()
        (record,) = record_paths(folder / "shop.erased")  # one erasure, one record
        told = verify_record(record)["facts"]
        assert told["tables"][0]["rows_removed"] == wanted.facts["tables"][0]["rows_removed"]
        assert [it["sha256"] for it in told["deleted"]] == [
            it["sha256"] for it in wanted.facts["deleted"]
        ]
        steps[0] += 1
    assert steps[0] >= 8  # draft, list, table, model, register, list, record, audit, draft


def test_a_round_that_is_being_trained_is_waited_for_and_nothing_changes_before(
    shop: Path,
) -> None:
    with Ledger.open(policy_of(shop), noise="secure") as ledger:
        number = ledger.reserve(Asked("update", "run-7", 1, "a" * 64), CHARGE)
        with pytest.raises(LedgerError, match="a round is being trained, and nothing was erased"):
            erase(request_of(shop, ADA, wait=0.0))
        assert load_list(load_platform(shop).events.erased) is None
        ledger.release(number, b"noised")
    outcome = erase(request_of(shop, ADA, wait=0.0))
    assert len(outcome.facts["earlier_releases"]["releases"]) == 1


def test_an_edited_record_and_one_of_another_kind_are_refused(shop: Path, tmp_path: Path) -> None:
    record = erase(request_of(shop, ADA)).record
    assert record is not None
    raw = record.read_bytes()
    record.write_bytes(raw.replace(b'"not complete"', b'"complete"'))
    with pytest.raises(ConfigError, match="as it was signed"):
        verify_record(record)
    from clients import report

    key = report.signing_key(policy_of(shop).key)
    other = tmp_path / "other.json"
    other.write_bytes(report.rendered(report.sign({"format": "atoll privacy report 1"}, key)))
    with pytest.raises(ConfigError, match="is signed, but no erasure record"):
        verify_record(other)


def test_every_shopper_can_be_erased(shop: Path) -> None:
    outcome: Outcome = erase(request_of(shop, *names(shop), rewrite=True))
    assert outcome.complete
    assert (shop.parent / "interactions.tsv").read_text() == "user\titem\tpos\n"
    assert "cannot be used any more" in " ".join(outcome.facts["warnings"])
    assert erase(replace(request_of(shop), rewrite=True)).record is None
    assert json.loads(outcome.record.read_bytes())["facts"]["status"] == "complete"  # type: ignore[union-attr]
