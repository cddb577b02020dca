from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.ledger import Ledger
from clients.private import GridOptimizer, PrivateEngine, gradients
from shared.accounting import Charge
from shared.backbone import BackboneSpec, new_backbone
from shared.errors import ConfigError
from shared.plan import Plan
from shared.tables.policy import Policy
from shared.training import Piece, Rows
from simulations.audit import audit, check_reach, passed, summary
from simulations.audit_page import render_audit
from simulations.audits.canaries import lower_bound, nameless, p_value, plant, right_guesses
from simulations.audits.checks import (
    allowed_tpr,
    independent_epsilon,
    sampling_check,
    spread_p,
)
from simulations.audits.ground import Ground, Size, Unprotected, unprotected

SMALL = Size(canaries=200, guesses=120, steps=20, shadows=3, victims=2, rounds=2, round_steps=2)


# The theorem's numbers


@pytest.mark.parametrize(("epsilon", "needed"), [(1.0, 10), (3.0, 62), (8.0, 8932)])
def test_so_many_right_guesses_refute_an_epsilon_and_one_fewer_does_not(
    epsilon: float, needed: int
) -> None:
    """(e^ε/(1+e^ε))^r < .05: the numbers that PRIVACY.md holds."""

    def chance(right: int) -> float:
        return p_value(canaries=right, guesses=right, right=right, epsilon=epsilon, delta=0.0)

    assert chance(needed) < 0.05 <= chance(needed - 1)


def test_the_p_value_of_two_guesses_is_as_by_hand() -> None:
    """ε = 0, so B is binomial of 2 and ½: P = 1/4, 1/2, 1/4.

    v = 2: β = 1/4; α = max(P[B = 1], P[B ≤ 1]/2) = max(1/2, 3/8) = 1/2; 2mδα = 2·4·.01·½ = .04.
    """
    found = p_value(canaries=4, guesses=2, right=2, epsilon=0.0, delta=0.01)
    assert found == pytest.approx(0.29, abs=1e-12)
    assert p_value(canaries=4, guesses=2, right=0, epsilon=0.0, delta=0.0) == 1.0


def test_a_lower_bound_is_where_the_p_value_meets_five_percent() -> None:
    bound = lower_bound(canaries=200, guesses=100, right=90, delta=1e-5)
    value = p_value(canaries=200, guesses=100, right=90, epsilon=bound, delta=1e-5)
    assert value == pytest.approx(0.05, abs=1e-6)
    assert lower_bound(canaries=200, guesses=100, right=50, delta=1e-5) == 0.0


def test_guesses_are_made_on_the_extremes_alone() -> None:
    scores = np.array([5.0, -4.0, 0.1, -0.1, 3.0, -2.0])
    coins = np.array([True, False, False, True, False, False])
    assert right_guesses(scores, coins, 2) == 2
    assert right_guesses(scores, coins, 4) == 3
    assert right_guesses(scores, coins, 3) == 2  # one says out, two say in


def test_a_claim_out_of_reach_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"refute epsilon 4\.\d\d at most, not 8"):
        check_reach(8.0, Size())


# Sampling


def test_the_spread_of_binomial_counts_is_believed_and_that_of_equal_counts_is_not() -> None:
    rng = np.random.default_rng(0)
    believed = [spread_p(rng.binomial(20, 0.1, 300), trials=20, rate=0.1) for _ in range(200)]
    assert 0.03 <= np.mean(np.array(believed) < 0.1) <= 0.2
    assert spread_p(np.full(300, 2), trials=20, rate=0.1) < 1e-12
    assert spread_p(np.repeat([0, 4], 150), trials=20, rate=0.1) < 1e-6


# Ledger


def test_the_other_accountant_agrees_with_a_published_figure() -> None:
    """ε of 20 rounds × 50 steps at q = .01, σ = 1, δ = 1e-6 is 2.125 ± .5 %."""
    least, most = independent_epsilon([Charge(1.0, 0.01, 50)] * 20, 1e-6)
    assert least <= 2.125 * 1.005
    assert most >= 2.125 * 0.995
    assert most - least == pytest.approx(0.01)


def test_what_a_plan_allows_an_attacker_is_as_by_hand() -> None:
    """At ε = ln 3: 3·.1 = .3 beside 1 - (1 - .1)/3 = .7; at .5: 1 - .5/3."""
    assert allowed_tpr(0.1, np.log(3), 0.0) == pytest.approx(0.3)
    assert allowed_tpr(0.5, np.log(3), 0.0) == pytest.approx(1 - 0.5 / 3)


# The whole audit, honest and not


@pytest.fixture(scope="module")
def ground() -> Ground:
    """A platform of 60 shoppers and 150 items."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((150, 256)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    rows = [rng.choice(150, 4, replace=False).astype(np.int32) for _ in range(60)]
    spec = BackboneSpec(encoder="", text_width=256, width=32, layers=1, rank=2)
    backbone = new_backbone(spec, seed=0)
    titles = [f"item {place}" for place in range(150)]
    return Ground(backbone, Rows(nameless(rows), torch.from_numpy(table)), titles)


@pytest.fixture(scope="module")
def plain(ground: Ground) -> Unprotected:
    return unprotected(ground, seed=0, size=SMALL)


Check = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def audited(ground: Ground, plain: Unprotected) -> Check:
    def run(epsilon: float = 3.0, **changed: Any) -> dict[str, Any]:
        return audit(ground, epsilon=epsilon, seed=0, size=SMALL, plain=plain, **changed)

    return run


@pytest.fixture(scope="module")
def honest(audited: Check) -> dict[float, dict[str, Any]]:
    return {epsilon: audited(epsilon) for epsilon in (1.0, 3.0)}


def red(found: dict[str, Any]) -> set[str]:
    return {check["name"] for check in found["checks"] if not check["passed"]}


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_honest_engine_and_ledger_are_green(
    honest: dict[float, dict[str, Any]], epsilon: float
) -> None:
    found = honest[epsilon]
    assert red(found) == set()
    assert found["lower_bound"]["epsilon"] < epsilon
    assert found["noise"] == "simulated"
    assert found["claim"] == {"epsilon": epsilon, "delta": 1e-5}
    assert found["ledger"]["releases"] == SMALL.rounds


class NoNoise(GridOptimizer):
    def add_noise(self) -> None:
        for value in self.params:
            value.grad = value.summed_grad.to(value.dtype)


class NoClip(GridOptimizer):
    def clip_and_accumulate(self) -> None:
        for value in self.params:
            total = gradients(value).double().sum(0)
            value.summed_grad = total if value.summed_grad is None else value.summed_grad + total


def built_with(kind: type[GridOptimizer]) -> Callable[..., PrivateEngine]:
    def make(*given: Any, **named: Any) -> PrivateEngine:
        engine = PrivateEngine(*given, **named)
        engine.optimizer = kind(
            engine.optimizer.original_optimizer, plan=engine.plan, randomness=engine.randomness
        )
        return engine

    return make


class Shuffled(PrivateEngine):
    """Every History once an epoch, in batches of one size."""

    def batches(self) -> Iterator[Iterable[Piece]]:
        rng = np.random.default_rng(0)
        count = round(1 / self.plan.sampling_rate)
        for step in range(self.steps):
            if step % count == 0:
                parts = np.array_split(rng.permutation(len(self.lengths)), count)
            yield self.cut(np.sort(parts[step % count]))


def forgetful(policy: Policy, **named: Any) -> Ledger:
    """A ledger that starts anew whenever it is opened."""
    for path in policy.ledger.parent.iterdir():
        path.unlink()
    return Ledger.open(policy, **named)


def test_no_noise_turns_the_audit_red(audited: Check) -> None:
    found = audited(engine=built_with(NoNoise))
    assert red(found) >= {"one run"}
    assert found["lower_bound"]["epsilon"] > 3


def test_no_clip_turns_the_audit_red(audited: Check) -> None:
    found = audited(engine=built_with(NoClip))
    assert red(found) >= {"one run"}
    assert found["lower_bound"]["epsilon"] > 3


def test_shuffled_batches_turn_the_audit_red(audited: Check) -> None:
    assert red(audited(engine=Shuffled)) >= {"sampling"}


def test_a_ledger_that_forgets_turns_the_audit_red(audited: Check) -> None:
    found = audited(open_ledger=forgetful)
    assert red(found) == {"ledger"}
    assert found["ledger"]["releases"] == 2 * SMALL.rounds


def test_batches_of_one_size_are_red_though_records_are_drawn_at_random(
    honest: dict[float, dict[str, Any]],
) -> None:
    plan = Plan(**honest[3.0]["plan"])
    rng = np.random.default_rng(0)
    drawn = [rng.choice(160, 40, replace=False) for _ in range(plan.steps)]
    check, figures = sampling_check(drawn, records=160, plan=plan)
    assert not check["passed"]
    assert figures["batch_sizes"] < 1e-9


def test_half_of_the_canaries_are_in_and_their_items_are_nobodys(ground: Ground) -> None:
    planted = plant(ground.rows, 400, rng=np.random.default_rng(0))
    assert 160 <= planted.coins.sum() <= 240
    assert len(planted.rows.histories) == 60 + planted.coins.sum()
    assert planted.canaries.items.min() == 150
    assert len(planted.rows.table) == 550


def test_the_result_is_json_and_the_page_says_what_it_says(
    honest: dict[float, dict[str, Any]], tmp_path: Path
) -> None:
    result: dict[str, Any] = {
        "audits": list(honest.values()),
        "seed": 0,
        "atoll": "0",
        "versions": {"torch": "2"},
        "machine": "one",
        "started": "now",
        "seconds": 1.0,
    }
    result = json.loads(json.dumps(result, allow_nan=False))
    assert passed(result)
    assert len(summary(result)) == 10
    page = render_audit(result)
    assert page == render_audit(result)
    assert "Every check is green" in page
    assert "http" not in page.replace("http-equiv", "")
    result["audits"][0]["checks"][2]["passed"] = False
    assert not passed(result)
    assert "Red: ledger at ε = 1" in render_audit(result)
    assert summary(result)[2].startswith("RED  epsilon 1, ledger: ")
