from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread

import pytest

from shared.audit_log import AuditLog, Verified, entries, verify
from shared.errors import AuditError
from shared.signing import canonical

ROOT = Path(__file__).parents[2]


def grown(path: Path, lines: int = 5) -> AuditLog:
    ticks = count(1_700_000_000)
    log = AuditLog(path, clock=lambda: float(next(ticks)))
    for number in range(lines):
        log.add("round", run="7", round=number, loss=0.5 / (number + 1), moved=True)
    return log


def head_of(path: Path) -> Path:
    return path.with_name(path.name + ".head")


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_half_a_line_is_set_aside_and_said(lines: int, tmp_path: Path) -> None:
    place = tmp_path / "whole.jsonl"
    grown(place, lines + 1)
    last = place.read_bytes().splitlines(keepends=True)[-1]
    for cut in {1, 2, len(last) // 2, len(last) - 2}:
        path = tmp_path / f"{lines}-{cut}.jsonl"
        before = b"".join(place.read_bytes().splitlines(keepends=True)[:-1])
        path.write_bytes(before + last[:cut])
        known = json.loads(before.splitlines()[-1])["hash"] if lines else "0" * 64
        head_of(path).write_bytes(canonical({"count": lines, "head": known}) + b"\n")
        assert verify(path).torn == cut
        AuditLog(path).add("start")
        assert verify(path) == Verified(lines + 2, list(entries(path))[-1].hash)
        torn, start = list(entries(path))[-2:]
        assert (torn.event, start.event) == ("torn", "start")
        assert torn.fields["bytes"] == cut
        aside = tmp_path / str(torn.fields["file"])
        assert aside.read_bytes() == last[:cut]


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = grown(path, 3)
    head = head_of(path).read_bytes()
    log.add("fourth")
    path.write_bytes(path.read_bytes()[:-1])
    head_of(path).write_bytes(head)  # as a crash leaves it: the line was not told to be written
    log.add("fifth")
    assert [it.event for it in entries(path)][3:] == ["fourth", "fifth"]
    assert verify(path).count == 5
    # With the newer head, somebody took the byte away.
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AuditError, match="was cut: it has 4 lines, its head file knows 5"):
        log.add("sixth")


def test_a_head_file_one_line_behind_is_what_a_crash_leaves(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = grown(path, 2)
    behind = head_of(path).read_bytes()
    for lines in range(3, 6):
        last = log.add("round")
        head_of(path).write_bytes(behind)  # a crash came between the log and its head file
        assert verify(path).count == lines
        # The next addition brings the head file up first, so two crashes are one line as well.
        behind = canonical({"count": last.number, "head": last.hash}) + b"\n"
    first = list(entries(path))[1]
    head_of(path).write_bytes(canonical({"count": 2, "head": first.hash}) + b"\n")
    with pytest.raises(AuditError, match="line 5 is not the one that its head file knows"):
        verify(path)


def test_threads_and_processes_add_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    script = "for number in range(20): log.add('process', at=number)"
    others = [started(path, script) for _ in range(2)]
    threads = [
        Thread(target=lambda: [AuditLog(path).add("thread", at=number) for number in range(20)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        assert other.wait(timeout=20) == 0
        assert other.stdout
        other.stdout.close()
    assert verify(path).count == 80
    assert sum(entry.event == "thread" for entry in entries(path)) == 40


def test_a_killed_writer_loses_nothing_that_it_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    script = "while True: print(log.add('beat', text='x' * 400).number, flush=True)"
    told = 0
    for wait in (0.0, 0.003, 0.011, 0.02):
        other = started(path, script)
        assert other.stdout
        told = int(other.stdout.readline())
        time.sleep(wait)
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=20)
        for line in other.stdout:
            told = int(line) if line.endswith("\n") else told
        other.stdout.close()
        assert verify(path).count >= told
        AuditLog(path).add("after")
        assert verify(path).torn == 0
    assert [entry.number for entry in entries(path)][: told + 1] == [*range(1, told + 2)]


def started(path: Path, script: str) -> subprocess.Popen[str]:
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.audit_log import AuditLog\n"
        f"log = AuditLog(Path(sys.argv[1]))\n{script}\n"
    )
    words = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_crash_at_any_step_of_an_addition_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException): ...

    def crashing(left: list[int], name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*words: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return real(*words, **more)

        return call

    for torn in (False, True):
        for step in count():
            path = tmp_path / f"{torn}-{step}.jsonl"
            grown(path, 2)
            if torn:
                with path.open("ab") as file:
                    file.write(b'{"before":"' + b"x" * 900)  # longer than the line to come
            left = [step]
            with monkeypatch.context() as patched:
                for name in ("pwrite", "ftruncate", "fsync", "replace"):
                    patched.setattr(os, name, crashing(left, name))
                try:
                    AuditLog(path).add("end")
                    break
                except Crash:
                    pass
            assert verify(path).count >= 2
            AuditLog(path).add("again")
            events = [entry.event for entry in entries(path)]
            assert verify(path).torn == 0
            assert events[-1] == "again"
            assert ("torn" in events) == torn
        assert step > 5


def test_a_full_disk_is_one_line_and_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    log = grown(path, 2)
    before = path.read_bytes()
    real = os.pwrite

    def full(handle: int, content: bytes, offset: int) -> int:
        real(handle, content[:20], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(AuditError, match=r"cannot be written \(No space left on device\)"):
            log.add("round")
    assert path.read_bytes() == before
    log.add("round")
    assert verify(path).count == 3
