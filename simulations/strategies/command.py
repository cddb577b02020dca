"""`atoll-sim strategies`: prepare each seed, compare, write strategies.json and strategies.html."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from clients.beside import own
from clients.kept import validated
from shared import terminal
from shared.errors import ConfigError
from shared.files import made_folder, replacing
from shared.tables.draw import WHOLE
from shared.text import Progress, silent
from simulations.federations import one_core_each
from simulations.options import CACHE, THREADS, AsJson, Cache, Data, Named, Out, Seed, Threads
from simulations.prepare import Ready, prepare
from simulations.run import with_seed
from simulations.scenario import Scenario, find_scenario, load_scenario
from simulations.seeds import release_memory
from simulations.strategies import telling
from simulations.strategies.comparison import Sitting, sit, together
from simulations.strategies.every import STRATEGIES, chosen
from simulations.strategies.meeting import Meeting
from simulations.strategies.page import render_strategies


def strategies(
    scenario: Named,
    out: Out = None,
    data: Data = None,
    cache: Cache = CACHE,
    seed: Seed = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="How many seeds, from the first on.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(STRATEGIES)}; may be given again. All if left out; local is"
            " always run."
        ),
    ] = None,
    threads: Threads = THREADS,
    as_json: AsJson = False,
) -> None:
    """Compare ways to let platforms learn from one another, with a score told before training.

    The folder gets strategies.json and a page, strategies.html.
    """
    chosen = with_seed(load_scenario(find_scenario(scenario), data=data), seed)
    folder = out or Path("runs") / f"{chosen.name}-strategies"
    with terminal.showing(quiet=as_json) as progress:
        found = run_strategies(
            chosen,
            folder,
            cache=cache,
            seeds=seeds,
            only=only or (),
            threads=threads,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(found))
        return
    terminal.console.print(telling.terminal_table(found, width=terminal.console.width))
    if left := left_out(chosen):
        terminal.console.print(left, highlight=False, markup=False, soft_wrap=True)
    for line in (telling.foretold(found), *found["transfer"]["warnings"]):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)
    page = (folder / "strategies.html").resolve()
    terminal.console.print(f"{found['seconds']:.0f} s. {page}", highlight=False, soft_wrap=True)


def run_strategies(
    scenario: Scenario,
    out: Path,
    *,
    cache: Path,
    seeds: int = 1,
    only: Sequence[str] = (),
    threads: int = 1,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compare the strategies and write what was found.

    Args:
        scenario: which platforms; its seed is the first.
        out: folder of the run; a seed's tables and backbone stand under `seed-S` there.
        cache: folder of item vectors.
        seeds: how many, one after the other.
        only: names of strategies; all where there is none.
        threads: platforms that train at once.
        progress: called while it works.

    Returns:
        What strategies.json holds.

    Raises:
        ConfigError: there is no strategy of a name, or no second platform.
        AtollError: the platforms cannot be prepared.
    """
    names = chosen(only)
    check_meeting(scenario)
    began = time.monotonic()
    sittings: list[Sitting] = []
    first = scenario.federation.seed
    for seed in range(first, first + seeds):
        release_memory()  # what the seed before has left
        seeded, place = with_seed(scenario, seed), out / f"seed-{seed}"
        sittings.append(
            sitting(seeded, place, names, cache=cache, threads=threads, progress=progress)
        )
    found = {
        "format": 1,
        "scenario": scenario.name,
        "title": scenario.title,
        "seeds": [sitting.seed for sitting in sittings],
        "atoll": version("atoll"),
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "seconds": time.monotonic() - began,
        **together(sittings, same_shoppers=same_shoppers(scenario), resamples=scenario.resamples),
    }
    texts = {
        "strategies.json": json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "strategies.html": render_strategies(found),
    }
    for name, text in texts.items():
        with replacing(made_folder(out) / name) as part:
            part.write_text(text, encoding="utf-8")
    return found


def sitting(
    scenario: Scenario,
    out: Path,
    names: Sequence[str],
    *,
    cache: Path,
    threads: int,
    progress: Progress,
) -> Sitting:
    """One seed, of which figures alone remain."""
    ready = prepare(scenario, out, cache=cache, seed=scenario.federation.seed, progress=progress)
    with one_core_each():
        return sit(met(scenario, ready, threads=threads, progress=progress), names)


def left_out(scenario: Scenario) -> str:
    """What of a scenario no strategy looks at, in a line; nothing where there is nothing."""
    there = {
        "[sums]": scenario.sums is not None,
        "[privacy]": bool(scenario.privacy.epsilons),
        "[[faults]]": bool(scenario.faults),
    }
    names = [name for name, is_there in there.items() if is_there]
    return f"{', '.join(names)} of {scenario.name} is left out here." if names else ""


def same_shoppers(scenario: Scenario) -> bool:
    """Whether every seed tests the same ones: of whole tables, of which nobody is left out."""
    tables = [platform.events for platform in scenario.platforms]
    return bool(tables) and all(it.part == WHOLE and it.limit is None for it in tables)


def met(scenario: Scenario, ready: Ready, *, threads: int, progress: Progress) -> Meeting:
    """The platforms with each one's untrained state beside its own memory."""
    start = {
        platform.config.name: validated(platform, platform.untrained, beside=own(platform))
        for platform in ready.platforms
    }
    return Meeting(
        scenario,
        ready.platforms,
        start,
        seed=scenario.federation.seed,
        threads=threads,
        progress=progress,
    )


def check_meeting(scenario: Scenario) -> None:
    """Refuse a platform that would meet nobody, before anything is made for it.

    Raises:
        ConfigError: there are fewer than two.
    """
    if len(scenario.names) < 2:
        raise ConfigError(
            "has one platform, which nobody can teach",
            where=scenario.name,
            todo=f"add a second under [[{'world.' if scenario.world else ''}platforms]]",
        )
