"""Targets of what lies in SQLite: the ledger, the registry, the admitted platforms."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from clients import ledger, ledger_file, report
from clients.balance import charges
from clients.chain import Asked, Entry, genesis, sealed, text_of, verified
from server.aggregate import ServerState
from server.enrolment import Enrolment
from server.registry import Registry, RoundReport
from shared import manifest
from shared.accounting import Charge
from shared.asking import Standing
from shared.signing import canonical, digest
from shared.tables.policy import Policy
from shared.update import Receipt
from tests.fuzz.fuzz_target import Target, each
from tests.fuzz.material import (
    ADAPTER,
    NOW,
    document,
    document_of,
    public,
    scratch,
    signing_key,
    stored,
)

START = genesis("identity", "secure")


def compacted(path: Path) -> bytes:
    """A database in as few bytes as possible, without a log beside it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("PRAGMA journal_mode = DELETE")
        base.execute("PRAGMA page_size = 512")
        base.execute("VACUUM")
    return path.read_bytes()


def database(name: str, content: bytes) -> Path:
    """A database with this content, and nothing of the one before."""
    for end in ("-wal", "-shm", "-journal"):
        (scratch() / f"{name}{end}").unlink(missing_ok=True)
    return stored(name, content)


def _entry(number: int, before: str, **other: Any) -> Entry:
    told: dict[str, Any] = {
        "kind": "reserve",
        "of": None,
        "dataset": "kiosk",
        "unit": "history",
        "asked": Asked("update", "r", 1, "a" * 64),
        "charge": Charge(1.0, 0.1, 10),
        "plan": {"clip": 1.0},
        "noise": "secure",
        "time": NOW,
        "payload": None,
    }
    return sealed(Entry(number=number, before=before, **{**told, **other}))


@cache
def spent() -> tuple[Entry, ...]:
    """A reservation and its release."""
    first = _entry(1, START)
    return first, _entry(2, first.hash, kind="release", of=1, payload=digest(b"p"))


def _policy(path: Path) -> Policy:
    return Policy(plan=None, dataset="kiosk", ledger=path, head=scratch() / "ledger.head", key=path)


def _ledger_file(case: bytes) -> None:
    path = database("ledger", case)
    for entry in ledger.entries(_policy(path)):
        report._request(entry)
    ledger.answered(_policy(path), spent()[1].asked)


@cache
def _ledger_seed() -> bytes:
    path = scratch() / "seed.ledger"
    ledger_file.create(path, "secure")
    entries, rows = list(spent()), []
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("UPDATE meta SET id = 'identity'")
        for entry in entries:
            rows.append((entry.number, text_of(entry), entry.hash))
        base.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        base.execute("INSERT INTO answers VALUES ('update', 2, ?)", (b"p",))
    ledger_file.write_head(scratch() / "ledger.head", Receipt(2, entries[-1].hash))
    return compacted(path)


def _ledger_entries(case: bytes) -> None:
    """Entries that the case lists, each with the right number, link and hash."""
    told, rows, before = document_of(case), [], START
    if not isinstance(told, list):
        return
    for number, fields in enumerate(told, start=1):
        if not isinstance(fields, dict):
            return
        try:
            text = canonical({**fields, "number": number, "before": before}).decode()
        except (ValueError, RecursionError):
            return
        before = digest(text)
        rows.append((number, text, before))
    found = verified(rows, start=START, where=scratch() / "ledger")
    max((entry.time for entry in found), default=0.0)
    charges(found, dataset="kiosk", unit="history")
    for entry in found:
        report._request(entry)


def _ledger_entries_seeds() -> Sequence[bytes]:
    return [document([json.loads(text_of(entry)) for entry in spent()])]


def _ledger_head(case: bytes) -> None:
    ledger_file.read_head(stored("other.head", case))


@cache
def _registry() -> Registry:
    return Registry(scratch() / "run", signer=signing_key(), clock=lambda: NOW)


@cache
def _registry_seed() -> bytes:
    registry = _registry()
    registry.record(ServerState(ADAPTER, {"first/a": np.zeros(2, np.float32)}), RoundReport(3))
    registry.promote(registry.versions()[-1].manifest.version, who="root", why="first")
    registry.settle({"rounds": 3})
    registry.remember(Standing(registry.standing().run, {"kiosk": Receipt(2, "c" * 64)}))
    return compacted(scratch() / "run" / "registry.sqlite")


def _registry_file(case: bytes) -> None:
    _registry_seed()
    database("run/registry.sqlite", case)
    _read_registry(_registry())


def _read_registry(registry: Registry) -> None:
    each(registry.standing)
    each(registry.promotions)
    each(registry.current)
    each(lambda: registry.settle({"rounds": 3}))
    for version in registry.versions():
        each(version.tensors)
        each(partial(registry.report, version))
        each(partial(registry.verify, version.manifest.version))


def _registry_rows(case: bytes) -> None:
    """Values that the case gives for columns of a registry that is sound otherwise."""
    told = document_of(case)
    if not isinstance(told, dict):
        return
    path = database("run/registry.sqlite", _registry_seed())
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        triggers = base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            base.execute(f"DROP TRIGGER {name}")
        for place, value in told.items():
            table, _, column = place.partition(".")
            if (table, column) not in COLUMNS or isinstance(value, dict | list):
                value = json.dumps(value) if (table, column) in COLUMNS else None
            if (table, column) in COLUMNS:
                _set(base, table, column, value)
    _read_registry(_registry())


COLUMNS = {
    ("runs", "name"),
    ("runs", "settings"),
    ("versions", "manifest"),
    ("versions", "report"),
    ("versions", "place"),
    ("versions", "metrics"),
    ("versions", "version"),
    ("promotions", "version"),
    ("promotions", "time"),
    ("receipts", "platform"),
    ("receipts", "count"),
    ("receipts", "head"),
}


def _set(base: sqlite3.Connection, table: str, column: str, value: Any) -> None:
    try:
        base.execute(f"UPDATE {table} SET {column} = ?", (value,))
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        return  # no value of a row


def _registry_row_seeds() -> Sequence[bytes]:
    made = manifest.Manifest(1, "a" * 64, (), "b" * 64, "next-item", "r", 3, ("kiosk",))
    return [
        document({"runs.settings": {"rounds": 3}, "receipts.count": 2, "promotions.version": 1}),
        document({"versions.manifest": json.loads(made.text()), "versions.version": 1}),
        document({"versions.report": asdict(RoundReport(3)), "promotions.time": NOW}),
    ]


@cache
def _platforms_seed() -> bytes:
    path = scratch() / "seed.platforms"
    enrolment = Enrolment(path, clock=lambda: NOW)
    enrolment.invite("bazaar")
    _close(enrolment)
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        row = (1, "kiosk", b"k", public(), NOW, None, NOW, "c" * 64)
        base.execute(f"INSERT INTO platforms VALUES ({', '.join('?' * len(row))})", row)
    return compacted(path)


def _platforms(case: bytes) -> None:
    path = database("platforms.sqlite", case)
    enrolment = Enrolment(path, clock=lambda: NOW)
    try:
        each(lambda: enrolment.named("kiosk"))
        each(enrolment.platforms)
        each(lambda: enrolment.seen("kiosk", ca="c" * 64))
    finally:
        _close(enrolment)


def _close(enrolment: Enrolment) -> None:
    base = getattr(enrolment._own, "base", None)
    if base is not None:
        base[1].close()


TARGETS = (
    Target("ledger", _ledger_file, lambda: [_ledger_seed()], longest=8192, share=0.5),
    Target("entries of a ledger", _ledger_entries, _ledger_entries_seeds, "json"),
    Target(
        "head of a ledger",
        _ledger_head,
        lambda: [canonical({"count": 2, "head": "a" * 64})],
        "json",
        share=0.5,
    ),
    Target("registry", _registry_file, lambda: [_registry_seed()], longest=16384, share=0.3),
    Target("rows of a registry", _registry_rows, _registry_row_seeds, "json", share=0.3),
    Target("admitted platforms", _platforms, lambda: [_platforms_seed()], longest=8192, share=0.3),
)
