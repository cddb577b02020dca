"""Sums as a platform is handed them: a file, and the manifest beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.beside import known
from clients.compare import OWN
from clients.daemon import main
from clients.platform import Platform, open_platform
from clients.settled import place_of
from clients.weighing import Shares, spread
from shared import manifest
from shared.adapter import Adapter, save_adapter
from shared.manifest import Manifest
from shared.pairs import met, near, save_pairs
from shared.tables.config import load_platform
from shared.tasks import co_visitation

ITEMS = tuple(f"shop-{place:02}" for place in range(16))


@pytest.fixture
def file(make_platform: Callable[..., Path], tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(ITEMS), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    save_pairs(near(ITEMS, vectors, count=6), tmp_path / "pairs.safetensors")
    return make_platform(tmp_path, more='[sums]\npairs = "pairs.safetensors"\n')


@pytest.fixture
def shop(file: Path) -> Platform:
    return open_platform(load_platform(file))


def taken(shop: Platform) -> Adapter:
    """Sums of others, of a few shoppers for each pair and item, with noise."""
    start = co_visitation.untrained(shop.places.pairs)
    rng = np.random.default_rng(1)
    told = {name: rng.poisson(3, it.shape).astype(np.float32) for name, it in start.tensors.items()}
    told[co_visitation.VARIANCE][:] = told[co_visitation.WEIGHT][:] = 1
    return start.plus(told, version=1)


def handed(sums: Adapter, path: Path) -> Path:
    """The file, and a manifest by which the shop is not among those who took part."""
    save_adapter(sums, path)
    told = Manifest(
        version=1,
        adapter=sums.digest,
        parents=(),
        backbone=sums.backbone,
        task=sums.task,
        run="run",
        round=1,
        participants=("others",),
    )
    manifest.write(manifest.beside(path), told, manifest.sign(told, Ed25519PrivateKey.generate()))
    return path


def test_exact_sums_bring_how_the_others_weigh(
    typed: Callable[..., tuple[int, str, str]], file: Path, tmp_path: Path
) -> None:
    keys = [left * len(ITEMS) + right for right in range(len(ITEMS)) for left in range(right)]
    save_pairs(met(ITEMS, np.array(keys, np.int64)), tmp_path / "pairs.safetensors")
    shop = open_platform(load_platform(file))
    state = taken(shop)
    flat = spread(Shares(similar=0.5, next=3.0)).flat
    told = {**state.tensors, co_visitation.WEIGHING: (7 * flat).astype(np.float32)}
    sums = handed(replace(state, tensors=told), tmp_path / "sums.safetensors")
    alone, joined = known(shop, sums)
    assert joined.taught is not None
    others = joined.taught.others  # the shop is not among them, so nothing is taken out
    assert others is not None
    np.testing.assert_allclose(others.flat, flat, rtol=1e-6)
    assert joined.memory.rows.sum() > alone.memory.rows.sum()
    code, _out, fault = typed(main, "compare", "-p", file, "--sums", sums, "--epochs", "0")
    assert code == 0, fault


def test_a_file_of_sums_is_heard_and_ranked_with(
    typed: Callable[..., tuple[int, str, str]], file: Path, shop: Platform, tmp_path: Path
) -> None:
    sums = handed(taken(shop), tmp_path / "sums.safetensors")
    alone, joined = known(shop, sums)
    assert alone.shared is None
    assert joined.shared is not None
    assert joined.shared.together.nnz > 0
    for words in (("recommend", "--history", "shop-03"), ("compare", "--epochs", "0")):
        code, _out, fault = typed(main, *words, "-p", file, "--sums", sums, "--json")
        assert (code, fault) == (0, "")


def test_sums_that_own_shoppers_would_not_hear_are_left_out_and_it_is_told(
    typed: Callable[..., tuple[int, str, str]],
    file: Path,
    shop: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sums = handed(taken(shop), tmp_path / "sums.safetensors")
    words = ("recommend", "--history", "shop-03", "-p", file)
    heard = typed(main, *words, "--sums", sums)[1]
    assert "left out" not in heard
    kept = place_of(shop.config)
    assert kept is not None
    kept.unlink()
    alone = typed(main, *words)[1]
    monkeypatch.setattr("clients.recall.listened", lambda _field, own, _elsewhere: own.silent())
    for _again in range(2):  # found, and then as it was kept
        found = typed(main, *words, "--sums", sums)[1]
        assert found.startswith(alone)
        assert found.removeprefix(alone).startswith("These sums do not serve your own shoppers")
    code, out, fault = typed(main, "compare", *words[3:], "--sums", sums, "--epochs", "0", "--json")
    assert (code, fault) == (0, "")
    told = json.loads(out)
    assert (told["best"], told["listens"]) == (OWN, False)


def test_without_a_file_nobody_is_heard(shop: Platform) -> None:
    alone, joined = known(shop, None)
    assert joined is alone


def renamed(sums: Adapter) -> Adapter:
    tensors = dict(sums.tensors)
    tensors["variance"] = tensors.pop(co_visitation.VARIANCE)
    return replace(sums, tensors=tensors)


def shorter(sums: Adapter) -> Adapter:
    together = sums.tensors[co_visitation.TOGETHER][1:]
    return replace(sums, tensors={**sums.tensors, co_visitation.TOGETHER: together})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed, "holds other sums than this release of Atoll takes"),
        (shorter, "holds other sums than this release of Atoll takes"),
        (lambda sums: replace(sums, backbone="x" * 64), "belongs to backbone xxxxxxxxxxxx"),
        (
            lambda sums: replace(sums, task="next-item"),
            "belongs to task 'next-item', this one is 'co-visitation'",
        ),
    ],
)
@pytest.mark.parametrize("command", [("recommend", "--history", "shop-03"), ("compare",)])
def test_a_file_of_something_else_is_refused_in_one_line(
    change: Callable[[Adapter], Adapter],
    told: str,
    command: tuple[str, ...],
    refused: Callable[..., str],
    file: Path,
    shop: Platform,
    tmp_path: Path,
) -> None:
    sums = handed(change(taken(shop)), tmp_path / "sums.safetensors")
    line = refused(main, *command, "-p", file, "--sums", sums)
    assert line.startswith(f"{sums}: {told}"), line


def test_a_manifest_of_other_sums_is_refused(
    refused: Callable[..., str], file: Path, shop: Platform, tmp_path: Path
) -> None:
    sums = handed(taken(shop), tmp_path / "sums.safetensors")
    save_adapter(replace(taken(shop), version=2), sums)
    line = refused(main, "compare", "-p", file, "--sums", sums)
    assert line.startswith(f"{manifest.beside(sums)}: is of other sums than those beside it")


def test_a_file_without_its_manifest_is_refused(
    refused: Callable[..., str], file: Path, shop: Platform, tmp_path: Path
) -> None:
    sums = handed(taken(shop), tmp_path / "sums.safetensors")
    manifest.beside(sums).unlink()
    line = refused(main, "compare", "-p", file, "--sums", sums)
    assert line.startswith(f"{manifest.beside(sums)}: ")
