"""Platforms that sell nothing alike share how loudly signals speak, and no pair of items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.beside import own
from clients.mixing import mixed
from clients.weighing import Shares, spread, weighing_of
from server.pairs import together
from shared.errors import PairsError
from shared.pairs import Pairs, load_pairs, met, near
from shared.tasks import co_visitation as task
from simulations.beside import shared
from simulations.federations import sum_up
from simulations.pooled import memory_of_all, taught_by_others
from simulations.prepare import prepare
from simulations.run import full_comparison
from simulations.scenario import Scenario, load_scenario

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def scenario(
    write_tables: Callable[..., None],
    encoder: Path,
    backbone: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Scenario:
    folder = tmp_path_factory.mktemp("strangers")
    lines = ['title = "Strangers"']
    for seed, name in enumerate(NAMES):
        write_tables(folder / name, name, shoppers=40, items=20, seed=seed)
        lines += ["[[platforms]]", f'name = "{name}"', "[platforms.events]"]
        lines += [f'path = "{name}/interactions.tsv"']
        lines += ['columns = { shopper = "user", item = "item", order = "pos" }']
        lines += ["[platforms.items]", f'path = "{name}/items.tsv"']
        lines += ['columns = { item = "item", text = "text" }']
    lines += ["[backbone]", f"encoder = {json.dumps(str(encoder))}"]
    lines += [f"path = {json.dumps(str(backbone))}"]
    lines += ["[federation]", "rounds = 1", "[comparison]", "resamples = 100"]
    lines += ["[privacy]", "epsilons = [8.0]", "batch = 4", "steps = 2"]
    lines += ["[sums]", "share = 0.0"]
    path = folder / "strangers.toml"
    path.write_text("\n".join(lines))
    return load_scenario(path)


def listed(items: str, *pairs: str) -> Pairs:
    keys = [items.index(pair[0]) * len(items) + items.index(pair[1]) for pair in pairs]
    return met(tuple(items), np.array(keys, np.int64))


def told(pairs: Pairs) -> set[str]:
    return {pairs.items[a] + pairs.items[b] for a, b in zip(pairs.left, pairs.right, strict=True)}


@pytest.mark.parametrize(
    ("lists", "items", "expected"),
    [
        # "ab" and "bc" are sold by two; "cd" by the first alone, "de" has nobody with both.
        ([listed("abcd", "ab", "cd"), listed("abce", "bc", "ce")], "abc", {"ab", "bc"}),
        ([listed("ab", "ab"), listed("cd", "cd")], "", set()),
        ([listed("ac", "ac"), listed("ab", "ab"), listed("bc", "bc")], "abc", set()),
        ([listed("abc", "ab", "bc")], "abc", {"ab", "bc"}),
    ],
)
def test_of_several_lists_the_pairs_stay_that_two_platforms_could_have(
    lists: list[Pairs], items: str, expected: set[str]
) -> None:
    found = together(lists)
    assert found.items == tuple(items)
    assert told(found) == expected
    assert found.directed


def test_sums_over_no_pair_teach_how_the_others_weigh(
    scenario: Scenario, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.recall.PRETRAINED", spread(Shares()))  # else it is what all take
    ready = prepare(scenario, tmp_path, cache=cache, seed=0)
    assert ready.near is None
    assert ready.met is not None
    assert (len(load_pairs(ready.met)), load_pairs(ready.met).items) == (0, ())
    taken = sum_up(scenario, ready, tmp_path)
    assert taken is not None
    state, report = taken.registry.load(1)
    assert report.replied == NAMES
    recalls = [own(it) for it in ready.platforms]
    total = sum(it.own.flat for it in recalls)
    np.testing.assert_allclose(state.adapter.tensors[task.WEIGHING], total, rtol=1e-5, atol=1e-5)
    taught = taught_by_others(ready.platforms)
    for platform, alone, others in zip(ready.platforms, recalls, taught, strict=True):
        everything = memory_of_all(platform, ready.platforms)
        fitted = everything.fitted(platform.question("validation"), others=others)
        assert fitted.held_out >= alone.held_out
    for platform, alone in zip(ready.platforms, recalls, strict=True):
        found = shared(platform, alone, taken)
        known, mine = found.memory.together, alone.memory.together
        assert np.array_equal(known.toarray(), mine.toarray())
        assert found.held_out > alone.held_out
        mean = weighing_of((total - alone.own.flat) / (len(NAMES) - 1))
        expected = mixed(
            alone.field(platform.question("validation")), [spread(Shares()), mean]
        ).weighing
        np.testing.assert_allclose(found.weighing.flat, expected.flat, rtol=1e-4, atol=1e-4)


def test_a_comparison_takes_no_sums_of_them_under_plans(
    scenario: Scenario, cache: Path, tmp_path: Path
) -> None:
    found = full_comparison(scenario, tmp_path, cache=cache, untrained=True)
    for entry in found["platforms"].values():
        assert {"local", "federated", "pooled"} <= entry["scorers"].keys()
        assert not any("ε" in name for name in entry["scorers"])


def test_a_list_of_texts_is_not_one_of_channels() -> None:
    vectors = np.eye(2, dtype=np.float32)
    with pytest.raises(PairsError, match="made from texts"):
        together([near("ab", vectors, count=1)])
