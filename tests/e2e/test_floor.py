from __future__ import annotations

import pytest

from simulations.benchmarks import floor, load

pytestmark = pytest.mark.e2e


def test_the_benchmark_of_a_round_between_real_processes_comes_to_its_end() -> None:
    found = floor.measure(platforms=2, rounds=2, flower=False)
    assert found["flower_s_per_round"] is None
    assert 0 < float(found["ours_s_per_round"] or 0) <= float(found["ours_slowest_s"] or 0)


def test_the_benchmark_of_one_server_under_several_platforms_comes_to_its_end() -> None:
    (row,) = load.measure(platforms=[3], rounds=2)["rows"]
    assert row["platforms"] == 3
    assert row["s_per_round"] > 0
