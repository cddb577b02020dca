"""`atoll-sim plan`: options in, plan.json and plan.html out."""

from __future__ import annotations

import json
import os
import platform as machine
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from shared import terminal
from shared.files import made_folder, replacing
from shared.pairs import A_SHOPPER, MOST_NEAREST, NEAREST
from simulations.federations import one_core_each
from simulations.options import CACHE, AsJson, Cache
from simulations.planning.findings import assumptions, table, told
from simulations.planning.grid import cases, check_epsilons, embedded, from_table
from simulations.planning.joining import Asked, Point, measure, rows
from simulations.planning.page import render_plan

EPSILONS = (8.0, 3.0, 1.0)

All = Annotated[
    list[int] | None,
    typer.Option(
        "--all",
        min=1,
        help="Shoppers of the federation; may be given again. 1,000 to 300,000, or to all that the"
        " table has, if left out.",
    ),
]
Mine = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        help="Shoppers of the platform that asks; may be given again. 300, 1,000 and 3,000 if left"
        " out.",
    ),
]
Share = Annotated[
    list[float] | None,
    typer.Option(help="In place of --mine, its share of the federation; may be given again."),
]
Epsilon = Annotated[
    list[float] | None,
    typer.Option(
        help="Budget of every platform's sums; may be given again. 8, 3 and 1 if left out."
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        help="A platform's TOML file whose shoppers are divided; left out, the embedded world's."
    ),
]
Others = Annotated[int, typer.Option(min=1, max=100, help="Platforms beside the one that asks.")]
Draws = Annotated[int, typer.Option(min=2, max=100, help="Times the shoppers are divided anew.")]
Nearest = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_NEAREST,
        help=f"Pairs of each item with so many; {NEAREST}, or about {A_SHOPPER} pairs a shopper.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything.")]
Out = Annotated[Path, typer.Option(help="Folder of plan.json and plan.html.")]


# Of `assumptions`, what changes the answer most; the page has them all.
ASSUMED = (
    "This assumes platforms of one catalogue, shoppers alike, and the whole ε for one release of "
    "sums. Shops that differ may gain less."
)


def plan(
    everyone: All = None,
    mine: Mine = None,
    share: Share = None,
    epsilon: Epsilon = None,
    platform: Table = None,
    others: Others = 4,
    draws: Draws = 8,
    nearest: Nearest = None,
    seed: Seed = 0,
    out: Out = Path("runs/plan"),
    cache: Cache = CACHE,
    as_json: AsJson = False,
) -> None:
    """Draw what joining a federation gains, by its size and by ε: from where on it pays."""
    epsilons = check_epsilons(epsilon or EPSILONS)
    find = partial(cases, mine or (), share or (), everyone or (), others=others)
    # Refused, if it must be, before anything is made; how many a table has is in the table.
    chosen = find() if platform is None else find(shoppers=sys.maxsize)
    started, began = datetime.now(UTC), time.monotonic()
    with terminal.showing(quiet=as_json) as progress, one_core_each():
        if platform is None:
            largest = max(it.everyone for it in chosen)
            ground = embedded(largest, nearest=nearest, cache=cache, seed=seed, progress=progress)
        else:
            ground = from_table(platform, nearest=nearest, cache=cache, progress=progress)
            chosen = find(shoppers=ground.shoppers)
        made_folder(out)
        asked = Asked(chosen, epsilons, draws=draws, others=others, seed=seed)
        points = measure(ground.whole, ground.listed, asked, progress=progress)
    sizes = sorted({it.everyone for it in chosen})
    facts = {
        "format": 2,
        "atoll": version("atoll"),
        "ground": ground.name,
        "shoppers": ground.shoppers,
        "items": len(ground.whole.rows.catalogue),
        "pairs": {it: len(ground.listed(it).pairs) for it in sizes},
        "others": others,
        "draws": draws,
        "nearest": nearest,
        "seed": seed,
        "versions": {name: version(name) for name in ("torch", "numpy", "scipy", "dp-accounting")},
        "machine": f"{os.cpu_count()} cores, {machine.machine()}, {machine.system()}",
        "started": started.isoformat(timespec="seconds"),
        "seconds": time.monotonic() - began,
    }
    told_at_last(points, asked, facts, out=out, as_json=as_json)


def told_at_last(
    points: Sequence[Point], asked: Asked, facts: dict[str, Any], *, out: Path, as_json: bool
) -> None:
    """Write plan.json and plan.html, and print what they say."""
    assumes = assumptions(
        asked,
        ground=facts["ground"],
        shoppers=facts["shoppers"],
        nearest=facts["nearest"],
        pairs=facts["pairs"],
    )
    says = told(points, asked)
    result = {**facts, "points": rows(points), "says": says, "assumes": assumes}
    written = {
        "plan.json": json.dumps(result, indent=1, ensure_ascii=False) + "\n",
        "plan.html": render_plan(points, asked, assumes=assumes, facts=facts),
    }
    for name, text in written.items():
        with replacing(out / name) as part:
            part.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result))
        return
    shown = (
        says[: len(asked.epsilons)] if len(asked.cases) == 1 else [*table(points, asked), "", *says]
    )
    for line in (*shown, ASSUMED, str(out / "plan.html")):
        terminal.console.print(line, highlight=False, markup=False, soft_wrap=True)
