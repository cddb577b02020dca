"""What a plan promises: who is drawn, what is read, what sums are worth, and what it says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from clients.platform import Platform
from clients.sums import bounded
from shared.accounting import SMALLEST_LAPLACE
from shared.events import Histories
from simulations.channels import Channel, drawn, let_out
from simulations.cli import main
from simulations.planning.grid import Ground, from_table
from simulations.planning.joining import Asked, Case, Point, divided, measure

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]

SMALL = Case("30 shoppers", 30, 120)
LARGE = Case("30 shoppers", 30, 400)
PLENTY, LITTLE = 1000.0, 0.01  # budgets: next to no noise, and next to nothing but noise


@pytest.fixture(scope="module")
def table(make_platform: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 shoppers who step through 40 items, so that the others' pairs tell what comes next."""
    return make_platform(tmp_path_factory.mktemp("table"), shoppers=400, items=40, seed=1)


@pytest.fixture(scope="module")
def ground(table: Path, cache: Path) -> Ground:
    return from_table(table, nearest=39, cache=cache)


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked((SMALL, LARGE), (PLENTY, LITTLE), draws=5, others=2, seed=0)


@pytest.fixture(scope="module")
def points(ground: Ground, asked: Asked) -> dict[tuple[Case, float | None], Point]:
    found = measure(ground.whole, ground.listed, asked)
    return {(point.case, point.epsilon): point for point in found}


@pytest.fixture
def words(table: Path, cache: Path, tmp_path: Path) -> list[str | Path]:
    """A plan of one small federation."""
    out = tmp_path / "out"
    more = ["--others", "2", "--draws", "2", "--mine", "30"]
    return ["plan", "--platform", table, "--out", out, "--cache", cache, *more]


def people(channel: Channel) -> set[str]:
    return set(channel.platform.rows.histories.shoppers)


def test_exact_sums_help_a_small_platform_and_more_of_them_more(
    points: dict[tuple[Case, float | None], Point],
) -> None:
    assert points[SMALL, None].low > 0
    assert points[LARGE, None].gain > points[SMALL, None].gain


def test_the_more_noise_the_less_a_platform_gains(
    points: dict[tuple[Case, float | None], Point],
) -> None:
    exact, plenty, little = (points[LARGE, epsilon] for epsilon in (None, PLENTY, LITTLE))
    assert exact.gain > plenty.gain > little.gain
    assert plenty.low > 0
    assert little.low <= 0 <= little.high < 0.05


def test_staying_alone_is_the_same_whatever_federation_is_offered(
    points: dict[tuple[Case, float | None], Point],
) -> None:
    assert len({point.alone for point in points.values()}) == 1
    for point in points.values():
        assert point.ndcg == pytest.approx(point.alone * (1 + point.gain))
        assert point.low <= point.gain <= point.high


def test_the_same_seed_gives_the_same_figures_and_another_gives_others(
    ground: Ground, asked: Asked, points: dict[tuple[Case, float | None], Point]
) -> None:
    again = replace(asked, cases=(SMALL,))
    assert [points[SMALL, epsilon] for epsilon in (None, PLENTY, LITTLE)] == measure(
        ground.whole, ground.listed, again
    )
    assert measure(ground.whole, ground.listed, replace(again, seed=1))[0] != points[SMALL, None]


def test_as_many_shoppers_are_drawn_as_were_asked_for_and_nobody_twice(ground: Ground) -> None:
    sizes = divided(Case("", 31, 200), others=3)
    assert list(sizes.values()) == [31, 57, 56, 56]
    channels = drawn(ground.whole, sizes, weights=dict.fromkeys(sizes, 1.0), seed=(0, 1))
    assert {name: len(people(it)) for name, it in channels.items()} == sizes
    assert len(set().union(*map(people, channels.values()))) == 200


def test_who_asks_does_not_depend_on_the_federation(ground: Ground) -> None:
    small, large = (
        drawn(ground.whole, sizes, weights=dict.fromkeys(sizes, 1.0), seed=(0, 1))
        for sizes in (divided(SMALL, others=2), divided(LARGE, others=4))
    )
    assert people(small["asking"]) == people(large["asking"])


def test_the_test_part_is_never_read(
    ground: Ground, asked: Asked, points: dict[tuple[Case, float | None], Point]
) -> None:
    found = measure(with_other_test_part(ground.whole), ground.listed, asked)
    assert found == list(points.values())


def with_other_test_part(whole: Platform) -> Platform:
    histories = whole.rows.histories
    items = histories.items.copy()
    last = histories.offsets[1:] - 1
    items[last] = (items[last] + 17) % len(whole.rows.catalogue)
    assert not np.array_equal(items, histories.items)
    changed = Histories(histories.shoppers, items, histories.offsets)
    return replace(whole, rows=replace(whole.rows, histories=changed))


@pytest.mark.parametrize("epsilon", [PLENTY, 1.0, LITTLE])
def test_a_platforms_noise_is_that_of_its_budget(ground: Ground, epsilon: float) -> None:
    channel = drawn(ground.whole, {"a": 30}, weights={"a": 1.0}, seed=0)["a"]
    places = ground.listed(30)
    (sums,) = let_out(channel, places, epsilons=[epsilon], seed=0, name="a").values()
    exact = bounded(channel.platform.told, places)[: len(places.pairs)]
    noise = 2**0.5 * max(1 / epsilon, SMALLEST_LAPLACE)
    assert np.std(sums["together"] - exact) == pytest.approx(noise, rel=0.1)


def test_every_federation_counts_over_the_list_that_is_given_and_else_by_the_rule(
    table: Path, cache: Path
) -> None:
    free, told = (from_table(table, nearest=it, cache=cache) for it in (None, 5))
    # 40 items have 780 pairs, and the rule takes 40 nearest or more.
    assert len(free.listed(100).pairs) == len(free.listed(400).pairs) == 780
    assert len(told.listed(100).pairs) == len(told.listed(400).pairs) < 300


def test_a_platforms_own_size_and_budget_are_answered_in_one_line(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, _ = typed(main, *words, "--all", "200", "--epsilon", "3")
    assert code == 0
    line, assumed, page = out.splitlines()
    assert re.match(r"30 of 200 shoppers, under ε = 3: joining changes NDCG@10 by [+−]", line)
    assert assumed.startswith("This assumes platforms of one catalogue, shoppers alike, and ")
    assert page == str(tmp_path / "out" / "plan.html")


def test_figures_are_written_and_the_page_fetches_nothing(
    typed: Typed, words: list[str | Path], tmp_path: Path
) -> None:
    code, out, err = typed(main, *words, "--all", "150", "--all", "400", "--epsilon", "3", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [(it["mine"], it["everyone"], it["epsilon"]) for it in found["points"]] == [
        (30, 150, None),
        (30, 150, 3.0),
        (30, 400, None),
        (30, 400, 3.0),
    ]
    assert found["shoppers"] == 400
    page = (tmp_path / "out" / "plan.html").read_text()
    read = unescape(page).replace("\xa0", " ")
    assert all(line in read for line in (*found["says"], *found["assumes"]))
    assert "<svg" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_for_people_there_is_a_table_and_a_sentence_a_budget(
    typed: Typed, words: list[str | Path]
) -> None:
    code, out, _ = typed(main, *words, "--all", "150", "--all", "400", "--epsilon", "3")
    assert code == 0
    head, *rest = out.splitlines()
    assert head.split() == ["yours", "everyone", "alone", "no", "noise", "ε", "=", "3"]
    assert rest[0].split()[:2] == ["30", "150"]
    assert rest[3].startswith("Under ε = 3 joining clearly pays a platform of 30 shoppers ")


def test_the_embedded_world_needs_no_file(typed: Typed, cache: Path, tmp_path: Path) -> None:
    words = ("--mine", "40", "--all", "400", "--others", "1", "--draws", "2", "--epsilon", "1")
    code, out, err = typed(
        main, "plan", *words, "--out", tmp_path / "o", "--cache", cache, "--json"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["ground"], found["shoppers"], found["items"]) == (
        "the embedded world",
        400,
        3000,
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--mine", "9", "--share", "0.1"], "--mine and --share both say"),
        (["--share", "1.5"], "--share 1.5 is not between 0 and 1; "),
        (["--epsilon", "0"], "--epsilon 0 is not a positive number; "),
        (["--epsilon", "nan"], "--epsilon nan is not a positive number; "),
        (["--all", "2000000"], "--all 2,000,000 is more than the 1,000,000 shoppers that can"),
        (["--mine", "90", "--all", "100"], "a federation of 100 shoppers has platforms of 90, 3, "),
        (["--mine", "90", "--all", "50"], "a federation of 50 shoppers cannot hold a platform of"),
        (["--mine", "9000000"], "no federation of 300,000 shoppers or fewer has such a platform"),
        (["--platform", "gone.toml"], "gone.toml: "),
    ],
)
def test_what_cannot_be_asked_is_one_line(refused: Refused, options: list[str], line: str) -> None:
    assert refused(main, "plan", *options).startswith(line)


def test_a_table_is_not_asked_for_more_shoppers_than_it_has(
    refused: Refused, words: list[str | Path]
) -> None:
    line = refused(main, *words, "--all", "401")
    assert (
        line == "--all 401 is more than the 400 shoppers that the table has; ask for 400 or fewer"
    )
