from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.aggregate import ServerState, fedavg
from server.config import Federation, FederationSection, federation_from
from server.registry import Registry
from server.rounds import federate
from shared import asking, wire
from shared.adapter import Adapter
from shared.asking import Standing
from shared.errors import ReplyError
from shared.records import Content
from shared.update import Protection, Receipt, Update, bound
from shared.wire import Refusal

ADAPTER = Adapter({"w": np.zeros(2, np.float32)}, backbone="backbone", task="task")
FIRST = Receipt(2, "a" * 64)
SECOND = Receipt(4, "b" * 64)


@dataclass
class Shop:
    """A platform that answers a round with an Update and the receipt of that round, or refuses."""

    name: str
    noise: Protection = "secure"
    receipts: dict[int, Receipt] = field(default_factory=dict)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    evaluates: bool = True

    def answer(self, adapter: Adapter, round_: int) -> Content | ReplyError:
        if round_ in self.refusals:
            return wire.refused(self.refusals[round_])
        moved = Update({"w": np.ones(2, np.float32)}, base=adapter.digest)
        update = bound(moved, 2.0, noise=self.noise)
        return wire.update_reply(update, self.receipts.get(round_))


class Shops:
    """Nodes 1, 2, 3 … that remember what the server told them."""

    def __init__(self, *shops: Shop) -> None:
        self.shops = dict(enumerate(shops, start=1))
        self.told: list[tuple[str, int, Standing]] = []  # kind, round, what the server remembers
        self.trainings: list[asking.Training] = []

    def present(self) -> Sequence[int]:
        return list(self.shops)

    def called(self, node: int) -> str | None:
        return None

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError]]:
        if kind == wire.HELLO:
            for node in nodes:
                member = wire.Member(self.shops[node].name, 1.0, "backbone", "task")
                yield node, wire.hello_reply(member)
            return
        self.told.append((kind, round_, asking.read_standing(content)))
        adapter, training = asking.read_request(content)
        if training is not None:
            self.trainings.append(training)
        for node in nodes:
            shop = self.shops[node]
            if kind == wire.TRAIN:
                yield node, shop.answer(adapter, round_)
            elif shop.evaluates:
                yield node, wire.metrics_reply({})
            else:
                yield node, wire.refused(Refusal.EXHAUSTED)

    def receipts(self, kind: str) -> list[dict[str, Receipt]]:
        return [dict(standing.receipts) for asked, _, standing in self.told if asked == kind]


def plan(**keys: Any) -> Federation:
    return replace(federation_from(FederationSection(rounds=3, quorum=1)), **keys)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Registry]:
    def go(nodes: Shops, **keys: Any) -> Registry:
        registry = Registry(tmp_path)
        state = ServerState(ADAPTER)
        if registry.rounds():
            state, _ = registry.load(registry.rounds()[-1])
        federate(nodes, state, plan(**keys), fedavg(), registry)
        return registry

    return go


def test_the_receipts_of_the_last_replies_go_to_platforms_in_the_next_request(
    run: Callable[..., Registry],
) -> None:
    nodes = Shops(Shop("a", receipts={1: FIRST, 2: SECOND}), Shop("b", "none"))
    registry = run(nodes)
    assert nodes.receipts(wire.TRAIN) == [{}, {"a": FIRST}, {"a": SECOND}]
    # Of round 0, then after each round.
    assert nodes.receipts(wire.EVALUATE) == [{}, {"a": FIRST}, {"a": SECOND}, {"a": SECOND}]
    assert registry.standing().receipts == {"a": SECOND}


def test_every_request_of_a_run_and_of_its_restarts_names_the_same_run(
    run: Callable[..., Registry], tmp_path: Path
) -> None:
    first, again = Shops(Shop("a", receipts={1: FIRST})), Shops(Shop("a"))
    run(first, rounds=1)
    run(again, rounds=2)
    runs = {standing.run for _, _, standing in first.told + again.told}
    assert runs == {Registry(tmp_path).standing().run}
    assert again.receipts(wire.TRAIN) == [{"a": FIRST}]


def test_a_round_without_a_receipt_forgets_none(run: Callable[..., Registry]) -> None:
    nodes = Shops(Shop("a", receipts={1: FIRST}, refusals={2: Refusal.FAILED}), Shop("b"))
    assert run(nodes).standing().receipts == {"a": FIRST}
    assert nodes.receipts(wire.TRAIN) == [{}, {"a": FIRST}, {"a": FIRST}]


def test_a_receipt_is_remembered_before_its_round_is_recorded(
    run: Callable[..., Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Registry.record

    def killed(self: Registry, state: ServerState, report: Any) -> None:
        if report.round == 1:
            raise KeyboardInterrupt
        record(self, state, report)

    monkeypatch.setattr(Registry, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        run(Shops(Shop("a", receipts={1: FIRST})))
    assert Registry(tmp_path).standing().receipts == {"a": FIRST}
    assert Registry(tmp_path).rounds() == [0]


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (Refusal.EXHAUSTED, "budget is exhausted"),
        (Refusal.POLICY, "own policy forbids"),
        (Refusal.LEDGER, "ledger cannot be used"),
        (Refusal.FAILED, "could not answer"),
    ],
)
def test_a_platform_that_refuses_is_named_with_its_reason_and_the_federation_goes_on(
    refusal: Refusal, told: str, run: Callable[..., Registry]
) -> None:
    spent = Shop("spent", receipts={1: FIRST}, refusals={2: refusal, 3: refusal})
    registry = run(Shops(Shop("rich"), spent))
    reports = [registry.load(number)[1] for number in (1, 2, 3)]
    assert [list(it.replied) for it in reports] == [["rich", "spent"], ["rich"], ["rich"]]
    assert [list(it.refused) for it in reports] == [[], ["spent"], ["spent"]]
    assert all(told in it.refused["spent"] for it in reports[1:])
    assert all(it.moved and not it.missing for it in reports)


def test_metrics_that_no_budget_is_left_for_stop_nothing(run: Callable[..., Registry]) -> None:
    registry = run(Shops(Shop("a"), Shop("b", evaluates=False)), rounds=1)
    report = registry.load(1)[1]
    assert list(report.replied) == ["a", "b"]
    assert report.validation == {"a": {}}
    assert "budget is exhausted" in report.refused["b"]


def test_the_record_says_how_each_update_was_protected(run: Callable[..., Registry]) -> None:
    nodes = Shops(Shop("a"), Shop("b", "none"), Shop("c", "simulated"), Shop("d"))
    nodes.shops[4].refusals[1] = Refusal.EXHAUSTED
    registry = run(nodes, rounds=1)
    assert registry.load(0)[1].noise == {}
    assert registry.load(1)[1].noise == {"a": "secure", "b": "none", "c": "simulated"}


def test_what_is_asked_of_plans_goes_with_every_round(run: Callable[..., Registry]) -> None:
    nodes = Shops(Shop("a"))
    run(nodes, rounds=2, clip=0.5, noise_multiplier=3.0, steps=7)
    found = [(it.clip, it.noise_multiplier, it.steps) for it in nodes.trainings]
    assert found == [(0.5, 3.0, 7)] * 2
