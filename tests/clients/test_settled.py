from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from clients.beside import own, remembered, to_serve
from clients.platform import Platform, open_platform
from clients.recall import Recall
from clients.settled import Settled, keep, kept, key_of, place_of
from clients.shared_memory import SharedMemory
from clients.weighing import FEATURES, weighing_of
from shared import manifest
from shared.events import Histories
from shared.tables.config import load_platform

Make = Callable[..., Path]


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Platform:
    return open_platform(load_platform(make_platform(tmp_path, cache=tmp_path / "cache")))


def settled(*, joined: bool = False) -> Settled:
    flat = np.random.default_rng(0).normal(size=FEATURES)
    flat[0] = 1.0
    return Settled(weighing_of(flat), joined)


@pytest.mark.parametrize("joined", [False, True])
def test_what_was_settled_comes_back_to_the_last_bit(joined: bool, tmp_path: Path) -> None:
    path, before = tmp_path / "new" / "weighing.safetensors", settled(joined=joined)
    assert kept(path, "key") is None
    keep(path, "key", before)
    after = kept(path, "key")
    assert after is not None
    np.testing.assert_array_equal(after.weighing.flat, before.weighing.flat)
    assert after.joined == joined
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [it.name for it in path.parent.iterdir()] == [path.name]


def test_another_key_or_a_damaged_file_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weighing.safetensors"
    keep(path, "key", settled())
    assert kept(path, "other") is None
    path.write_bytes(path.read_bytes()[:100])
    assert kept(path, "key") is None


def test_the_key_is_of_rows_and_sums(shop: Platform, tmp_path: Path) -> None:
    key = key_of(shop, None)
    assert key == key_of(shop, None)
    rows = shop.rows.histories
    items = rows.items.copy()
    items[0] = (items[0] + 1) % len(shop.rows.catalogue)
    other = replace(shop, rows=replace(shop.rows, histories=replace(rows, items=items)))
    assert key_of(other, None) != key
    fewer = Histories(rows.shoppers[1:], rows.items[rows.offsets[1] :], rows.offsets[1:])
    erased = replace(shop, rows=replace(shop.rows, histories=fewer))
    assert key_of(erased, None) != key
    days = np.zeros(len(rows.items), np.int32)
    timed = replace(shop, rows=replace(shop.rows, histories=replace(rows, days=days)))
    assert key_of(timed, None) != key
    sums = tmp_path / "sums.safetensors"
    sums.write_bytes(b"sums")
    manifest.beside(sums).write_bytes(b"{}")
    with_sums = key_of(shop, sums)
    assert with_sums != key
    heavier = replace(shop, config=replace(shop.config, weight=shop.config.weight + 1))
    assert key_of(heavier, sums) != with_sums
    assert key_of(heavier, None) == key
    manifest.beside(sums).write_bytes(b"{ }")
    assert key_of(shop, sums) not in (key, with_sums)


def test_a_platform_weighs_once_and_serves_the_same(
    shop: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, listens = remembered(shop, None)
    assert not listens
    expected = to_serve(shop, own(shop))
    np.testing.assert_array_equal(first.weighing.flat, expected.weighing.flat)

    def refuse(*_: object) -> Recall:
        raise AssertionError("weighed anew")

    monkeypatch.setattr(Recall, "fitted", refuse)
    again, _listens = remembered(shop, None)
    np.testing.assert_array_equal(again.weighing.flat, first.weighing.flat)
    contexts = shop.question("test").contexts
    np.testing.assert_array_equal(again.scores(contexts), first.scores(contexts))
    path = place_of(shop.config)
    assert path is not None
    assert (path.parent, path.name) == (
        shop.config.cache,
        f"weighing-{shop.config.name}.safetensors",
    )


@pytest.mark.parametrize("exact", [False, True])
def test_beside_sums_it_serves_again_as_it_settled(
    exact: bool, shop: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(shop.rows.catalogue)
    pairs = sparse.csr_array(np.eye(count, k=1, dtype=np.float32))
    noised = SharedMemory(pairs, np.arange(count, dtype=np.float32))

    def told(_platform: Platform, alone: Recall, *_: object, **__: object) -> Recall:
        if exact:
            return alone.with_memory(alone.memory.plus(alone.memory))
        return replace(alone, shared=noised)

    sums = tmp_path / "sums.safetensors"
    sums.write_bytes(b"sums")
    manifest.beside(sums).write_bytes(b"{}")
    named = replace(shop, config=replace(shop.config, name="kiosk"))
    standing = SimpleNamespace(pairs=SimpleNamespace(digest="d"))
    monkeypatch.setattr(Platform, "places", standing)
    monkeypatch.setattr("clients.beside.heard", told)
    state = SimpleNamespace(shapes={}, digest="s")
    monkeypatch.setattr("clients.beside.load_adapter", lambda *_, **__: state)
    monkeypatch.setattr("clients.beside.co_visitation.untrained", lambda _: state)
    read = SimpleNamespace(run="r", participants=["kiosk"], adapter="s")
    monkeypatch.setattr("clients.beside.manifest.read", lambda _: (read, ""))
    first, listens = remembered(named, sums)
    monkeypatch.setattr(Recall, "fitted", None)
    again, as_before = remembered(named, sums)
    assert listens == as_before == (again.shared is not None or exact)
    contexts = named.question("test").contexts
    np.testing.assert_array_equal(again.scores(contexts), first.scores(contexts))
    assert (again.shared is None) == (first.shared is None) == exact
    np.testing.assert_array_equal(again.memory.rows, first.memory.rows)


def test_without_a_place_for_a_cache_nothing_is_kept(
    shop: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    bare = replace(shop, config=replace(shop.config, cache=None))
    assert place_of(bare.config) is None
    remembered(bare, None)
    assert not list(tmp_path.rglob("weighing-*"))
