from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from clients import ledger_file
from clients.ledger import Asked, Ledger, answered, balance, entries
from shared.accounting import Charge
from shared.errors import LedgerError
from shared.plan import Plan
from shared.signing import digest
from shared.tables.policy import Policy

NOBODY = 65534  # user and group that own nothing
ROUND = Charge(100.0)  # cheap: budgets are another file's matter
PLAN = Plan(
    clip=1.0,
    noise_multiplier=100.0,
    sampling_rate=1.0,
    steps=1,
    expected_batch=10.0,
    epsilon=4.0,
    delta=1e-6,
    shoppers_at_least=1000,
    update_norm=10.0,
)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    ledger, head, key = (tmp_path / f"shop.{name}" for name in ("ledger", "head", "key"))
    return Policy(plan=PLAN, dataset="shop", ledger=ledger, head=head, key=key)


@pytest.fixture
def used(policy: Policy) -> Policy:
    """With three rounds in its ledger."""
    with Ledger.open(policy, noise="secure") as ledger:
        for number in range(3):
            spend(ledger, number)
    return policy


def asked(number: int, *, run: str = "run") -> Asked:
    return Asked("update", run, number, "adapter")


def spend(ledger: Ledger, number: int) -> None:
    ledger.release(ledger.reserve(asked(number), ROUND), os.urandom(2000))


def refused(policy: Policy, why: str) -> None:
    """By the writer and by readers."""
    with pytest.raises(LedgerError, match=why):
        Ledger.open(policy, noise="secure")
    with pytest.raises(LedgerError, match=why):
        entries(policy)


def in_new_process(work: Callable[[], None], tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            (tmp_path / "fault").write_text(traceback.format_exc())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, (tmp_path / "fault").read_text()


def test_a_second_process_is_refused_until_the_first_has_ended(used: Policy) -> None:
    code = (
        "import sys; from pathlib import Path; from clients.ledger_file import locked\n"
        "locked(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(used.ledger)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LedgerError, match="in use by another process; stop one of the two"):
            Ledger.open(used, noise="secure")
        assert len(entries(used)) == 6  # reading is no matter
        assert answered(used, asked(2)) is not None
        other.send_signal(signal.SIGKILL)
    Ledger.open(used, noise="secure").close()


def test_one_process_cannot_open_a_ledger_twice_either(used: Policy) -> None:
    with (
        Ledger.open(used, noise="secure"),
        pytest.raises(LedgerError, match="in use"),
    ):
        Ledger.open(used, noise="secure")


def test_whoever_only_reads_is_answered_as_the_writer_and_ends_no_reservation(
    policy: Policy,
) -> None:
    assert answered(policy, asked(1)) is None
    assert not policy.ledger.exists()
    with Ledger.open(policy, noise="simulated") as ledger:
        spend(ledger, 1)
        spend(ledger, 2)
        ledger.reserve(asked(3), ROUND)
        for number in (1, 2, 3):
            assert answered(policy, asked(number)) == ledger.answered(asked(number))
        assert answered(policy, asked(2)) is not None
        assert answered(replace(policy, dataset="other"), asked(2)) is None
    assert balance(policy).reserved > 0


def test_a_release_in_the_middle_of_a_reading_is_not_taken_for_damage(
    used: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ledger_file.contents

    def slow(*words: Any, **more: Any) -> Any:
        found = whole(*words, **more)
        monkeypatch.setattr(ledger_file, "contents", whole)
        with Ledger.open(used, noise="secure") as ledger:
            spend(ledger, 3)
        return found

    before = answered(used, asked(2))
    monkeypatch.setattr(ledger_file, "contents", slow)
    assert answered(used, asked(2)) == before is not None
    assert answered(used, asked(2)) is None  # it is not the last any more


def test_a_place_that_cannot_be_written_is_named(policy: Policy) -> None:
    policy.key.write_text("a file, so nothing can be below it")
    below = policy.key / "below"
    for lost in (replace(policy, ledger=below), replace(policy, head=below)):
        with pytest.raises(LedgerError, match=r"below: cannot be read or written \(Not a dir"):
            Ledger.open(lost, noise="secure")


def as_nobody(policy: Policy) -> None:
    if os.geteuid() == 0:  # to whom no folder is read-only
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    with pytest.raises(LedgerError, match="make its folder writable"):
        Ledger.open(policy, noise="secure")


@pytest.mark.parametrize("used_before", [False, True])
def test_a_read_only_folder_is_told_and_left_as_it_was(tmp_path: Path, used_before: bool) -> None:
    with TemporaryDirectory() as name:  # nobody may look into pytest's own
        ledger, head, key = (Path(name) / file for file in ("ledger", "head", "key"))
        policy = Policy(plan=PLAN, dataset="shop", ledger=ledger, head=head, key=key)
        if used_before:
            with Ledger.open(policy, noise="secure") as opened:
                spend(opened, 1)
        for path in Path(name).iterdir():
            path.chmod(0o666)
        before = {path.name: path.read_bytes() for path in Path(name).iterdir()}
        Path(name).chmod(0o555)
        in_new_process(lambda: as_nobody(policy), tmp_path)
        Path(name).chmod(0o755)
        assert {path.name: path.read_bytes() for path in Path(name).iterdir()} == before


def test_a_folder_that_is_missing_is_named(policy: Policy) -> None:
    lost = replace(policy, ledger=policy.ledger.parent / "nowhere" / "x")
    with pytest.raises(LedgerError, match=r"x: cannot be read or written \(No such file"):
        Ledger.open(lost, noise="secure")


def test_a_ledger_that_is_a_folder_is_refused(policy: Policy) -> None:
    policy.ledger.mkdir()
    refused(policy, r"cannot be read or written \(")


@pytest.mark.parametrize("room", [0, 50, 5_000, 20_000, 45_000, 60_000])
def test_a_full_disk_is_told_and_loses_nothing(policy: Policy, tmp_path: Path, room: int) -> None:
    # A limit on the size of any one file stands for the disk; none but the new process has it.
    sent = tmp_path / "sent"
    sent.mkdir()

    def send() -> None:
        with Ledger.open(policy, noise="secure") as ledger:
            for number in range(1000):
                payload = os.urandom(2000)
                ledger.release(ledger.reserve(asked(number), ROUND), payload)
                (sent / digest(payload)).touch()

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        with pytest.raises(LedgerError, match=r"cannot be read or written \(.*free some space"):
            send()

    in_new_process(fill, tmp_path)
    with Ledger.open(policy, noise="secure") as ledger:  # there is room again
        released = {entry.payload for entry in entries(policy) if entry.kind == "release"}
        assert {path.name for path in sent.iterdir()} <= released
        assert len(released) <= len(list(sent.iterdir())) + 1
        spend(ledger, 2000)


def test_nobody_but_its_owner_may_read_a_head_file_even_after_a_crash(policy: Policy) -> None:
    policy.head.with_name(f".{policy.head.name}.part").touch(mode=0o644)  # of the crash
    Ledger.open(policy, noise="secure").close()
    assert policy.head.stat().st_mode & 0o777 == 0o600


def test_after_a_failed_write_a_ledger_is_to_be_opened_again(used: Policy) -> None:
    head = used.head.read_bytes()
    with Ledger.open(used, noise="secure") as ledger:
        used.head.unlink()
        used.head.mkdir()  # nothing can take its place
        with pytest.raises(LedgerError, match=r"shop\.head: cannot be read or written"):
            ledger.reserve(asked(5), ROUND)
        with pytest.raises(LedgerError, match="a write to it has failed; open it again"):
            ledger.reserve(asked(6), ROUND)
    used.head.rmdir()
    used.head.write_bytes(head)
    with Ledger.open(used, noise="secure") as ledger:
        assert ledger.receipt.count == 8  # the reservation was written; it is abandoned
        assert ledger.balance().releases == 3


def test_a_ledger_takes_one_kind_of_noise_for_ever(used: Policy) -> None:
    with pytest.raises(LedgerError, match="is of secure noise, not simulated"):
        Ledger.open(used, noise="simulated")


def test_a_clock_that_jumps_back_is_refused_and_one_that_is_corrected_is_not(
    policy: Policy,
) -> None:
    now = [1000.0]
    with Ledger.open(policy, noise="secure", clock=lambda: now[0]) as ledger:
        number = ledger.reserve(asked(1), ROUND)
        now[0] = 500.0
        ledger.release(number, b"trained already")  # what is spent is written down all the same
        with pytest.raises(LedgerError, match="clock is 500 s behind the latest entry"):
            ledger.reserve(asked(2), ROUND)
        for wrong in (939.0, float("nan"), float("inf")):
            now[0] = wrong
            with pytest.raises(LedgerError, match="set the clock right"):
                ledger.reserve(asked(2), ROUND)
        now[0] = 941.0
        ledger.abandon(ledger.reserve(asked(2), ROUND))
    assert balance(policy).releases == 1


def test_a_plan_that_changes_in_mid_run_is_refused_by_name(used: Policy) -> None:
    other = replace(used, plan=replace(PLAN, clip=2.0, epsilon=8.0))
    with Ledger.open(other, noise="secure") as ledger:
        with pytest.raises(LedgerError, match=r"changed in mid-run \(clip, epsilon\)"):
            ledger.reserve(asked(4), ROUND)
        ledger.abandon(ledger.reserve(asked(1, run="the next"), ROUND))
        with pytest.raises(LedgerError, match="mid-run"):
            ledger.reserve(asked(4), ROUND)
        assert ledger.receipt.count == 8


def test_a_second_reservation_waits_for_the_first(policy: Policy) -> None:
    with Ledger.open(policy, noise="secure") as ledger:
        number = ledger.reserve(asked(1), ROUND)
        with pytest.raises(LedgerError, match="reservation 1 is open"):
            ledger.reserve(asked(2), ROUND)
        for wrong in (0, 2):
            with pytest.raises(LedgerError, match=f"reservation {wrong} is not open"):
                ledger.abandon(wrong)
        ledger.abandon(number)


def test_a_closed_ledger_does_nothing(used: Policy) -> None:
    ledger = Ledger.open(used, noise="secure")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.reserve(asked(1), ROUND)
    with pytest.raises(LedgerError, match="is closed"):
        ledger.answered(asked(1))
