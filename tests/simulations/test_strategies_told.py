from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulations.cli import main
from simulations.scenario import find_scenario, load_scenario
from simulations.strategies.command import left_out, same_shoppers
from simulations.strategies.comparison import CHOSEN, Reading, Sitting, foreseen, together
from simulations.strategies.every import STRATEGIES
from simulations.strategies.page import render_strategies
from simulations.strategies.telling import foretold, headline
from simulations.transfer_score import Score

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]
NAMES = ("local", "federated", "fedprox", "pooled")


@pytest.fixture
def words(make_scenario: Make, cache: Path, tmp_path: Path) -> list[str | Path]:
    path = make_scenario(tmp_path / "s")
    return [path, "--out", tmp_path / "out", "--cache", cache, "--threads", "2"]


def reading(mean: float, *, validation: float, shoppers: int = 400) -> Reading:
    values = np.random.default_rng(0).normal(mean, 0.05, shoppers)
    return Reading("round 1", validation, values - values.mean() + mean)


def sitting(seed: int, *, verdict: float = 3.0) -> Sitting:
    near = {
        "local": reading(0.20, validation=0.21),
        "federated": reading(0.30, validation=0.29),
        "fedprox": reading(0.28, validation=0.30),
        "pooled": reading(0.40, validation=0.40),
    }
    far = {
        "local": reading(0.20, validation=0.21),
        "federated": reading(0.10, validation=0.10),
        "fedprox": reading(0.20, validation=0.20),
        "pooled": reading(0.10, validation=0.10),
    }
    scores = {"near": Score(0.7, verdict, 0.5), "far": Score(-0.5, -4.0, -0.6)}
    return Sitting(seed, {"near": read(near), "far": read(far)}, scores)


def read(rows: dict[str, Reading]) -> dict[str, Reading]:
    best = max(("local", "federated", "fedprox"), key=lambda name: rows[name].validation)
    return {**rows, CHOSEN: Reading(best, rows[best].validation, rows[best].values)}


def found(*sittings: Sitting, same_shoppers: bool = False) -> dict[str, object]:
    told = together(sittings, same_shoppers=same_shoppers, resamples=200)
    return {
        "title": "Two <shops>",
        "scenario": "two",
        "seeds": [it.seed for it in sittings],
        "atoll": "0",
        "versions": {},
        "seconds": 1.0,
        **told,
    }


def test_the_best_that_a_platform_can_have_is_named_and_pooled_rows_are_not_on_offer() -> None:
    told = found(sitting(0))
    platforms = told["platforms"]
    assert isinstance(platforms, dict)
    assert platforms["near"]["best"] == "federated"
    # On `far` local and fedprox tie, and the first in the table is named.
    assert headline(told) == "Best that a platform can have: federated on near; local on far."
    rows = platforms["near"]["strategies"]
    assert rows[CHOSEN]["kept"] == ["fedprox"]  # validation's choice, not the test's
    assert rows["federated"]["against_local"]["verdict"] == "gain"
    assert platforms["far"]["strategies"]["federated"]["against_local"]["verdict"] == "loss"
    assert "against_local" not in rows["local"]


def test_p_is_corrected_over_the_whole_table() -> None:
    told = found(sitting(0))["platforms"]
    assert isinstance(told, dict)
    every = [
        row["against_local"]
        for platform in told.values()
        for row in platform["strategies"].values()
        if "against_local" in row
    ]
    assert len(every) == 2 * len(NAMES)
    assert max(it["p_holm"] / it["p"] for it in every) == pytest.approx(len(every))


def test_seeds_that_make_worlds_stand_side_by_side_and_others_are_averaged_by_shopper() -> None:
    for same, shoppers in ((False, 800), (True, 400)):
        told = found(sitting(0), sitting(1), same_shoppers=same)["platforms"]
        assert isinstance(told, dict)
        assert told["near"]["shoppers"] == shoppers
        row = told["near"]["strategies"]["federated"]
        assert row["ndcg@10"] == pytest.approx(0.30)
        assert row["by_seed"] == pytest.approx([0.30, 0.30])


def test_the_score_is_set_beside_the_gain_and_a_contrary_law_is_warned_of() -> None:
    told = found(sitting(0), sitting(1))
    transfer = told["transfer"]
    assert isinstance(transfer, dict)
    assert transfer["rank_correlation"] == {"expected": None, "nearness": None}
    assert transfer["points"] == 4
    assert [line.split(":")[0] for line in transfer["warnings"]] == ["far", "far"]
    assert "nearness −0.50, seed 0): expect negative transfer" in transfer["warnings"][0]
    assert "not judged" in foretold(told)
    assert "there are 4 figures of 2 platforms" in foretold(told)


@pytest.mark.parametrize(
    ("platforms", "seeds", "judged"),
    [(2, 1, False), (2, 3, False), (4, 1, False), (5, 1, True), (3, 2, True)],
)
def test_a_rank_correlation_needs_as_many_points_as_could_show_one(
    platforms: int, seeds: int, judged: bool
) -> None:
    entries = {
        f"shop-{place}": {
            "scores": [
                {
                    "seed": seed,
                    "nearness": 0.1 * place + 0.01 * seed,
                    "expected": 0.2 * place + 0.01 * seed,
                    "verdict": "near",
                    "gain": 0.3 * place + 0.01 * seed,
                }
                for seed in range(seeds)
            ]
        }
        for place in range(platforms)
    }
    transfer = foreseen(entries)
    told = foretold({"transfer": transfer, "platforms": entries})
    assert transfer["points"] == platforms * seeds
    assert (transfer["rank_correlation"]["expected"] is not None) is judged
    assert ("ρ = 1.00" in told) is judged
    assert ("not judged" in told) is not judged


def test_the_page_is_whole_fetches_nothing_and_escapes_names() -> None:
    page = render_strategies(found(sitting(0)))
    assert page == render_strategies(found(sitting(0)))
    assert "Two &lt;shops&gt;" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "[pooled]" in page
    assert page.count("<figure>") == 3


def test_the_command_runs_every_strategy_and_prints_one_object(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, err = typed(main, "strategies", *words, "--json", "--seeds", "2", "--seed", "4")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["seeds"] == [4, 5]
    assert list(told["strategies"]) == [*STRATEGIES, CHOSEN]
    assert list(told["platforms"]) == ["a", "b", "c"]
    assert told == json.loads((tmp_path / "out" / "strategies.json").read_text())
    assert (tmp_path / "out" / "strategies.html").read_text().startswith("<!doctype html>")


def test_the_command_ends_with_a_table_and_says_where_the_page_is(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, _err = typed(main, "strategies", *words, "--only", "fusion uniform")
    assert code == 0
    assert "NDCG@10 by strategy" in out
    assert all(word in out for word in ("local", "fusion uniform", "chosen", "nearness"))
    assert "scaffold" not in out
    assert str(tmp_path / "out" / "strategies.html") in out


@pytest.mark.parametrize(
    ("name", "same", "left"),
    [
        ("demo", False, "[sums], [privacy]"),
        ("channels", False, "[sums], [privacy]"),
        ("protocol", True, ""),
    ],
)
def test_what_a_scenario_has_beyond_strategies_is_told_and_parts_are_other_shoppers(
    name: str, same: bool, left: str, tmp_path: Path
) -> None:
    scenario = load_scenario(find_scenario(name), data=tmp_path)
    assert same_shoppers(scenario) == same
    assert left_out(scenario) == (left and f"{left} of {name} is left out here.")


def test_an_unknown_strategy_is_refused_before_anything_is_made(
    refused: Refused, words: list[str | Path]
) -> None:
    line = refused(main, "strategies", *words, "--only", "magic")
    assert line.startswith("no such strategy: 'magic'; name one of memory, local, federated")


def test_a_platform_alone_is_refused(
    refused: Refused, words: list[str | Path], cache: Path, tmp_path: Path
) -> None:
    whole = Path(words[0]).read_text()
    head, first, *_rest, tail = re.split(r"(?=^\[\[platforms\]\]|^\[backbone\])", whole, flags=re.M)
    alone = tmp_path / "s" / "alone.toml"
    alone.write_text(head + first + tail)
    line = refused(main, "strategies", alone, "--out", tmp_path / "out", "--cache", cache)
    assert (
        line == "alone: has one platform, which nobody can teach; add a second under [[platforms]]"
    )
    alone.write_text(
        'title = "Alone"\n[world]\n[[world.platforms]]\nname = "all"\nshoppers = [0.0, 1.0]\n'
    )
    line = refused(main, "strategies", alone, "--out", tmp_path / "out", "--cache", cache)
    assert line.endswith("add a second under [[world.platforms]]")
