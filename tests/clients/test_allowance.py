from __future__ import annotations

import json
import sqlite3
import tomllib
from contextlib import closing
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path

import pytest

from clients.allowance import allowance_of
from clients.chain import Asked, Entry
from clients.ledger import Ledger, balance, entries
from clients.ledger_file import write_head
from shared.accounting import Charge, epsilon
from shared.errors import BudgetError
from shared.plan import Plan
from shared.signing import canonical, digest
from shared.tables.config import load_platform, platform_from
from shared.tables.dump import dump_platform
from shared.tables.policy import Policy
from shared.update import Receipt

ROUND = Charge(8.0)  # six fit into ε = 1.35 at δ = 1e-6, and nine into 1.68
SUMS = Charge(4.0, mechanism="laplace")  # costs 0.25; fewer rounds fit beside it
METRICS = Charge(90.0)
PLAN = Plan(
    clip=1.0,
    noise_multiplier=8.0,
    sampling_rate=1.0,
    steps=1,
    expected_batch=10.0,
    epsilon=1.35,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=10.0,
)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    ledger, head, key = (tmp_path / f"shop.{kind}" for kind in ("ledger", "head", "key"))
    return Policy(PLAN, "shop", ledger, head, key)


@pytest.fixture
def with_sums(policy: Policy) -> Policy:
    return replace(policy, sums_noise=4.0)


def take(policy: Policy, *kinds: str, run: str = "run") -> None:
    """Release one after another: "update", "sums" or "metrics"."""
    assert policy.plan is not None
    charges = {"update": policy.plan.charge, "sums": SUMS, "metrics": METRICS}
    with Ledger.open(policy, noise="secure") as ledger:
        for kind in kinds:
            asked = Asked(kind, run, ledger.receipt.count, "adapter")  # type: ignore[arg-type]
            ledger.release(ledger.reserve(asked, charges[kind]), b"payload")


def taken(policy: Policy, kind: str) -> int:
    """How many of a kind can be taken until the ledger refuses."""
    for count in range(20):
        try:
            take(policy, kind, run=f"{kind} {count}")
        except BudgetError:
            return count
    raise AssertionError("never refused")


def test_sums_are_set_aside_before_anybody_asks_and_rounds_are_fewer(
    policy: Policy, with_sums: Policy
) -> None:
    alone, beside = allowance_of([], policy=policy), allowance_of([], policy=with_sums)
    assert (alone.rounds, alone.sums) == (6, 0)
    assert 2 < beside.rounds < 6
    assert beside.total == (replace(ROUND, steps=beside.rounds), SUMS)
    assert epsilon(beside.total, 1e-6) <= 1.35
    stands = balance(with_sums)
    assert (stands.rounds, stands.rounds_left, stands.sums_left) == (beside.rounds,) * 2 + (1,)
    assert stands.set_aside == pytest.approx(epsilon([SUMS], 1e-6))
    assert stands.left == pytest.approx(1.35 - stands.set_aside)


def test_what_may_run_in_all_does_not_depend_on_what_was_asked_for(
    with_sums: Policy, tmp_path: Path
) -> None:
    fixed = allowance_of([], policy=with_sums)
    for number, order in enumerate(sorted(set(permutations(["update", "update", "sums"])))):
        files = {kind: tmp_path / f"{number}.{kind}" for kind in ("ledger", "head", "key")}
        here = replace(with_sums, **files)  # type: ignore[arg-type]
        for count in range(len(order)):
            take(here, order[count])
            assert allowance_of(entries(here), policy=here).total == fixed.total
        assert taken(here, "sums") == 0
        assert taken(here, "update") == fixed.rounds - 2
        assert balance(here).spent == epsilon(fixed.total, 1e-6) <= 1.35


def test_sums_that_nobody_asked_for_are_never_turned_into_rounds(with_sums: Policy) -> None:
    assert taken(with_sums, "update") == allowance_of([], policy=with_sums).rounds
    assert balance(with_sums).left < 1.35 - balance(with_sums).spent
    assert taken(with_sums, "sums") == 1


def test_as_many_metrics_as_rounds_and_one_more_are_set_aside_unless_the_file_says(
    policy: Policy,
) -> None:
    shared = replace(policy, metrics_noise=90.0, metrics_releases=None)
    found = allowance_of([], policy=shared)
    assert found.metrics == found.rounds + 1 > 3
    assert taken(shared, "metrics") == found.metrics
    assert taken(shared, "update") == found.rounds
    assert balance(shared).spent == epsilon(
        [ROUND] * found.rounds + [METRICS] * found.metrics, 1e-6
    )
    assert allowance_of([], policy=replace(shared, metrics_releases=2)).metrics == 2
    assert allowance_of([], policy=replace(shared, metrics_releases=0)).metrics == 0


@pytest.mark.parametrize("charge", [Charge(12.0), Charge(8.0, 0.5), replace(SUMS, steps=2), SUMS])
def test_what_the_plan_does_not_hold_is_refused_however_little_it_costs(
    policy: Policy, charge: Charge
) -> None:
    asked = Asked("update", "run", 1, "adapter")
    with Ledger.open(policy, noise="secure") as ledger, pytest.raises(BudgetError):
        ledger.reserve(asked, charge)
    assert entries(policy) == []


# A Plan that its operator changes ------------------------------------------------------------


def test_what_an_earlier_plan_set_aside_stays_set_aside(with_sums: Policy) -> None:
    take(with_sums, "update")
    before = allowance_of(entries(with_sums), policy=with_sums)
    quieter = replace(with_sums, plan=replace(PLAN, noise_multiplier=20.0, epsilon=1.5))
    found = allowance_of(entries(quieter), policy=quieter)
    assert set(before.total) < set(found.total)
    assert found.rounds > 0
    assert epsilon(found.total, 1e-6) <= 1.5
    take(quieter, "update", run="next")
    assert allowance_of(entries(quieter), policy=quieter).total == found.total
    assert balance(quieter).set_aside > epsilon([SUMS], 1e-6)  # rounds of the earlier Plan too


def test_without_a_larger_budget_another_plan_has_no_room_and_is_told_so(
    with_sums: Policy,
) -> None:
    take(with_sums, "update")
    for changed in (
        replace(with_sums, sums_noise=3.0),
        replace(with_sums, metrics_noise=5.0, metrics_releases=1),
        replace(with_sums, plan=replace(PLAN, epsilon=1.0)),
    ):
        with pytest.raises(BudgetError, match=r"does not fit beside epsilon .* an earlier Plan"):
            take(changed, "update", run="next")
        assert balance(changed).rounds_left == 0
    take(with_sums, "update")  # put back, it goes on


def test_leaving_sums_out_later_frees_nothing(policy: Policy, with_sums: Policy) -> None:
    take(with_sums, "update")
    rounds = allowance_of([], policy=with_sums).rounds
    assert taken(policy, "update") == rounds - 1


def test_a_larger_budget_for_the_same_rounds_gives_more_of_them(policy: Policy) -> None:
    take(policy, "update")
    richer = replace(policy, plan=replace(PLAN, epsilon=1.68))
    assert allowance_of(entries(policy), policy=richer).rounds == 9
    assert taken(richer, "update") == 8


def test_a_plan_under_which_nothing_left_sets_nothing_aside(policy: Policy) -> None:
    other = replace(policy, plan=replace(PLAN, noise_multiplier=16.0))
    with Ledger.open(other, noise="secure") as ledger:
        asked = Asked("update", "other", 1, "adapter")
        ledger.abandon(ledger.reserve(asked, Charge(16.0)))
    assert taken(policy, "update") == 6


# A ledger of an older version ----------------------------------------------------------------


def older(policy: Policy, *charges: tuple[str, Charge]) -> None:
    """A ledger whose entries record no allowance, as versions before this wrote them."""
    Ledger.open(policy, noise="secure").close()
    assert policy.plan is not None
    with closing(sqlite3.connect(policy.ledger)) as base, base:
        identity, noise = base.execute("SELECT id, noise FROM meta").fetchone()
        before = digest(canonical({"id": identity, "noise": noise}))
        for number in range(1, 2 * len(charges) + 1):
            purpose, charge = charges[(number - 1) // 2]
            entry = Entry(
                number=number,
                kind="reserve" if number % 2 else "release",
                of=None if number % 2 else number - 1,
                dataset="shop",
                unit="shopper",
                asked=Asked(purpose, "old", (number + 1) // 2, "adapter"),  # type: ignore[arg-type]
                charge=charge,
                plan=policy.plan.public(),
                noise="secure",
                time=1e9,
                payload=None if number % 2 else digest(b""),
                before=before,
            )
            fields = {k: v for k, v in asdict(entry).items() if k not in ("hash", "allowance")}
            text = canonical(fields).decode()
            before = digest(text)
            base.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, text, before))
    write_head(policy.head, Receipt(2 * len(charges), before))


def test_a_ledger_of_an_older_version_goes_on_and_nothing_of_it_is_forgotten(
    with_sums: Policy,
) -> None:
    older(with_sums, ("update", ROUND), ("update", ROUND))
    assert [entry.allowance for entry in entries(with_sums)] == [()] * 4
    fixed = allowance_of([], policy=with_sums)
    assert allowance_of(entries(with_sums), policy=with_sums).total == fixed.total
    assert taken(with_sums, "update") == fixed.rounds - 2
    assert taken(with_sums, "sums") == 1
    assert json.loads(json.dumps([asdict(it) for it in entries(with_sums)[-1].allowance]))


def test_rounds_that_an_older_version_took_from_what_is_set_aside_now_are_counted(
    with_sums: Policy,
) -> None:
    older(with_sums, *[("update", ROUND)] * 6)  # all fitted, as long as nobody asked for sums
    assert balance(with_sums).rounds_left == 0
    with pytest.raises(BudgetError, match="does not fit beside"):
        take(with_sums, "sums")


def test_tightened_rounds_of_an_older_version_are_counted_as_they_were_charged(
    policy: Policy,
) -> None:
    older(policy, ("update", Charge(12.0)), ("update", Charge(12.0)))
    found = allowance_of(entries(policy), policy=policy)
    assert replace(ROUND, noise_multiplier=12.0, steps=2) in found.total
    assert found.rounds < 6
    assert epsilon(found.total, 1e-6) <= 1.35


# A platform's file ---------------------------------------------------------------------------

FILE = """
[platform]
name = "kiosk"
[events]
path = "e.parquet"
columns = { shopper = "user", item = "item", time = "ts" }
[items]
path = "i.csv"
columns = { item = "item", text = "text" }
[privacy]
epsilon = 1.0
shoppers_at_least = 4000
sampling_rate = 0.064
steps = 4
rounds = 4
[sums]
pairs = "pairs.safetensors"
noise_multiplier = 10.0
releases = 3
[evaluation]
share_metrics = true
noise_multiplier = 40.0
"""


def test_the_rounds_of_a_file_last_with_all_that_it_sets_aside(tmp_path: Path) -> None:
    config = platform_from(tomllib.loads(FILE), where="p.toml", base=tmp_path)
    assert config.policy is not None
    found = allowance_of([], policy=config.policy)
    assert (found.rounds, found.sums, found.metrics) == (4, 3, 5)
    assert config.policy.plan is not None
    assert 0.999 < epsilon(found.total, config.policy.plan.delta) <= 1.0
    (tmp_path / "p.toml").write_text(dump_platform(config))
    assert load_platform(tmp_path / "p.toml") == config
    named = FILE + "releases = 7\n"
    named_policy = platform_from(tomllib.loads(named), where="p.toml", base=tmp_path).policy
    assert named_policy is not None
    assert named_policy.metrics_for(4) == 7
