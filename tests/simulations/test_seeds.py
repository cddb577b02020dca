from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigError
from shared.metrics import gained, holm
from simulations.run import with_seed
from simulations.scenario import find_scenario, load_scenario
from simulations.seeds import markdown, over_seeds, page, rows, run_seeds, tick

LOCAL, FEDERATED, PRIOR = (0.10, 0.12, 0.11), (0.13, 0.15, 0.14), (0.05, 0.05, 0.06)


def metrics(place: int) -> dict[str, Any]:
    """What one seed found: on `shop` sharing helps, on `stall` it does nothing."""

    def scorers(*values: float) -> dict[str, Any]:
        names = ("prior", "local", "federated")
        return {
            name: {"ndcg@10": value, "hr@10": 2 * value}
            for name, value in zip(names, values, strict=True)
        }

    told: dict[str, Any] = {"federated": {}}
    return {
        "scenario": "two",
        "title": "Two <shops>",
        "atoll": "0",
        "machine": "2 cores",
        "seed": place,
        "seconds": 1.5,
        "scorers": ["prior", "local", "federated"],
        "world": False,
        "platforms": {
            "shop": {
                "shoppers": 10 + place,
                "scorers": scorers(PRIOR[place], LOCAL[place], FEDERATED[place]),
                "against_local": told,
            },
            "stall": {
                "shoppers": 5,
                "scorers": scorers(PRIOR[place], LOCAL[place], LOCAL[place]),
                "against_local": told,
            },
        },
    }


FOUND = over_seeds([metrics(place) for place in range(3)])


def test_over_seeds_are_means_and_the_gain_over_local_with_holm_over_all() -> None:
    shop, stall = FOUND["platforms"]["shop"], FOUND["platforms"]["stall"]
    assert shop["federated"]["ndcg@10"] == pytest.approx(0.14)
    assert shop["federated"]["hr@10"] == pytest.approx(0.28)
    told = gained(LOCAL, FEDERATED)
    assert shop["federated"]["gain"] == told.gain == pytest.approx(0.14 / 0.11 - 1)
    assert (shop["federated"]["half"], shop["federated"]["p"]) == (told.half, told.p)
    assert (stall["federated"]["gain"], stall["federated"]["p"]) == (0, 1)
    assert [shop["federated"]["p_holm"], stall["federated"]["p_holm"]] == holm([told.p, 1.0])
    assert "gain" not in shop["prior"]
    assert "gain" not in shop["local"]
    assert FOUND["seeds"] == [0, 1, 2]
    assert FOUND["shoppers"] == {"shop": [10, 11, 12], "stall": [5, 5, 5]}
    assert FOUND["seconds"] == 4.5


def test_table_and_page_hold_every_figure_and_fetch_nothing() -> None:
    told, drawn = markdown(FOUND), page(FOUND)
    for row in rows(FOUND):
        assert "| " + " | ".join(row) + " |" in told
    assert "0.1400" in drawn
    assert "Two &lt;shops&gt;" in drawn
    assert "<script" not in drawn
    assert drawn.count("<svg") == 2
    assert page(FOUND) == drawn


def test_each_seed_has_a_folder_and_a_resumed_one_is_not_compared_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def one(seed: int, place: Path) -> dict[str, Any]:
        ran.append(seed)
        place.mkdir(parents=True)
        (place / "metrics.json").write_text(json.dumps(metrics(seed)))
        return metrics(seed)

    found = run_seeds(range(2), tmp_path, one)
    again = run_seeds(range(3), tmp_path, one, resume=True)
    assert ran == [0, 1, 2]
    assert found["seeds"] == [0, 1]
    assert again == FOUND == json.loads((tmp_path / "seeds.json").read_text())
    assert (tmp_path / "seeds.html").read_text() == page(FOUND)
    assert (tmp_path / "seeds.md").read_text() == markdown(FOUND)
    (tmp_path / "seed-1" / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match=r"metrics.json: cannot be read; remove it"):
        run_seeds(range(3), tmp_path, one, resume=True)


@pytest.mark.parametrize("change", [{"title": "Others"}, {"platforms": {}}, {"scorers": ["prior"]}])
def test_seeds_of_something_else_are_not_taken_together(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "metrics.json").write_text(json.dumps(metrics(0) | change))
    with pytest.raises(ConfigError, match="holds seeds of another scenario"):
        run_seeds(range(2), tmp_path, lambda seed, _place: metrics(seed), resume=True)
    assert not (tmp_path / "seeds.json").exists()


def test_what_a_seed_changes_is_told_of_worlds_and_of_tables() -> None:
    of_tables, of_worlds = markdown(FOUND), markdown({**FOUND, "world": True})
    assert "3 seeds draws other shoppers into a platform's part, other orders" in of_tables
    assert "have shoppers in common" in of_tables
    assert "3 seeds makes another world, other orders" in of_worlds
    assert "in common" not in of_worlds


def test_another_seed_draws_other_shoppers_into_a_table_s_part(tmp_path: Path) -> None:
    channels = load_scenario(find_scenario("channels"), data=tmp_path)
    assert {it.events.draw for it in channels.platforms} == {0}
    other = with_seed(channels, 4)
    assert {it.events.draw for it in other.platforms} == {4}
    assert other.federation.seed == 4
    assert with_seed(channels, 0) == channels


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (0.4, "+0.4 %"), (-2.0, "−2 %"), (0.1 + 0.2, "+0.3 %"), (40.0, "+40 %")],
)
def test_a_mark_of_the_axis_has_the_digits_it_needs(value: float, told: str) -> None:
    assert tick(value) == told
