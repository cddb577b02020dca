"""`atoll-client pairs`: which items go together here, for an owner of several channels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from clients import derived_files
from clients.readiness import policy_of
from clients.sums import own_pairs
from shared.errors import ConfigError, PlanError
from shared.events import to_date
from shared.pairs import save_pairs
from shared.tables.config import load_platform
from shared.tables.table import check_erasures, read_platform
from shared.terminal import console

EXAMPLE = "Example: atoll-client pairs -p app.toml --out app.pairs"


def pairs(
    platform: Annotated[
        Path, typer.Option("-p", "--platform", help="TOML file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The file of pairs.", show_default=False)],
) -> None:
    """List which items one shopper took together, where a platform protects nobody's rows."""
    config = load_platform(platform)
    if policy_of(config, platform).plan is not None:
        raise PlanError(
            "its shoppers are protected, and this list would tell of them",
            where=platform,
            todo="use the list that the coordinator made from texts",
        )
    if out.exists():
        raise ConfigError("is there already", where=out, todo="name another file")
    rows = read_platform(config)
    made = own_pairs(to_date(rows.histories), rows.catalogue)
    check_erasures(rows, config)
    derived_files.register(config, "pairs", out, digest=made.digest, time=time.time())
    save_pairs(made, out)
    console.print(
        f"{len(made):,} pairs of {len(made.items):,} items\n{out}",
        highlight=False,
        soft_wrap=True,
    )
