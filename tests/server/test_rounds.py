from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from server.aggregate import ServerState, fedavg
from server.config import Federation, FederationSection, federation_from
from server.registry import Registry, RoundReport
from server.rounds import federate
from shared import asking, records, wire
from shared.adapter import Adapter
from shared.errors import ReplyError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate

ADAPTER = Adapter({"w": np.zeros(2, np.float32)}, backbone="backbone", task="task")
BYTES = 8  # of its one tensor: two float32

Reply = Content | ReplyError
Answer = Callable[[Adapter, int], list[Reply]]  # to a request to train, by round


def moving(*by: float, weight: float = 1.0) -> Answer:
    """A platform whose every Update is `by`."""

    def answer(adapter: Adapter, _round: int) -> list[Reply]:
        return [wire.update_reply(good(adapter, *by, weight=weight))]

    return answer


def good(adapter: Adapter, *by: float, weight: float = 1.0) -> BoundedUpdate:
    return BoundedUpdate({"w": np.array(by, np.float32)}, base=adapter.digest, weight=weight)


def silence(_adapter: Adapter, _round: int) -> list[Reply]:
    return []


@dataclass
class Island:
    """One platform's node."""

    name: str
    train: Answer = field(default_factory=lambda: moving(1, 1))
    backbone: str = "backbone"
    task: str = "task"
    metrics: dict[str, float] = field(default_factory=dict)
    weight: float = 1.0


class Islands:
    """Nodes 1, 2, 3 … in one process; no network and no Flower engine."""

    def __init__(self, *islands: Island) -> None:
        self.islands = dict(enumerate(islands, start=1))
        self.asked: list[tuple[str, int, list[str]]] = []  # kind, round, names
        self.trainings: list[asking.Training] = []
        self.strays: list[tuple[int, Reply]] = []  # come with every answer to a train request

    def present(self) -> Sequence[int]:
        return list(self.islands)

    def called(self, node: int) -> str | None:
        return None

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Reply]]:
        self.asked.append((kind, round_, [self.islands[node].name for node in nodes]))
        for node in nodes:
            yield from ((node, reply) for reply in self.answers(kind, content, node))
        if kind == wire.TRAIN:
            yield from self.strays

    def answers(self, kind: str, content: Content, node: int) -> list[Reply]:
        island = self.islands[node]
        if kind == wire.HELLO:
            member = wire.Member(island.name, island.weight, island.backbone, island.task)
            return [wire.hello_reply(member)]
        adapter, training = asking.read_request(content)
        if kind == wire.EVALUATE:
            return [wire.metrics_reply(island.metrics)]
        assert training is not None
        self.trainings.append(training)
        return island.train(adapter, training.round)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def plan(**keys: Any) -> Federation:
    return replace(federation_from(FederationSection(rounds=1, quorum=1)), **keys)


def run(nodes: Islands, registry: Registry, **keys: Any) -> tuple[list[float], RoundReport]:
    """Where the adapter's two numbers ended, and the last round's report as it was recorded."""
    after = federate(nodes, ServerState(ADAPTER), plan(**keys), fedavg(), registry)
    state, report = registry.load(registry.rounds()[-1])
    assert state.adapter.digest == after.adapter.digest  # what goes on is what was recorded
    return after.adapter.tensors["w"].tolist(), report


def test_with_a_quorum_the_adapter_moves_by_the_weighted_average(registry: Registry) -> None:
    nodes = Islands(Island("a", moving(4, 0)), Island("b", moving(0, 8, weight=3), weight=3))
    place, report = run(nodes, registry, quorum=2)
    assert place == [1, 6]  # (1·4 + 3·0)/4, (1·0 + 3·8)/4
    assert (list(report.replied), report.moved) == (["a", "b"], True)
    assert registry.rounds() == [0, 1]


def test_without_a_quorum_the_adapter_stays_and_the_round_is_recorded(registry: Registry) -> None:
    nodes = Islands(Island("a"), Island("b", silence))
    place, report = run(nodes, registry, quorum=2)
    assert place == [0, 0]
    assert (list(report.replied), list(report.missing), report.moved) == (["a"], ["b"], False)


def test_each_round_starts_where_the_last_one_ended(registry: Registry) -> None:
    place, _ = run(Islands(Island("a", moving(1, 2))), registry, rounds=3)
    assert place == [3, 6]
    assert [registry.load(n)[0].adapter.version for n in registry.rounds()] == [0, 1, 2, 3]


def test_too_many_rounds_without_a_quorum_stop_the_run_and_name_the_round(
    registry: Registry,
) -> None:
    def sometimes(adapter: Adapter, round_: int) -> list[Reply]:
        return moving(1, 1)(adapter, round_) if round_ == 2 else []

    with pytest.raises(RoundError, match=r"round 4: 2 rounds in a row .* --resume"):
        run(Islands(Island("a", sometimes)), registry, rounds=9, patience=2)
    # Round 1 missed it too, but round 2 met it: patience counts rounds in a row.
    moved = [registry.load(number)[1].moved for number in registry.rounds()]
    assert moved == [True, False, True, False, False]


def content(update: BoundedUpdate, drop: str = "") -> Content:
    reply = wire.update_reply(update)
    if drop:
        del reply[drop]
    return reply


def odd_receipt(update: BoundedUpdate) -> Content:
    reply = wire.update_reply(update)
    reply.config_records[records.REQUEST]["receipt"] = "7 seven"
    return reply


BAD: dict[str, tuple[Callable[[Adapter], Reply], str]] = {
    "nan": (lambda a: content(good(a, 1, float("nan"))), "not finite"),
    "infinity": (lambda a: content(good(a, float("inf"), 1)), "not finite"),
    "another digest": (lambda a: content(replace(good(a, 1, 1), base="x" * 64)), "starts from"),
    "another shape": (lambda a: content(good(a, 1, 1, 1)), "shape"),
    "another name": (lambda a: content(replace(good(a, 1, 1), delta={})), "other names"),
    "no update": (lambda a: content(good(a, 1, 1), drop=wire.UPDATE), "no 'update' record"),
    "no fields": (lambda a: content(good(a, 1, 1), drop=records.REQUEST), "no 'request' record"),
    "weight zero": (lambda a: content(good(a, 1, 1, weight=0.0)), "weight"),
    "weight of a crowd": (lambda a: content(good(a, 1, 1, weight=1e9)), "weight"),
    "beyond its bound": (lambda a: content(replace(good(a, 3, 4), bound=4.9)), "norm 5, more"),
    "an odd receipt": (lambda a: odd_receipt(good(a, 1, 1)), "the receipt is none"),
    "empty": (lambda _: RecordDict(), "no 'request' record"),
    "an error": (lambda _: ReplyError("answered with error code 2", todo="x"), "error code 2"),
}


@pytest.mark.parametrize("how", list(BAD))
def test_what_is_no_update_is_refused_by_name_and_the_rest_is_averaged(
    how: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    reply, why = BAD[how]
    nodes = Islands(
        Island("a", moving(2, 0)), Island("bad", lambda a, _: [reply(a)]), Island("c", moving(4, 2))
    )
    with caplog.at_level(logging.WARNING, "atoll.server"):
        place, report = run(nodes, registry, quorum=2)
    assert place == [3, 1]
    assert list(report.refused) == ["bad"]
    assert why in report.refused["bad"]
    assert (list(report.replied), list(report.missing)) == (["a", "c"], [])
    assert caplog.records[0].getMessage().startswith("bad: ")


def test_a_reply_nobody_was_asked_for_is_left_unread(registry: Registry) -> None:
    nodes = Islands(Island("a", moving(1, 1)))
    nodes.strays = [(99, wire.update_reply(good(ADAPTER, 100, 100)))]
    place, report = run(nodes, registry)
    assert place == [1, 1]
    assert (list(report.replied), report.bytes_up) == (["a"], BYTES)


def test_of_a_double_reply_the_first_counts(registry: Registry) -> None:
    def twice(adapter: Adapter, round_: int) -> list[Reply]:
        return moving(1, 1)(adapter, round_) + moving(100, 100)(adapter, round_)

    place, report = run(Islands(Island("a", twice), Island("b", moving(3, 3))), registry)
    assert place == [2, 2]
    assert report.bytes_up == 2 * BYTES


def test_a_refused_platform_has_no_second_try_in_the_round(registry: Registry) -> None:
    def again(adapter: Adapter, round_: int) -> list[Reply]:
        return [RecordDict(), *moving(100, 100)(adapter, round_)]

    place, report = run(Islands(Island("a", again), Island("b", moving(3, 3))), registry)
    assert place == [3, 3]
    assert (list(report.refused), list(report.replied)) == (["a"], ["b"])


def test_of_two_platforms_of_one_name_only_one_takes_part(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Islands(Island("a", moving(1, 1)), Island("a", moving(100, 100)))
    with caplog.at_level(logging.WARNING, "atoll.server"):
        place, _ = run(nodes, registry)
    assert place == [1, 1]
    assert "a platform of this name is already here" in caplog.text


@pytest.mark.parametrize(
    "odd",
    [Island("odd", moving(9, 9), backbone="other"), Island("odd", moving(9, 9), task="other")],
)
def test_a_platform_of_another_backbone_or_task_cannot_take_part(
    odd: Island, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Islands(Island("a"), odd)
    with caplog.at_level(logging.WARNING, "atoll.server"):
        place, report = run(nodes, registry)
    assert place == [1, 1]
    assert "cannot take part: has" in caplog.text
    assert list(report.missing) == []  # it was not asked
    assert all(names == ["a"] for kind, _, names in nodes.asked if kind != wire.HELLO)


def test_a_federation_below_its_quorum_does_not_start(registry: Registry) -> None:
    nodes = Islands(Island("a"), Island("b", backbone="other"))
    with pytest.raises(RoundError, match=r"1 of 2 can take part, quorum is 2 \(b .*has backbone"):
        run(nodes, registry, quorum=2)
    assert registry.rounds() == []


def test_each_round_says_where_the_run_is_and_whether_it_goes_on(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def spent(adapter: Adapter, round_: int) -> list[Reply]:
        return moving(1, 1)(adapter, round_) if round_ == 1 else [wire.refused(101)]

    caplog.set_level(logging.INFO)
    nodes = Islands(Island("a", spent), Island("b", spent))
    with pytest.raises(RoundError, match=r"2 rounds in a row .*a, b: .* budget is exhausted"):
        run(nodes, registry, quorum=2, rounds=9, patience=2)
    states = [
        (it.state, it.goes_on)  # type: ignore[attr-defined]
        for it in caplog.records
        if hasattr(it, "goes_on")
    ]
    why = "(a, b: the platform's privacy budget is exhausted)"
    assert states == [
        ("running: 2 platforms take part", True),
        ("running: round 1 of 9 is recorded", True),
        (f"nobody can take part: 0 of 2 updates in round 2 {why}", False),
        (f"nobody can take part: 0 of 2 updates in round 3 {why}", False),
    ]


def test_a_cohort_too_small_for_the_quorum_does_not_start(registry: Registry) -> None:
    nodes = Islands(*(Island(name) for name in "abcd"))
    with pytest.raises(RoundError, match="fraction"):
        run(nodes, registry, quorum=3, fraction=0.5, rounds=5, patience=5)
    assert registry.rounds() == []


def test_tensor_bytes_are_counted_both_ways(registry: Registry) -> None:
    late, spoilt = Island("late", silence), Island("spoilt", lambda a, _: [content(good(a, 1))])
    _, report = run(Islands(Island("a"), late, spoilt), registry)
    assert report.bytes_down == 6 * BYTES  # three to train, three to evaluate
    assert report.bytes_up == BYTES + 4  # one update, and half of one that was refused


def test_part_of_the_platforms_train_and_all_of_them_evaluate(registry: Registry) -> None:
    nodes = Islands(*(Island(name) for name in "abcd"))
    run(nodes, registry, rounds=3, fraction=0.5)
    trained = [names for kind, _, names in nodes.asked if kind == wire.TRAIN]
    assert [len(names) for names in trained] == [2, 2, 2]
    assert [(kind, names) for kind, _, names in nodes.asked if kind == wire.EVALUATE] == [
        (wire.EVALUATE, list("abcd"))
    ] * 4  # and of the untrained state before the first round


def test_metrics_are_recorded_by_name_from_round_0_on(registry: Registry) -> None:
    nodes = Islands(Island("a", metrics={"ndcg@10": 0.25}), Island("shy"))
    run(nodes, registry)
    found = [registry.load(n)[1].validation for n in registry.rounds()]
    assert found == [{"a": {"ndcg@10": 0.25}, "shy": {}}] * 2


def test_platforms_are_told_how_to_train_and_where_in_the_schedule(registry: Registry) -> None:
    nodes = Islands(Island("a"))
    run(nodes, registry, rounds=2, epochs=3, batch=7, learning_rate=0.25, seed=5)
    expected = asking.Training(1, 2, 3, 7, 0.25, "cosine", 5, cohort=1)
    assert nodes.trainings == [expected, replace(expected, round=2)]


def test_the_record_of_a_round_is_plain_json(registry: Registry) -> None:
    _, report = run(Islands(Island("a"), Island("b", silence)), registry)
    told = json.loads(registry.versions()[-1].report)
    assert told == json.loads(json.dumps(asdict(report)))
    assert told["missing"] == ["b"]
    assert told["seconds"] >= 0
