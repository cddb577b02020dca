"""One scenario, from its file to recorded rounds: prepare → federate → (compare → report)."""

from __future__ import annotations

import os
import platform as machine
import resource
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from clients.app import app as client_app
from server.app import app as server_app
from server.registry import Registry
from shared.adapter import save_adapter
from shared.files import folder
from shared.text import Progress, silent
from simulations.candidates import Kept
from simulations.compare import compare, compare_untrained
from simulations.harness import Config, require_ray, run_in_process, run_on_ray
from simulations.prepare import Ready, prepare
from simulations.report import write_report
from simulations.scenario import Scenario

Engine = Literal["in-process", "ray"]


def with_seed(scenario: Scenario, seed: int | None) -> Scenario:
    """The scenario under another seed."""
    if seed is None:
        return scenario
    return replace(scenario, federation=replace(scenario.federation, seed=seed))


def federate(
    scenario: Scenario,
    ready: Ready,
    out: Path,
    *,
    engine: Engine = "in-process",
    threads: int = 1,
    resume: bool = False,
) -> Registry:
    """Run the rounds of a scenario with the deployed apps; they are recorded under `out`.

    Args:
        scenario: how the rounds go.
        ready: the platforms.
        out: folder of this run.
        engine: the harness, or Flower's Ray engine.
        threads: platforms that train at once, in process.
        resume: go on from the last recorded round.

    Raises:
        AtollError: the federation cannot start or go on.
    """
    config: Config = {
        **asdict(scenario.federation),
        "backbone": str(ready.backbone),
        "folder": str(out.resolve()),
        "resume": resume,
    }
    nodes: dict[str, Config] = {name: {"platform": str(file)} for name, file in ready.files.items()}
    if engine == "ray":
        run_on_ray(server_app, client_app, run_config=config, nodes=nodes)
    else:
        run_in_process(
            server_app,
            client_app,
            run_config=config,
            nodes=nodes,
            threads=threads,
            faults=scenario.faults,
        )
    return Registry(out)


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

    Args:
        scenario: what to run.
        out: folder of this run; rounds recorded there are forgotten unless resumed.
        cache: folder of item vectors.
        engine: the harness, or Flower's Ray engine.
        threads: platforms that train at once.
        resume: go on from the last recorded round.
        untrained: compare only what needs no training, without a federation.
        progress: called while it works.

    Returns:
        What metrics.json holds.
    """
    if engine == "ray":
        require_ray()
    began, started = time.monotonic(), datetime.now(UTC)
    seed = scenario.federation.seed
    ready = prepare(scenario, out, cache=cache, seed=seed, progress=progress)
    kept: dict[str, Kept] = {}
    if untrained:
        found = compare_untrained(scenario, ready.platforms, seed=seed, progress=progress)
    else:
        if not resume:
            Registry(out).clear()
        registry = federate(scenario, ready, out, engine=engine, threads=threads, resume=resume)
        found, kept = compare(
            scenario, ready.platforms, registry, seed=seed, threads=threads, progress=progress
        )
    first = ready.platforms[0]
    metrics: dict[str, Any] = {
        "format": 1,
        "scenario": scenario.name,
        "title": scenario.title,
        "seed": seed,
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
    adapters = folder(out / "adapters")
    for name, state in kept.items():
        save_adapter(state.adapter, adapters / f"{name}.safetensors")
    write_report(metrics, out)
    return metrics


def use_threads(threads: int) -> None:
    """Share the cores between platforms: with several at once, each computes on one."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // threads))
