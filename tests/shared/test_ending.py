"""A process that is told to end is gone soon, whatever hangs in it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

CODE = """
import sys, threading, time
from shared.ending import Ending

begun = threading.Event()
ending = Ending(begun.set, seconds=SECONDS)
with ending.listening():
    print("listening", flush=True)
    BODY
print("ended well", flush=True)
hangs = threading.Thread(target=time.sleep, args=(60,))
hangs.start()  # a library's own thread, which the interpreter would wait for
ending.leave()
"""


def told(body: str, *, seconds: float, signals: int = 1) -> tuple[int, str, float]:
    """Exit code, output and seconds of a process that is told to end."""
    code = CODE.replace("BODY", body).replace("SECONDS", str(seconds))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        began = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
        out = process.stdout.read()
        return process.wait(30), out, time.monotonic() - began


@pytest.mark.parametrize("signals", [1, 3])
def test_what_ends_well_is_waited_for_and_its_threads_are_not(signals: int) -> None:
    code, out, took = told("begun.wait()", seconds=60.0, signals=signals)
    assert (code, out) == (0, "ended well\n")
    assert took < 20.0  # not the 60 of the thread


def test_what_hangs_is_left() -> None:
    code, out, took = told("time.sleep(60)", seconds=0.3)
    assert (code, out) == (0, "")
    assert took < 20.0
