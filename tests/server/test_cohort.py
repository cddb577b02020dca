from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cohort import admit, choose
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.wire import Member

ADAPTER = Adapter({"w": np.zeros(1, np.float32)}, backbone="b" * 64, task="next-item")


def member(name: str, *, backbone: str = "b" * 64, task: str = "next-item") -> Member:
    return Member(name, 1.0, backbone, task)


def of(*names: str) -> dict[int, Member]:
    return {node: member(name) for node, name in enumerate(names, start=1)}


def test_a_platform_with_this_backbone_and_task_and_a_name_of_its_own_is_admitted() -> None:
    admit(member("kiosk"), ADAPTER, of("harbour"))


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (member("kiosk", backbone="c" * 64), "has backbone cccccccccccc…, .* bbbbbbbbbbbb…"),
        (member("kiosk", task="next-basket"), "has task 'next-basket', .* 'next-item'"),
        (member("harbour"), "a platform of this name is already here"),
    ],
)
def test_a_platform_that_cannot_take_part_is_told_why(odd: Member, why: str) -> None:
    with pytest.raises(ReplyError, match=why):
        admit(odd, ADAPTER, of("harbour"))


def test_everyone_is_asked_in_the_order_of_names() -> None:
    assert choose(of("c", "a", "b"), 1.0, seed=0, round_=1) == [2, 3, 1]


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.5, 2), (0.51, 3), (1.0, 4)])
def test_a_cohort_is_the_fraction_rounded_up(fraction: float, count: int) -> None:
    assert len(choose(of("a", "b", "c", "d"), fraction, seed=0, round_=1)) == count


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_fraction_that_comes_out_even_is_not_rounded_up(part: int, whole: int) -> None:
    part = min(part, whole)
    found = choose(of(*(f"p{n:03}" for n in range(whole))), part / whole, seed=0, round_=1)
    assert len(found) == part


def test_the_same_seed_and_round_draw_the_same_cohort_and_another_round_another() -> None:
    members = of(*"abcdefghijkl")
    drawn = [tuple(choose(members, 0.5, seed=3, round_=number)) for number in range(1, 9)]
    again = [tuple(choose(members, 0.5, seed=3, round_=number)) for number in range(1, 9)]
    assert drawn == again
    assert len(set(drawn)) == 8
    assert choose(members, 0.5, seed=4, round_=1) != list(drawn[0])


def test_whom_a_draw_names_does_not_depend_on_node_numbers() -> None:
    names = list("abcdef")
    first = dict(enumerate((member(name) for name in names), start=1))
    second = dict(enumerate((member(name) for name in reversed(names)), start=100))
    for round_ in range(1, 6):
        drawn = [
            [members[node].platform for node in choose(members, 0.5, seed=1, round_=round_)]
            for members in (first, second)
        ]
        assert drawn[0] == drawn[1]


def test_over_many_rounds_everyone_is_asked_about_equally_often() -> None:
    members = of(*"abcd")
    asked = Counter(n for r in range(400) for n in choose(members, 0.5, seed=0, round_=r))
    assert all(160 < asked[node] < 240 for node in members)  # 200 each, five sigmas are 50
