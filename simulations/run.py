"""One scenario, from its file to recorded rounds: prepare → federate → (compare → report)."""

from __future__ import annotations

import logging
import os
import platform as machine
import resource
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clients.kept import Kept
from server.registry import Registry
from shared.adapter import save_adapter
from shared.errors import ConfigError
from shared.files import made_folder
from shared.text import Progress, silent
from simulations.compare import compare, compare_untrained
from simulations.federations import Engine, federate, federate_privately, one_core_each, sum_up
from simulations.harness import require_ray
from simulations.prepare import prepare
from simulations.protected import scorer_name, told
from simulations.report import write_report
from simulations.scenario import Scenario

log = logging.getLogger("atoll.harness")


def with_seed(scenario: Scenario, seed: int | None) -> Scenario:
    """The scenario under another seed, which draws other shoppers into a table's part or limit.

    Of a world it makes another. Under its own seed it is the scenario as its file has it.
    """
    if seed is None:
        return scenario
    further = seed - scenario.federation.seed
    platforms = tuple(
        replace(it, events=replace(it.events, draw=(it.events.draw + further) % 2**31))
        for it in scenario.platforms
    )
    federation = replace(scenario.federation, seed=seed)
    return replace(scenario, federation=federation, platforms=platforms)


def check_start(scenario: Scenario, out: Path, *, engine: Engine, resume: bool) -> None:
    """Refuse a federation that cannot start, before anything is made for it.

    Raises:
        ConfigError: Ray is not installed or is to simulate faults, the quorum is larger than the
            number of platforms, or there is nothing to resume.
    """
    platforms = len(scenario.names)
    if scenario.federation.quorum > platforms:
        count = f"{platforms} platform{'' if platforms == 1 else 's'}"
        raise ConfigError(
            f"quorum {scenario.federation.quorum} cannot be met by {count}",
            where=scenario.name,
            todo="lower quorum" if platforms > 1 else "train it alone with atoll-sim compare",
        )
    if resume and not Registry(out).rounds():
        raise ConfigError("holds no rounds to resume", where=out, todo="leave --resume out")
    if engine == "ray":
        require_ray()
        if scenario.faults:
            raise ConfigError(
                "the Ray engine simulates no faults",
                where=scenario.name,
                todo="use --engine in-process, or leave [[faults]] out",
            )


def check_alone(scenario: Scenario, *, resume: bool) -> None:
    """Say that one platform federates with nobody.

    Raises:
        ConfigError: there are no rounds that could be resumed.
    """
    if resume:
        raise ConfigError(
            "has one platform, so there are no rounds to resume",
            where=scenario.name,
            todo="leave --resume out",
        )
    log.info("%s has one platform: nothing is federated, it is trained alone", scenario.name)


def clear(out: Path) -> None:
    """Forget the rounds and results of an earlier run, so that none is taken for this one's."""
    Registry(out).clear()
    for name in ("report.html", "metrics.json", "table.md"):
        (out / name).unlink(missing_ok=True)
    for folder in ("adapters", "private", "sums"):
        shutil.rmtree(out / folder, ignore_errors=True)


def full_comparison(
    scenario: Scenario,
    out: Path,
    *,
    cache: Path,
    engine: Engine = "in-process",
    threads: int = 1,
    resume: bool = False,
    untrained: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Prepare, federate, compare, and write metrics.json, table.md, report.html and adapters.

    A scenario of one platform is compared without a federation: it is trained alone.

    Args:
        scenario: what to run.
        out: folder of this run; rounds recorded there are forgotten unless resumed.
        cache: folder of item vectors.
        engine: the harness, or Flower's Ray engine.
        threads: platforms that train at once.
        resume: go on from the last recorded round.
        untrained: compare only what needs no training: sums are taken, and no round is run.
        progress: called while it works.

    Returns:
        What metrics.json holds.
    """
    alone = len(scenario.names) == 1
    if alone:
        check_alone(scenario, resume=resume)
    elif not untrained or scenario.sums is not None:
        check_start(scenario, out, engine=engine, resume=resume)
    began, started = time.monotonic(), datetime.now(UTC)
    seed = scenario.federation.seed
    ready = prepare(
        scenario,
        out,
        cache=cache,
        seed=seed,
        resume=resume,
        trained=not untrained,
        progress=progress,
    )
    if not resume:
        clear(out)
    kept: dict[str, Kept] = {}
    if untrained and (alone or scenario.sums is None):
        found = compare_untrained(scenario, ready.platforms, seed=seed, progress=progress)
    elif alone:
        with one_core_each():
            found, kept = compare(
                scenario, ready.platforms, None, seed=seed, threads=threads, progress=progress
            )
    else:
        how: dict[str, Any] = {"engine": engine, "threads": threads, "resume": resume}
        sums = sum_up(scenario, ready, out, **how)
        if not untrained:
            federate(scenario, ready, out, **how)
        private = federate_privately(scenario, ready, out, rounds=not untrained, **how)
        with one_core_each():
            found, kept = compare(
                scenario,
                ready.platforms,
                Registry(out),
                sums=sums,
                private={scorer_name(it): private[it][1:] for it in private},
                training=not untrained,
                seed=seed,
                threads=threads,
                progress=progress,
            )
        found["privacy"] = told(private)
    first = ready.platforms[0]
    metrics: dict[str, Any] = {
        "format": 1,
        "scenario": scenario.name,
        "title": scenario.title,
        "seed": seed,
        "world": scenario.world is not None,
        "atoll": version("atoll"),
        "versions": {name: version(name) for name in ("torch", "flwr", "transformers", "numpy")},
        "machine": f"{os.cpu_count()} cores, {machine.machine()}, {machine.system()}",
        "started": started.isoformat(timespec="seconds"),
        "seconds": time.monotonic() - began,
        # Linux counts in KiB.
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "backbone": {
            "digest": first.digest,
            "encoder": scenario.encoder,
            "trainable": first.untrained.size,
            "adapter_bytes": 4 * first.untrained.size,
        },
        **found,
    }
    adapters = made_folder(out / "adapters")
    for name, state in kept.items():
        # What one platform trained alone, on bare rows, is not for others to read.
        save_adapter(state.adapter, adapters / f"{name}.safetensors", private=alone)
    write_report(metrics, out)
    return metrics
