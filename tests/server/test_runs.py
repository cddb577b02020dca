from __future__ import annotations

from pathlib import Path

import numpy as np

from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared.adapter import Adapter
from shared.asking import Standing
from shared.update import Receipt


def state(value: float = 0.5) -> ServerState:
    return ServerState(Adapter({"w": np.full(3, value, np.float32)}, "backbone", "task", 1))


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
    assert [path.name for path in tmp_path.iterdir()] == ["registry.sqlite"]


def test_receipts_survive_the_run_they_come_from(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first = Standing(registry.standing().run, {"a": RECEIPT})
    registry.settle({"seed": 0})
    registry.remember(first)
    registry.record(state(), RoundReport(0))
    registry.remember(Standing("another run", {}))
    second = Registry(tmp_path).standing()
    assert second == Standing("another run", {"a": RECEIPT})
    # Its rounds and settings are its own; the versions before it stay.
    assert registry.rounds() == []
    registry.settle({"seed": 1})
    registry.record(state(2.0), RoundReport(0))
    assert registry.load(0)[0].adapter.digest == state(2.0).adapter.digest
    assert [it.manifest.run for it in registry.versions()] == [first.run, second.run]
    assert [it.manifest.parents for it in registry.versions()] == [(), ()]
    registry.verify(1)


def test_a_receipt_that_is_not_named_again_is_not_forgotten(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.remember(Standing("run", {"a": RECEIPT}))
    registry.remember(Standing("run", {"b": RECEIPT}))
    assert registry.standing().receipts == {"a": RECEIPT, "b": RECEIPT}


def test_a_cleared_run_has_another_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.remember(Standing("old", {"a": RECEIPT}))
    registry.clear()
    assert registry.standing().run != "old"
    assert registry.standing().receipts == {}
