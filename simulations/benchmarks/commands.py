"""`atoll-sim bench`: commands that print figures, for a program or for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from shared import terminal
from shared.files import replacing
from shared.pairs import MOST_NEAREST, NEAREST
from shared.tables.config import load_platform
from simulations.benchmarks import (
    floor,
    ledger,
    load,
    overhead,
    privacy,
    sasrec,
    sums,
    ties,
    weighing,
)
from simulations.options import CACHE, AsJson, Cache
from simulations.siege import run as siege

cli = typer.Typer(help="Benchmarks: commands that print figures.", no_args_is_help=True)
COUNTS = [5, 10, 25, 50]
EPSILONS = [8.0, 3.0, 1.0]


@cli.command("overhead", epilog="Example: atoll-sim bench overhead --no-ray --json")
def bench_overhead(
    platforms: Annotated[int, typer.Option(min=1, max=10_000, help="No-op platforms.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; the median counts.")] = 20,
    ray: Annotated[bool, typer.Option(help="Also on Flower's Ray engine.")] = True,
    as_json: AsJson = False,
) -> None:
    """Seconds a round with no-op platforms and 1 MiB adapters: the harness, and Flower's Ray."""
    with terminal.showing(quiet=True):
        figures = overhead.measure(platforms=platforms, rounds=rounds, ray=ray)
    missing = "not installed (pip install -e '.[ray]')"
    shown = {name: missing if it is None and not as_json else it for name, it in figures.items()}
    told(shown, as_json=as_json)


@cli.command("privacy", epilog="Example: atoll-sim bench privacy --json")
def bench_privacy(
    batch: Annotated[int, typer.Option(min=1, max=65_536, help="Histories a step.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Time and memory of a step under a Plan, as ratios to a step without one."""
    with terminal.showing(quiet=as_json) as progress:
        told(privacy.measure(batch=batch, progress=progress), as_json=as_json)


@cli.command("ledger", epilog="Example: atoll-sim bench ledger --kills 1000 --json")
def bench_ledger(
    kills: Annotated[int, typer.Option(min=1, max=1_000_000, help="Times to kill -9.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Kill a platform at random moments; count what its ledger forgot, and what it counts twice."""
    with terminal.showing(quiet=as_json) as progress:
        told(ledger.measure(kills=kills, seed=seed, progress=progress), as_json=as_json)


@cli.command("floor", epilog="Example: atoll-sim bench floor --rounds 20 --json")
def bench_floor(
    platforms: Annotated[int, typer.Option(min=1, max=50, help="No-op platforms.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; the median counts.")] = 20,
    flower: Annotated[bool, typer.Option(help="Also on Flower's own programs.")] = True,
    as_json: AsJson = False,
) -> None:
    """Seconds a round between real processes, with no-op training: ours, and stock Flower's."""
    with terminal.showing(quiet=True):
        figures = floor.measure(platforms=platforms, rounds=rounds, flower=flower)
    told(figures, as_json=as_json)


@cli.command("load", epilog="Example: atoll-sim bench load --platforms 5 --platforms 50")
def bench_load(
    platforms: Annotated[
        list[int] | None,
        typer.Option(min=1, max=200, help="So many; may be given again. 5 10 25 50 if left out."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; the median counts.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Memory and seconds a round of one SuperLink under 5 to 50 platforms."""
    with terminal.showing(quiet=True):
        figures = load.measure(platforms=platforms or COUNTS, rounds=rounds)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    terminal.console.print("platforms  s/round  slowest  memory MiB  highest", highlight=False)
    for row in figures["rows"]:
        terminal.console.print(
            f"{row['platforms']:>9}  {row['s_per_round']:>7.2f}  {row['slowest_s']:>7.2f}"
            f"  {row['memory_mib']:>10.0f}  {row['highest_mib']:>7.0f}",
            highlight=False,
        )


@cli.command("sums", epilog="Example: atoll-sim bench sums beauty.toml --splits 6")
def bench_sums(
    platform: Annotated[
        Path, typer.Argument(help="A platform's TOML file, of public rows.", show_default=False)
    ],
    splits: Annotated[int, typer.Option(min=2, max=100, help="Of its shoppers, drawn anew.")] = 6,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Budget of the sums; may be given again. 8, 3 and 1 if left out."),
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, max=MOST_NEAREST, help="Of each item.")] = NEAREST,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """What sums of co-visitation are worth to a table's shoppers in four channels; no test read."""
    with terminal.showing(quiet=as_json) as progress:
        figures = sums.measure(
            load_platform(platform),
            splits=splits,
            epsilons=epsilon or EPSILONS,
            nearest=nearest,
            cache=cache,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, table in figures.items():
        for what, row in table.items():
            terminal.console.print(
                f"{name:<14} {what:<10} {row['ndcg@10']:.4f}  {100 * row['gain']:+6.1f} %"
                f"  ± {100 * row['half']:.1f}",
                highlight=False,
                markup=False,
            )


@cli.command("weighing", epilog="Example: atoll-sim bench weighing toys.toml --on beauty.toml")
def bench_weighing(
    platform: Annotated[
        Path, typer.Argument(help="A TOML file of public rows to learn from.", show_default=False)
    ],
    on: Annotated[
        list[Path] | None,
        typer.Option(help="One to judge by; may be given again.", show_default=False),
    ] = None,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """How loudly signals speak, learnt on one table and judged on others; no test part is read."""
    with terminal.showing(quiet=as_json) as progress:
        others = [load_platform(it) for it in on or []]
        figures = weighing.measure(load_platform(platform), others, cache=cache, progress=progress)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for line in weighing.lines(figures):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)


@cli.command("sasrec", epilog="Example: atoll-sim bench sasrec beauty.toml --recbole PYTHON")
def bench_sasrec(
    platform: Annotated[
        Path, typer.Argument(help="A platform's TOML file, of public rows.", show_default=False)
    ],
    recbole: Annotated[
        Path,
        typer.Option(
            help="Interpreter of an environment with RecBole 1.2.1 and torch.", show_default=False
        ),
    ],
    minutes: Annotated[
        float, typer.Option(min=0, max=10_000, help="Of SASRec's training, at most.")
    ] = 60,
    shuffle: Annotated[
        int | None, typer.Option(min=0, help="Seed to draw the order within ties anew by.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ours beside RecBole's SASRec on one table: HR@10, NDCG@10 and the time to its best."""
    with terminal.showing(quiet=as_json) as progress:
        figures = sasrec.measure(
            load_platform(platform),
            interpreter=recbole,
            minutes=minutes,
            shuffle=shuffle,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for line in sasrec.lines(figures):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)


@cli.command("ties", epilog="Example: atoll-sim bench ties beauty.toml --seeds 3")
def bench_ties(
    platform: Annotated[
        Path, typer.Argument(help="A platform's TOML file, of public rows.", show_default=False)
    ],
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Orders that are drawn.")] = 3,
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """What a platform has by itself, as given and with the order within ties drawn anew."""
    with terminal.showing(quiet=as_json) as progress:
        figures = ties.measure(load_platform(platform), seeds=seeds, cache=cache, progress=progress)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for line in ties.lines(figures):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)


@cli.command("siege", epilog="Example: atoll-sim bench siege --only nonsense-joins --out siege.md")
def bench_siege(
    only: Annotated[
        list[str] | None,
        typer.Option(help="An attack by its name; may be given again. All if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the table here, as Markdown.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack real server processes on loopback; exit code 1 if one does not hold. Some 25 min."""
    rows, outcomes = siege.chosen(only or []), []
    with terminal.showing(quiet=as_json) as progress:
        for number, row in enumerate(rows):
            progress(row.name, number, len(rows))
            outcome = siege.besieged(row)
            outcomes.append(outcome)
            if not as_json:
                for line in siege.lines(outcome):
                    terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([siege.figures(outcome) for outcome in outcomes]))
    if out is not None:
        with replacing(out) as part:
            part.write_text(siege.markdown(outcomes), encoding="utf-8")
    if not all(outcome.finding.passed for outcome in outcomes):
        raise typer.Exit(1)


def told(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """A benchmark's figures, for a program or for people."""
    if as_json:
        typer.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        terminal.console.print(f"{name:<26} {shown}", highlight=False, markup=False)
