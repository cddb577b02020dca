"""`atoll-client erase`: take shoppers out of all that is kept here of their rows, with a record."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clients.commands.recommend import AsJson
from clients.erasure import Outcome
from clients.erasure import erase as erased
from clients.erasure_plan import Request
from clients.erasure_record import verify_record
from clients.membership import home_of
from shared import terminal
from shared.errors import ConfigError
from shared.strict_parsing import toml_table
from shared.tables.config import load_platform

EXAMPLE = "Example: atoll-client erase -p boutique.toml --file erase.txt --rewrite-table"
MOST = 1_000_000  # identifiers in one file


def erase(
    shopper: Annotated[
        list[str] | None,
        typer.Argument(
            help="Identifiers as the table has them. A shell keeps what is typed: see --file.",
            show_default=False,
        ),
    ] = None,
    platform: Annotated[
        Path | None,
        typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="File of identifiers, one a line; - is standard input."),
    ] = None,
    rewrite_table: Annotated[
        bool,
        typer.Option("--rewrite-table", help="Take the rows out of the platform's own table too."),
    ] = False,
    copy: Annotated[
        list[Path] | None,
        typer.Option(
            help="A copy of the table to take the rows out of; may be given several times.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="A model made here from rows that was moved; may be given several times.",
            show_default=False,
        ),
    ] = None,
    keep_models: Annotated[
        bool,
        typer.Option(
            "--keep-models", help="Leave models until others are trained; not complete until then."
        ),
    ] = False,
    models_deleted: Annotated[
        bool,
        typer.Option(
            "--models-deleted", help="State that models that were moved were deleted by hand."
        ),
    ] = False,
    absent: Annotated[
        bool, typer.Option("--absent", help="List shoppers too of whom there is no row.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a round that is being trained.")
    ] = 600.0,
    home: Annotated[
        Path | None,
        typer.Option(help="Its folder after joining; left out, NAME.atoll beside the file."),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(help="Check the signature of a record instead.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase shoppers from tables, caches and models, and write a signed record of it.

    From then on no command reads their rows, whatever the table holds. Exit code 0: complete.
    1: the record says what remains to be done by hand. 2: refused, and nothing was done.
    """
    if (platform is None) == (verify is None):
        raise ConfigError("need either --platform or --verify", todo="give exactly one of them")
    if verify is not None:
        _print(verified_lines(verify_record(verify)))
        return
    assert platform is not None
    config = load_platform(platform)
    request = Request(
        config=config,
        file=platform.resolve(),
        home=(home or home_of(platform, config.name)).resolve(),
        shoppers=tuple(dict.fromkeys([*given(shopper or ()), *(read_file(file) if file else ())])),
        rewrite=rewrite_table,
        copies=tuple(path.resolve() for path in copy or ()),
        models=tuple(path.resolve() for path in model or ()),
        keep_models=keep_models,
        models_deleted=models_deleted,
        absent=absent,
        wait=wait,
    )
    outcome = erased(request, dry_run=dry_run)
    if as_json:
        told = {"record": str(outcome.record) if outcome.record else None, **outcome.facts}
        terminal.console.print_json(json.dumps(told))
    else:
        if outcome.record is not None:
            _print(place_lines(platform, request.list_path))
        _print(outcome_lines(outcome, dry_run=dry_run))
    if not outcome.complete:
        raise typer.Exit(1)


def given(shoppers: Iterator[str] | list[str] | tuple[str, ...]) -> list[str]:
    """Identifiers without the spaces around them, as the reader takes them.

    Raises:
        ConfigError: one is empty; named by its place.
    """
    names = [shopper.strip() for shopper in shoppers]
    if "" in names:
        todo = "leave it out"
        raise ConfigError(f"identifier {names.index('') + 1} is empty", todo=todo)
    return names


def read_file(path: Path) -> list[str]:
    """Identifiers of a file, one a line; empty lines are left out.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, has none, or too many.
    """
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        names = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(f"cannot be read ({why})", where=path, todo="name another") from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", where=path, todo="write it in UTF-8") from None
    found = [name for name in names if name]
    if not 0 < len(found) <= MOST:
        todo = f"give from 1 to {MOST:,}, one a line"
        raise ConfigError(f"has {len(found):,} identifiers", where=path, todo=todo)
    return found


def outcome_lines(outcome: Outcome, *, dry_run: bool) -> Iterator[str]:
    """An Outcome for people."""
    facts = outcome.facts
    if dry_run:
        yield "DRY RUN: nothing was changed. An erasure would do this:"
    for path in outcome.resumed:
        yield f"an erasure that was interrupted is carried out: {path}"
    if outcome.record is None and not dry_run:
        yield "nothing is left to remove here: all of this was erased before"
    yield f"{len(facts['shoppers'])} shoppers, by keyed hash in {facts['erasure_list']['file']}"
    for table in facts["tables"]:
        yield f"{table['file']}: {table['rows_removed']} rows removed, {table['rows_left']} left"
    for each in facts["deleted"]:
        yield f"{each['file']}: deleted ({each['what']})"
    releases = facts["earlier_releases"]
    count = len(releases.get("releases", ()))
    yield f"{count} earlier releases. {releases['explanation']}"
    for line in facts["warnings"]:
        yield f"warning: {line}"
    for line in facts["remaining"]:
        yield f"REMAINS: {line}"
    if outcome.record is not None:
        yield f"{facts['status']}: {outcome.record}"


def place_lines(platform: Path, erasure_list: Path) -> Iterator[str]:
    """What to write into the TOML file, so that the list is found after a change of it."""
    if toml_table(platform.read_bytes())["events"].get("erased") is None:
        folder = Path(os.path.abspath(platform)).parent
        inside = erasure_list.is_relative_to(folder)
        path = str(erasure_list.relative_to(folder) if inside else erasure_list)
        written = json.dumps(path, ensure_ascii=False)
        yield f"write under [events] of {platform}: erased = {written}"


def verified_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """What is known of a record whose signature holds."""
    facts = document["facts"]
    yield f"signature holds: facts {document['digest']}, key {document['fingerprint']}"
    rows = sum(table["rows_removed"] for table in facts["tables"])
    yield (
        f"{facts['platform']}, record {facts['number']} of {facts['made']}, {facts['status']}:"
        f" {len(facts['shoppers'])} shoppers, {rows} rows removed"
    )


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        terminal.console.print(line, highlight=False, soft_wrap=True, markup=False)
