from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.memory import Memory
from clients.platform import Platform, open_platform
from clients.recall import Recall
from clients.recommend import Slate, history_of, recommend
from clients.signals import Signals
from shared.adapter import Adapter
from shared.errors import DataError
from shared.events import Question, from_lists
from shared.ranking import rank
from shared.tables.config import load_platform

PRIOR_SCALE, DECAY, WINDOW = 6.0, 0.7, 5  # of the backbone that all platforms here have


@pytest.fixture(scope="module")
def shop(make_platform: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Sixteen items, of which the last two stand in nobody's History."""
    folder = tmp_path_factory.mktemp("shop")
    path = make_platform(folder, "shop", items=16, shoppers=12)
    events = folder / "interactions.tsv"
    kept = [line for line in events.read_text().splitlines() if line.split("\t")[1] not in NEW]
    events.write_text("\n".join(kept) + "\n")
    return open_platform(load_platform(path))


NEW = ("shop-14", "shop-15")
HISTORY = ["shop-03", "shop-00", "shop-07"]


@pytest.fixture(scope="module")
def learnt(shop: Platform) -> Adapter:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in shop.untrained.shapes.items()
    }
    return Adapter(tensors, shop.untrained.backbone, shop.untrained.task)


def items(slate: Slate) -> list[str]:
    return [line.item for line in slate.lines]


def by_hand(shop: Platform, history: list[str], item: str) -> float:
    """The prior's score, from its formula: a·cos(Σ .7^age·v, v_item) over the last five."""
    table, place = shop.table.cpu().numpy().astype(np.float64), shop.rows.catalogue.position
    last = [table[place[name]] for name in history[-WINDOW:]]
    pooled = sum(DECAY**age * vector for age, vector in enumerate(reversed(last)))
    target = table[place[item]]
    return PRIOR_SCALE * float(pooled @ target / np.linalg.norm(pooled))


def test_untrained_scores_are_the_prior_by_hand_and_nothing_is_learnt(shop: Platform) -> None:
    slate = recommend(shop, shop.untrained, HISTORY, count=13)
    assert len(slate.lines) == 13
    for line in slate.lines:
        assert line.score == pytest.approx(by_hand(shop, HISTORY, line.item), abs=1e-4)
        assert line.learnt == pytest.approx(0.0, abs=1e-4)


def test_what_was_learnt_is_the_score_less_the_prior(shop: Platform, learnt: Adapter) -> None:
    slate = recommend(shop, learnt, HISTORY, count=13)
    for line in slate.lines:
        assert line.score - line.learnt == pytest.approx(
            by_hand(shop, HISTORY, line.item), abs=1e-4
        )
    assert max(abs(line.learnt) for line in slate.lines) > 0.1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=9), st.integers(1, 20))
def test_a_score_is_the_sum_of_its_reasons_and_what_was_learnt(
    shop: Platform, learnt: Adapter, places: list[int], count: int
) -> None:
    history = [f"shop-{place:02}" for place in places]
    slate = recommend(shop, learnt, history, count=count)
    assert len(slate.lines) == min(count, 16 - len(set(history)))
    assert not set(items(slate)) & set(history)  # what was seen is left out
    scores = [line.score for line in slate.lines]
    assert scores == sorted(scores, reverse=True)
    for line in slate.lines:
        shares = [reason.share for reason in line.reasons]
        assert line.score == pytest.approx(sum(shares) + line.learnt, abs=1e-4)
        assert shares == sorted(shares, reverse=True)
        assert sorted(reason.item for reason in line.reasons) == sorted(history[-WINDOW:])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=9))
def test_with_memory_a_score_is_still_the_sum_of_its_parts_and_nothing_else_is_learnt(
    shop: Platform, places: list[int]
) -> None:
    history = [f"shop-{place:02}" for place in places]
    signals = Signals(Memory.of(shop.rows.histories, items=16), shop.texts)
    beside = Recall(shop.scorer(shop.untrained), signals, PRIOR_SCALE)
    slate = recommend(shop, shop.untrained, history, count=16, beside=beside)
    for line in slate.lines:
        assert line.learnt == pytest.approx(0.0, abs=1e-4)
        assert line.score == pytest.approx(
            sum(reason.share for reason in line.reasons) + line.popular, abs=1e-4
        )
        alike = sum(reason.share - reason.together for reason in line.reasons)
        assert alike == pytest.approx(by_hand(shop, history, line.item), abs=1e-4)


def test_each_reason_is_that_items_own_part_of_the_prior(shop: Platform) -> None:
    table, place = shop.table.cpu().numpy().astype(np.float64), shop.rows.catalogue.position
    line = recommend(shop, shop.untrained, HISTORY, count=1).lines[0]
    weighed = {name: DECAY**age * table[place[name]] for age, name in enumerate(HISTORY[::-1])}
    norm = np.linalg.norm(sum(weighed.values()))
    for reason in line.reasons:
        share = PRIOR_SCALE * float(weighed[reason.item] @ table[place[line.item]]) / norm
        assert reason.share == pytest.approx(share, abs=1e-4)
        assert reason.text == shop.rows.catalogue.texts[place[reason.item]]


def test_a_slate_is_the_ranking_that_was_evaluated(shop: Platform, learnt: Adapter) -> None:
    place = shop.rows.catalogue.position
    history = [np.array([place[name] for name in HISTORY], np.int32)]
    asked = Question(from_lists(history, ("x",)), np.array([place["shop-10"]], np.int32))
    best = rank(shop.scorer(learnt), asked, items=16).top[0]
    names = [shop.rows.catalogue.items[item] for item in best]
    assert items(recommend(shop, learnt, HISTORY, count=10)) == names


def test_an_item_that_was_never_in_training_can_be_recommended(shop: Platform) -> None:
    seen = {shop.rows.catalogue.items[item] for item in shop.rows.histories.items}
    assert not seen & set(NEW)
    lines = {line.item: line for line in recommend(shop, shop.untrained, HISTORY, count=100).lines}
    for name in NEW:  # and by the same formula as any other
        assert lines[name].score == pytest.approx(by_hand(shop, HISTORY, name), abs=1e-4)


def test_an_item_that_was_never_in_training_can_stand_in_the_history(shop: Platform) -> None:
    slate = recommend(shop, shop.untrained, ["shop-14", "shop-03"])
    assert {reason.item for reason in slate.lines[0].reasons} == {"shop-14", "shop-03"}
    assert slate != recommend(shop, shop.untrained, ["shop-03"])


def test_a_new_shopper_gets_what_a_known_one_with_the_same_history_gets(shop: Platform) -> None:
    known = history_of(shop, "shop-shopper-00")
    assert len(known) >= 3
    stranger = replace(shop, rows=replace(shop.rows, histories=from_lists([], ())))
    assert recommend(stranger, shop.untrained, known) == recommend(shop, shop.untrained, known)


def test_only_the_last_items_drive_the_prior_and_all_are_left_out(shop: Platform) -> None:
    long = [f"shop-{place:02}" for place in (9, 1, 2, 3, 4, 5)]
    slate = recommend(shop, shop.untrained, long, count=16)
    assert all("shop-09" not in {r.item for r in line.reasons} for line in slate.lines)
    assert "shop-09" not in items(slate)
    assert len(slate.lines) == 10


def test_an_item_bought_again_speaks_each_time(shop: Platform) -> None:
    line = recommend(shop, shop.untrained, ["shop-03", "shop-07", "shop-03"]).lines[0]
    assert sorted(reason.item for reason in line.reasons) == ["shop-03", "shop-03", "shop-07"]


def test_a_history_of_the_whole_catalogue_leaves_nothing_to_rank(shop: Platform) -> None:
    everything = list(shop.rows.catalogue.items)
    assert recommend(shop, shop.untrained, everything).lines == ()


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (["shop-03", "shop-99"], "shop: item 'shop-99' is not in the catalogue; give identifiers"),
        ([], "shop: the History is empty; give identifiers"),
    ],
)
def test_a_history_that_cannot_be_read_is_refused_in_one_line(
    history: list[str], why: str, shop: Platform
) -> None:
    with pytest.raises(DataError) as caught:
        recommend(shop, shop.untrained, history)
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


def test_a_known_shoppers_history_is_in_time_order(shop: Platform) -> None:
    found = history_of(shop, "shop-shopper-03")
    events = shop.rows.events.filter(shop.rows.events["shopper"] == "shop-shopper-03")
    assert found == events.sort("order")["item"].to_list()


def test_an_unknown_shopper_is_not_repeated_in_the_message(shop: Platform) -> None:
    with pytest.raises(DataError, match="no History of this shopper") as caught:
        history_of(shop, "shop-shopper-99")
    assert "99" not in str(caught.value)
