from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregate import ServerState, fedavg
from server.cohort import LONGEST, choose, pause, resting
from server.config import FederationSection, federation_from
from server.registry import Registry, RoundReport
from server.rounds import federate
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.records import Content
from shared.update import BoundedUpdate
from shared.wire import Member, Refusal

ADAPTER = Adapter({"w": np.zeros(1, np.float32)}, backbone="backbone", task="task")


def report(number: int, asked: Sequence[str], replied: Sequence[str] = ()) -> RoundReport:
    missing = tuple(name for name in asked if name not in replied)
    return RoundReport(number, asked=tuple(asked), replied=tuple(replied), missing=missing)


def asked_in(rounds: int, *, good: Sequence[int] = ()) -> list[int]:
    """The rounds in which a platform is asked, if it replies well in those that are named only."""
    reports, found = list[RoundReport](), list[int]()
    for number in range(1, rounds + 1):
        if "a" in resting(reports, number):
            reports.append(report(number, []))
        else:
            found.append(number)
            reports.append(report(number, ["a"], ["a"] if number in good else []))
    return found


def of(*names: str) -> dict[int, Member]:
    return {n: Member(name, 1.0, "backbone", "task") for n, name in enumerate(names, start=1)}


def test_who_fails_again_and_again_sits_out_one_two_four_and_then_eight_rounds() -> None:
    # 1 and 2 fail, 3 is sat out; 4 fails, 5 and 6 are; 7 fails, 8 to 11 are; 12 fails, …
    assert asked_in(40) == [1, 2, 4, 7, 12, 21, 30, 39]
    assert [pause(n) for n in range(1, 9)] == [0, 1, 2, 4, 8, 8, 8, 8]


def test_one_failure_is_forgiven_at_once() -> None:
    assert asked_in(8, good=[2, 4, 6, 8]) == list(range(1, 9))


def test_one_good_reply_makes_up_for_all_failures() -> None:
    assert asked_in(22, good=[7, 8]) == [1, 2, 4, 7, 8, 9, 10, 12, 15, 20]


def test_a_refusal_counts_like_silence_and_a_refusal_to_evaluate_not_at_all() -> None:
    refused = [replace(report(n, ["a"]), missing=(), refused={"a": "no"}) for n in (1, 2)]
    assert resting(refused, 3) == {"a"}
    shy = [replace(report(n, ["a"], ["a"]), refused={"a": "no metrics"}) for n in (1, 2)]
    assert resting(shy, 3) == frozenset()
    unasked = [replace(report(n, []), refused={"a": "no metrics"}) for n in (1, 2)]
    assert resting(unasked, 3) == frozenset()


def test_rounds_in_which_a_platform_was_not_drawn_are_not_counted() -> None:
    reports = [report(1, ["a"]), report(2, ["b"], ["b"]), report(5, ["a"])]
    assert resting(reports, 6) == {"a"}
    assert resting(reports, 7) == frozenset()


history = st.lists(
    st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc"))), max_size=40
)


@given(history)
def test_nobody_is_left_alone_for_more_than_the_longest_pause(
    rounds: list[tuple[set[str], set[str]]],
) -> None:
    reports = [
        report(n, sorted(asked), sorted(asked & replied))
        for n, (asked, replied) in enumerate(rounds, start=1)
    ]
    assert resting(reports, len(reports) + 1) <= {it for asked, _ in rounds for it in asked}
    assert resting(reports, len(reports) + LONGEST + 1) == frozenset()


@given(
    count=st.integers(1, 12),
    fraction=st.floats(0.01, 1),
    quorum=st.integers(1, 14),
    tired=st.sets(st.sampled_from("abcdefghijkl")),
    round_=st.integers(1, 50),
)
def test_resting_platforms_are_asked_only_if_the_others_are_fewer_than_the_quorum(
    count: int, fraction: float, quorum: int, tired: set[str], round_: int
) -> None:
    members = of(*"abcdefghijkl"[:count])
    chosen = choose(
        members, fraction, seed=1, round_=round_, resting=frozenset(tired), quorum=quorum
    )
    names = [members[node].platform for node in chosen]
    assert names == sorted(set(names))
    assert len(names) >= min(quorum, count)
    awake = {it.platform for it in members.values()} - tired
    if len(awake) >= min(quorum, count):
        assert not set(names) & tired
    else:
        assert awake <= set(names)


def test_where_nobody_rests_whoever_was_drawn_is_drawn() -> None:
    members = of(*"abcdefghijkl")
    for number in range(1, 9):
        plain = choose(members, 0.5, seed=3, round_=number)
        same = choose(members, 0.5, seed=3, round_=number, resting=frozenset("z"), quorum=6)
        assert plain == same


# In a federation --------------------------------------------------------------------------------


class Nodes:
    """Platforms a, b, c …; those in `broken` answer a request to train as it says."""

    def __init__(self, names: str, **broken: Refusal | None) -> None:
        self.names = dict(enumerate(names, start=1))
        self.broken = broken
        self.trained: list[str] = []  # a round, the names that were asked
        self.evaluated: list[str] = []

    def present(self) -> Sequence[int]:
        return list(self.names)

    def called(self, node: int) -> str | None:
        return None

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content | ReplyError]]:
        names = [self.names[node] for node in nodes]
        if kind == wire.HELLO:
            for node in nodes:
                yield node, wire.hello_reply(of(*self.names.values())[node])
            return
        if kind == wire.EVALUATE:
            self.evaluated.append("".join(names))
            return
        self.trained.append("".join(names))
        adapter, training = asking.read_request(content)
        assert training is not None
        assert training.cohort == len(nodes)
        update = BoundedUpdate({"w": np.ones(1, np.float32)}, base=adapter.digest, weight=1.0)
        for node, name in zip(nodes, names, strict=True):
            if name not in self.broken:
                yield node, wire.update_reply(update)
            elif (code := self.broken[name]) is not None:
                yield node, wire.refused(int(code))


def run(nodes: Nodes, folder: Path, *, rounds: int, quorum: int) -> Registry:
    registry = Registry(folder)
    state = ServerState(ADAPTER)
    if registry.rounds():
        state, _ = registry.load(registry.rounds()[-1])
    plan = federation_from(FederationSection(rounds=rounds, quorum=quorum, timeout=5, patience=99))
    federate(nodes, state, plan, fedavg(), registry)
    return registry


@pytest.mark.parametrize("how", [None, Refusal.EXHAUSTED, Refusal.NOT_NOW])
def test_a_federation_leaves_who_keeps_failing_alone_for_a_while(
    how: Refusal | None, tmp_path: Path
) -> None:
    nodes = Nodes("abc", c=how)
    registry = run(nodes, tmp_path, rounds=8, quorum=2)
    assert nodes.trained == ["abc", "abc", "ab", "abc", "ab", "ab", "abc", "ab"]
    assert nodes.evaluated == ["abc", *nodes.trained]  # and before the first round
    asked = ["".join(registry.load(number)[1].asked) for number in range(1, 9)]
    assert asked == nodes.trained


def test_who_is_needed_for_the_quorum_is_asked_all_the_same(tmp_path: Path) -> None:
    nodes = Nodes("abc", c=None)
    run(nodes, tmp_path, rounds=6, quorum=3)
    assert nodes.trained == ["abc"] * 6


def test_a_run_that_was_cut_short_asks_whom_it_would_have_asked(tmp_path: Path) -> None:
    whole = Nodes("abc", b=None)
    run(whole, tmp_path / "whole", rounds=9, quorum=2)
    parts = list[str]()
    for rounds in (2, 3, 5, 9):
        nodes = Nodes("abc", b=None)
        run(nodes, tmp_path / "parts", rounds=rounds, quorum=2)
        parts += nodes.trained
    assert parts == whole.trained
