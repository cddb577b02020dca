from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from server import registry as module
from server.aggregate import Algorithm, ServerState, algorithm
from server.config import FederationSection, federation_from
from server.registry import Registry, RoundReport
from server.rounds import federate
from shared import wire
from shared.adapter import Adapter
from shared.errors import AtollError, ConfigError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate, Receipt
from shared.wire import Standing


def state(value: float = 0.5, version: int = 1) -> ServerState:
    adapter = Adapter({"w": np.full(3, value, np.float32)}, "backbone", "task", version)
    return ServerState(adapter, {"first/w": np.arange(3, dtype=np.float32)})


REPORT = RoundReport(
    round=1,
    seconds=1.5,
    bytes_down=24,
    bytes_up=12,
    replied=("a", "b"),
    refused={"c": "because"},
    missing=("d",),
    validation={"a": {"ndcg@10": 0.5}},
    moved=False,
    noise={"a": "secure", "b": "none"},
)


def test_what_was_recorded_is_read_back_the_same(tmp_path: Path) -> None:
    Registry(tmp_path).record(state(), REPORT)
    read, report = Registry(tmp_path).load(1)
    assert report == REPORT
    assert read.adapter.digest == state().adapter.digest
    assert read.adapter.version == 1
    assert {key: value.tolist() for key, value in read.moments.items()} == {"first/w": [0, 1, 2]}


def test_rounds_are_told_in_order(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert registry.rounds() == []
    for number in (10, 9, 0):
        registry.record(state(), RoundReport(number))
    assert registry.rounds() == [0, 9, 10]


def whole(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("where", ["save_adapter", "save_file", "rename"])
@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
def test_a_round_cut_short_leaves_nothing_behind(
    where: str, fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), RoundReport(0))
    before = whole(tmp_path)

    def fails(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(os if where == "rename" else module, where, fails)
    with pytest.raises((ConfigError, KeyboardInterrupt)):
        registry.record(state(2.0), RoundReport(1))
    monkeypatch.undo()
    assert registry.rounds() == [0]
    assert whole(tmp_path) == before
    assert len(list(registry.folder.iterdir())) == 1


def test_a_round_has_its_name_only_when_all_its_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, seen = Registry(tmp_path), []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        seen.append((registry.rounds(), sorted(path.name for path in Path(source).iterdir())))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    registry.record(state(), RoundReport(1))
    assert seen == [([], ["adapter.safetensors", "moments.safetensors", "round.json"])]
    assert registry.rounds() == [1]


def test_a_part_left_by_a_killed_run_is_no_round(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), RoundReport(0))
    shutil.copytree(registry.folder / "0000", registry.folder / ".0001.deadbeef")
    assert registry.rounds() == [0]


@pytest.mark.parametrize("file", ["adapter.safetensors", "moments.safetensors", "round.json"])
@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_damaged_round_says_what_to_do(file: str, damage: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), REPORT)
    path = registry.folder / "0001" / file
    data = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AtollError) as caught:
        registry.load(1)
    assert str(registry.folder / "0001") in str(caught.value)
    assert "delete this folder; --resume then goes on from the round before it" in str(caught.value)


def test_cleared_rounds_are_gone_and_clearing_nothing_is_no_fault(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.clear()
    registry.record(state(), RoundReport(0))
    registry.clear()
    assert registry.rounds() == []


class Three:
    """Three platforms whose Updates depend on the Adapter and the round, and on nothing else."""

    def __init__(self, *, stop: int | None = None) -> None:
        self.stop = stop  # the run is killed in this round

    def present(self) -> Sequence[int]:
        return [1, 2, 3]

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterator[tuple[int, Content]]:
        for node in nodes:
            if kind == wire.HELLO:
                yield (
                    node,
                    wire.hello_reply(wire.Member(f"p{node}", float(node), "backbone", "task")),
                )
                continue
            adapter, training = wire.read_request(content)
            if training is None:
                yield node, wire.metrics_reply({})
                continue
            if training.round == self.stop:
                raise KeyboardInterrupt
            rng = np.random.default_rng([node, training.round, training.seed])
            move = rng.normal(size=3).astype(np.float32) + 0.1 * adapter.tensors["w"]
            yield node, wire.update_reply(BoundedUpdate({"w": move}, adapter.digest, float(node)))


def run(folder: Path, rule: Algorithm, nodes: Three, resume: bool = False) -> ServerState:
    registry = Registry(folder)
    begin = rule.init(state(0.0, 0).adapter)
    if resume:
        begin, _ = registry.load(registry.rounds()[-1])
    plan = federation_from(FederationSection(rounds=4, quorum=2, fraction=0.6))
    return federate(nodes, begin, plan, rule, registry)


@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_cut_short_and_resumed_ends_where_an_uninterrupted_one_does(
    name: Literal["fedavg", "fedadam"], stop: int, tmp_path: Path
) -> None:
    rule = algorithm(name, 0.5)
    uninterrupted = run(tmp_path / "one", rule, Three())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", rule, Three(stop=stop))
    assert Registry(tmp_path / "two").rounds() == list(range(stop))
    resumed = run(tmp_path / "two", rule, Three(), resume=True)
    assert resumed.adapter.digest == uninterrupted.adapter.digest
    assert Registry(tmp_path / "two").rounds() == [0, 1, 2, 3, 4]
    for key, value in uninterrupted.moments.items():
        np.testing.assert_array_equal(resumed.moments[key], value)


def test_a_finished_run_resumed_does_nothing(tmp_path: Path) -> None:
    rule = algorithm("fedavg", 1.0)
    done = run(tmp_path, rule, Three())
    before = whole(tmp_path)
    assert run(tmp_path, rule, Three(), resume=True).adapter.digest == done.adapter.digest
    assert whole(tmp_path) == before


RECEIPT = Receipt(12, "0123456789abcdef" * 4)


def test_a_run_has_a_name_of_its_own_made_once(tmp_path: Path) -> None:
    one = Registry(tmp_path / "one").standing()
    assert Registry(tmp_path / "one").standing() == one  # after a restart
    assert one.receipts == {}
    assert len(one.run) == 32
    assert Registry(tmp_path / "two").standing().run != one.run


def test_receipts_that_are_remembered_survive_a_restart(tmp_path: Path) -> None:
    run = Registry(tmp_path).standing().run
    known = Standing(run, {"a": RECEIPT, "b": Receipt(0, "f" * 64)})
    Registry(tmp_path).remember(known)
    assert Registry(tmp_path).standing() == known
    newer = Standing(run, {**known.receipts, "a": Receipt(14, "e" * 64)})
    Registry(tmp_path).remember(newer)
    assert Registry(tmp_path).standing() == newer
    assert [path.name for path in tmp_path.iterdir()] == ["standing.json"]


def test_a_standing_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, done = Registry(tmp_path), list[str]()
    run = registry.standing().run
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("fsync")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append(f"replace {Path(target).name}")
        assert json.loads(Path(source).read_text())["receipts"] == {"a": [12, RECEIPT.head]}
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    registry.remember(Standing(run, {"a": RECEIPT}))
    assert done[:2] == ["fsync", "replace standing.json"]


def test_a_standing_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    before = registry.standing()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(ConfigError, match="No space left"):
        registry.remember(Standing(before.run, {"a": RECEIPT}))
    monkeypatch.undo()
    assert registry.standing() == before
    assert [path.name for path in tmp_path.iterdir()] == ["standing.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"run": "x"}',
        '{"receipts": {}}',
        '{"run": "x", "receipts": []}',
        '{"run": "x", "receipts": {"a": [1]}}',
        '{"run": "x", "receipts": {"a": 1}}',
        "\x00\x01",
    ],
)
def test_a_damaged_standing_is_told_in_one_line_and_stays(text: str, tmp_path: Path) -> None:
    place = tmp_path / "standing.json"
    place.write_text(text)
    with pytest.raises(RoundError) as caught:
        Registry(tmp_path).standing()
    said = str(caught.value)
    assert said.startswith(f"{place}: cannot be read (")
    assert said.endswith("; restore it from a backup, or use another folder")
    assert "\n" not in said
    assert place.read_text() == text


def test_a_cleared_run_has_another_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.remember(Standing("old", {"a": RECEIPT}))
    registry.clear()
    assert registry.standing().run != "old"
    assert registry.standing().receipts == {}
