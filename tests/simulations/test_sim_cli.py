from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from server.registry import Registry
from simulations.cli import main

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]
SCORERS = ["popularity", "tfidf", "prior", "itemknn", "memory"]
SCORERS += ["local", "federated", "personalised", "served", "pooled"]


@pytest.fixture
def words(make_scenario: Make, cache: Path, tmp_path: Path) -> list[str | Path]:
    """A scenario, the folder of its run, the cache that all tests share, and a core for each."""
    path = make_scenario(tmp_path / "s")
    return [path, "--out", tmp_path / "out", "--cache", cache, "--threads", "3"]


def test_compare_as_json_prints_one_object_and_nothing_else(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, err = typed(main, "compare", *words, "--json", "--seed", "5")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert sorted(found) == ["platforms", "scenario", "seed"]
    assert found["seed"] == 5
    assert list(found["platforms"]) == ["a", "b", "c"]
    for platform in found["platforms"].values():
        assert sorted(platform) == sorted(SCORERS)
        for row in platform.values():
            assert sorted(row) == ["ci95", "hr@10", "mrr", "n", "ndcg@10"]
            assert list(row["ci95"]) == ["ndcg@10"]
            low, high = row["ci95"]["ndcg@10"]
            assert low <= row["ndcg@10"] <= high
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    local = written["platforms"]["b"]["scorers"]["local"]
    assert found["platforms"]["b"]["local"]["ndcg@10"] == local["ndcg@10"]


def test_compare_without_training_runs_no_federation(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, err = typed(main, "compare", *words, "--untrained", "--json")
    assert (code, err) == (0, "")
    for platform in json.loads(out)["platforms"].values():
        assert set(platform) == {
            *("popularity", "tfidf", "prior", "itemknn", "memory", "memory of train rows")
        }
    assert Registry(tmp_path / "out").rounds() == []
    assert (tmp_path / "out" / "report.html").is_file()
    told = (tmp_path / "out" / "table.md").read_text()
    assert "Nothing was federated, so no transfer is judged." in told


def test_several_scenarios_have_a_folder_and_a_line_each(
    typed: Typed, refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    one = make_scenario(tmp_path / "s")
    other = one.with_name("other.toml")
    other.write_bytes(one.read_bytes())
    out = tmp_path / "out"
    words = ["--json", "--out", out, "--cache", cache]
    code, told, err = typed(main, "compare", one, other, "--untrained", *words)
    assert (code, err) == (0, "")
    first, second = (json.loads(line) for line in told.splitlines())
    assert [first.pop("scenario"), second.pop("scenario")] == [one.stem, "other"]
    assert first == second
    assert all((out / it.stem / "report.html").is_file() for it in (one, other))
    line = refused(main, "compare", one, one, *words)
    assert line == "scenarios of one name would share a folder; name each once"


def test_a_table_that_is_missing_is_told_before_any_scenario_begins(
    refused: Refused, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    whole, broken = make_scenario(tmp_path / "s"), make_scenario(tmp_path / "t")
    broken = broken.rename(broken.with_name("broken.toml"))
    gone = tmp_path / "t" / "c" / "items.tsv"
    gone.unlink()
    words = ["--untrained", "--out", tmp_path / "out", "--cache", cache]
    line = refused(main, "compare", whole, broken, *words)
    assert line == f"{gone}: no such file; say with --data where the tables lie, or mend its path"
    assert not (tmp_path / "out").exists()


def test_of_several_resumed_one_that_was_not_begun_begins(
    typed: Typed, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    one = make_scenario(tmp_path / "s")
    other = one.with_name("other.toml")
    other.write_bytes(one.read_bytes())
    out = tmp_path / "out"
    assert typed(main, "run", one, "--out", out / one.stem, "--cache", cache)[0] == 0
    words = ["--resume", "--json", "--out", out, "--cache", cache]
    code, told, err = typed(main, "compare", one, other, *words)
    assert (code, err, len(told.splitlines())) == (0, "", 2)


def test_compare_ends_with_a_table_and_says_where_the_report_is(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, _ = typed(main, "compare", *words)
    assert code == 0
    assert "Three small shops: NDCG@10" in out
    assert all(scorer in out for scorer in SCORERS)
    assert f" Report: {tmp_path / 'out' / 'report.html'}" in out
    assert (tmp_path / "out" / "report.html").is_file()


def test_run_records_rounds_and_says_the_adapters_digest(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, _ = typed(main, "run", *words)
    assert code == 0
    registry = Registry(tmp_path / "out")
    state, _ = registry.load(2)
    assert out.splitlines() == [
        f"round 2, adapter {state.adapter.digest}",
        str(registry.adapter_path(2)),
    ]


def test_run_goes_on_from_recorded_rounds_only_if_it_is_told_to(
    typed: Typed, refused: Refused, words: list[str | Path], tmp_path: Path
) -> None:
    first = typed(main, "run", *words)
    line = refused(main, "run", *words)
    assert line == (
        f"{tmp_path / 'out'}: holds rounds already; use --resume, or name another --out"
    )
    assert typed(main, "run", *words, "--resume")[:2] == first[:2]


def test_resuming_makes_no_new_backbone(
    typed: Typed, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path / "s", backbone=None)
    path.write_text(path.read_text().replace("[backbone]", "[backbone]\nsource_scale = 0.01"))
    words = (path, "--out", tmp_path / "out", "--cache", cache, "--threads", "3")
    first = typed(main, "run", *words)
    made = tmp_path / "out" / "backbone.safetensors"
    before = made.stat().st_mtime_ns
    # Made anew it could differ in a bit, on another machine or another number of threads.
    assert typed(main, "run", *words, "--resume")[:2] == first[:2]
    assert made.stat().st_mtime_ns == before


def test_a_seed_on_the_command_line_takes_the_place_of_the_scenarios(
    typed: Typed, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path / "s")

    def digest(name: str, *more: str) -> str:
        words = (path, "--out", tmp_path / name, "--cache", cache, "--threads", "3")
        return typed(main, "run", *words, *more)[1].split()[3]

    plain = digest("plain")
    assert digest("zero", "--seed", "0") == plain
    assert digest("one", "--seed", "1") != plain


def test_data_names_where_tables_are(
    typed: Typed, make_scenario: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_scenario(tmp_path / "s").rename(tmp_path / "moved.toml")
    words = (path, "--out", tmp_path / "out", "--cache", cache, "--threads", "3")
    assert typed(main, "run", *words)[0] == 2
    assert typed(main, "run", *words, "--data", tmp_path / "s")[0] == 0


def test_an_unknown_scenario_is_told_with_those_that_are_shipped(refused: Refused) -> None:
    line = refused(main, "compare", "dmeo")
    assert line.startswith("dmeo: no such scenario; name a TOML file, or one of ")
    assert "demo" in line


def test_a_quorum_that_cannot_be_met_is_told_and_records_nothing(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    path = Path(words[0])
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 2\nquorum = 4"))
    code, out, err = typed(main, "compare", *words, "--json")
    assert (code, out) == (2, "")
    assert "quorum 4 cannot be met by 3 platforms" in err
    assert Registry(tmp_path / "out").rounds() == []


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="the ray extra is here")
def test_a_missing_ray_engine_is_told_before_anything_is_done(
    typed: Typed, refused: Refused, words: list[str | Path]
) -> None:
    typed(main, "run", *words)
    line = refused(main, "compare", *words, "--engine", "ray")
    assert line == "the Ray engine is not installed; run pip install -e '.[ray]'"


def test_overhead_as_json_is_one_object_of_two_figures(typed: Typed) -> None:
    words = ("bench", "overhead", "--platforms", "3", "--rounds", "2", "--no-ray", "--json")
    code, out, err = typed(main, *words)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["in_process_s_per_round", "ray_s_per_round"]
    assert found["ray_s_per_round"] is None
    assert 0 < found["in_process_s_per_round"] < 5


def test_overhead_for_people_says_how_to_get_what_is_missing(typed: Typed) -> None:
    words = ("bench", "overhead", "--platforms", "2", "--rounds", "1", "--no-ray")
    code, out, _ = typed(main, *words)
    assert code == 0
    first, second = out.splitlines()
    assert first.split()[0] == "in_process_s_per_round"
    assert second.split()[0] == "ray_s_per_round"


def test_there_must_be_rounds_to_resume(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, err = typed(main, "compare", *words, "--resume", "--json")
    assert (code, out) == (2, "")
    assert "holds no rounds to resume; leave --resume out" in err
    assert not (tmp_path / "out").exists()
