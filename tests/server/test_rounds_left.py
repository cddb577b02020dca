"""A platform says for how many rounds its budget lasts, so that nobody plans an empty one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.aggregate import ServerState, fedavg
from server.config import FederationSection, federation_from
from server.registry import Registry
from server.rounds import federate
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import ReplyError, RoundError
from shared.records import Content
from shared.update import Update, bound

ADAPTER = Adapter({"w": np.zeros(2, np.float32)}, backbone="backbone", task="task")


@dataclass
class Shops:
    """Nodes with budgets; −1 is none. Whoever is asked with nothing left answers with a number."""

    budgets: dict[str, int]
    asked: list[tuple[int, str]] = field(default_factory=list)
    hellos: list[tuple[int, str]] = field(default_factory=list)
    silent: bool = False  # says nothing of its budget, as an older version
    before_round: Callable[[int], None] = lambda _round: None

    @property
    def names(self) -> dict[int, str]:
        return dict(enumerate(sorted(self.budgets), start=1))

    def present(self) -> Sequence[int]:
        return list(self.names)

    def called(self, node: int) -> str | None:
        return self.names[node]

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError]]:
        for node in nodes:
            name = self.names[node]
            if kind == wire.HELLO:
                self.before_round(round_)
                self.hellos.append((round_, name))
                left = wire.UNBOUNDED if self.silent else self.budgets[name]
                member = wire.Member(name, 1.0, "backbone", "task", left)
                yield node, wire.hello_reply(member)
            elif kind == wire.EVALUATE:
                yield node, wire.metrics_reply({})
            else:
                self.asked.append((round_, name))
                yield node, self._trained(content, name)

    def _trained(self, content: Content, name: str) -> Content | ReplyError:
        if self.budgets[name] == 0:
            return wire.refused(wire.Refusal.EXHAUSTED)
        if self.budgets[name] > 0:
            self.budgets[name] -= 1
        adapter, _training = asking.read_request(content)
        update = Update({"w": np.ones(2, np.float32)}, base=adapter.digest)
        return wire.update_reply(bound(update, 2.0, noise="secure"))

    def rounds_of(self, name: str) -> list[int]:
        return [round_ for round_, who in self.asked if who == name]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Registry]:
    def go(nodes: Shops, **keys: Any) -> Registry:
        registry = Registry(tmp_path)
        federation = replace(federation_from(FederationSection(rounds=4, quorum=1)), **keys)
        federate(nodes, ServerState(ADAPTER), federation, fedavg(), registry)
        return registry

    return go


def test_whose_budget_ends_is_not_asked_again_and_the_record_says_why(
    run: Callable[..., Registry],
) -> None:
    nodes = Shops({"a": -1, "b": 2, "c": 0})
    registry = run(nodes)
    assert [nodes.rounds_of(name) for name in "abc"] == [[1, 2, 3, 4], [1, 2], []]
    reports = [registry.load(number)[1] for number in (1, 2, 3, 4)]
    assert [sorted(it.refused) for it in reports] == [["c"], ["c"], ["b", "c"], ["b", "c"]]
    assert all("budget is exhausted" in why for it in reports for why in it.refused.values())
    assert all(it.moved for it in reports)


def test_no_empty_round_is_planned_when_budgets_end(
    run: Callable[..., Registry], tmp_path: Path
) -> None:
    nodes = Shops({"a": 3, "b": 2, "c": 5})
    with pytest.raises(RoundError, match="1 of 3 platforms have rounds left") as caught:
        run(nodes, rounds=9, quorum=2)
    assert "round 4" in str(caught.value)
    assert Registry(tmp_path).rounds() == [0, 1, 2, 3]
    assert max(round_ for round_, _name in nodes.asked) == 3


def test_how_many_rounds_are_left_in_all_is_said_at_the_start_and_after_each(
    run: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="atoll.server"):
        run(Shops({"a": 3, "b": 2, "c": -1}), rounds=2, quorum=2)
    said = [record.getMessage() for record in caplog.records]
    assert "budgets last for 3 rounds of a quorum, 2 are to come (rounds left: a 3, b 2)" in said[1]
    rounds = [line for line in said if line.startswith("round ")]
    assert [line.rsplit("; ", 1)[1] for line in rounds] == [
        "budgets last for 2 more",
        "budgets last for 1 more",
    ]


def test_more_rounds_than_the_budgets_hold_are_warned_of_at_the_start(
    run: Callable[..., Registry], caplog: pytest.LogCaptureFixture
) -> None:
    run(Shops({"a": 3, "b": -1}), rounds=4, quorum=1)
    assert not [it for it in caplog.records if "budgets last for" in it.getMessage()]
    with pytest.raises(RoundError):
        run(Shops({"a": 3, "b": -1}), rounds=9, quorum=2)
    (warned,) = [it for it in caplog.records if "budgets last for" in it.getMessage()]
    assert warned.levelno == logging.WARNING
    assert "last for 3 rounds of a quorum, 5 are to come" in warned.getMessage()


def test_a_budget_that_its_operator_raised_is_heard_of(run: Callable[..., Registry]) -> None:
    nodes = Shops({"a": -1, "b": 1})

    def raised(round_: int) -> None:
        if round_ == 3:
            nodes.budgets["b"] = 5

    nodes.before_round = raised
    run(nodes)
    assert nodes.rounds_of("b") == [1, 3, 4]


def test_a_platform_that_says_nothing_of_its_budget_is_asked_as_before(
    run: Callable[..., Registry],
) -> None:
    nodes = Shops({"a": -1, "b": 1}, silent=True)
    registry = run(nodes, rounds=2)
    assert nodes.rounds_of("b") == [1, 2]
    assert "exhausted" in registry.load(2)[1].refused["b"]


@pytest.mark.parametrize("left", [-2, 1_000_001])
def test_rounds_left_that_cannot_be_are_refused(left: int) -> None:
    reply = wire.hello_reply(wire.Member("a", 1.0, "b", "t", left))
    with pytest.raises(ReplyError, match="rounds left"):
        wire.read_member(reply)


def test_after_a_restart_the_round_that_may_have_been_answered_is_asked_of_all(
    run: Callable[..., Registry], tmp_path: Path
) -> None:
    run(Shops({"a": -1, "b": -1}), rounds=1)
    nodes = Shops({"a": -1, "b": 0})  # its last round may be the one that was not recorded
    run(nodes, rounds=3)
    assert [nodes.rounds_of(name) for name in "ab"] == [[2, 3], [2]]
    assert list(Registry(tmp_path).load(3)[1].refused) == ["b"]
