"""What both doctors look at: the machine, the clock, keys and ports."""

from __future__ import annotations

import socket
from pathlib import Path

from shared import doctor as both
from shared.doctor import Check, clock, disk, memory, packages, private


def test_packages_are_compared_with_their_pins() -> None:
    assert packages(["numpy>=1", "pytest", "none-such; extra == 'ray'"]) == Check(
        "packages", True, "2 as pinned"
    )
    told = packages(["numpy==0.1", "no-such-package>=2"])
    assert told.ok is False
    assert "numpy is" in told.told
    assert "no-such-package is missing" in told.told
    assert both.python().ok is True


def test_a_full_disk_and_a_full_memory_are_told(tmp_path: Path) -> None:
    assert disk(tmp_path / "not" / "yet", least=0).ok is True
    assert disk(tmp_path, least=2**80).ok is False
    source = tmp_path / "meminfo"
    source.write_text("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n")
    assert memory(source=source).told == "1.0 GiB available"
    assert memory(source=source).ok is False
    assert memory(source=tmp_path / "none").ok is None


def test_clocks_and_keys(tmp_path: Path) -> None:
    assert [clock(theirs=0.0, mine=off).ok for off in (1.0, -4.0, 30.0, -61.0)] == [
        *(True, True),
        None,
        False,
    ]
    assert private(tmp_path, ["a"]).told == "a is missing"


def test_a_port_is_not_taken_by_looking() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = both.port("port", address, ours=False, todo="take another")
        assert (told.ok, told.todo) == (False, "take another")
    assert both.port("port", address, ours=False).ok is True
    assert both.port("port", "nonsense:x", ours=False).ok is False
    assert both.port("port", "", ours=False).ok is None
