"""A daemon that is told to end is gone within three seconds, whatever it waits for.

    SIGTERM, SIGINT ─→ told ─→ what the daemon does to end ─→ `leave`: the process is gone
                          └ after SECONDS it is gone anyhow: as safe as a power cut

Both daemons can be killed at any moment: rounds, ledger and audit log are whole or not there. So
nothing is lost where a call that hangs, or a library's own end, is not waited for.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SECONDS = 2.5  # from a signal until the process is gone; the promise is 3
LOOK = 0.05  # seconds between two looks at whether a signal came


class Ending:
    """Whether this process was told to end.

    Attributes:
        told: a signal came. A signal's handler sets this and nothing else: taking a lock there
            could wait for ever for the very thread that it interrupted.
    """

    def __init__(self, begin: Callable[[], None] = lambda: None, *, seconds: float = SECONDS):
        """Wait for no signal yet.

        Args:
            begin: called once, soon after a signal, from a thread of its own.
            seconds: from a signal until the process is left by force.
        """
        self.told = False
        self._begin, self._seconds = begin, seconds
        self._over = threading.Event()

    @contextmanager
    def listening(self, then: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Take SIGTERM and SIGINT while the body runs; the second one of them changes nothing.

        Args:
            then: called in the handler, after `told` is set; it may raise.
        """

        def handle(_number: int, _frame: object) -> None:
            if not self.told:
                self.told = True
                then()

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, handle) for number in numbers}
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        finally:
            if not self.told:
                self._over.set()
                for number, handler in before.items():
                    signal.signal(number, handler)

    def leave(self) -> None:
        """End the process now if it was told to, without the libraries' own ends."""
        if self.told:
            _leave()

    def _watch(self) -> None:
        while not self.told:
            if self._over.wait(LOOK):
                return
        until = time.monotonic() + self._seconds
        threading.Thread(target=self._begin, daemon=True).start()
        while (left := until - time.monotonic()) > 0:
            time.sleep(left)
        _leave()


def _leave() -> None:
    with suppress(Exception):  # a log that cannot be written keeps nobody here
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
