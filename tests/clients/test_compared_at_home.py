from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import derived_files
from clients.beside import own, remembering
from clients.compare import ALONE, ON, OWN, PRIOR, SUMS, Comparison, compare
from clients.daemon import main
from clients.kept import validated
from clients.memory import Memory
from clients.platform import Platform, open_platform
from clients.recall import Recall
from shared import metrics
from shared.adapter import Adapter, load_adapter, save_adapter
from shared.errors import DataError
from shared.tables.config import load_platform
from shared.training import Recipe

Make = Callable[..., Path]
Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
NOTHING = Recipe(epochs=0)


@pytest.fixture(scope="module")
def file(make_platform: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_platform(tmp_path_factory.mktemp("shop"), shoppers=60, seed=3)


@pytest.fixture(scope="module")
def shop(file: Path) -> Platform:
    return open_platform(load_platform(file))


@pytest.fixture(scope="module")
def alone(shop: Platform) -> Recall:
    return own(shop)


@pytest.fixture(scope="module")
def unfitted(shop: Platform) -> Recall:
    """Weighed so badly that training has something left to learn."""
    return remembering(shop)


@pytest.fixture(scope="module")
def joined(shop: Platform, make_platform: Make, tmp_path_factory: pytest.TempPathFactory) -> Recall:
    """Own memory, and that of another hundred shoppers."""
    path = make_platform(tmp_path_factory.mktemp("other"), shoppers=100, seed=4)
    theirs = Memory.of(open_platform(load_platform(path)).told, items=len(shop.rows.catalogue))
    start = remembering(shop)
    return start.with_memory(start.memory.plus(theirs)).fitted(shop.question("validation"))


def adapters(shop: Platform, count: int) -> dict[str, Adapter]:
    """So many of others, which say different things."""
    rng = np.random.default_rng(5)
    found = {}
    for number in range(count):
        moved = {
            name: rng.normal(0, 0.5, shape).astype(np.float32)
            for name, shape in shop.untrained.shapes.items()
        }
        found[f"{number}.safetensors"] = shop.untrained.plus(moved, version=1)
    return found


def lines(told: Comparison) -> list[str]:
    return [line.name for line in told.lines]


def test_every_state_is_validated_and_the_best_by_that_alone_is_chosen(
    shop: Platform, alone: Recall
) -> None:
    given = adapters(shop, 6)
    told = compare(shop, alone, alone, given, recipe=NOTHING)
    assert lines(told) == [PRIOR, OWN, *given]
    expected = {OWN: validated(shop, shop.untrained, "", alone).validation}
    for name, adapter in given.items():
        state = validated(shop, adapter, "", alone)
        expected[name] = state.validation
        ranks = state.rank(shop, "test").ranks
        assert told.line(name).ndcg == float(metrics.ndcg(ranks).mean())
        assert told.line(name).hit_rate == float(metrics.hit_rate(ranks).mean())
    assert {name: told.line(name).validation for name in expected} == expected
    assert told.best == max(expected, key=lambda it: expected[it])
    assert told.alone == OWN
    assert told.shoppers == len(shop.question("test").contexts)
    assert not told.listens


def test_an_adapter_that_is_no_better_is_not_served(shop: Platform, alone: Recall) -> None:
    told = compare(shop, alone, alone, {"a.safetensors": shop.untrained}, recipe=NOTHING)
    assert told.best == OWN
    gain = told.line("a.safetensors").gain
    assert gain is not None
    assert (gain.difference, gain.ci95, gain.p) == (0.0, (0.0, 0.0), 1.0)


def test_gains_are_over_the_best_alone_and_hold_together(shop: Platform, unfitted: Recall) -> None:
    recipe = Recipe(epochs=6, batch=8, learning_rate=0.05)
    told = compare(shop, unfitted, unfitted, adapters(shop, 3), recipe=recipe)
    assert told.alone == ALONE  # of these rows training learns something
    base = told.line(ALONE)
    assert base.validation > told.line(OWN).validation
    assert base.kept.startswith("epoch ")
    assert [line.name for line in told.lines if line.gain is None] == [PRIOR, OWN, ALONE]
    gains = [line.gain for line in told.lines if line.gain is not None]
    for line in told.lines:
        if line.gain is not None:
            assert line.gain.difference == pytest.approx(line.ndcg - base.ndcg)
    single = compare(shop, unfitted, unfitted, adapters(shop, 1), recipe=recipe)
    first = single.line("0.safetensors").gain
    assert first is not None
    assert gains[0].p >= first.p  # Holm's: more of them, less sure


def test_sums_that_are_listened_to_are_served_and_adapters_stand_beside_them(
    shop: Platform, alone: Recall, joined: Recall
) -> None:
    told = compare(shop, alone, joined, adapters(shop, 1), recipe=NOTHING, sums=True)
    assert lines(told) == [PRIOR, OWN, SUMS, "0.safetensors"]
    beside = validated(shop, shop.untrained, "", joined)
    assert told.line(SUMS).validation == beside.validation
    other = validated(shop, adapters(shop, 1)["0.safetensors"], "", joined)
    assert told.line("0.safetensors").validation == other.validation
    assert told.listens
    assert told.best == ("0.safetensors" if other.validation > beside.validation else SUMS)


def test_sums_that_are_not_listened_to_have_a_line_and_are_not_served(
    shop: Platform, alone: Recall
) -> None:
    told = compare(shop, alone, alone, {}, recipe=NOTHING, sums=True)
    assert lines(told) == [PRIOR, OWN, SUMS]
    assert (told.best, told.listens) == (OWN, False)
    assert told.line(SUMS).ndcg == told.line(OWN).ndcg


def test_what_others_sent_is_trained_on_at_home_only_if_it_is_better(
    shop: Platform, unfitted: Recall
) -> None:
    recipe = Recipe(epochs=1, batch=16, learning_rate=1e-4)
    worse = {"a.safetensors": shop.untrained}
    assert ON not in lines(compare(shop, unfitted, unfitted, worse, recipe=recipe))
    good = compare(
        shop, unfitted, unfitted, {}, recipe=Recipe(epochs=6, batch=8, learning_rate=0.05)
    )
    taught = compare(shop, unfitted, unfitted, {"b.safetensors": good.adapter}, recipe=recipe)
    assert ON in lines(taught)
    assert taught.line(ON).validation >= taught.line("b.safetensors").validation


def test_nobody_to_ask_is_told(shop: Platform, alone: Recall) -> None:
    nobody = replace(
        shop, rows=replace(shop.rows, histories=shop.rows.histories.take(np.arange(0)))
    )
    with pytest.raises(DataError, match="no shopper is left to ask"):
        compare(nobody, alone, alone, {}, recipe=NOTHING)


def printed(typed: Typed, *words: str | Path) -> Any:
    code, out, err = typed(main, "compare", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_command_tells_what_the_function_found(
    typed: Typed, file: Path, shop: Platform, alone: Recall, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_adapter(adapters(shop, 1)["0.safetensors"], path)
    found = printed(typed, "-p", file, "--adapter", path, "--epochs", "0")
    given = {str(path): load_adapter(path)}
    told = compare(shop, alone, alone, given, recipe=NOTHING)
    assert (found["platform"], found["best"], found["alone"]) == ("shop", told.best, OWN)
    assert [line["name"] for line in found["lines"]] == lines(told)
    for line in found["lines"]:
        known = told.line(line["name"])
        assert line["ndcg"] == pytest.approx(known.ndcg, rel=1e-6)
    assert "adapter" not in found


def test_what_was_trained_here_is_kept_for_its_owner_and_served(
    typed: Typed, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "home.safetensors"
    words = ("compare", "-p", file, "--epochs", "6", "--learning-rate", "0.05", "--out", out)
    code, told, _err = typed(main, *words)
    assert code == 0
    assert f"--adapter {out} --unsigned" in told
    assert told.endswith("Nothing of others was given: --adapter and --sums name it.\n")
    assert out.stat().st_mode & 0o777 == 0o600
    config = load_platform(file)
    (made,) = derived_files.load_register(config)  # so that an erasure finds it
    assert derived_files.location(config, made) == out
    assert (made.kind, made.digest) == ("adapter", load_adapter(out).digest)
    ranked = ("recommend", "-p", file, "--adapter", out, "--unsigned", "--history", "shop-03")
    assert typed(main, *ranked)[0] == 0


def test_nothing_is_written_where_nothing_trained_here_is_better(
    typed: Typed, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "home.safetensors"
    words = ("compare", "-p", file, "--epochs", "1", "--learning-rate", "1e-9", "--out", out)
    code, told, _err = typed(main, *words)
    assert code == 0
    assert f"{out} was not written" in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--learning-rate", "0"), "--learning-rate 0 is out of range"),
        (("--learning-rate", "nan"), "--learning-rate nan is out of range"),
        (("--epochs", "0", "--out", "a.safetensors"), "--out keeps what is trained here"),
        (
            ("--out", "no-such-folder/a.safetensors"),
            "no-such-folder: no such folder, or a closed one",
        ),
        (("--out", "/"), "/: is there already"),
        (("--adapter", "gone.safetensors"), "gone.safetensors: "),
        (("--sums", "gone.safetensors"), "shop: has no [sums] section"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_trained(
    words: tuple[str, ...], told: str, refused: Refused, file: Path
) -> None:
    assert refused(main, "compare", "-p", file, *words).startswith(told)


def test_one_adapter_under_two_names_is_one_line(
    typed: Typed, file: Path, shop: Platform, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two.safetensors"  # the one without a suffix
    for path in (one, two):
        save_adapter(adapters(shop, 1)["0.safetensors"], path)
    given = ("--adapter", one, "--adapter", two, "--adapter", one)
    found = printed(typed, "-p", file, *given, "--epochs", "0")
    assert [it["name"] for it in found["lines"]] == [PRIOR, OWN, str(one)]


def test_a_file_without_a_suffix_is_told_apart_from_a_line_of_ours(
    typed: Typed, file: Path, shop: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_adapter(adapters(shop, 1)["0.safetensors"], Path(PRIOR))
    found = printed(typed, "-p", file, "--adapter", PRIOR, "--epochs", "0")
    assert [it["name"] for it in found["lines"]] == [PRIOR, OWN, f"./{PRIOR}"]


@pytest.mark.parametrize("command", [("compare",), ("recommend", "--history", "shop-03")])
def test_an_adapter_of_values_that_none_comes_to_is_refused(
    command: tuple[str, ...], refused: Refused, file: Path, shop: Platform, tmp_path: Path
) -> None:
    path = tmp_path / "huge.safetensors"
    huge = {name: np.full(shape, 1e30, np.float32) for name, shape in shop.untrained.shapes.items()}
    save_adapter(shop.untrained.plus(huge, version=1), path)
    told = refused(main, *command, "-p", file, "--adapter", path)
    assert told.startswith("a value is beyond 1000")
