from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import Grid, ServerApp

from clients.app import SIMULATED, app
from clients.beside import own
from clients.ledger import balance, entries
from clients.platform import open_platform
from clients.sums import SENSITIVITY, bounded, exact
from shared import asking, records, wire
from shared.accounting import Charge, epsilon
from shared.adapter import Adapter
from shared.asking import Standing
from shared.pairs import Pairs, met, near, save_pairs
from shared.records import Content
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.tasks import co_visitation
from shared.update import MAX_NORM, BoundedUpdate, check_update
from shared.wire import Refusal
from simulations.harness import Config, run_in_process

TRAINING = asking.Training(1, 1, 1, 4, 0.05, "cosine", 0)
SCALE = 1.9
# One release of sums costs ε = 0.36, two 0.73, three 1.01: two fit. A round of training costs 0.38,
# one of each 0.68, a third of either kind 0.97 or 1.00.
PAID = Charge(SCALE, mechanism="laplace")
PLAN = """
epsilon = 0.9
shoppers_at_least = 10
sampling_rate = 0.5
steps = 2
noise_multiplier = 1.5
update_norm = 0.25
"""
SUMS = '[sums]\npairs = "pairs.safetensors"\n'
# The platform sells "shop-00" to "shop-15"; half of the list is another's.
ITEMS = (*(f"mall-{place:02}" for place in range(8)), *(f"shop-{place:02}" for place in range(8)))
Make = Callable[..., Path]


@dataclass(frozen=True)
class Shop:
    """A platform's file, and the list of pairs beside it."""

    path: Path
    pairs: Pairs

    @property
    def start(self) -> Adapter:
        return co_visitation.untrained(self.pairs)

    @property
    def policy(self) -> Policy:
        found = load_platform(self.path).policy
        assert found is not None
        return found

    @property
    def charges(self) -> list[tuple[str, Charge]]:
        """What was released, and for what."""
        released = (it for it in entries(self.policy) if it.kind == "release")
        return [(it.asked.purpose, it.charge) for it in released]


def undirected() -> Pairs:
    vectors = np.random.default_rng(0).normal(size=(len(ITEMS), 4)).astype(np.float32)
    return near(ITEMS, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), count=6)


def directed() -> Pairs:
    keys = [left * len(ITEMS) + right for right in range(len(ITEMS)) for left in range(right)]
    return met(ITEMS, np.array(keys, np.int64))


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Callable[..., Shop]:
    """Writes a platform; under a Plan, or with a weight of 2 and nobody protected."""

    def make(pairs: Pairs, *, plan: bool = True, share_metrics: bool = False) -> Shop:
        save_pairs(pairs, tmp_path / "pairs.safetensors")
        noise = f"noise_multiplier = {SCALE}\n" if plan else ""
        how = {"privacy": PLAN} if plan else {"weight": 2.0, "share_metrics": share_metrics}
        return Shop(make_platform(tmp_path, more=SUMS + noise, **how), pairs)

    return make


@pytest.fixture
def protected(shop: Callable[..., Shop]) -> Shop:
    return shop(undirected())


def ask(path: Path, *asked: tuple[str, Content], **config: int) -> list[Message]:
    """What the app of the platform at `path` answers, one request after another."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: object) -> None:
        for kind, content in asked:
            found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), **config}
    run_in_process(probe, app, run_config={}, nodes={"it": node})
    assert len(found) == len(asked)
    return found


def count(start: Adapter, run: str = "-", **training: float) -> tuple[str, Content]:
    asked = replace(TRAINING, **training)  # type: ignore[arg-type]
    return wire.TRAIN, asking.request(start, asked, standing=Standing(run))


def refusals(replies: list[Message]) -> list[int | None]:
    return [reply.error.code if reply.has_error() else None for reply in replies]


def sums(update: BoundedUpdate) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """[P + M] pairs, then items."""
    return np.concatenate([update.delta[co_visitation.TOGETHER], update.delta[co_visitation.ITEMS]])


def test_hello_for_sums_tells_the_list_where_else_it_tells_the_backbone(protected: Shop) -> None:
    told = ask(protected.path, *((wire.HELLO, wire.hello(it)) for it in ("co-visitation", "next")))
    sums_, other = (wire.read_member(it.content) for it in told)
    assert sums_ == wire.Member("shop", 1.0, protected.pairs.digest, "co-visitation", 1)
    digest = open_platform(load_platform(protected.path)).digest
    assert other == wire.Member("shop", 1.0, digest, "next-item", 1)


def test_without_a_section_for_sums_the_policy_forbids_whatever_is_asked_of_them(
    make_platform: Make, tmp_path: Path
) -> None:
    start = co_visitation.untrained(undirected())
    path = make_platform(tmp_path, privacy=PLAN)
    hello, evaluate = wire.hello("co-visitation"), asking.request(start)
    asked = ((wire.HELLO, hello), count(start), (wire.EVALUATE, evaluate))
    assert refusals(ask(path, *asked)) == [Refusal.POLICY] * 3


def test_a_list_that_cannot_be_read_is_a_failure_without_words(protected: Shop) -> None:
    (protected.path.parent / "pairs.safetensors").write_bytes(b"no list")
    (reply,) = ask(protected.path, (wire.HELLO, wire.hello("co-visitation")))
    assert reply.has_error()
    assert reply.error.reason == "the platform could not answer"


def test_over_an_undirected_list_the_unprotected_tell_bounded_sums(
    shop: Callable[..., Shop],
) -> None:
    it = shop(undirected(), plan=False)
    (reply,) = ask(it.path, count(it.start))
    update, platform = wire.read_update(reply.content), open_platform(load_platform(it.path))
    assert (update.weight, update.noise, update.bound) == (2.0, "none", MAX_NORM)
    assert wire.read_receipt(reply.content) is None
    check_update(update, it.start)
    expected = bounded(platform.told, platform.places)
    assert expected.any()
    np.testing.assert_allclose(sums(update), expected, rtol=1e-6)
    assert update.delta[co_visitation.VARIANCE].tolist() == [0]
    assert update.delta[co_visitation.WEIGHT].tolist() == [1]


def test_over_a_directed_list_the_unprotected_tell_exact_counts(shop: Callable[..., Shop]) -> None:
    it = shop(directed(), plan=False)
    (reply,) = ask(it.path, count(it.start))
    update, platform = wire.read_update(reply.content), open_platform(load_platform(it.path))
    check_update(update, it.start)
    flat = own(platform).own.flat.astype(np.float32)
    expected = exact(platform.told, platform.places, weight=2.0, weighing=flat)
    assert flat.any()
    assert all(np.array_equal(update.delta[name], expected[name]) for name in it.start.tensors)
    assert expected[co_visitation.FOLLOWING].any()


def test_under_a_plan_a_release_is_charged_with_the_noise_of_its_section(protected: Shop) -> None:
    (reply,) = ask(protected.path, count(protected.start))
    update = wire.read_update(reply.content)
    assert protected.charges == [("sums", PAID)]
    assert (update.weight, update.noise, update.bound) == (1.0, "secure", MAX_NORM)
    receipt = wire.read_receipt(reply.content)
    assert receipt is not None
    assert receipt.head == entries(protected.policy)[-1].hash
    assert sorted(reply.content) == [records.REQUEST, wire.UPDATE]
    check_update(update, protected.start)
    platform = open_platform(load_platform(protected.path))
    noise = sums(update) - bounded(platform.told, platform.places)
    # About 80 numbers of secure noise: a million draws of as many stayed within 0.5 and 1.9.
    assert 0.4 < noise.std() / (2**0.5 * SCALE * SENSITIVITY) < 2.2
    assert (noise != 0).all()
    variance = update.delta[co_visitation.VARIANCE][0]
    assert variance == pytest.approx(2 * (SCALE * SENSITIVITY) ** 2)


def test_the_same_request_is_answered_the_same_for_nothing_until_another_run_pays_again(
    protected: Shop,
) -> None:
    text = protected.path.read_text().replace("epsilon = 0.9", "epsilon = 1.1")  # and one round
    noise = f"noise_multiplier = {SCALE}\n"
    protected.path.write_text(text.replace(noise, f"{noise}releases = 2\n"))
    asked = [count(protected.start, run) for run in ("one", "one", "two", "three", "four")]
    replies = ask(protected.path, *asked)
    assert refusals(replies) == [None, None, None, Refusal.EXHAUSTED, Refusal.EXHAUSTED]
    first, again, other = (wire.read_update(it.content) for it in replies[:3])
    assert sums(first).tobytes() == sums(again).tobytes()
    assert wire.read_receipt(replies[0].content) == wire.read_receipt(replies[1].content)
    assert np.mean(sums(first) == sums(other)) < 0.1
    assert protected.charges == [("sums", PAID)] * 2
    assert balance(protected.policy).spent <= 1.1


def test_noise_repeats_only_if_the_node_itself_says_to_simulate(
    shop: Callable[..., Shop],
) -> None:
    it = shop(undirected())
    told = []
    for seed in (0, 0, 1):
        for file in (it.policy.ledger, it.policy.head):
            file.unlink(missing_ok=True)
        (reply,) = ask(it.path, count(it.start), **{SIMULATED: seed})
        told.append(wire.read_update(reply.content))
    assert {it.noise for it in told} == {"simulated"}
    assert np.array_equal(sums(told[0]), sums(told[1]))
    assert np.mean(sums(told[0]) == sums(told[2])) < 0.1


def test_exact_counts_of_protected_shoppers_are_refused_and_cost_nothing(
    shop: Callable[..., Shop],
) -> None:
    it = shop(directed())
    assert refusals(ask(it.path, count(it.start))) == [Refusal.POLICY]
    assert entries(it.policy) == []


def test_a_shopper_who_pushes_another_out_of_a_limit_is_refused_at_no_cost(protected: Shop) -> None:
    text = protected.path.read_text()
    protected.path.write_text(text.replace("[events]", "[events]\nlimit = 8"))
    assert refusals(ask(protected.path, count(protected.start))) == [Refusal.POLICY]
    assert entries(protected.policy) == []


def test_a_server_may_ask_for_more_noise_and_not_for_less(protected: Shop) -> None:
    less, more = (
        ask(protected.path, count(protected.start, noise_multiplier=it)) for it in (1.8, 3.0)
    )
    assert refusals([*less, *more]) == [Refusal.POLICY, None]
    assert protected.charges == [("sums", PAID)]  # all that was set aside, whatever was asked
    variance = wire.read_update(more[0].content).delta[co_visitation.VARIANCE]
    assert variance[0] == pytest.approx(2 * (3.0 * SENSITIVITY) ** 2)


SPOILT: dict[str, Callable[[Adapter], tuple[str, Content]]] = {
    "a second round": lambda start: count(start, round=2, rounds=2),
    "a first of two": lambda start: count(start, rounds=2),
    "a later state": lambda start: count(replace(start, version=1)),
    "a state that knows": lambda start: count(
        start.plus({k: np.ones_like(v) for k, v in start.tensors.items()}, version=0)
    ),
    "another list": lambda start: count(replace(start, backbone="x" * 64)),
    "another shape": lambda start: count(
        replace(start, tensors={**start.tensors, "items": np.zeros(3, np.float32)})
    ),
    "no training": lambda start: (wire.TRAIN, asking.request(start)),
}


@pytest.mark.parametrize("what", list(SPOILT))
def test_all_but_one_round_from_nothing_is_refused_before_it_is_charged(
    what: str, protected: Shop
) -> None:
    assert refusals(ask(protected.path, SPOILT[what](protected.start))) == [Refusal.FAILED]
    assert entries(protected.policy) == []


@pytest.mark.parametrize("share_metrics", [False, True])
def test_of_what_sums_are_worth_nobody_is_told(
    share_metrics: bool, shop: Callable[..., Shop]
) -> None:
    it = shop(undirected(), plan=False, share_metrics=share_metrics)
    (reply,) = ask(it.path, (wire.EVALUATE, asking.request(it.start)))
    assert list(reply.content) == [wire.METRICS]
    assert wire.read_metrics(reply.content) == {}


def test_sums_and_updates_are_paid_for_from_one_budget(protected: Shop) -> None:
    adapter = open_platform(load_platform(protected.path)).untrained
    train = [count(adapter, round=number, rounds=4) for number in (1, 2)]
    replies = ask(protected.path, count(protected.start), *train, count(protected.start, "other"))
    assert refusals(replies) == [None, None, Refusal.EXHAUSTED, Refusal.EXHAUSTED]
    assert protected.charges == [("sums", PAID), ("update", Charge(1.5, 0.5, 2))]
    plan = protected.policy.plan
    assert plan is not None
    both = [charge for _purpose, charge in protected.charges]
    assert epsilon(both, plan.delta) == balance(protected.policy).spent <= 0.9
    assert epsilon([*both, PAID], plan.delta) > 0.9 > epsilon(both[1:] * 2, plan.delta)
