"""How loudly signals speak, learnt on one table and judged on another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.beside import remembering
from clients.mixing import mixed
from clients.platform import Platform
from clients.weighing import FEATURES, OTHERS, SILENCE, Shares, best_way, fitted, refined, spread
from shared.tables.config import load_platform
from simulations.benchmarks import weighing
from simulations.cli import main
from simulations.untrained import opened

Typed = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]
Refused = Callable[..., str]
PLAN = """
epsilon = 3.0
shoppers_at_least = 4000
sampling_rate = 0.064
steps = 16
noise_multiplier = 2.0
"""


@pytest.fixture(scope="module")
def file(make_platform: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_platform(tmp_path_factory.mktemp("shop"), shoppers=80, seed=3)


@pytest.fixture(scope="module")
def whole(file: Path) -> Platform:
    return opened(load_platform(file), cache=None)


def test_groups_are_of_one_size_and_hold_no_shopper_twice(whole: Platform) -> None:
    found = weighing.groups(whole, 3, 26, seed=1)
    named = [name for it in found for name in it.rows.histories.shoppers]
    assert len(set(named)) == len(named) == 3 * 26
    assert [len(it.rows.histories) for it in found] == [26, 26, 26]
    again = weighing.groups(whole, 3, 26, seed=2)
    assert found[0].rows.histories.shoppers != again[0].rows.histories.shoppers


def test_what_is_learnt_is_the_mean_of_fits_to_groups(
    whole: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighing, "DRAWS", 1)
    monkeypatch.setattr(weighing, "GROUPS", 2)
    fits = []
    for group in weighing.groups(whole, 2, 40, seed=0):
        field = remembering(group).field(group.question("validation"))
        fits.append(refined(field, spread(Shares()), weighing.RIDGE).flat)
    found = weighing.learnt(whole)
    known = ~np.isnan(found.flat)
    np.testing.assert_allclose(found.flat[known], np.mean(fits, axis=0)[known])
    assert known.sum() == FEATURES - len(OTHERS) - (whole.rows.histories.days is None)


def test_no_half_is_told_by_what_was_fitted_to_it(whole: Platform) -> None:
    field = remembering(whole).field(whole.question("validation"))
    by_hand, deaf = spread(Shares()), spread(SILENCE)
    told = weighing.told(field, deaf)
    assert told[weighing.BY_HAND] == field.gain(by_hand.flat)
    assert told[weighing.WHOLE] == field.gain(deaf.flat) < told[weighing.BY_HAND]
    parts = [(field.half(0), field.half(1)), (field.half(1), field.half(0))]
    for name, elsewhere in ((weighing.OWN, []), (weighing.MIXED, [deaf])):
        reached = 0.0
        for fits, tells in parts:
            own = fitted(fits, best_way(fits)[1])
            found = mixed(fits, elsewhere).weighing if elsewhere else own
            reached += tells.gains(found.flat).sum()
        assert told[name] == pytest.approx(reached / field.asked)


def test_what_cannot_be_learnt_from_or_printed_is_refused(
    make_platform: Make, tmp_path: Path, refused: Refused, file: Path
) -> None:
    few = make_platform(tmp_path / "few", "few", shoppers=12)
    assert "has 12 shoppers, 40 are the fewest" in refused(main, "bench", "weighing", str(few))
    twice = ["--on", str(few), "--on", str(few)]
    assert "is the name of two" in refused(main, "bench", "weighing", str(file), *twice)
    protected = make_platform(tmp_path / "protected", shoppers=12, privacy=PLAN)
    assert "has a Plan" in refused(main, "bench", "weighing", str(protected))


def test_as_a_command(file: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "DRAWS", 1)
    monkeypatch.setattr(weighing, "SIZES", {20: 2, 60: 1})
    asked = ["bench", "weighing", str(file), "--on", str(file), "--cache", str(file.parent)]
    code, out, _err = typed(main, *asked, "--json")
    found = json.loads(out)
    assert code == 0
    assert [len(found[name]) for name in ("loud", "met", "words", "liked")] == [6, 6, 5, 3]
    (rows,) = found["rows"].values()
    assert list(rows) == ["20", "60"]
    code, out, _err = typed(main, *asked)
    assert code == 0
    assert "by hand" in out
    assert "taken whole" in out
    assert f"{rows['60']['mixed']:.4f}" in out
