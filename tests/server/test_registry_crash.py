"""A writer that is killed with `kill -9`, at every step it takes and at any moment."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared.adapter import Adapter
from shared.asking import Standing
from shared.update import Receipt

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STEPS = ("fsync", "rename", "replace", "link", "mkdir", "unlink")  # of os, that change the disk
FEWEST = 20  # steps of a new registry with one round, at least


def write(folder: Path, tell: int) -> None:
    """Go on where the registry stands, and tell what was promised: one byte a round."""
    registry = Registry(folder, KEY)
    standing = registry.standing()
    while True:
        number = (registry.rounds() or [-1])[-1] + 1
        receipt = Receipt(number, f"{number:064x}")
        registry.remember(Standing(standing.run, {"a": receipt}))
        adapter = Adapter({"w": np.full(500, number, np.float32)}, "backbone", "task", number)
        registry.record(
            ServerState(adapter, {"first/w": adapter.tensors["w"]}), RoundReport(number)
        )
        registry.promote(registry.versions()[-1].manifest.version, who="test", why=str(number))
        os.write(tell, b".")


def killed(folder: Path, faults: Path, *, prepare: Callable[[], None], after: float) -> int:
    """How many rounds a process that is killed had told."""
    listen, tell = os.pipe()
    if (child := os.fork()) == 0:
        try:
            prepare()
            write(folder, tell)
        except BaseException:
            faults.write_text(traceback.format_exc())
        finally:
            os._exit(1)
    os.close(tell)
    time.sleep(after)
    if after:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(listen, "rb") as pipe:
        told = len(pipe.read())
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), faults.read_text()
    return told


def check(folder: Path, told: int, *, had: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """That the registry is whole, and has all that it had and what was told since.

    Returns:
        How many rounds and promotions it has.
    """
    registry = Registry(folder, KEY)
    rounds = registry.rounds()
    assert rounds == list(range(len(rounds)))
    assert len(rounds) >= had[0] + told
    for number in rounds:
        state, report = registry.load(number)
        assert report.round == number
        assert state.adapter.tensors["w"].tolist() == [number] * 500
    versions, receipts = registry.versions(), registry.standing().receipts
    assert [it.manifest.round for it in versions] == rounds
    if versions:
        registry.verify(versions[-1].manifest.version)
        assert rounds[-1] <= receipts["a"].count <= len(rounds)
    promoted = [int(it.why) for it in registry.promotions()]
    assert promoted == sorted(set(promoted))
    assert len(promoted) >= had[1] + told
    return len(rounds), len(promoted)


def dies_at(step: int) -> None:
    """From now on, this process kills itself before its step of that number."""
    left = [step]
    for name in STEPS:
        real = getattr(os, name)

        def counted(*args: Any, _real: Callable[..., Any] = real, **keys: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return _real(*args, **keys)

        setattr(os, name, counted)


@pytest.mark.parametrize("step", range(2 * FEWEST))
def test_killed_at_any_step_a_registry_holds_every_round_it_told(step: int, tmp_path: Path) -> None:
    folder, faults = tmp_path / "run", tmp_path / "faults"
    told = killed(folder, faults, prepare=lambda: dies_at(step), after=0.0)
    had = check(folder, told)
    # What was left behind is in nobody's way, also if the next one is killed too.
    told = killed(folder, faults, prepare=lambda: dies_at(step + 2 * FEWEST), after=0.0)
    assert check(folder, told, had=had) > had
    left = [path.name for path in (folder / "rounds").iterdir() if path.name.startswith(".")]
    assert len(left) <= 1


def test_killed_at_any_moment_a_registry_holds_every_round_it_told(tmp_path: Path) -> None:
    rng, had, reached = np.random.default_rng(0), (0, 0), set[int]()
    for kill in range(60):
        if kill % 12 == 0:
            had = (0, 0)
        folder = tmp_path / f"run{kill // 12}"
        after = float(rng.uniform(0.001, 0.08))
        told = killed(folder, tmp_path / "faults", prepare=lambda: None, after=after)
        had = check(folder, told, had=had)
        reached.add(had[0])
    assert len(reached) > 1  # some were killed early, some late; fewer on a busy machine
