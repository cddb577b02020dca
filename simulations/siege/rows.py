"""One row of the siege: an attack, what is required of the server, and what was observed.

    Row(name, attack, required, run, limit) ─run(empty folder)→ Finding(observed, passed)

A row runs in a process of its own (`one.py`), in a session of its own: when it takes longer than
its limit, it is killed with all that it started, and counts as failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """What an attack did.

    Attributes:
        observed: one line with figures and units.
        passed: whether it meets what is required.
    """

    observed: str
    passed: bool


@dataclass(frozen=True)
class Row:
    """An attack that the siege runs.

    Attributes:
        name: by which it is chosen on the command line; words joined by hyphens.
        attack: what is done, in one line.
        required: what must hold, in one line.
        run: does it in an empty folder. Servers listen on loopback, on ports that are free, and
            every process that it started has ended when it returns.
        limit: seconds after which it is killed.
    """

    name: str
    attack: str
    required: str
    run: Callable[[Path], Finding]
    limit: float
