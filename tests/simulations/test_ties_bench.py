"""The order within ties, drawn anew: which events, and what that changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clients import beside
from shared.catalogue import Catalogue
from shared.events import EVENT_SCHEMA, group
from shared.metrics import ndcg
from shared.ranking import rank
from shared.tables.config import load_platform
from shared.tables.report import ReadReport
from shared.tables.table import PlatformRows
from simulations.benchmarks.ties import TO_DATE, Stretches, shuffled, unheard
from simulations.cli import main
from simulations.untrained import opened

Typed = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]


def rows_of(*shoppers: list[tuple[str, float]]) -> PlatformRows:
    """Rows of shoppers who took these items at these moments."""
    names = tuple(sorted({item for taken in shoppers for item, _ in taken}))
    rows = [
        (f"s{place}", item, moment, None, None, None)
        for place, taken in enumerate(shoppers)
        for item, moment in taken
    ]
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row").sort("shopper", "order", "item")
    catalogue = Catalogue(names, names)
    report = ReadReport(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return PlatformRows(events, catalogue, group(events, catalogue), report)


def test_events_of_one_moment_are_ties_where_times_are_known() -> None:
    rows = rows_of(
        [("a", 1), ("b", 1), ("c", 2), ("d", 2)],
        [("a", 2), ("b", 3), ("c", 4)],
    )
    found = Stretches.of(rows)
    assert (found.kind, found.pairs) == ("ties", 2)
    assert found.begins.tolist() == [True, False, True, False, True, True, True]


def test_without_times_a_rising_run_of_names_may_be_a_tie() -> None:
    rows = rows_of([("b", 0), ("c", 1), ("a", 2)], [("b", 0), ("d", 1), ("c", 2), ("e", 3)])
    found = Stretches.of(rows)
    assert (found.kind, found.pairs) == ("rising runs", 3)
    assert found.begins.tolist() == [True, False, True, True, False, True, False]


def test_shuffling_moves_events_within_a_stretch_alone() -> None:
    taken = [(f"{place:02}", float(place // 5)) for place in range(20)]
    rows = rows_of(taken, taken[::-1])
    drawn = shuffled(rows, seed=1)
    assert drawn.histories.items.tolist() != rows.histories.items.tolist()
    for mine, theirs in zip(drawn.histories.items, rows.histories.items, strict=True):
        assert mine // 5 == theirs // 5
    assert np.array_equal(drawn.histories.offsets, rows.histories.offsets)
    named = [drawn.catalogue.items[place] for place in drawn.histories.items]
    assert drawn.events["item"].to_list() == named
    assert np.array_equal(shuffled(rows, seed=1).histories.items, drawn.histories.items)
    for history in (drawn.histories[0], drawn.histories[1]):
        assert sorted(history.tolist()) == list(range(20))


def test_bench_ties_says_what_an_order_is_worth(
    typed: Typed, make_platform: Make, cache: Path, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "p", shoppers=30)
    words = ["bench", "ties", path, "--seeds", "2", "--cache", cache]
    code, out, err = typed(main, *words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["shuffled within"] == "rising runs"
    assert 0 < found["open pairs"] < 1
    assert list(found["rows"]) == [
        "as given",
        "as given, order unheard",
        "shuffled",
        "shuffled, order unheard",
    ]
    platform = opened(load_platform(path), cache=cache)
    ranks = rank(beside.own(platform), platform.question("test"), items=16).ranks
    assert found["rows"]["as given"]["test"]["ndcg@10"] == pytest.approx(float(ndcg(ranks).mean()))
    late = beside.dated(platform, beside.own(platform))
    ranks = rank(late, platform.question("test"), items=16).ranks
    to_date = found["rows"]["as given"][TO_DATE]["ndcg@10"]
    assert to_date == pytest.approx(float(ndcg(ranks).mean()))
    own = beside.remembering(platform)
    assert own.memory.following.nnz
    deaf = unheard(own).fitted(platform.question("validation"))
    late = replace(unheard(beside.dated(platform, own)), weighing=deaf.weighing)
    ranks = rank(late, platform.question("test"), items=16).ranks
    to_date = found["rows"]["as given, order unheard"][TO_DATE]["ndcg@10"]
    assert to_date == pytest.approx(float(ndcg(ranks).mean()))
    code, out, _ = typed(main, *words)
    assert code == 0
    assert "shuffled, order unheard" in out
    assert max(map(len, out.splitlines())) <= 80


def test_an_event_keeps_its_day_wherever_it_is_put() -> None:
    rows = rows_of([("a", 1), ("b", 1), ("c", 1), ("d", 2)], [("a", 1), ("c", 1), ("d", 1)])
    days = 10 * rows.histories.items
    rows = replace(rows, histories=replace(rows.histories, days=days))
    found = [shuffled(rows, seed=seed).histories for seed in range(5)]
    assert len({it.items.tobytes() for it in found}) > 1
    for it in found:
        np.testing.assert_array_equal(it.days, 10 * it.items)
