"""A ServerApp that runs the real rounds over an Adapter of 1 MiB, and writes down their seconds.

For Flower's own SuperLink it goes into a bundle as server/noop.py; its run configuration names the
file, the number of platforms and of rounds.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.aggregate import fedavg
from server.app import GridNodes
from server.config import FederationSection, federation_from
from server.registry import Registry, RoundReport
from server.rounds import federate
from shared.adapter import Adapter
from shared.asking import Standing

PARTS, BACKBONE, TASK = 4, "no-op", "no-op"
PATIENCE = 120.0  # seconds for all platforms to be there

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Time the rounds."""
    platforms, rounds = int(context.run_config["quorum"]), int(context.run_config["rounds"])
    until = time.monotonic() + PATIENCE
    while len(list(grid.get_node_ids())) < platforms and time.monotonic() < until:
        time.sleep(0.1)
    seconds = timed(grid, platforms=platforms, rounds=rounds)
    Path(str(context.run_config["folder"])).write_text(json.dumps(seconds), encoding="utf-8")


def timed(grid: Grid, *, platforms: int, rounds: int) -> list[float]:
    """Seconds of each round, training and evaluation, on this grid; the disk is left out."""
    clock, rule = Clock(), fedavg()
    federation = replace(federation_from(FederationSection()), rounds=rounds, quorum=platforms)
    federate(GridNodes(grid), rule.init(adapter()), federation, rule, clock)
    return clock.seconds[1:]


def adapter() -> Adapter:
    """1 MiB in four tensors."""
    tensors = {f"part{n}": np.zeros((256, 256), np.float32) for n in range(PARTS)}
    return Adapter(tensors, backbone=BACKBONE, task=TASK)


class Clock(Registry):
    """A registry that keeps nothing but the seconds of each round."""

    def __init__(self) -> None:
        super().__init__(Path("unused"))
        self.seconds: list[float] = []

    def rounds(self) -> list[int]:
        """Rounds so far, the untrained one included."""
        return list(range(len(self.seconds)))

    def standing(self) -> Standing:
        """Nothing is remembered."""
        return Standing()

    def remember(self, standing: Standing) -> None:
        """Nothing is."""

    def record(self, state: object, report: RoundReport) -> None:
        """Keep the seconds."""
        self.seconds.append(report.seconds)
