"""What a version promises: signed, chained to its parents, and never changed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared import manifest, signing
from shared.adapter import Adapter
from shared.asking import Standing
from shared.errors import IdentityError, RoundError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def state(value: float, version: int = 1) -> ServerState:
    return ServerState(Adapter({"w": np.full(3, value, np.float32)}, "backbone", "task", version))


def recorded(folder: Path, key: Ed25519PrivateKey | None = KEY) -> Registry:
    """Three rounds; platforms that share their metrics are two in the last."""
    registry = Registry(folder, key, clock=lambda: 1e9)
    for number in range(3):
        told = {"a": {"ndcg@10": 0.5, "hr@10": 1.0}, "b": {"ndcg@10": 0.25}, "c": {}}
        report = RoundReport(number, replied=("a", "b")[:number], validation=told)
        registry.record(state(number, number), report)
    return registry


def spoilt(registry: Registry, statement: str) -> None:
    """By somebody with the file in hand: the triggers are gone first."""
    with closing(sqlite3.connect(registry.path)) as base:
        for trigger in ("stay", "last", "once"):
            base.execute(f"DROP TRIGGER versions_{trigger}")
        base.execute(statement)
        base.commit()


def test_a_version_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    root, child, last = registry.versions()
    told = last.manifest
    assert (told.version, told.round, told.run) == (3, 2, registry.standing().run)
    assert (told.backbone, told.task, told.time) == ("backbone", "task", 1e9)
    assert told.adapter == state(2, 2).adapter.digest
    assert told.participants == ("a", "b")
    assert told.metrics == {"ndcg@10": 0.375, "hr@10": 1.0}
    assert told.atoll == manifest.here()
    assert [it.manifest.parents for it in (root, child, last)] == [
        (),
        (root.digest,),
        (child.digest,),
    ]


def test_a_version_is_signed_and_verifies_with_all_that_it_comes_from(tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    for it in registry.versions():
        manifest.check(it.manifest, it.signature, signing.public_of(KEY))
        registry.verify(it.manifest.version)
    Registry(tmp_path).verify(3, public=signing.public_of(KEY))
    with pytest.raises(IdentityError, match="version 3: the model signature does not hold"):
        Registry(tmp_path).verify(3, public=signing.public_of(OTHER))


def test_without_a_key_nothing_is_signed_and_that_is_told_where_one_is_asked_for(
    tmp_path: Path,
) -> None:
    registry = recorded(tmp_path, None)
    assert {it.signature for it in registry.versions()} == {""}
    assert registry.signature(state(1).adapter) == ""
    registry.verify(3)
    with pytest.raises(IdentityError, match="version 3: carries no signature"):
        registry.verify(3, public=signing.public_of(KEY))


def test_one_ancestor_that_was_not_signed_is_enough_to_refuse(tmp_path: Path) -> None:
    Registry(tmp_path).record(state(0, 0), RoundReport(0))
    Registry(tmp_path, KEY).record(state(1), RoundReport(1))
    with pytest.raises(IdentityError, match="version 1: carries no signature"):
        Registry(tmp_path, KEY).verify(2)


def test_a_request_is_signed_for_the_run_that_goes_on(tmp_path: Path) -> None:
    registry, adapter = recorded(tmp_path), state(1).adapter
    public = signing.public_of(KEY)
    first = registry.standing().run
    manifest.check_request(adapter, first, registry.signature(adapter), public)
    second = "another run"
    registry.remember(Standing(second, {}))
    manifest.check_request(adapter, second, registry.signature(adapter), public)
    with pytest.raises(IdentityError):
        manifest.check_request(adapter, first, registry.signature(adapter), public)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET signature = ''",
        "UPDATE versions SET round = 7 WHERE version = 2",
        "DELETE FROM versions",
        "DELETE FROM versions WHERE version = 3",
        "INSERT OR REPLACE INTO versions SELECT * FROM versions WHERE version = 2",
        "REPLACE INTO versions SELECT * FROM versions",
        "UPDATE OR REPLACE versions SET version = 1 WHERE version = 2",
        "UPDATE promotions SET version = 1",
        "DELETE FROM promotions",
        "REPLACE INTO promotions SELECT number, 1, kind, time, who, why FROM promotions",
    ],
)
def test_versions_and_promotions_are_only_ever_added_to(statement: str, tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    registry.promote(3, who="me", why="")
    before = registry.versions(), registry.promotions()
    with (
        closing(sqlite3.connect(registry.path)) as base,
        pytest.raises(sqlite3.IntegrityError, match="only added to"),
    ):
        base.execute(statement)
    assert (registry.versions(), registry.promotions()) == before


@pytest.mark.parametrize(
    "change",
    [
        "signature = x'ff'",
        "round = 7",
        "run = 'x'",
        "place = '../0002'",
        "digest = adapter",
        "adapter = digest",
        "parents = '[]'",
        "participants = '[\"z\"]'",
        "metrics = '{\"ndcg@10\": 1.0}'",
        "manifest = replace(manifest, '\"round\":2', '\"round\":3')",
        "manifest = 'null'",
        "manifest = x'ff'",
        "report = replace(report, '\"moved\": true', '\"moved\": false')",
        "report = ''",
    ],
)
def test_a_row_that_was_edited_is_told(change: str, tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    spoilt(registry, f"UPDATE versions SET {change} WHERE version = 3")
    with pytest.raises(RoundError) as caught:
        registry.versions()
    assert str(caught.value).startswith(f"{registry.path}: cannot be read (version 3, digest ")
    assert "\n" not in str(caught.value)


def test_a_signature_that_was_edited_is_told(tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    spoilt(registry, "UPDATE versions SET signature = replace(signature, '1', '2')")
    with pytest.raises(IdentityError, match="signature does not hold"):
        registry.verify(3)


def test_a_parent_that_was_removed_is_told(tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    spoilt(registry, "DELETE FROM versions WHERE version = 1")
    with pytest.raises(RoundError, match="version 2 has lost its parent"):
        registry.verify(3)


@pytest.mark.parametrize("file", ["adapter.safetensors", "moments.safetensors"])
def test_tensors_of_another_version_are_told(file: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for number in range(2):
        moments = {"first/w": np.full(3, number, np.float32)}
        registry.record(ServerState(state(number).adapter, moments), RoundReport(number))
    source, target = (registry.folder / it / file for it in ("0000", "0001"))
    target.write_bytes(source.read_bytes())
    for ask in (registry.load, lambda number: registry.verify(number + 1)):
        with pytest.raises(RoundError, match="round 1 cannot be read") as caught:
            ask(1)
        assert "delete this folder" in str(caught.value)


def test_a_version_nobody_recorded_is_told(tmp_path: Path) -> None:
    registry = recorded(tmp_path)
    with pytest.raises(RoundError, match="version 9 is not recorded"):
        registry.verify(9)
    with pytest.raises(RoundError, match="round 9 is not recorded"):
        registry.load(9)


def test_reading_makes_no_registry(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "run")
    assert (registry.rounds(), registry.versions(), registry.promotions()) == ([], [], [])
    assert registry.current() is None
    assert registry.adapter_path(1) == tmp_path / "run" / "rounds" / "0001" / "adapter.safetensors"
    assert not (tmp_path / "run").exists()


def test_a_report_names_who_was_asked(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    report = RoundReport(0, asked=("a", "b"), missing=("b",), replied=("a",))
    registry.record(state(0), report)
    assert registry.load(0)[1] == report
    assert json.loads(registry.versions()[0].report)["asked"] == ["a", "b"]
