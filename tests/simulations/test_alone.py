"""One platform has nobody to federate with: it is compared with what it has alone."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import ConfigError
from simulations.cli import main
from simulations.run import full_comparison
from simulations.scenario import load_scenario
from simulations.seeds import over_seeds, rows

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
SCORERS = ["popularity", "tfidf", "prior", "itemknn", "memory", "local"]


@pytest.fixture
def scenario(make_scenario: Callable[..., Path], tmp_path: Path) -> Path:
    """One platform, with all that a federation would have."""
    path = make_scenario(tmp_path / "s")
    head, first, *_rest = path.read_text(encoding="utf-8").split("[[platforms]]")
    tail = path.read_text(encoding="utf-8").partition("[backbone]")[2]
    more = "[sums]\n[privacy]\nepsilons = [8.0]\n"
    path.write_text(f"{head}[[platforms]]{first}[backbone]{tail}{more}", encoding="utf-8")
    return path


def test_one_platform_is_trained_alone_and_the_command_says_so(
    typed: Typed, scenario: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, told, err = typed(main, "compare", scenario, "--out", out, "--cache", cache)
    assert code == 0, err
    assert "has one platform: nothing is federated, it is trained alone" in " ".join(err.split())
    said = " ".join(told.split())
    assert "One platform: it was trained alone, and nothing was federated." in said
    assert "sharing" not in told
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["scorers"] == list(metrics["platforms"]["a"]["scorers"]) == SCORERS
    assert metrics["rounds"] == []
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Federated against local" not in page
    assert "trained alone, and nothing was federated" in page
    assert not (out / "rounds").exists()
    assert not list(out.glob("pairs-*"))
    adapter = out / "adapters" / "a.safetensors"  # trained on bare rows
    assert stat.S_IMODE(adapter.stat().st_mode) == 0o600


def test_it_is_the_same_platform_that_a_federation_would_train_alone(
    make_scenario: Callable[..., Path], scenario: Path, cache: Path, tmp_path: Path
) -> None:
    alone = full_comparison(load_scenario(scenario), tmp_path / "one", cache=cache)
    three = load_scenario(make_scenario(tmp_path / "t"))
    among = full_comparison(three, tmp_path / "three", cache=cache)
    for scorer in SCORERS:
        assert (
            alone["platforms"]["a"]["scorers"][scorer] == among["platforms"]["a"]["scorers"][scorer]
        )
    table = rows(over_seeds([alone, {**alone, "seed": 1}]))
    assert [row[1] for row in table] == SCORERS
    assert {row[4] for row in table} == {"–"}  # over local: nobody else is there


def test_rounds_of_one_platform_are_refused_at_once(
    refused: Refused, scenario: Path, cache: Path, tmp_path: Path
) -> None:
    line = refused(main, "run", scenario, "--out", tmp_path / "out", "--cache", cache)
    assert line.endswith(
        "quorum 2 cannot be met by 1 platform; train it alone with atoll-sim compare"
    )
    with pytest.raises(ConfigError, match="has one platform, so there are no rounds to resume"):
        full_comparison(load_scenario(scenario), tmp_path / "out", cache=cache, resume=True)
    assert not (tmp_path / "out").exists()
