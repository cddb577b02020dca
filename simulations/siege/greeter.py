"""How long a Hello takes: greeter.py ADDRESS CA SECONDS tells the seconds of one each second.

A process of its own, since the attacker's is busy.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from shared.enrolment import hello

LOST = 20.0  # seconds that one without an answer counts as


def main() -> None:
    """Greet, and tell on standard output."""
    address, ca, seconds = sys.argv[1:]
    roots, took = Path(ca).read_bytes(), list[float]()
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        took.append(greeted(address, roots))
        time.sleep(max(0.0, 1.0 - took[-1]))
    sys.stdout.write(json.dumps(took))


def greeted(address: str, roots: bytes) -> float:
    """Seconds of one Hello."""
    began = time.monotonic()
    with suppress(Exception):
        hello(address, roots=roots)
        return time.monotonic() - began
    return max(LOST, time.monotonic() - began)


if __name__ == "__main__":
    main()
