from __future__ import annotations

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
from shared import asking, wire
from shared.adapter import Adapter
from shared.errors import AtollError, ConfigError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate


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


def test_a_round_cut_short_between_files_and_row_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), RoundReport(0))
    before = whole(tmp_path)

    def fails(_version: object) -> None:
        assert (registry.folder / "0001").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "row_of", fails)
    with pytest.raises(KeyboardInterrupt):
        registry.record(state(2.0), RoundReport(1))
    monkeypatch.undo()
    assert whole(tmp_path) == before
    registry.record(state(2.0), RoundReport(1))
    assert registry.rounds() == [0, 1]


def test_a_round_is_recorded_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), RoundReport(0))
    before = whole(tmp_path)
    with pytest.raises(RoundError, match="round 0 is recorded already"):
        registry.record(state(2.0), RoundReport(0))
    assert whole(tmp_path) == before


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
    assert seen == [([], ["adapter.safetensors", "moments.safetensors"])]
    assert registry.rounds() == [1]


def test_files_left_by_a_killed_run_are_no_round_and_are_swept(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record(state(), RoundReport(0))
    for left in (".0001.deadbeef", "0001", "0002"):
        shutil.copytree(registry.folder / "0000", registry.folder / left)
    (registry.folder / "notes").mkdir()  # somebody's own
    assert registry.rounds() == [0]
    Registry(tmp_path).record(state(2.0), RoundReport(1))
    assert {path.name for path in registry.folder.iterdir()} == {"0000", "0001", "notes"}
    assert registry.load(1)[0].adapter.digest == state(2.0).adapter.digest


def test_a_round_that_was_deleted_is_recorded_anew_beside_its_old_row(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for number in range(3):
        registry.record(state(number), RoundReport(number))
    shutil.rmtree(registry.folder / "0002")
    assert registry.rounds() == [0, 1]
    registry.record(state(7.0), RoundReport(2))
    assert registry.rounds() == [0, 1, 2]
    assert registry.load(2)[0].adapter.digest == state(7.0).adapter.digest
    assert registry.adapter_path(2).is_file()
    old, new = registry.versions()[2:]
    assert (old.present, new.present) == (False, True)
    assert old.manifest.parents == new.manifest.parents == (registry.versions()[1].digest,)
    registry.verify(4)
    with pytest.raises(RoundError, match="round 2 cannot be read"):
        registry.verify(3)


@pytest.mark.parametrize("file", ["adapter.safetensors", "moments.safetensors"])
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

    def called(self, node: int) -> str | None:
        return None

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
            adapter, training = asking.read_request(content)
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
