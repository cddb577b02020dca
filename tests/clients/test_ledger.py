from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clients.chain import sealed
from clients.ledger import Asked, Ledger, balance, entries
from shared.accounting import Charge, epsilon
from shared.errors import BudgetError, LedgerError
from shared.plan import Plan
from shared.signing import digest
from shared.tables.policy import Policy
from shared.update import Receipt

ROUND = Charge(2.0)  # costs 2.22 at δ = 1e-6; two of them 3.35, three 4.28
PLAN = Plan(
    clip=1.0,
    noise_multiplier=2.0,
    sampling_rate=1.0,
    steps=1,
    expected_batch=10.0,
    epsilon=4.0,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=10.0,
)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "elsewhere").mkdir()
    return Policy(
        plan=PLAN,
        dataset="shop",
        ledger=tmp_path / "shop.ledger",
        head=tmp_path / "elsewhere" / "shop.head",
        key=tmp_path / "shop.key",
    )


def asked(number: int, *, run: str = "run") -> Asked:
    return Asked("update", run, number, "adapter")


def spend(ledger: Ledger, number: int, *, run: str = "run") -> None:
    ledger.release(ledger.reserve(asked(number, run=run), ROUND), b"update %d" % number)


def in_new_process(work: Callable[[], None], tmp_path: Path) -> None:
    """Runs it in a process of its own, whose end comes without any tidying up."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            (tmp_path / "fault").write_text(traceback.format_exc())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, (tmp_path / "fault").read_text()


def test_what_was_released_is_spent_and_stays_so_after_a_restart(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
        before = ledger.balance()
    assert before.spent == pytest.approx(epsilon([ROUND], 1e-6))
    assert (before.dataset, before.unit, before.releases) == ("shop", "shopper", 1)
    assert (before.epsilon, before.delta, before.reserved) == (4.0, 1e-6, 0.0)
    assert before.left == pytest.approx(4 - before.spent)
    with Ledger.open(policy, noise="secure") as ledger:
        assert ledger.balance() == before
    assert balance(policy) == before


def test_a_reservation_counts_until_it_is_abandoned(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        number = ledger.reserve(asked(1), ROUND)
        assert ledger.balance().spent == 0
        assert ledger.balance().reserved == pytest.approx(epsilon([ROUND], 1e-6))
        assert balance(policy) == ledger.balance()  # a reader sees it beside the writer
        ledger.abandon(number)
        assert ledger.balance().reserved == ledger.balance().spent == 0


@pytest.mark.parametrize(("spent", "left"), [(0, 2), (1, 1), (2, 0)])
def test_rounds_left_are_those_that_still_fit(policy: Policy, spent: int, left: int) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        for number in range(spent):
            spend(ledger, number)
        assert ledger.balance().rounds_left == left
        for number in range(left):
            spend(ledger, 10 + number)
        with pytest.raises(BudgetError):
            ledger.reserve(asked(20), ROUND)


def test_an_exhausted_budget_is_refused_with_figures_and_nothing_is_written(
    policy: Policy,
) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
        spend(ledger, 2)
        before = ledger.receipt
        with pytest.raises(BudgetError, match=r"shop is exhausted: epsilon 0\.6\d+ of 4 is left"):
            ledger.reserve(asked(3), ROUND)
        assert ledger.receipt == before
        with pytest.raises(BudgetError):  # whatever it costs: the Plan did not set it aside
            ledger.reserve(asked(3), Charge(50.0))
        assert ledger.receipt == before
    assert len(entries(policy)) == 4


def test_a_budget_is_for_ever_and_not_for_a_run(policy: Policy) -> None:
    for run in ("first", "second"):
        with Ledger.open(policy, noise="secure") as ledger:
            spend(ledger, 1, run=run)
    with (
        Ledger.open(policy, noise="secure") as ledger,
        pytest.raises(BudgetError, match="exhausted"),
    ):
        ledger.reserve(asked(1, run="third"), ROUND)


def test_each_data_set_has_a_budget_of_its_own(policy: Policy) -> None:
    other = replace(policy, dataset="other")
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
        spend(ledger, 2)
    with Ledger.open(other, noise="secure") as ledger:
        assert ledger.balance().spent == 0
        spend(ledger, 1, run="its own")
    assert balance(policy).releases == 2
    assert balance(other).releases == 1


def test_a_lower_budget_later_leaves_nothing_rather_than_less_than_nothing(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
    tight = balance(replace(policy, plan=replace(PLAN, epsilon=1.0)))
    assert (tight.left, tight.rounds_left) == (0.0, 0)


def test_the_same_request_again_is_answered_with_the_very_same_bytes(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        assert ledger.answered(asked(1)) is None
        spend(ledger, 1)
    with Ledger.open(policy, noise="secure") as ledger:
        assert ledger.answered(asked(1)) == b"update 1"
        for other in (asked(2), asked(1, run="other"), replace(asked(1), adapter="another")):
            assert ledger.answered(other) is None
        assert ledger.answered(replace(asked(1), purpose="metrics")) is None
        assert ledger.balance().releases == 1


def test_the_last_payload_of_each_purpose_is_kept_and_no_older_one(policy: Policy) -> None:
    metrics = Asked("metrics", "run", 1, "adapter")
    policy = replace(policy, metrics_noise=50.0, metrics_releases=1)
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
        ledger.release(ledger.reserve(metrics, Charge(50.0)), b"metrics")
        assert ledger.answered(asked(1)) == b"update 1"
        spend(ledger, 2)
        assert ledger.answered(asked(1)) is None
        assert ledger.answered(asked(2)) == b"update 2"
        assert ledger.answered(metrics) == b"metrics"


def test_an_empty_payload_is_an_answer_too(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        ledger.release(ledger.reserve(asked(1), ROUND), b"")
        assert ledger.answered(asked(1)) == b""


def test_a_crashed_process_reservation_is_abandoned_when_the_ledger_is_opened_again(
    policy: Policy, tmp_path: Path
) -> None:
    def crash() -> None:
        Ledger.open(policy, noise="secure").reserve(asked(1), ROUND)

    in_new_process(crash, tmp_path)
    assert balance(policy).reserved > 0  # counted until somebody knows better
    # The new process may have another data set or Plan; the entry repeats what was reserved.
    changed = replace(policy, dataset="other", plan=replace(PLAN, steps=2))
    with Ledger.open(changed, noise="secure") as ledger:
        assert ledger.receipt.count == 2
    first, second = entries(policy)
    assert (second.kind, second.of, second.dataset) == ("abandon", first.number, "shop")
    assert second.charge == first.charge
    assert balance(policy).reserved == balance(policy).spent == 0


def test_a_ledger_ahead_of_its_head_file_heals_it(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        spend(ledger, 1)
        old = policy.head.read_bytes()
        spend(ledger, 2)
        newest = policy.head.read_bytes()
    policy.head.write_bytes(old)  # as if the crash had come between the two files
    with Ledger.open(policy, noise="secure") as ledger:
        assert ledger.balance().releases == 2
    assert policy.head.read_bytes() == newest


def test_the_head_file_is_the_receipt_after_every_write(policy: Policy) -> None:
    def head() -> Receipt:
        return Receipt(**json.loads(policy.head.read_text()))

    with Ledger.open(policy, noise="secure") as ledger:
        assert head() == ledger.receipt
        assert ledger.receipt.count == 0
        number = ledger.reserve(asked(1), ROUND)
        assert head() == ledger.receipt
        ledger.release(number, b"update")
        assert head() == ledger.receipt == Receipt(2, entries(policy)[-1].hash)
    with Ledger.open(policy, noise="secure", receipt=head()) as ledger:
        assert ledger.receipt == head()


def test_an_entry_holds_what_an_auditor_asks_for(policy: Policy) -> None:
    with Ledger.open(policy, noise="simulated", clock=lambda: 1e9) as ledger:
        spend(ledger, 7)
    reserve, release = entries(policy)
    assert (reserve.kind, release.kind, release.of) == ("reserve", "release", 1)
    assert reserve.asked == release.asked == Asked("update", "run", 7, "adapter")
    assert dict(release.plan) == PLAN.public()
    assert (release.charge, release.time, release.noise) == (ROUND, 1e9, "simulated")
    assert (reserve.payload, release.payload) == (None, digest(b"update 7"))
    assert release.before == reserve.hash
    assert sealed(replace(release, hash="")) == release


def test_two_ledgers_have_heads_that_tell_nothing_of_what_is_in_them(policy: Policy) -> None:
    heads = set()
    for name in ("a", "b"):
        here = policy.ledger.with_name(name)
        twin = replace(policy, ledger=here, head=here.with_suffix(".head"))
        with Ledger.open(twin, noise="secure", clock=lambda: 1e9) as ledger:
            heads.add(ledger.receipt.head)
            spend(ledger, 1)
            heads.add(ledger.receipt.head)
    assert len(heads) == 4


def test_no_ledger_yet_is_an_empty_one_to_a_reader_who_makes_none(policy: Policy) -> None:
    assert entries(policy) == []
    assert balance(policy).rounds_left == 2
    assert not policy.ledger.exists()


def test_nobody_but_its_owner_may_read_a_ledger(policy: Policy) -> None:
    Ledger.open(policy, noise="secure").close()
    assert policy.ledger.stat().st_mode & 0o077 == 0


def test_a_policy_without_a_plan_has_no_ledger(policy: Policy) -> None:
    with pytest.raises(ValueError, match="needs a Plan"):
        Ledger.open(replace(policy, plan=None), noise="secure")


def test_every_commit_is_on_the_disk_before_it_returns(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        base = ledger._base
        assert base is not None
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert base.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_epsilon_of_twenty_rounds_is_2_125_across_twenty_process_restarts(
    policy: Policy, tmp_path: Path
) -> None:
    plan = replace(PLAN, noise_multiplier=1.0, sampling_rate=0.01, steps=50)
    policy = replace(policy, plan=plan)
    plan.epsilon_after(1)  # the loss of one step, which the children then need not work out

    for number in range(20):

        def one_round(number: int = number) -> None:
            ledger = Ledger.open(policy, noise="secure")
            ledger.release(ledger.reserve(asked(number), plan.charge), b"update")

        in_new_process(one_round, tmp_path)
    found = balance(policy)
    assert found.releases == 20
    assert found.spent == pytest.approx(2.125, rel=0.005)
    assert found.spent == pytest.approx(plan.epsilon_after(20), rel=1e-9)


def test_a_failed_round_costs_nothing_and_the_next_one_goes_on(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        ledger.abandon(ledger.reserve(asked(1), ROUND))
        spend(ledger, 1)
        with pytest.raises(LedgerError, match="reservation 3 is not open"):
            ledger.release(3, b"again")
    assert balance(policy).releases == 1
