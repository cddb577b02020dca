from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server.registry import Registry
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import ConfigError, DataError, ReplyError
from shared.update import BoundedUpdate, check_update
from simulations.harness import Config, Fault, InProcessGrid, run_in_process, run_on_ray

Run = Callable[..., Registry]
ADAPTER = Adapter({"w": np.zeros(2, np.float32)}, backbone="backbone", task="task")
TRAINING = asking.Training(1, 1, 1, 1, 0.1, "cosine", 0)
NAMES = ("a", "b", "c")
# How a reply can be corrupted, and what the server then says of it.
SPOILT: dict[Any, str] = {
    "nan": "not finite",
    "shape": "has shape",
    "digest": "starts from",
    "empty": "no 'update' record",
}


def answering(work: Callable[[str], None] = lambda _name: None) -> ClientApp:
    """Answers a request to train with ones, after doing some work under its own name."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        member = wire.Member(str(context.node_config["name"]), 1.0, "backbone", "task")
        return Message(wire.hello_reply(member), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        work(str(context.node_config["name"]))
        adapter, _ = asking.read_request(message.content)
        update = BoundedUpdate({"w": np.ones(2, np.float32)}, adapter.digest)
        return Message(wire.update_reply(update), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, _context: Context) -> Message:
        return Message(wire.metrics_reply({"ndcg@10": 0.5}), reply_to=message)

    return app


def asked(
    app: ClientApp,
    *,
    kind: str = wire.TRAIN,
    round_: int = 1,
    timeout: float | None = 10.0,
    threads: int = 1,
    faults: Sequence[Fault] = (),
) -> list[Message]:
    """What three platforms send back when all are asked once, in the order it comes."""
    server, found = ServerApp(), list[Message]()

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        content = asking.request(ADAPTER, TRAINING)
        nodes = grid.get_node_ids()
        messages = [Message(content, node, kind, group_id=str(round_)) for node in nodes]
        found.extend(grid.send_and_receive(messages, timeout=timeout))

    nodes: dict[str, Config] = {name: {"name": name} for name in NAMES}
    run_in_process(server, app, run_config={}, nodes=nodes, threads=threads, faults=faults)
    return found


def senders(replies: Sequence[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


@pytest.mark.parametrize("threads", [1, 3])
def test_replies_come_in_the_order_of_the_requests_whoever_is_quicker(threads: int) -> None:
    slow = answering(lambda name: time.sleep({"a": 0.03, "b": 0.01, "c": 0.0}[name]))
    assert senders(asked(slow, threads=threads)) == [1, 2, 3]


def test_on_threads_platforms_answer_at_once() -> None:
    meeting = threading.Barrier(3)

    def meet(_name: str) -> None:
        meeting.wait(10)  # fails unless three wait together

    assert len(asked(answering(meet), threads=3)) == 3


def test_each_platform_has_a_configuration_of_its_own() -> None:
    replies = asked(answering(), kind=wire.HELLO)
    assert [wire.read_member(reply.content).platform for reply in replies] == list(NAMES)


def test_a_dropped_request_has_no_reply_and_trains_nobody() -> None:
    worked: list[str] = []
    replies = asked(answering(worked.append), faults=[Fault("b", 1, "drop")])
    assert (senders(replies), worked) == ([1, 3], ["a", "c"])


@pytest.mark.parametrize(
    ("seconds", "timeout", "arrives"),
    [(5.0, 10.0, True), (10.0, 10.0, True), (11.0, 10.0, False), (1e9, None, True)],
)
def test_a_delayed_reply_counts_if_it_is_in_time_and_nobody_waits_for_it(
    seconds: float, timeout: float | None, arrives: bool
) -> None:
    faults = [Fault("b", 1, "delay", seconds=seconds)]
    began = time.monotonic()
    found = senders(asked(answering(), faults=faults, timeout=timeout))
    assert time.monotonic() - began < 4
    assert (2 in found) == arrives
    assert {1, 3} <= set(found)


def test_a_failing_platform_answers_with_an_error_and_trains_nothing() -> None:
    worked: list[str] = []
    _, failed, _ = asked(answering(worked.append), faults=[Fault("b", 1, "fail")])
    assert failed.has_error()
    assert (failed.metadata.src_node_id, worked) == (2, ["a", "c"])


@pytest.mark.parametrize("fault", [DataError("shopper-7", todo="x"), RuntimeError("shopper-7")])
def test_what_a_platform_raises_is_an_error_without_its_words(fault: Exception) -> None:
    def work(name: str) -> None:
        if name == "b":
            raise fault

    first, failed, last = asked(answering(work))
    assert failed.has_error()
    assert "shopper" not in str(failed.error)
    assert [first.has_error(), last.has_error()] == [False, False]


@pytest.mark.parametrize("corruption", list(SPOILT))
def test_a_corrupt_reply_is_spoilt_in_the_way_that_is_named(corruption: Any) -> None:
    faults = [Fault("b", 1, "corrupt", corruption=corruption)]
    first, spoilt, last = asked(answering(), faults=faults)
    with pytest.raises(ReplyError, match=SPOILT[corruption]):
        check_update(wire.read_update(spoilt.content), ADAPTER)
    for reply in (first, last):
        check_update(wire.read_update(reply.content), ADAPTER)


@pytest.mark.parametrize("kind", ["drop", "delay", "fail", "corrupt"])
def test_a_fault_strikes_its_platform_in_its_round_of_training_and_nowhere_else(
    kind: Any,
) -> None:
    faults = [Fault("b", 2, kind, seconds=99.0)]
    elsewhere = (
        asked(answering(), faults=faults, round_=1),
        asked(answering(), faults=faults, round_=2, kind=wire.EVALUATE),
        asked(answering(), faults=[Fault("elsewhere", 2, kind, seconds=99.0)], round_=2),
    )
    for replies in elsewhere:
        assert senders(replies) == [1, 2, 3]
        assert not any(reply.has_error() for reply in replies)


def test_messages_can_be_pushed_and_pulled_as_with_any_grid() -> None:
    server, found = ServerApp(), list[Message]()

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        content = asking.request(ADAPTER, TRAINING)
        made = [grid.create_message(content, wire.TRAIN, node, "1") for node in (3, 1)]
        ids = list(grid.push_messages(made))
        assert len(set(ids)) == 2
        found.extend(grid.pull_messages(ids))

    nodes: dict[str, Config] = {name: {"name": name} for name in NAMES}
    run_in_process(server, answering(), run_config={}, nodes=nodes)
    assert senders(found) == [3, 1]


def test_the_grid_knows_every_platform() -> None:
    grid = InProcessGrid(answering(), {name: {} for name in NAMES})
    assert list(grid.get_node_ids()) == [1, 2, 3]


def test_the_run_configuration_reaches_the_server() -> None:
    server, seen = ServerApp(), list[Config]()

    @server.main()
    def main(_grid: Grid, context: Context) -> None:
        seen.append(dict(context.run_config))

    run_in_process(server, answering(), run_config={"rounds": 3}, nodes={})
    assert seen == [{"rounds": 3}]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="the ray extra is here")
def test_without_the_extra_the_ray_engine_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match=r"not installed; run pip install -e '\.\[ray\]'"):
        run_on_ray(ServerApp(), ClientApp(), run_config={}, nodes={"a": {}})


# The deployed apps on three tiny platforms.


def final(registry: Registry) -> str:
    return registry.load(registry.rounds()[-1])[0].adapter.digest


def test_one_seed_gives_one_adapter_on_any_number_of_threads_and_another_seed_another(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    once = final(run_federation(trio, tmp_path / "once", seed=1))
    assert final(run_federation(trio, tmp_path / "twice", seed=1)) == once
    assert final(run_federation(trio, tmp_path / "threads", seed=1, threads=3)) == once
    turned = dict(reversed(trio.items()))
    assert final(run_federation(turned, tmp_path / "turned", seed=1)) == once
    assert final(run_federation(trio, tmp_path / "other", seed=2)) != once


def test_every_fault_on_a_schedule_is_survived_and_stands_in_the_record(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    turns = ["kiosk", "atelier"] * 2
    faults = [
        Fault("kiosk", 1, "drop"),
        Fault("harbour", 2, "delay", seconds=601.0),
        Fault("harbour", 3, "delay", seconds=599.0),
        Fault("atelier", 3, "fail"),
        # In turns: whoever fails twice in a row is not asked in the round after.
        *(
            Fault(name, 4 + n, "corrupt", corruption=it)
            for n, (name, it) in enumerate(zip(turns, SPOILT, strict=True))
        ),
    ]
    run_federation(trio, tmp_path, rounds=7, timeout=600.0, faults=faults)
    told = [json.loads(version.report) for version in Registry(tmp_path).versions()[1:]]
    assert all(it["moved"] for it in told)
    assert [it["missing"] for it in told] == [["kiosk"], ["harbour"], *([[]] * 5)]
    assert [list(it["refused"]) for it in told] == [[], [], ["atelier"], *([it] for it in turns)]
    for it in told:
        assert sorted([*it["replied"], *it["missing"], *it["refused"]]) == sorted(trio)
    reasons = ["the platform could not answer", *SPOILT.values()]
    assert all(
        why in next(iter(it["refused"].values())) for why, it in zip(reasons, told[2:], strict=True)
    )


def test_a_fault_in_one_round_changes_that_round_and_those_after_it(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    calm = run_federation(trio, tmp_path / "calm", rounds=3)
    struck = run_federation(trio, tmp_path / "struck", rounds=3, faults=[Fault("kiosk", 2, "drop")])
    digests = [
        [registry.load(number)[0].adapter.digest for number in range(4)]
        for registry in (calm, struck)
    ]
    assert [one == two for one, two in zip(*digests, strict=True)] == [True, True, False, False]


def test_metrics_reach_the_record_only_from_platforms_that_share_them(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    registry = run_federation(trio, tmp_path, rounds=1)
    for number in (0, 1):
        found = registry.load(number)[1].validation
        assert {name for name, metrics in found.items() if metrics} == {"harbour"}
