from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.aggregate import ServerState
from server.registry import Registry, RoundReport
from shared.adapter import Adapter
from shared.asking import Standing
from shared.errors import AtollError, RoundError
from shared.update import Receipt

NOBODY = 65534  # user and group that own nothing
RECEIPT = Receipt(12, "0123456789abcdef" * 4)


def state(value: float = 0.5, version: int = 1) -> ServerState:
    adapter = Adapter({"w": np.full(3, value, np.float32)}, "backbone", "task", version)
    return ServerState(adapter, {"first/w": np.arange(3, dtype=np.float32)})


REPORT = RoundReport(1, replied=("a", "b"), validation={"a": {"ndcg@10": 0.5}})


def whole(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def limited(work: Callable[[], object], kilobytes: int) -> str:
    """What happens in a process whose files cannot grow beyond that: a disk that is full."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        told = b"nothing"
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))
            work()
        except BaseException as fault:
            told = f"{type(fault).__name__}: {fault}".encode()
        finally:
            os.write(writing, told)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("kilobytes", [0, 1, 40])
def test_a_full_disk_is_told_in_one_line_and_what_was_there_stays(
    kilobytes: int, tmp_path: Path
) -> None:
    registry = Registry(tmp_path)
    registry.remember(Standing("run", {"a": RECEIPT}))
    registry.record(state(), REPORT)
    before = whole(tmp_path)
    many = {f"platform-{number:06}": RECEIPT for number in range(2000)}
    told = limited(lambda: registry.remember(Standing("run", many)), kilobytes)
    assert told.startswith(f"ConfigError: {tmp_path / 'registry.sqlite'}: cannot be written (")
    assert "\n" not in told
    large = Adapter({"w": np.zeros(20_000, np.float32)}, "backbone", "task", 2)
    told = limited(lambda: registry.record(ServerState(large), RoundReport(2)), kilobytes)
    assert told.startswith("ConfigError: ")
    assert "\n" not in told
    assert Registry(tmp_path).rounds() == [1]
    assert Registry(tmp_path).standing().receipts == {"a": RECEIPT}
    assert whole(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_told_in_one_line_and_can_be_read(
    tmp_path: Path,
) -> None:
    Registry(tmp_path).record(state(), REPORT)

    def work() -> None:
        for path in (*tmp_path.rglob("*"), tmp_path, *tmp_path.parents[:3]):
            path.chmod(0o755)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert Registry(tmp_path).load(1)[1] == REPORT
        Registry(tmp_path).record(state(), RoundReport(2))

    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not write here")
    told = limited(work, 10_000)
    assert told.startswith("ConfigError: ")
    assert "cannot be written (Permission denied); free some space" in told


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\x01" * 4096, b"SQLite format 3\x00"])
def test_a_damaged_database_is_told_in_one_line_and_stays(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "registry.sqlite"
    place.write_bytes(content)
    asks: list[Callable[[Registry], object]] = [
        Registry.rounds,
        Registry.standing,
        Registry.versions,
        lambda it: it.load(0),
        lambda it: it.record(state(), RoundReport(0)),
    ]
    for ask in asks:
        with pytest.raises(RoundError) as caught:
            ask(Registry(tmp_path))
        said = str(caught.value)
        assert said.startswith(f"{place}: cannot be read (")
        assert said.endswith("; restore it from a backup, or use another folder")
        assert "\n" not in said
        assert place.read_bytes() == content


def test_any_damage_to_the_database_is_told_or_changes_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.remember(Standing("run", {"a": RECEIPT}))
    for number in range(3):
        registry.record(state(number), RoundReport(number, replied=("a", "b")))
    good, rng = registry.path.read_bytes(), np.random.default_rng(0)
    known, told = registry.versions(), list[str]()
    for _ in range(150):
        spoilt = bytearray(good)
        for place in rng.integers(0, len(good), 20):
            spoilt[place] ^= int(rng.integers(1, 256))
        registry.path.write_bytes(spoilt)
        try:
            found = Registry(tmp_path).versions()
        except AtollError as fault:
            told.append(str(fault))
        else:
            assert found == known
    assert len(told) > 10
    assert not any("\n" in it for it in told)


def test_rounds_of_a_version_without_a_database_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rounds" / "0000").mkdir(parents=True)
    (tmp_path / "rounds" / "0000" / "round.json").write_text("{}")
    for ask in (Registry.rounds, Registry.standing):
        with pytest.raises(RoundError, match="earlier version of Atoll"):
            ask(Registry(tmp_path))
    assert whole(tmp_path).keys() == {"rounds/0000/round.json"}
    Registry(tmp_path).clear()
    assert Registry(tmp_path).rounds() == []
