"""`atoll-server`: what the coordinator types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

# Else gRPC's core writes lines of its own on standard error; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import typer

from server import pairs as listing
from server import pretrain as pretraining
from server.commands import audit, doctor, enrolment, models, restored
from server.commands import release as releasing
from server.commands import up as serving
from server.registry import Registry
from shared import terminal
from shared.catalogue import Catalogue
from shared.errors import ColumnError, ConfigError
from shared.pairs import MOST_NEAREST, NEAREST, load_pairs, nearest_for, save_pairs
from shared.tables.config import ItemTable, load_platform
from shared.tables.formats import format_of
from shared.tables.table import read_catalogue
from shared.text import DEFAULT_ENCODER

cli = typer.Typer(
    name="atoll-server",
    help="The coordinator's side: enrol platforms, run rounds, keep what they made.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def _server() -> None:
    """The coordinator's side: enrol platforms, run rounds, keep what they made."""


for name, example in enrolment.EXAMPLES.items():
    cli.command(name, epilog=example)(getattr(enrolment, name))
cli.command("accept-restored", epilog=restored.EXAMPLES["accept_restored"])(
    restored.accept_restored
)
cli.command(epilog=restored.EXAMPLES["confirm"])(restored.confirm)
cli.command(epilog=releasing.EXAMPLE)(releasing.release)
cli.command(epilog=serving.EXAMPLE)(serving.up)
cli.command(epilog=doctor.EXAMPLE)(doctor.doctor)
cli.add_typer(models.cli, name="models")
cli.add_typer(audit.cli, name="audit")


@cli.command(
    epilog="Example: atoll-sim worlds --out worlds --source &&"
    " atoll-server pretrain worlds/source/platform.toml --out backbone.safetensors"
)
def pretrain(
    sources: Annotated[
        list[Path],
        typer.Argument(help="TOML files of public tables, as a platform's.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The backbone's file; its model card lies beside it.")],
    encoder: Annotated[
        str, typer.Option(help="Text encoder: the default, a folder or a Hugging Face id.")
    ] = DEFAULT_ENCODER,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Passes over the rows.")] = (
        pretraining.RECIPE.epochs
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Train the sequence encoder on public rows and freeze it: no privacy is applied here."""
    if out.suffix == ".md":
        raise ConfigError(
            "is the model card's name", where=out, todo="end the backbone's in .safetensors"
        )
    for path in (out, out.with_suffix(".md")):
        if path.exists() and not force:
            raise ConfigError(
                "is there already", where=path, todo="name another file or use --force"
            )
    with terminal.showing() as progress:
        digest = pretraining.pretrain(
            [load_platform(source) for source in sources],
            out,
            recipe=pretraining.recipe(epochs),
            encoder=encoder,
            seed=seed,
            progress=progress,
        )
    terminal.console.print(f"backbone {digest}\n{out}\n{out.with_suffix('.md')}", highlight=False)


@cli.command(
    epilog="Example: atoll-server pairs items.csv --out pairs.safetensors, or of channels of one"
    " owner: atoll-server pairs app.pairs web.pairs --met --out pairs.safetensors"
)
def pairs(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Public item tables, or with --met lists.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The file of pairs.")],
    met: Annotated[
        bool, typer.Option("--met", help="Join lists that atoll-client pairs wrote.")
    ] = False,
    item: Annotated[str, typer.Option(help="Column of the identifiers.")] = "item",
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    nearest: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_NEAREST, help=f"Of each item; {NEAREST} if left out."),
    ] = None,
    shoppers: Annotated[
        int | None,
        typer.Option(min=1, help="Of all platforms, a public number; in place of --nearest."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Text encoder: the default, a folder or a Hugging Face id.")
    ] = DEFAULT_ENCODER,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """List the pairs of items that platforms count over: near by text, so nothing of a row."""
    if out.exists() and not force:
        raise ConfigError("is there already", where=out, todo="name another file or use --force")
    if met + (nearest is not None) + (shoppers is not None) > 1:
        raise ConfigError(
            "--met, --nearest and --shoppers each say which pairs are listed", todo="give one"
        )
    if met:
        made = listing.together([load_pairs(source) for source in sources])
    else:
        tables = [
            ItemTable(it, format_of(str(it), None, str(it)), {"item": item, "text": text})
            for it in sources
        ]
        with terminal.showing() as progress:
            sold = listing.union([_items(table) for table in tables])
            if shoppers is not None:
                nearest = nearest_for(shoppers, len(sold))
            made = listing.listed(
                [sold],
                encoder=encoder,
                nearest=nearest or NEAREST,
                progress=progress,
            )
    save_pairs(made, out)
    terminal.console.print(
        f"{len(made):,} pairs of {len(made.items):,} items\npairs {made.digest}\n{out}",
        highlight=False,
        soft_wrap=True,
    )


def _items(table: ItemTable) -> Catalogue:
    """The Catalogue of a table whose columns the command line names."""
    try:
        return read_catalogue(table)
    except ColumnError as fault:
        todo = "name its columns with --item and --text"
        raise ColumnError(fault.what, where=fault.where, todo=todo) from None


@cli.command(epilog="Example: atoll-server rounds runs/demo")
def rounds(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
) -> None:
    """List the recorded rounds of a run: who replied, who was refused, the adapter's digest."""
    registry = Registry(folder)
    if not registry.rounds():
        raise ConfigError(
            "holds no recorded rounds",
            where=folder,
            todo="wait until the first is recorded, or name a run's folder",
        )
    for number in registry.rounds():
        state, report = registry.load(number)
        digest = state.adapter.digest
        refused = "".join(f"; refused {name}: {why}" for name, why in report.refused.items())
        missing = f"; missing {', '.join(report.missing)}" if report.missing else ""
        terminal.console.print(
            f"round {number}  {digest[:16]}  {len(report.replied)} updates{missing}{refused}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def main() -> None:
    """Entry point."""
    terminal.run(cli)
