"""What is said to be on the disk is brought there, in the order in which a crash may come.

A file is synced before it takes its name, and its folder after that and before anybody is told.
SQLite brings its own files to the disk; here it is only asked how.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients import ledger_file
from clients.approvals import Approvals
from clients.ledger import Asked, Ledger
from clients.taught import keep_sent
from server.enrolment import Enrolment
from shared.accounting import Charge
from shared.audit_log import AuditLog
from shared.bundle import PROJECT, pack
from shared.checkpoints import Checkpoints
from shared.files import replacing
from shared.plan import Plan
from shared.signing import digest, public_of, signing_key, write_private
from shared.tables.policy import Policy

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ROUND = Charge(100.0)
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
Event = tuple[str, Path]  # "sync" of a file or folder, or "name": a file took its name


@dataclass
class Disk:
    """What was asked of the disk, in order.

    Attributes:
        events: syncs, and names that files took.
        sources: by event of a name, the path that the file had before.
    """

    events: list[Event] = field(default_factory=list)
    sources: dict[int, Path] = field(default_factory=dict)

    def named_safely(self, path: Path) -> bool:
        """Whether the last file of this name was synced before, and its folder after."""
        place = max(at for at, event in enumerate(self.events) if event == ("name", path))
        before, after = self.events[:place], self.events[place + 1 :]
        return ("sync", self.sources[place]) in before and ("sync", path.parent) in after


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    fsync = os.fsync

    def synced(handle: int) -> None:
        fsync(handle)
        made.events.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}"))))

    def naming(name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(old: str | Path, new: str | Path, **more: object) -> None:
            real(old, new, **more)
            made.sources[len(made.events)] = Path(old)
            made.events.append(("name", Path(new)))

        return call

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("replace", "rename", "link"):
        monkeypatch.setattr(os, name, naming(name))
    return made


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "elsewhere").mkdir()
    return Policy(
        plan=PLAN,
        dataset="shop",
        ledger=tmp_path / "shop.ledger",
        head=tmp_path / "elsewhere" / "shop.head",
        key=tmp_path / "shop.key",
    )


def test_a_new_ledger_has_its_name_on_the_disk_before_it_is_used(
    policy: Policy, disk: Disk
) -> None:
    Ledger.open(policy, noise="secure").close()
    name = disk.events.index(("name", policy.ledger))
    assert ("sync", policy.ledger.parent) in disk.events[name + 1 :]
    assert disk.named_safely(policy.head)


def test_the_head_file_is_on_the_disk_after_each_step_of_a_ledger(
    policy: Policy, disk: Disk
) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        steps: list[Callable[[], object]] = [
            lambda: ledger.reserve(Asked("update", "run", 1, "adapter"), ROUND),
            lambda: ledger.release(1, b"payload"),
            lambda: ledger.abandon(ledger.reserve(Asked("update", "run", 2, "adapter"), ROUND)),
        ]
        for step in steps:
            disk.events.clear()
            step()
            assert disk.named_safely(policy.head)


def test_the_databases_that_promises_rest_on_are_synced_at_each_commit(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    connected = ledger_file.connected

    def watched(path: Path, *, write: bool) -> object:
        opened.append(connected(path, write=write))
        levels.append(opened[-1].execute("PRAGMA synchronous").fetchone()[0])
        journals.append(opened[-1].execute("PRAGMA journal_mode").fetchone()[0])
        return opened[-1]

    levels: list[int] = []
    journals: list[str] = []
    monkeypatch.setattr("clients.ledger.connected", watched)
    Ledger.open(policy, noise="secure").close()
    assert (levels, journals) == ([2], ["wal"])  # 2 is FULL
    store = Enrolment(tmp_path / "platforms.sqlite")
    store.invite("shop")
    levels_of = store._reading().execute("PRAGMA synchronous").fetchone()
    assert levels_of == (2,)


def test_a_file_that_replaces_another_is_on_the_disk_first(tmp_path: Path, disk: Disk) -> None:
    with replacing(tmp_path / "file") as part:
        part.write_text("new")
    assert disk.named_safely(tmp_path / "file")


def test_private_keys_are_on_the_disk_before_anybody_relies_on_them(
    tmp_path: Path, disk: Disk
) -> None:
    signing_key(tmp_path / "signing.key")
    assert disk.named_safely(tmp_path / "signing.key")
    write_private(tmp_path / "node.key", b"a key")
    assert disk.named_safely(tmp_path / "node.key")


def test_a_line_of_an_audit_log_is_on_the_disk_before_its_head(tmp_path: Path, disk: Disk) -> None:
    path, head = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.head"
    log = AuditLog(path)
    log.add("start")
    # The name of the log, before the head file says that there is one.
    first = disk.events.index(("name", head))
    assert ("sync", tmp_path) in disk.events[:first]
    disk.events.clear()
    log.add("round")
    assert disk.named_safely(head)
    assert disk.events.index(("sync", path)) < disk.events.index(("name", head))


def test_a_checkpoint_is_on_the_disk_when_it_is_kept(tmp_path: Path, disk: Disk) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    known = Checkpoints(tmp_path / "checkpoints")
    file = known.folder / "shop.jsonl"
    for number in range(2):
        log.add("round")
        disk.events.clear()
        known.keep("shop", log.checkpoint(KEY), public_of(KEY))
        assert ("sync", file) in disk.events
        if number == 0:  # its name is new
            assert ("sync", file.parent) in disk.events


def test_an_approval_is_on_the_disk_when_it_is_given(tmp_path: Path, disk: Disk) -> None:
    content = pack({PROJECT: b"[project]\n", "clients/app.py": b""})
    approvals = Approvals(tmp_path / "approvals")
    named = approvals.offered(content, claimed=digest(content))
    assert disk.named_safely(approvals.folder / f"{named}.fab")
    for decide in (approvals.approve, approvals.reject):
        disk.events.clear()
        decide(named)
        assert disk.named_safely(approvals.folder / f"{named}.json")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """As permissive as a careless operator's."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_whatever_tells_of_releases_or_keys_is_its_owners_alone(
    policy: Policy, tmp_path: Path
) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        ledger.release(ledger.reserve(Asked("update", "run", 1, "adapter"), ROUND), b"payload")
        log = AuditLog(tmp_path / "audit.jsonl")
        log.add("start")
        Checkpoints(tmp_path / "checkpoints").keep("shop", log.checkpoint(KEY), public_of(KEY))
        signing_key(tmp_path / "signing.key")
        keep_sent(policy, "run", np.zeros(3, np.float32))
        Enrolment(tmp_path / "platforms.sqlite").invite("shop")
        with replacing(tmp_path / "secret", private=True) as part:
            part.unlink()
            part.write_text("written as a library writes, with a mode of its own")
        open_to_others = [
            path.name
            for path in tmp_path.rglob("*")
            if path.is_file() and path.stat().st_mode & 0o077
        ]
    assert open_to_others == []
    assert (tmp_path / "checkpoints").stat().st_mode & 0o077 == 0
