from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients import settled
from clients.platform import open_platform
from shared import text
from shared.cache_folder import default_cache, prune, used
from shared.catalogue import Catalogue
from shared.errors import BackboneError
from shared.tables.config import PlatformConfig, load_platform
from shared.text import find_encoder, item_table

Make = Callable[..., Path]
CATALOGUE = Catalogue(("a", "b", "c"), ("tea cup", "red pen", "oak lamp"))


@pytest.fixture
def xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "atoll"


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> PlatformConfig:
    """A platform whose file names no cache."""
    # Of other items than all other tests: one process holds a catalogue's vectors once.
    path = make_platform(tmp_path / "shop", seed=29)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(it for it in lines if not it.startswith("cache")), encoding="utf-8")
    config = load_platform(path)
    assert config.cache is None
    return config


def test_the_folder_is_the_users_own_and_nobody_elses(xdg: Path) -> None:
    assert default_cache() == xdg
    assert stat.S_IMODE(xdg.stat().st_mode) == 0o700


@pytest.mark.parametrize("named", ["", "relative/cache"])
def test_without_a_usable_variable_it_is_below_home(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "atoll"


def test_a_folder_that_others_own_or_may_write_to_is_not_used(
    xdg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_cache() is not None
    xdg.chmod(0o770)
    assert default_cache() is None
    xdg.chmod(0o755)
    assert default_cache() == xdg
    monkeypatch.setattr(os, "geteuid", lambda: xdg.stat().st_uid + 1)
    assert default_cache() is None


def test_a_home_that_cannot_hold_one_means_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache() is None


def test_item_texts_are_read_once_where_no_cache_is_named(
    xdg: Path, shop: PlatformConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_platform(shop).table.numpy().copy()
    monkeypatch.setattr(text, "encode", lambda *_args, **_more: pytest.fail("read again"))
    np.testing.assert_array_equal(open_platform(shop).table.numpy(), first)
    (file,) = xdg.glob("items-*.safetensors")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = settled.place_of(shop)
    assert kept is not None
    assert kept.parent == xdg


def test_without_any_place_for_a_cache_a_platform_opens_all_the_same(
    shop: PlatformConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(open_platform(shop).table) == 16
    assert settled.place_of(shop) is None


@pytest.mark.parametrize("content", [b"", b"no vectors"])
def test_damaged_vectors_are_made_again_in_a_folder_that_nobody_named(
    content: bytes, encoder: Path, tmp_path: Path
) -> None:
    spec = find_encoder(str(encoder))
    made = item_table(CATALOGUE, spec, cache=tmp_path, spare=True)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(BackboneError, match="the cached item vectors"):
        item_table(CATALOGUE, spec, cache=tmp_path)
    np.testing.assert_array_equal(item_table(CATALOGUE, spec, cache=tmp_path, spare=True), made)
    np.testing.assert_array_equal(item_table(CATALOGUE, spec, cache=tmp_path), made)


def test_a_full_disk_costs_no_vectors_in_a_folder_that_nobody_named(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text, "save_file", full)
    assert len(item_table(CATALOGUE, find_encoder(str(encoder)), cache=tmp_path, spare=True)) == 3
    assert list(tmp_path.iterdir()) == []


def test_what_was_wanted_longest_ago_is_pruned_first(tmp_path: Path) -> None:
    for age, name in enumerate(("items-new", "items-middle", "items-old", "other")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    used(tmp_path / "items-old")
    prune(tmp_path, "items-*", most=20)
    assert {it.name for it in tmp_path.iterdir()} == {"items-old", "items-new", "other"}
    used(tmp_path / "gone")  # another process may have removed it
