"""What a plan says in words, and which federations it asks about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.errors import ConfigError, DataError
from simulations.planning.findings import starts, told
from simulations.planning.grid import FEWEST, GRID, MINE, cases, check_epsilons
from simulations.planning.joining import Asked, Case, Point, point_of

SMALL = Case("30 shoppers", 30, 120)


def line_of(*gains: tuple[float, float]) -> list[Point]:
    """Points of federations of 100, 200, … shoppers with these gains and half intervals."""
    return [
        Point(Case("30 shoppers", 30, 100 * place), 3.0, 0.1, 0.1 * (1 + gain), gain, half)
        for place, (gain, half) in enumerate(gains, start=1)
    ]


@pytest.mark.parametrize(
    ("gains", "everyone"),
    [
        ([(0.5, 0.1), (0.5, 0.6), (0.5, 0.1), (0.5, 0.1)], 300),
        ([(0.5, 0.1), (0.5, 0.1)], 100),
        ([(0.5, 0.1), (0.0, 0.1)], None),
    ],
)
def test_it_pays_from_where_no_later_interval_reaches_zero(
    gains: list[tuple[float, float]], everyone: int | None
) -> None:
    first = starts(line_of(*gains))
    assert (first and first.case.everyone) == everyone


def test_each_budget_has_one_sentence_of_where_it_pays() -> None:
    line = line_of((0.01, 0.1), (0.2, 0.1), (0.3, 0.1))
    exact = [replace(point, epsilon=None, gain=point.gain + 1) for point in line]
    asked = Asked(tuple(it.case for it in line), (3.0,), draws=2, others=1, seed=0)
    assert told([*exact, *line], asked) == [
        "Under ε = 3 joining clearly pays a platform of 30 shoppers from a federation of 200 on "
        "(+20.0 %).",
        "Without noise joining clearly pays a platform of 30 shoppers in every federation asked "
        "(+101 % in 100).",
    ]


def test_by_default_three_sizes_ask_in_every_federation_that_has_room_for_others() -> None:
    found = cases((), (), (), others=4)
    assert {it.mine for it in found} == set(MINE)
    assert {it.everyone for it in found} == set(GRID)
    assert all((it.everyone - it.mine) // 4 >= FEWEST for it in found)


def test_a_table_is_asked_about_up_to_all_its_shoppers() -> None:
    found = cases((100,), (), (), others=4, shoppers=22_363)
    assert [it.everyone for it in found] == [1_000, 3_000, 10_000, 22_363]


def test_a_share_is_of_each_federation() -> None:
    found = cases((), (0.1,), (1_000, 20_000), others=1)
    assert [(it.kind, it.mine, it.everyone) for it in found] == [
        ("10 % of the shoppers", 100, 1_000),
        ("10 % of the shoppers", 2_000, 20_000),
    ]


def test_budgets_are_drawn_once_each_the_largest_first() -> None:
    assert check_epsilons([1, 8, 1]) == (8, 1)
    with pytest.raises(ConfigError, match="5 budgets are more than the 4"):
        check_epsilons([1, 2, 3, 4, 5])


def test_a_platform_that_finds_nothing_alone_is_told_so() -> None:
    with pytest.raises(DataError, match="30 shoppers find none of their next items"):
        point_of(SMALL, None, [0.0, 0.0], [0.0, 0.1])
