from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import roster
from server.aggregate import ServerState, fedavg
from server.config import FederationSection, federation_from
from server.registry import Registry
from server.rounds import federate
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import ReplyError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate

ADAPTER = Adapter({"w": np.zeros(1, np.float32)}, backbone="backbone", task="task")


@dataclass
class Shop:
    """A platform's node in the rounds in which it is there.

    Attributes:
        since, until: rounds; the node is present from the first to the last.
        greets: by round, whether it answers hello; left out, it does.
        weight: by round, what it says of itself; left out, 1.
    """

    name: str
    since: int = 0
    until: int = 99
    backbone: str = "backbone"
    enrolled: str | None = None  # under which name; None where nobody enrols
    greets: Callable[[int], bool] = lambda _round: True
    weight: Callable[[int], float] = lambda _round: 1.0
    stale: bool = False  # answers with the Update of an Adapter of before

    def member(self, round_: int) -> Content:
        return wire.hello_reply(
            wire.Member(self.name, self.weight(round_), self.backbone, ADAPTER.task)
        )


@dataclass
class Harbour:
    """Nodes 1, 2, 3 … that come and go; a round begins when the one before it is evaluated."""

    shops: dict[int, Shop]
    round: int = 0
    asked: list[tuple[str, int, list[int]]] = field(default_factory=list)

    def present(self) -> Sequence[int]:
        return [node for node, it in self.shops.items() if it.since <= self.round <= it.until]

    def called(self, node: int) -> str | None:
        return self.shops[node].enrolled

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError]]:
        now = self.round
        self.asked.append((kind, now, list(nodes)))
        if kind == wire.EVALUATE:
            self.round += 1
            return
        for node in nodes:
            shop = self.shops[node]
            if kind == wire.HELLO:
                if shop.greets(now):
                    yield node, shop.member(now)
                continue
            adapter, _training = asking.read_request(content)
            base = ADAPTER.digest if shop.stale else adapter.digest
            update = BoundedUpdate(
                {"w": np.ones(1, np.float32)}, base=base, weight=shop.weight(now)
            )
            yield node, wire.update_reply(update)

    def of(self, kind: str) -> dict[int, list[int]]:
        """By round, the nodes that were asked."""
        return {now: nodes for asked, now, nodes in self.asked if asked == kind}


def run(folder: Path, *shops: Shop, **keys: Any) -> tuple[Harbour, Registry]:
    nodes, registry = Harbour(dict(enumerate(shops, start=1))), Registry(folder)
    section = FederationSection(rounds=5, quorum=1, timeout=0.05)
    federate(
        nodes, ServerState(ADAPTER), replace(federation_from(section), **keys), fedavg(), registry
    )
    return nodes, registry


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "LOOK", 0.005)


def replied(registry: Registry) -> dict[int, list[str]]:
    return {n: list(registry.load(n)[1].replied) for n in registry.rounds() if n}


def test_where_everybody_is_there_hello_is_asked_once(tmp_path: Path) -> None:
    nodes, _ = run(tmp_path, Shop("a"), Shop("b"), rounds=3)
    kinds = [kind for kind, _, _ in nodes.asked]
    assert kinds == [wire.HELLO, wire.EVALUATE, *[wire.TRAIN, wire.EVALUATE] * 3]
    assert all(asked == [1, 2] for _, _, asked in nodes.asked)


def test_who_comes_in_mid_run_is_met_and_takes_part_from_the_next_round_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "atoll.server"):
        nodes, registry = run(tmp_path, Shop("a"), Shop("b", since=3))
    assert nodes.of(wire.HELLO) == {0: [1], 3: [2]}
    assert replied(registry) == {1: ["a"], 2: ["a"], 3: ["a", "b"], 4: ["a", "b"], 5: ["a", "b"]}
    assert "b takes part from round 3 on" in caplog.text


def test_who_is_gone_stays_a_member_and_is_asked_again_when_it_is_back(tmp_path: Path) -> None:
    there = Harbour({1: Shop("a"), 2: Shop("b")})
    present = there.present
    there.present = lambda: [n for n in present() if n != 2 or there.round not in (2, 3)]  # type: ignore[method-assign]
    registry = Registry(tmp_path)
    plan = federation_from(FederationSection(rounds=5, quorum=1, timeout=5))
    federate(there, ServerState(ADAPTER), plan, fedavg(), registry)
    assert there.of(wire.HELLO) == {0: [1, 2]}
    assert there.of(wire.TRAIN) == {1: [1, 2], 2: [1], 3: [1], 4: [1, 2], 5: [1, 2]}
    assert there.of(wire.EVALUATE)[2] == [1]
    assert [registry.load(n)[1].missing for n in registry.rounds()] == [()] * 6


def test_a_platform_under_a_new_node_takes_the_place_of_its_old_one(tmp_path: Path) -> None:
    nodes, registry = run(tmp_path, Shop("a"), Shop("b", until=2), Shop("b", since=3))
    assert nodes.of(wire.TRAIN) == {1: [1, 2], 2: [1, 2], 3: [1, 3], 4: [1, 3], 5: [1, 3]}
    assert set(map(tuple, replied(registry).values())) == {("a", "b")}


def test_a_name_that_is_taken_by_a_node_that_is_there_stays_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes, _ = run(tmp_path, Shop("a"), Shop("a", since=2, until=2))
    assert all(asked == [1] for asked in nodes.of(wire.TRAIN).values())
    assert "a platform of this name is already here" in caplog.text


def test_a_node_whose_hello_fails_is_asked_less_and_less_often(tmp_path: Path) -> None:
    mute = Shop("mute", greets=lambda _round: False)
    odd = Shop("odd", backbone="other")
    nodes, _ = run(tmp_path, Shop("a"), mute, odd, rounds=12)
    assert nodes.of(wire.HELLO) == {0: [1, 2, 3], **{number: [2, 3] for number in (1, 3, 6, 11)}}


@pytest.mark.parametrize(
    ("enrolled", "odd", "mute"),
    [("kiosk", "kiosk (node 2)", "kiosk (node 3)"), (None, "odd (node 2)", "node 3")],
)
def test_who_cannot_take_part_is_told_by_name(
    enrolled: str | None, odd: str, mute: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shops = (
        Shop("odd", backbone="other", enrolled=enrolled),
        Shop("mute", greets=lambda _round: False, enrolled=enrolled),
    )
    run(tmp_path, Shop("a"), *shops, rounds=1)
    assert f"{odd} cannot take part: has backbone other" in caplog.text
    assert f"{mute} did not say who it is" in caplog.text


def test_a_node_that_greets_at_last_takes_part(tmp_path: Path) -> None:
    slow = Shop("slow", greets=lambda round_: round_ >= 3)
    _, registry = run(tmp_path, Shop("a"), slow)
    assert [number for number, names in replied(registry).items() if "slow" in names] == [3, 4, 5]


def test_a_newcomer_does_not_hold_a_round_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, float]]()
    ask = Harbour.ask

    def listened(self: Harbour, kind: str, *args: Any, **keys: Any) -> Any:
        told.append((kind, keys["timeout"]))
        return ask(self, kind, *args, **keys)

    monkeypatch.setattr(Harbour, "ask", listened)
    run(tmp_path, Shop("a"), Shop("b", since=1), rounds=1, timeout=600.0)
    assert [seconds for kind, seconds in told if kind == wire.HELLO] == [600.0, roster.NEWCOMER]
    assert {seconds for kind, seconds in told if kind != wire.HELLO} == {600.0}


def test_a_platform_whose_weight_changed_is_asked_anew_and_goes_on_with_it(tmp_path: Path) -> None:
    heavy = Shop("b", weight=lambda round_: 1.0 if round_ < 2 else 2.0)
    nodes, registry = run(tmp_path, Shop("a"), heavy)
    assert nodes.of(wire.HELLO) == {0: [1, 2], 3: [2]}
    assert "weight 2 is not the 1 it came with" in registry.load(2)[1].refused["b"]
    assert replied(registry) == {
        1: ["a", "b"],
        2: ["a"],
        3: ["a", "b"],
        4: ["a", "b"],
        5: ["a", "b"],
    }


def test_who_sends_nonsense_and_does_not_say_who_it_is_is_no_member_any_more(
    tmp_path: Path,
) -> None:
    gone = Shop("b", stale=True, greets=lambda round_: round_ == 0)
    nodes, _ = run(tmp_path, Shop("a"), gone, rounds=4)
    # Round 1 starts from the very Adapter of its Update; that of round 2 is another.
    assert nodes.of(wire.HELLO) == {0: [1, 2], 3: [2], 4: [2]}
    assert nodes.of(wire.TRAIN) == {1: [1, 2], 2: [1, 2], 3: [1], 4: [1]}


def test_an_update_that_comes_after_its_round_moves_nothing(tmp_path: Path) -> None:
    _, alone = run(tmp_path / "alone", Shop("a"), rounds=3)
    _, late = run(tmp_path / "late", Shop("a"), Shop("b", since=2, stale=True), rounds=3)
    assert replied(late) == {1: ["a"], 2: ["a"], 3: ["a"]}
    assert "starts from" in late.load(2)[1].refused["b"]
    assert late.load(3)[0].adapter.digest == alone.load(3)[0].adapter.digest


def test_a_round_waits_for_a_quorum_to_be_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Harbour({1: Shop("a"), 2: Shop("b")})
    present, looks = nodes.present, iter(range(100))

    def away_for_three_looks() -> Sequence[int]:
        return [1] if nodes.round == 2 and next(looks) < 3 else present()

    nodes.present = away_for_three_looks  # type: ignore[method-assign]
    registry = Registry(tmp_path)
    plan = federation_from(FederationSection(rounds=2, quorum=2, timeout=30))
    federate(nodes, ServerState(ADAPTER), plan, fedavg(), registry)
    assert replied(registry) == {1: ["a", "b"], 2: ["a", "b"]}
    assert caplog.text.count("round 2 waits: 1 of 2 platforms are here, quorum is 2") == 1


def test_without_a_quorum_there_nobody_is_asked_to_spend_its_budget(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="round 4: 2 rounds in a row had fewer than 2 updates"):
        run(tmp_path, Shop("a"), Shop("b", until=2), quorum=2, patience=2)
    report = Registry(tmp_path).load(4)[1]
    assert (report.asked, report.replied, report.missing, report.moved) == ((), (), (), False)
