from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server import models
from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared import manifest, signing
from shared.adapter import Adapter, load_adapter
from shared.asking import Standing
from shared.errors import ConfigError, IdentityError, RoundError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = signing.public_of(KEY)


def state(value: float, version: int) -> ServerState:
    return ServerState(Adapter({"w": np.full(3, value, np.float32)}, "backbone", "task", version))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Rounds 0 to 3; round 3 did not move."""
    made = Registry(tmp_path / "run", KEY, clock=lambda: 1e9)
    for number in range(3):
        made.record(state(number, number), RoundReport(number))
    made.record(state(2, 2), RoundReport(3, moved=False))
    return made


def rounds(registry: Registry) -> list[int]:
    """Which rounds the history names."""
    by_version = {it.manifest.version: it.manifest.round for it in registry.versions()}
    return [by_version[it.version] for it in registry.promotions()]


def promote(registry: Registry, name: str) -> None:
    models.promote(registry, models.find(registry, name), who="me", why="because")


def current(registry: Registry) -> int:
    found = registry.current()
    assert found is not None
    return found.manifest.round


def test_a_version_is_found_by_its_round_and_by_its_digests(registry: Registry) -> None:
    for it in registry.versions():
        assert models.find(registry, str(it.manifest.round)) == it
        assert models.find(registry, it.digest) == it
        assert models.find(registry, it.digest[:8]) == it
    first = registry.versions()[0]
    assert models.find(registry, first.manifest.adapter[:8]) == first


def test_of_an_adapter_that_no_round_moved_the_last_version_is_meant(registry: Registry) -> None:
    third, fourth = registry.versions()[2:]
    assert third.manifest.adapter == fourth.manifest.adapter
    assert models.find(registry, third.manifest.adapter) == fourth


def test_a_round_means_that_of_the_last_run(registry: Registry) -> None:
    registry.remember(Standing("another run", {}))
    registry.record(state(9, 0), RoundReport(0))
    assert models.find(registry, "0") == registry.versions()[-1]
    with pytest.raises(RoundError, match="no round 1 is recorded"):
        models.find(registry, "1")


@pytest.mark.parametrize("name", ["", "abc", "abcdefg", "x" * 8, "-1", "1.5", "A" * 8, "f" * 65])
def test_what_names_no_version_is_told(name: str, registry: Registry) -> None:
    with pytest.raises(ConfigError, match="names no version"):
        models.find(registry, name)


def test_a_version_that_is_not_there_is_told(registry: Registry) -> None:
    with pytest.raises(RoundError, match="no round 4 is recorded"):
        models.find(registry, "4")
    with pytest.raises(RoundError, match="no version has a digest that begins with 00000000"):
        models.find(registry, "00000000")


def test_a_promotion_says_who_when_and_why_and_stays_in_the_history(registry: Registry) -> None:
    promote(registry, "1")
    promote(registry, "2")
    assert rounds(registry) == [1, 2]
    first = registry.promotions()[0]
    assert (first.who, first.why, first.time, first.kind) == ("me", "because", 1e9, "promote")
    assert current(registry) == 2


def test_rollbacks_go_back_step_by_step_and_are_history_too(registry: Registry) -> None:
    for name in ("0", "1", "2"):
        promote(registry, name)
    models.roll_back(registry, who="me", why="because")
    assert current(registry) == 1
    models.roll_back(registry, who="me", why="because")
    assert current(registry) == 0
    assert rounds(registry) == [0, 1, 2, 1, 0]
    with pytest.raises(RoundError, match="no version was promoted before"):
        models.roll_back(registry, who="me", why="because")
    promote(registry, "2")
    models.roll_back(registry, who="me", why="because")
    assert current(registry) == 0


def test_there_is_nothing_to_roll_back_at_first(registry: Registry) -> None:
    with pytest.raises(RoundError, match="no version is promoted; promote"):
        models.roll_back(registry, who="me", why="because")


def test_what_is_promoted_already_is_told(registry: Registry) -> None:
    promote(registry, "1")
    with pytest.raises(RoundError, match="is promoted already"):
        promote(registry, "1")
    assert rounds(registry) == [1]


def test_only_what_verifies_is_promoted_rolled_back_to_or_exported(
    registry: Registry, tmp_path: Path
) -> None:
    promote(registry, "1")
    promote(registry, "0")
    registry.adapter_path(1).write_bytes(b"spoilt")
    version = models.find(registry, "1")
    for go in (
        lambda: promote(registry, "1"),
        lambda: models.roll_back(registry, who="me", why="because"),
        lambda: models.export(registry, version, tmp_path / "a.safetensors"),
    ):
        with pytest.raises(RoundError, match="round 1 cannot be read"):
            go()
    assert current(registry) == 0
    other = signing.public_of(Ed25519PrivateKey.generate())
    with pytest.raises(IdentityError):
        models.promote(registry, models.find(registry, "2"), who="me", why="because", public=other)


def test_what_is_exported_passes_where_the_coordinators_key_is_known(
    registry: Registry, tmp_path: Path
) -> None:
    out = tmp_path / "a.safetensors"
    models.export(registry, models.find(registry, "2"), out)
    manifest.check_file(out, PUBLIC)
    assert load_adapter(out).digest == state(2, 2).adapter.digest
    assert {it.name for it in tmp_path.iterdir()} == {"a.json", "a.safetensors", "run"}


def test_an_export_replaces_only_by_force(registry: Registry, tmp_path: Path) -> None:
    for taken in (tmp_path / "a.safetensors", tmp_path / "b.json"):
        taken.write_text("precious")
        out = taken.with_suffix(".safetensors")
        with pytest.raises(ConfigError, match="is there already"):
            models.export(registry, models.find(registry, "1"), out)
        assert taken.read_text() == "precious"
        models.export(registry, models.find(registry, "1"), out, force=True)
        manifest.check_file(out, PUBLIC)


@pytest.mark.parametrize("name", ["a", "a.json", "none/a.safetensors"])
def test_an_export_to_where_none_can_be_is_told(
    name: str, registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        models.export(registry, models.find(registry, "1"), tmp_path / name)
    assert {it.name for it in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("step", range(12))
def test_an_export_that_is_killed_leaves_no_adapter_without_its_manifest(
    step: int, registry: Registry, tmp_path: Path
) -> None:
    out = tmp_path / "a.safetensors"
    version = models.find(registry, "2")
    if (child := os.fork()) == 0:
        left, fsync, replace = [step], os.fsync, os.replace

        def dying(real: Callable[..., None]) -> Callable[..., None]:
            def counted(*words: object) -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*words)

            return counted

        os.fsync, os.replace = dying(fsync), dying(replace)
        models.export(registry, version, out)
        os._exit(0)
    os.waitpid(child, 0)
    if out.exists():
        manifest.check_file(out, PUBLIC)
