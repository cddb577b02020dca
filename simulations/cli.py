"""`atoll-sim`: what a researcher or newcomer types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from server.registry import Registry
from shared import terminal
from shared.errors import ConfigError
from shared.terminal import encodable
from simulations import audit
from simulations.benchmarks import commands as bench
from simulations.federations import federate
from simulations.options import (
    CACHE,
    THREADS,
    AsJson,
    Cache,
    Data,
    EngineName,
    Named,
    Out,
    Resume,
    Seed,
    Several,
    Threads,
)
from simulations.planning.command import plan
from simulations.prepare import check_there, prepare
from simulations.report import terminal_table
from simulations.run import check_start, full_comparison, with_seed
from simulations.scenario import Scenario, find_scenario, load_scenario
from simulations.seeds import rows, run_seeds
from simulations.strategies.command import strategies
from simulations.worlds.embedded import generate, write
from simulations.worlds.specs import default_world, source_world

NAMES = 14  # characters of a platform's name that stand before its rows

cli = typer.Typer(
    name="atoll-sim",
    help="A whole federation in one process: run it, compare it, benchmark it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(bench.cli, name="bench")


@cli.command(epilog="Example: atoll-sim run demo --out runs/rounds-only")
def run(
    scenario: Named,
    out: Out = None,
    data: Data = None,
    cache: Cache = CACHE,
    seed: Seed = None,
    engine: EngineName = "in-process",
    threads: Threads = THREADS,
    resume: Resume = False,
) -> None:
    """Run the rounds of a scenario, without comparing; they are recorded in the run's folder."""
    chosen = with_seed(load_scenario(find_scenario(scenario), data=data), seed)
    folder = out or Path("runs") / chosen.name
    if Registry(folder).rounds() and not resume:
        raise ConfigError(
            "holds rounds already", where=folder, todo="use --resume, or name another --out"
        )
    check_start(chosen, folder, engine=engine, resume=resume)
    with terminal.showing() as progress:
        ready = prepare(
            chosen,
            folder,
            cache=cache,
            seed=chosen.federation.seed,
            resume=resume,
            progress=progress,
        )
        registry = federate(chosen, ready, folder, engine=engine, threads=threads, resume=resume)
    last = registry.rounds()[-1]
    state, _report = registry.load(last)
    terminal.console.print(
        f"round {last}, adapter {state.adapter.digest}\n{registry.adapter_path(last)}",
        highlight=False,
        soft_wrap=True,
    )


@cli.command(epilog="Example: atoll-sim compare channels sisters --untrained --seeds 5 --data data")
def compare(
    scenario: Several,
    out: Out = None,
    data: Data = None,
    cache: Cache = CACHE,
    seed: Seed = None,
    engine: EngineName = "in-process",
    threads: Threads = THREADS,
    resume: Resume = False,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Train nothing: text, memory, and sums if any.")
    ] = False,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=100, help="So many seeds from the first on, and what they say."),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Run scenarios and every baseline beside each; write tables, reports and the adapters.

    Of several scenarios each has a folder by its name in --out, and with --json a line. Rounds that
    a folder holds already are replaced, unless they are resumed.
    """
    chosen = [with_seed(load_scenario(find_scenario(it), data=data), seed) for it in scenario]
    folders = {it.name: (out or Path("runs")) / it.name for it in chosen}
    if len(folders) < len(chosen):
        raise ConfigError("scenarios of one name would share a folder", todo="name each once")
    if out is not None and len(chosen) == 1:
        folders = {chosen[0].name: out}
    how: dict[str, Any] = {
        "cache": cache,
        "engine": engine,
        "threads": threads,
        "untrained": untrained,
    }
    # Before the first of them takes its minutes.
    for platform in (it for one in chosen for it in one.platforms):
        check_there(platform)
    for one in chosen:
        folder = folders[one.name]
        if seeds > 1:
            _compare_seeds(one, folder, seeds, resume=resume, as_json=as_json, how=how)
        else:
            # Of several, those that were not begun have nothing to resume.
            begun = len(chosen) == 1 or bool(Registry(folder).rounds())
            _compare_once(one, folder, resume=resume and begun, as_json=as_json, how=how)


def _compare_once(
    chosen: Scenario, folder: Path, *, resume: bool, as_json: bool, how: Mapping[str, Any]
) -> None:
    with terminal.showing(quiet=as_json) as progress:
        metrics = full_comparison(chosen, folder, resume=resume, progress=progress, **how)
    if as_json:
        typer.echo(json.dumps(summary(metrics)))
        return
    terminal.console.print(terminal_table(metrics, width=terminal.console.width))
    for name, entry in metrics["platforms"].items():
        if entry.get("dropped"):
            line = f"{name}, left out: {', '.join(entry['dropped'])}"
            terminal.console.print(line, highlight=False, soft_wrap=True, markup=False)
    place = f"Each platform's file is in {folder / 'platforms'}"
    if any((folder / "adapters").glob("*.safetensors")):
        place += f", its adapter in {folder / 'adapters'}"
    terminal.console.print(
        f"{metrics['seconds']:.0f} s, at most {metrics['peak_memory_gb']:.1f} GB of memory."
        f" Report: {(folder / 'report.html').resolve()}\n"
        f"{place}: see atoll-client recommend --help.",
        highlight=False,
        soft_wrap=True,
    )


def _compare_seeds(
    chosen: Scenario,
    folder: Path,
    seeds: int,
    *,
    resume: bool,
    as_json: bool,
    how: Mapping[str, Any],
) -> None:
    with terminal.showing(quiet=as_json) as progress:

        def under(number: int, place: Path) -> dict[str, Any]:
            return full_comparison(with_seed(chosen, number), place, progress=progress, **how)

        first = chosen.federation.seed
        found = run_seeds(range(first, first + seeds), folder, under, resume=resume)
    if as_json:
        typer.echo(json.dumps(found))
        return
    terminal.console.print(chosen.title, highlight=False, markup=False, soft_wrap=True)
    for line in seed_lines(rows(found)):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)
    terminal.console.print(str((folder / "seeds.html").resolve()), highlight=False, soft_wrap=True)


def seed_lines(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows of `seeds.rows` for people: a platform's name before each, or above all if long."""
    scorers = max((len(encodable(row[1])) for row in table), default=0)
    beside = all(len(row[0]) <= NAMES for row in table)
    last = None
    for name, scorer, hits, gain, over, interval, p in table:
        if not beside and name != last:
            yield name
        last = name
        start = f"{name:<{NAMES}}" if beside else " "
        scorer = f"{encodable(scorer):<{max(scorers, NAMES)}}"
        yield f"{start} {scorer} {hits}  {gain}  {over:>9}  {interval:>20}  {p}"


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What `compare --json` prints: each scorer's figures on each platform."""
    names = ("n", "hr@10", "ndcg@10", "mrr")
    return {
        "platforms": {
            name: {
                scorer: {
                    **{key: row[key] for key in names},
                    "ci95": {"ndcg@10": row["ci95"]["ndcg@10"]},
                }
                for scorer, row in platform["scorers"].items()
            }
            for name, platform in metrics["platforms"].items()
        },
        "scenario": metrics["scenario"],
        "seed": metrics["seed"],
    }


@cli.command("audit", epilog="Example: atoll-sim audit --epsilon 1 --epsilon 3")
def audit_command(
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Claim to audit; may be given again. 1 and 3 if left out."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of audit.json and audit.html.")] = Path(
        "runs/audit"
    ),
    cache: Cache = CACHE,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Attack our own claims: canaries, sampling, ledger, membership, inversion. Red is exit 1."""
    with terminal.showing(quiet=as_json) as progress:
        result = audit.run_audit(
            out, cache=cache, epsilons=epsilon or audit.EPSILONS, seed=seed, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(result))
    else:
        for line in audit.summary(result):
            terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)
        terminal.console.print(str(out / "audit.html"), highlight=False, soft_wrap=True)
    if not audit.passed(result):
        raise typer.Exit(1)


cli.command(epilog="Example: atoll-sim strategies demo --seeds 3")(strategies)
cli.command("plan", epilog="Example: atoll-sim plan --mine 2000 --all 60000 --epsilon 3")(plan)


@cli.command(epilog="Example: atoll-sim worlds --out worlds --scale 0.1")
def worlds(
    out: Annotated[
        Path | None,
        typer.Option(help="Write the tables here; left out, only say what there is."),
    ] = None,
    scale: Annotated[float, typer.Option(min=0.01, max=100, help="Of the shoppers' number.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the world.")] = 0,
    source: Annotated[
        bool, typer.Option("--source", help="The public source world, for atoll-server pretrain.")
    ] = False,
) -> None:
    """Describe the embedded world, or write its platforms as tables anyone can read."""
    spec = source_world(scale) if source else default_world(scale)
    for platform in spec.platforms:
        terminal.console.print(
            f"{platform.name:<12} {platform.shoppers:>6,} shoppers {platform.items:>6,} items"
            f"  {platform.law}",
            highlight=False,
        )
    if out is None:
        return
    for path in write(generate(spec, seed=seed), out).values():
        terminal.console.print(str(path), highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point."""
    terminal.run(cli)


if __name__ == "__main__":
    main()
