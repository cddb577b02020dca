from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.accounting import Charge, epsilon
from shared.errors import PlanError
from shared.plan import Plan, default_delta, plan

GOOD: dict[str, Any] = {
    "clip": 1.0,
    "noise_multiplier": 2.0,
    "sampling_rate": 0.1,
    "steps": 4,
    "expected_batch": 100.0,
    "epsilon": 3.0,
    "delta": 1e-4,
    "shoppers_at_least": 1000,
    "update_norm": 10.0,
}
# What a platform's file says; σ or rounds goes with it.
FILE: dict[str, Any] = {
    "epsilon": 3.0,
    "shoppers_at_least": 1000,
    "sampling_rate": 0.1,
    "steps": 4,
    "clip": 1.0,
    "update_norm": 10.0,
}
NO_NUMBER = [0.0, -1.0, math.nan, math.inf, -math.inf]
HELD = Plan(**GOOD)


def refused(**keys: Any) -> str:
    """The one line with which these numbers are refused."""
    with pytest.raises(PlanError) as caught:
        Plan(**{**GOOD, **keys})
    said = str(caught.value)
    assert "\n" not in said
    assert "; " in said  # and what to do
    return said


@pytest.mark.parametrize("bad", NO_NUMBER)
@pytest.mark.parametrize(
    "name", ["clip", "noise_multiplier", "expected_batch", "update_norm", "epsilon"]
)
def test_a_number_that_must_be_positive_is_refused_by_name(name: str, bad: float) -> None:
    assert refused(**{name: bad}).startswith(f"{name} {bad} is not a positive number; ")


@pytest.mark.parametrize("bad", [*NO_NUMBER, 1.0000001, 64.0])
def test_a_chance_of_more_than_one_or_none_is_refused_by_name(bad: float) -> None:
    assert refused(sampling_rate=bad).startswith(f"sampling_rate {bad} is not in (0, 1]; ")


def test_everyone_in_every_step_is_a_plan() -> None:
    assert Plan(**{**GOOD, "sampling_rate": 1.0}).charge == Charge(2.0, 1.0, 4)


@pytest.mark.parametrize("bad", [0, -3])
def test_a_round_without_steps_is_refused_by_name(bad: int) -> None:
    assert refused(steps=bad).startswith(f"steps {bad} are fewer than 1; ")


@pytest.mark.parametrize("bad", [*NO_NUMBER, 1.0, 1.5])
def test_a_delta_that_is_no_small_chance_is_refused_by_name(bad: float) -> None:
    assert refused(delta=bad).startswith(f"delta {bad} is not in (0, 1); ")


@pytest.mark.parametrize("delta", [1 / 1000, 1.0001 / 1000, 0.5])
def test_a_delta_that_would_let_a_shopper_s_rows_out_whole_is_refused(delta: float) -> None:
    assert refused(delta=delta).startswith(f"delta {delta:g} is not below 1/1000, ")


@given(st.integers(2, 10**9), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_no_plan_has_a_delta_of_one_in_n_or_more(shoppers: int, delta: float) -> None:
    if delta < 1 / shoppers:
        assert Plan(**{**GOOD, "delta": delta, "shoppers_at_least": shoppers}).delta == delta
    else:
        assert "is not below 1/" in refused(delta=delta, shoppers_at_least=shoppers)


@pytest.mark.parametrize("bad", [1, 0, -5])
def test_a_bound_of_shoppers_below_two_is_refused_by_name(bad: int) -> None:
    told = f"shoppers_at_least {bad} is fewer than 2; "
    assert refused(shoppers_at_least=bad).startswith(told)
    with pytest.raises(PlanError, match=f"^{told}"):
        plan(**{**FILE, "shoppers_at_least": bad}, rounds=2)


def test_another_unit_than_the_shopper_is_refused_by_name() -> None:
    assert refused(unit="event").startswith("unit 'event' is not 'shopper'; ")


def test_a_plan_cannot_be_changed_once_it_is_made() -> None:
    with pytest.raises(FrozenInstanceError):
        HELD.epsilon = 100.0  # type: ignore[misc]
    with pytest.raises(PlanError):
        replace(HELD, epsilon=math.inf)  # and a copy is checked again


def test_the_charge_of_a_round_is_its_steps_together() -> None:
    assert HELD.charge == Charge(2.0, 0.1, 4)
    assert HELD.epsilon_after(0) == 0
    assert HELD.epsilon_after(5) == epsilon([Charge(2.0, 0.1, 20)], 1e-4)


def test_a_plan_tells_every_number_and_nothing_else() -> None:
    told = HELD.public()
    assert told == {**GOOD, "unit": "shopper"}
    assert list(told) == [it.name for it in fields(Plan)]
    assert Plan(**json.loads(json.dumps(told))) == HELD


@pytest.mark.parametrize("shoppers", [2, 1000, 100_000, 10**9])
def test_delta_is_below_one_in_n_where_a_file_names_none(shoppers: int) -> None:
    delta = default_delta(shoppers)
    assert delta == pytest.approx(1 / shoppers**1.1)
    assert 0 < delta < 1 / shoppers
    assert plan(**{**FILE, "shoppers_at_least": shoppers}, noise_multiplier=90.0).delta == delta


def test_given_epsilon_and_rounds_it_finds_the_noise_that_lasts_just_so_long() -> None:
    made = plan(**FILE, rounds=6)
    assert made.delta == default_delta(1000)
    assert made.epsilon_after(6) <= 3.0
    assert replace(made, noise_multiplier=made.noise_multiplier * 0.999).epsilon_after(6) > 3.0


def test_given_the_noise_it_tells_epsilon() -> None:
    made = plan(**FILE, noise_multiplier=2.0, delta=1e-5)
    assert (made.noise_multiplier, made.delta, made.epsilon) == (2.0, 1e-5, 3.0)
    assert made.epsilon_after(1) == epsilon([Charge(2.0, 0.1, 4)], 1e-5)


def test_the_expected_batch_is_the_public_guess_unless_the_file_says_another() -> None:
    assert plan(**FILE, noise_multiplier=2.0).expected_batch == pytest.approx(100.0)
    assert plan(**FILE, noise_multiplier=2.0, expected_batch=256.0).expected_batch == 256.0


BESIDE = [Charge(2.5), Charge(6.0, 0.5, 2)]


def test_rounds_last_with_what_is_released_besides_and_use_up_the_budget() -> None:
    made = plan(**FILE, rounds=6, beside=BESIDE)
    spent = epsilon([*BESIDE, *[made.charge] * 6], made.delta)
    assert 0.99 * 3.0 < spent <= 3.0
    assert made.epsilon_after(6) < spent  # which tells of the rounds alone
    assert made.noise_multiplier > plan(**FILE, rounds=6).noise_multiplier


def test_noise_enough_for_a_round_alone_is_refused_beside_more_with_both_figures() -> None:
    alone = plan(**FILE, noise_multiplier=0.7)
    together = epsilon([*BESIDE, alone.charge], alone.delta)
    with pytest.raises(PlanError) as caught:
        plan(**FILE, noise_multiplier=0.7, beside=BESIDE)
    assert str(caught.value).startswith(
        f"one round with what is released besides costs epsilon {together:.4g}, the budget is 3; "
    )
    assert plan(**FILE, noise_multiplier=9.0, beside=BESIDE).noise_multiplier == 9.0


def test_a_budget_that_is_spent_besides_lasts_for_no_round() -> None:
    with pytest.raises(PlanError, match=r"^what is released besides costs epsilon \S+ of 3, which"):
        plan(**FILE, rounds=1, beside=[Charge(1.0)])
    with pytest.raises(PlanError, match=r"^one round with what is released besides costs epsilon"):
        plan(**FILE, noise_multiplier=1000.0, beside=[Charge(1.0)])


@pytest.mark.parametrize("both", [{}, {"noise_multiplier": 1.0, "rounds": 2}])
def test_both_or_neither_of_noise_and_rounds_are_refused(both: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=r"^needs either noise_multiplier or rounds; give exactly"):
        plan(**FILE, **both)


@pytest.mark.parametrize("bad", [0, -1])
def test_fewer_rounds_than_one_are_refused_by_name(bad: int) -> None:
    with pytest.raises(PlanError, match=f"^rounds {bad} are fewer than 1; "):
        plan(**FILE, rounds=bad)


def test_a_budget_that_does_not_last_for_one_round_is_refused_with_both_figures() -> None:
    with pytest.raises(PlanError, match=r"^one round costs epsilon \d+\.\d+, the budget is 0\.1; "):
        plan(**{**FILE, "epsilon": 0.1}, noise_multiplier=1.0)


def test_a_budget_out_of_reach_of_any_noise_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^epsilon 1e-06 is out of reach of 8 steps"):
        plan(**{**FILE, "epsilon": 1e-6}, rounds=2, delta=1e-9)


@pytest.mark.parametrize("bad", NO_NUMBER)
@pytest.mark.parametrize("name", ["epsilon", "sampling_rate", "clip", "update_norm"])
@pytest.mark.parametrize("rest", [{"rounds": 2}, {"noise_multiplier": 20.0}])
def test_a_bad_number_of_a_file_is_refused_by_name(
    name: str, bad: float, rest: dict[str, Any]
) -> None:
    with pytest.raises(PlanError, match=f"^{name} {bad} is not ") as caught:
        plan(**{**FILE, name: bad}, **rest)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", NO_NUMBER)
def test_bad_noise_or_batch_of_a_file_is_refused_by_name(bad: float) -> None:
    with pytest.raises(PlanError, match=f"^noise_multiplier {bad} is not a positive number; "):
        plan(**FILE, noise_multiplier=bad)
    with pytest.raises(PlanError, match=f"^expected_batch {bad} is not a positive number; "):
        plan(**FILE, noise_multiplier=2.0, expected_batch=bad)


# A server's wishes ---------------------------------------------------------------------------

LOOSER = [
    ({"clip": 1.0000001}, "the server asks for clip 1.0000001, the Plan has 1.0; "),
    ({"clip": math.inf}, "the server asks for clip inf, "),
    ({"clip": math.nan}, "the server asks for clip nan, "),
    ({"noise_multiplier": 1.9999}, "the server asks for noise_multiplier 1.9999, the Plan has 2"),
    ({"noise_multiplier": 0.0}, "the server asks for noise_multiplier 0.0, "),
    ({"noise_multiplier": -3.0}, "the server asks for noise_multiplier -3.0, "),
    ({"noise_multiplier": math.nan}, "the server asks for noise_multiplier nan, "),
    ({"steps": 5}, "the server asks for steps 5, the Plan has 4; "),
    ({"clip": 0.5, "steps": 5}, "the server asks for steps 5, "),
]


@pytest.mark.parametrize(("asked", "told"), LOOSER)
def test_a_server_that_asks_for_a_looser_plan_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(PlanError) as caught:
        HELD.tightened(**asked)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked", [{"clip": 0.0}, {"clip": -1.0}, {"noise_multiplier": math.inf}, {"steps": 0}]
)
def test_a_server_that_asks_for_what_is_no_plan_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"^{next(iter(asked))} "):
        HELD.tightened(**asked)


def test_a_server_that_asks_for_nothing_gets_the_plan() -> None:
    assert HELD.tightened() == HELD
    assert HELD.tightened(clip=1.0, noise_multiplier=2.0, steps=4) == HELD


any_number = st.none() | st.floats(-1, 8) | st.sampled_from([math.nan, math.inf, 1.0, 2.0])


@given(clip=any_number, noise_multiplier=any_number, steps=st.none() | st.integers(-1, 8))
def test_whatever_a_server_asks_for_the_plan_only_tightens(
    clip: float | None, noise_multiplier: float | None, steps: int | None
) -> None:
    try:
        made = HELD.tightened(clip=clip, noise_multiplier=noise_multiplier, steps=steps)
    except PlanError:
        assume(False)
    assert made.clip <= HELD.clip
    assert made.noise_multiplier >= HELD.noise_multiplier
    assert made.steps <= HELD.steps
    again = replace(made, clip=1.0, noise_multiplier=2.0, steps=4)
    assert again == HELD  # all else is the platform's own


@pytest.mark.parametrize(
    "asked", [{"clip": 0.1}, {"noise_multiplier": 2.5}, {"steps": 1}, {"steps": 2, "clip": 0.3}]
)
def test_a_tighter_round_never_costs_more(asked: dict[str, Any]) -> None:
    assert HELD.tightened(**asked).epsilon_after(1) <= HELD.epsilon_after(1)
