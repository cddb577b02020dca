"""The federations of a scenario, by the deployed apps: rounds, sums, and both under Plans."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from threadpoolctl import threadpool_limits

from clients.app import SIMULATED, close
from clients.app import app as client_app
from server.app import app as server_app
from server.config import one_round
from server.registry import Registry
from simulations.beside import Taken
from simulations.harness import Config, Fault, run_in_process, run_on_ray
from simulations.prepare import Ready
from simulations.protected import Protected, protected, write
from simulations.scenario import Scenario

log = logging.getLogger("atoll.harness")
Engine = Literal["in-process", "ray"]


def federate(
    scenario: Scenario,
    ready: Ready,
    out: Path,
    *,
    engine: Engine = "in-process",
    threads: int = 1,
    resume: bool = False,
    under: Protected | None = None,
) -> Registry:
    """Run the rounds of a scenario with the deployed apps; they are recorded under `out`.

    Args:
        scenario: how the rounds go.
        ready: the platforms.
        out: folder of this run.
        engine: the harness, or Flower's Ray engine.
        threads: platforms that train at once, in process.
        resume: go on from the last recorded round.
        under: Plans, and the rounds that go with them, in place of the scenario's.

    Raises:
        AtollError: the federation cannot start or go on.
    """
    federation = under.federation if under else scenario.federation
    files = under.files if under else ready.files
    config: Config = {
        **asdict(federation),
        "backbone": str(ready.backbone),
        "folder": str(out.resolve()),
        "resume": resume,
    }
    driven(config, files, engine=engine, threads=threads, faults=scenario.faults)
    return Registry(out)


def sum_up(
    scenario: Scenario,
    ready: Ready,
    out: Path,
    *,
    engine: Engine = "in-process",
    threads: int = 1,
    resume: bool = False,
    under: Protected | None = None,
) -> Taken | None:
    """Take the sums of a scenario that wants them, in a federation of one round under `out`/sums.

    Arguments as of `federate`; no fault strikes here.
    """
    pairs = ready.near if under else ready.met
    if pairs is None:
        return None
    folder = out.resolve() / "sums"
    federation = under.federation if under else scenario.federation
    configs = under.configs if under else [it.config for it in ready.platforms]
    taken = Taken(Registry(folder), {config.name: config for config in configs})
    if not resume:
        taken.registry.clear()
    rounds = taken.registry.rounds()
    if rounds[-1:] != [1]:
        config: Config = {
            **asdict(one_round(federation)),
            "pairs": str(pairs),
            "folder": str(folder),
            "resume": bool(rounds),
        }
        files = under.files if under else ready.files
        driven(config, files, engine=engine, threads=threads)
    return taken


def driven(
    config: Config,
    files: Mapping[str, Path],
    *,
    engine: Engine,
    threads: int,
    faults: Sequence[Fault] = (),
) -> None:
    """One run of the deployed apps; `files` are the platforms', by name."""
    nodes: dict[str, Config] = {
        name: {"platform": str(file), SIMULATED: config["seed"]} for name, file in files.items()
    }
    if engine == "ray":
        run_on_ray(server_app, client_app, run_config=config, nodes=nodes)
        return
    try:
        with one_core_each():
            run_in_process(
                server_app,
                client_app,
                run_config=config,
                nodes=nodes,
                threads=threads,
                faults=faults,
            )
    finally:
        close(files.values())


def federate_privately(
    scenario: Scenario,
    ready: Ready,
    out: Path,
    *,
    engine: Engine = "in-process",
    threads: int = 1,
    resume: bool = False,
    rounds: bool = True,
) -> dict[float, tuple[Protected, Registry, Taken | None]]:
    """The same under Plans, once for each ε of the scenario; sums alone, if there are no rounds."""
    if not rounds and ready.near is None:
        return {}
    plans = [
        protected(scenario, ready.platforms, out, epsilon=epsilon, pairs=ready.near)
        for epsilon in scenario.privacy.epsilons
    ]
    runs = {}
    for it in plans:
        log.info("federation under epsilon %g, with simulated noise", it.epsilon)
        again = resume and bool(Registry(it.out).rounds())
        write(it, resume=again)
        how: dict[str, Any] = {"engine": engine, "threads": threads, "resume": again, "under": it}
        taken = sum_up(scenario, ready, it.out, **how)
        if rounds:
            federate(scenario, ready, it.out, **how)
        runs[it.epsilon] = (it, Registry(it.out), taken)
    return runs


@contextlib.contextmanager
def one_core_each() -> Iterator[None]:
    """Each training computes on one core, so that `--threads` changes the time and not a bit.

    NumPy's products too, which else wait for one another on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
