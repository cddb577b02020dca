"""`atoll-server up` where it cannot go on: before it serves anybody, and again and again after."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server import release
from server.aggregate import ServerState
from server.commands import up
from server.commands.up import Runs
from server.daemon import main
from server.home import FILE, ServerHome, load_home, make_home
from server.registry import Registry, RoundReport
from shared.adapter import Adapter
from shared.audit_log import AuditLog, entries
from shared.bundle import Bundle
from shared.errors import RoundError
from simulations.lagoon import BUNDLE

Refused = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, backbone: Path) -> ServerHome:
    return make_home(
        tmp_path / "home",
        hosts=["127.0.0.1"],
        backbone=backbone,
        listen="127.0.0.1:0",
        health="",
        name="coordinator",
    )


@dataclass
class Rest:
    """Time that passes at once, until the process is told to stop.

    Attributes:
        until: how often may be rested before that.
        between: is called at each rest.
    """

    until: int
    between: Callable[[int], object] = lambda _number: None
    rests: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        if len(self.rests) >= self.until:
            raise up.Stop
        self.between(len(self.rests))


def served(home: ServerHome, rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "time", rest)
    with pytest.raises(up.Stop), ExitStack() as stack:
        up.serve(home, stack, once=False)


def events(home: Path) -> list[str]:
    return [it.event for it in entries(home / "audit.jsonl")]


def test_a_server_without_a_release_says_so_before_it_serves_anybody(
    refused: Refused, home: ServerHome
) -> None:
    assert refused(main, "up", "--home", home.path) == (
        f"{home.path}: no bundle was released; run atoll-server release --home {home.path}"
    )


def test_a_run_that_cannot_begin_is_one_line_in_the_audit_log_and_not_one_a_try(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = Rest(until=12)
    served(home, rest, monkeypatch)
    assert rest.rests[:8] == [5, 10, 20, 40, 60, 60, 60, 60]
    assert events(home.path) == ["started", "run ended", "stopped"]


def test_a_run_that_cannot_begin_for_another_reason_is_another_line(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(number: int) -> None:
        if number == 3:
            release.publish(home.path, Bundle(b"spoilt", BUNDLE.digest, "1"))

    served(home, Rest(until=8, between=spoil), monkeypatch)
    found = [it for it in entries(home.path / "audit.jsonl") if it.event == "run ended"]
    first, second = (str(it.fields["why"]) for it in found)
    assert "no bundle was released" in first
    assert "was changed since its release" in second


def test_sums_are_taken_once_before_the_first_round(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home.path / FILE
    file.write_text(file.read_text().replace("# pairs = ", "pairs = "))
    ran = list[tuple[bool, int, float]]()

    def run(settings: ServerHome, *_: object, sums: bool = False) -> None:
        ran.append((sums, settings.federation.rounds, settings.federation.noise_multiplier))
        if sums:
            state = ServerState(Adapter({}, "b", "t"))
            for round_ in (0, 1):
                Registry(settings.path / "sums").record(state, RoundReport(round_))

    monkeypatch.setattr(up, "run", run)
    home = load_home(home.path)
    assert home.pairs == home.path / "pairs.safetensors"
    served(home, Rest(until=3), monkeypatch)
    assert ran[:2] == [(True, 1, 0.0), (False, 10, 0.0)]
    assert [sums for sums, _, _ in ran].count(True) == 1


def test_rounds_asked_for_while_the_last_ones_run_are_not_overlooked(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()

    def run(settings: ServerHome, *_: object) -> None:
        asked.append(settings.federation.rounds)
        file = settings.path / FILE
        if len(asked) == 1:  # somebody edits the file while this run is under way
            file.write_text(file.read_text().replace("# rounds = 10", "rounds = 12"))

    monkeypatch.setattr(up, "run", run)
    served(home, Rest(until=3), monkeypatch)
    assert asked == [10, 12]


def test_a_setting_that_is_mended_is_read_before_the_next_try(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()
    text = (home.path / FILE).read_text()

    def run(settings: ServerHome, *_: object) -> None:
        asked.append(settings.federation.quorum)
        raise RoundError("too few", todo="lower quorum")

    def edited(number: int) -> None:
        quorum = {2: '"spoilt"', 4: "1"}.get(number)
        if quorum is not None:
            (home.path / FILE).write_text(text.replace("# quorum = 2", f"quorum = {quorum}"))

    monkeypatch.setattr(up, "run", run)
    served(home, Rest(until=6, between=edited), monkeypatch)
    assert asked == [2, 2, 1, 1]
    assert events(home.path) == ["started", *["run ended"] * 3, "stopped"]


def test_an_attempt_that_changes_nothing_adds_no_line(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    runs = Runs(audit)
    for number in range(5):
        runs.begun(bundle="b", run=str(number))
        runs.ended("too few")
    runs.begun(bundle="b", run="5")
    runs.round(1, "round 1 of 2")
    runs.ended("too few")
    for number in (6, 7):
        runs.begun(bundle="b", run=str(number))
        runs.ended("no quorum")
    runs.begun(bundle="b", run="8")
    runs.round(2, "round 2 of 2")
    told = [(it.event, it.fields.get("run")) for it in entries(audit.path)]
    assert told == [
        ("run", "0"),
        ("run ended", None),
        ("run", "5"),
        ("round", None),
        ("run ended", None),
        ("run", "6"),
        ("run ended", None),
        ("run", "8"),
        ("round", None),
    ]


def test_a_home_that_others_may_look_into_is_closed_before_anybody_is_served(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.path.chmod(0o755)
    served(home, Rest(until=1), monkeypatch)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    for path in home.path.glob("*.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_port_that_is_taken_is_one_line_and_none_of_grpcs_own(home: ServerHome) -> None:
    release.publish(home.path, release.build(release.SOURCE))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = home.path / FILE
        file.write_text(file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        program = Path(sys.executable).with_name("atoll-server")
        done = subprocess.run(
            [program, "up", "--home", load_home(home.path).path],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={name: it for name, it in os.environ.items() if name != "GRPC_VERBOSITY"},
        )
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"error: 127.0.0.1:{port}: cannot listen there")
