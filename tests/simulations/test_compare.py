from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.beside import own
from clients.kept import Kept, validated
from clients.platform import Platform
from server.registry import Registry
from shared import metrics
from simulations.compare import compare, compare_untrained
from simulations.federations import federate
from simulations.prepare import Ready, prepare
from simulations.reading import SCORERS, by_length, ordered, served_as, verdict
from simulations.scenario import Scenario, load_scenario

SEED = 2  # of a world in which training pays for some and not for others
COUNTED = ("popularity", "tfidf")
LEARNT = ("local", "federated", "personalised", "served", "pooled")


@dataclass(frozen=True)
class Comparison:
    scenario: Scenario
    ready: Ready
    registry: Registry
    found: dict[str, Any]
    kept: dict[str, Kept]

    def again(
        self, platforms: tuple[Platform, ...] | None = None, *, threads: int = 1
    ) -> dict[str, Any]:
        """The comparison anew, of the same rounds."""
        platforms = platforms or self.ready.platforms
        return compare(self.scenario, platforms, self.registry, seed=SEED, threads=threads)[0]


@pytest.fixture(scope="module")
def done(
    make_scenario: Callable[..., Path], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    folder = tmp_path_factory.mktemp("compare")
    scenario = load_scenario(make_scenario(folder))
    ready = prepare(scenario, folder / "out", cache=cache, seed=SEED)
    registry = federate(scenario, ready, folder / "out")
    found, kept = compare(scenario, ready.platforms, registry, seed=SEED)
    return Comparison(scenario, ready, registry, found, kept)


def scored(platform: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: row[key] for name, row in platform["scorers"].items()}


def test_every_platform_has_all_eight_scorers_in_one_order(done: Comparison) -> None:
    expected = [*COUNTED, "prior", "itemknn", "memory", *LEARNT]
    assert done.found["scorers"] == list(SCORERS) == expected
    assert list(done.found["platforms"]) == ["a", "b", "c"]
    for platform in done.found["platforms"].values():
        assert list(platform["scorers"]) == expected
        assert len(set(scored(platform, "n").values())) == 1  # the same shoppers for each
        for row in platform["scorers"].values():
            low, high = row["ci95"]["ndcg@10"]
            assert 0 <= low <= row["ndcg@10"] <= high <= 1
            assert 0 <= row["mrr"] <= 1


def test_federations_under_plans_stand_after_the_one_without_and_change_no_other_figure(
    done: Comparison,
) -> None:
    private = dict.fromkeys(("federated ε=8", "federated ε=1"), (done.registry, None))
    found, _ = compare(
        done.scenario, done.ready.platforms, done.registry, seed=SEED, private=private
    )
    place = SCORERS.index("federated") + 1
    end = SCORERS.index("served") + 1
    served = [served_as(it) for it in private]
    assert found["scorers"] == [
        *SCORERS[:place],
        *private,
        *SCORERS[place:end],
        *served,
        *SCORERS[end:],
    ]
    for name, platform in done.found["platforms"].items():
        with_plans = found["platforms"][name]["scorers"]
        assert list(with_plans) == found["scorers"]
        assert {it: with_plans[it] for it in SCORERS} == platform["scorers"]
        for it in private:  # of the same rounds here, so the same state is kept
            assert with_plans[it]["kept"] == with_plans["federated"]["kept"]
            assert with_plans[it]["ndcg@10"] == with_plans["federated"]["ndcg@10"]
        for it in served:  # trained on from the same with the same orders
            assert with_plans[it]["kept"] == with_plans["served"]["kept"]
            assert with_plans[it]["ndcg@10"] == with_plans["served"]["ndcg@10"]
        assert set(platform["against_local"]) == {"federated", "served"}


class Begun(Registry):
    """Rounds of which only the start is there."""

    def rounds(self) -> list[int]:
        return super().rounds()[:1]


def test_under_a_plan_a_platform_serves_what_comes_of_that_federation(done: Comparison) -> None:
    begun = Begun(done.registry.folder.parent)
    found, _ = compare(
        done.scenario,
        done.ready.platforms,
        done.registry,
        seed=SEED,
        private={"federated ε=1": (begun, None)},
    )
    tables = [it["scorers"] for it in found["platforms"].values()]
    for table in tables:
        reached = {name: table[name]["validation"] for name in table}
        assert table["federated ε=1"]["kept"] == "untrained"
        assert not table["served ε=1"]["kept"].startswith("round")
        assert reached["served ε=1"]["ndcg@10"] >= reached["local"]["ndcg@10"]
    assert any(table["served ε=1"]["ndcg@10"] != table["served"]["ndcg@10"] for table in tables)


def test_without_plans_the_order_is_that_of_the_table() -> None:
    assert ordered([]) == list(SCORERS)


def test_on_validation_nothing_learnt_is_below_the_untrained_state(done: Comparison) -> None:
    for platform in done.found["platforms"].values():
        reached = {
            name: row["validation"]["ndcg@10"]
            for name, row in platform["scorers"].items()
            if row["validation"] is not None
        }
        assert set(reached) == {"prior", "memory", *LEARNT}
        learnt = set(LEARNT) - {"pooled"}  # which begins from the memory of all
        assert all(reached[name] >= reached["memory"] for name in learnt)
        assert reached["personalised"] >= reached["federated"]
        of = ("local", "federated", "personalised")
        assert reached["served"] == max(reached[it] for it in of)


def test_what_needs_no_training_scores_the_same_without_any(done: Comparison) -> None:
    found = compare_untrained(done.scenario, done.ready.platforms, seed=SEED)
    assert found["scorers"] == [*COUNTED, "prior", "itemknn", "memory", "memory of train rows"]
    assert found["rounds"] == []
    for name, platform in found["platforms"].items():
        whole = done.found["platforms"][name]["scorers"]
        shared = found["scorers"][:-1]
        assert {key: platform["scorers"][key] for key in shared} == {
            key: whole[key] for key in shared
        }


def test_here_training_pays_somewhere_so_that_the_choice_is_one(done: Comparison) -> None:
    kept = [scored(it, "kept")[name] for it in done.found["platforms"].values() for name in LEARNT]
    assert "untrained" in kept
    assert any(name.startswith("epoch") for name in kept)
    assert any(name.startswith("round") for name in kept)


def test_what_is_said_of_validation_and_test_is_what_the_kept_state_scores(
    done: Comparison,
) -> None:
    for platform in done.ready.platforms:
        name = platform.config.name
        entry = done.found["platforms"][name]["scorers"]["federated"]
        kept = done.kept[name]
        assert entry["kept"] == kept.name
        assert entry["validation"]["ndcg@10"] == kept.validation
        assert kept.beside is None  # a memory is large, and every platform has one
        again = validated(platform, kept.adapter, kept.name, own(platform))
        assert kept.validation == again.validation
        gain = metrics.ndcg(again.rank(platform, "test").ranks)
        assert entry["ndcg@10"] == pytest.approx(float(gain.mean()))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_seed_gives_the_same_figures_on_any_number_of_threads(
    threads: int, done: Comparison
) -> None:
    assert json.dumps(done.again(threads=threads)) == json.dumps(done.found)


def test_the_scenario_says_how_often_the_bootstrap_draws(done: Comparison) -> None:
    few = replace(done.scenario, resamples=100)
    found = compare(few, done.ready.platforms, done.registry, seed=SEED)[0]
    for name, platform in done.found["platforms"].items():
        assert scored(found["platforms"][name], "mrr") == scored(platform, "mrr")
        assert scored(found["platforms"][name], "ci95") != scored(platform, "ci95")


def shuffled_targets(platform: Platform) -> Platform:
    """The same platform with another last event for every shopper: only the test part differs."""
    histories = platform.rows.histories
    items = histories.items.copy()
    ends = histories.offsets[1:] - 1
    for shopper, end in enumerate(ends):
        seen = set(histories[shopper].tolist())
        items[end] = next(it for it in range(len(platform.rows.catalogue)) if it not in seen)
    assert (items[ends] != histories.items[ends]).all()
    return replace(platform, rows=replace(platform.rows, histories=replace(histories, items=items)))


def test_test_targets_choose_nothing(done: Comparison) -> None:
    other = done.again(tuple(shuffled_targets(it) for it in done.ready.platforms))
    for name, platform in done.found["platforms"].items():
        for key in ("kept", "validation"):
            assert scored(other["platforms"][name], key) == scored(platform, key)
        assert scored(other["platforms"][name], "mrr") != scored(platform, "mrr")


def test_each_platform_starts_personalising_from_its_federated_state(done: Comparison) -> None:
    for name, platform in done.found["platforms"].items():
        if scored(platform, "kept")["personalised"] == "untrained":
            assert done.kept[name].name == "untrained"


def test_the_record_holds_the_rounds_and_the_sizes(done: Comparison) -> None:
    assert [it["round"] for it in done.found["rounds"]] == [0, 1, 2]
    sizes = {name: (it["shoppers"], it["items"]) for name, it in done.found["platforms"].items()}
    assert sizes == {"a": (24, 18), "b": (12, 22), "c": (9, 26)}


def test_a_verdict_follows_sign_and_significance() -> None:
    worse, best = np.zeros(60), np.ones(60)
    assert verdict(best, worse, resamples=100, seed=(0,))["verdict"] == "gain"
    assert verdict(worse, best, resamples=100, seed=(0,))["verdict"] == "loss"
    assert verdict(best, best, resamples=100, seed=(0,))["verdict"] == "no clear difference"
    assert verdict(best, worse, resamples=100, seed=(0,))["difference"] == 1.0


def test_gain_by_length_counts_each_shopper_once_and_hides_the_few() -> None:
    lengths = np.array([2] * 30 + [6] * 19 + [40] * 25)
    ours, theirs = np.where(lengths == 40, 1.0, 0.25), np.full(len(lengths), 0.25)
    found = by_length(ours, theirs, lengths, resamples=100, seed=(0,))
    assert [(it["length"], it["n"], it["difference"]) for it in found] == [
        ("1-4", 30, 0.0),
        ("17+", 25, 0.75),
    ]
