"""Options that several commands of `atoll-sim` have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from simulations.federations import Engine

Named = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A TOML file, or a name: demo, channels, sisters, amazon, strangers, …",
        show_default=False,
    ),
]
Several = Annotated[
    list[str],
    typer.Argument(
        metavar="SCENARIO...",
        help="TOML files, or names: demo, channels, sisters, amazon, strangers, …",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run; left out, one of its own under runs.", show_default=False
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Where the scenario's relative paths start; its folder if left out."),
]
Cache = Annotated[Path, typer.Option(help="Folder of item vectors, shared between runs.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**31 - 1, help="In place of the scenario's seed.", show_default=False),
]
EngineName = Annotated[Engine, typer.Option(help="In one process, or on Flower's Ray engine.")]
Threads = Annotated[int, typer.Option(min=1, max=64, help="Platforms that train at once.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last recorded round.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

CACHE = Path("runs/cache")
THREADS = min(4, os.cpu_count() or 1)
