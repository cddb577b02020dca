"""`atoll-server release`: the bundle that platforms are asked to approve and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server import release as releases
from server.witness import server_log
from shared import terminal
from shared.bundle import files_of
from shared.files import made_folder, replacing

EXAMPLE = "Example: atoll-server release --home atoll-server"


def release(
    home: Annotated[Path, typer.Option(help="The server's folder.")] = Path("atoll-server"),
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the source; left out, this very installation's.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Another file to write it to.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Print the SHA-256 and write nothing.")
    ] = False,
) -> None:
    """Build the app bundle; the same commit gives the same SHA-256 on every machine."""
    place = source or releases.SOURCE
    bundle = releases.build(place)
    files = files_of(bundle.content, where=bundle.digest[:12])
    commit = releases.commit_of(place)
    if commit is None:
        warn(f"git knows no commit of {place}, so nobody can tell which source this is")
    elif other := releases.differing(files, commit):
        names = ", ".join(other[:5]) + (", …" if len(other) > 5 else "")
        warn(f"{place} differs from commit {commit[0][:12]} in {names}; nobody else can build this")
    if check:
        said(bundle.digest)
        return
    made_folder(home)
    known = commit[0] if commit else "?"
    server_log(home).add("released", bundle=bundle.digest, version=bundle.version, commit=known)
    path = releases.publish(home, bundle)
    if out is not None:
        with replacing(out) as part:
            part.write_bytes(bundle.content)
    said(bundle.digest)
    said(f"version {bundle.version}, {len(files) - 1} files, commit {known}")
    said(str(path if out is None else out))


def warn(text: str) -> None:
    """One line on standard error."""
    terminal.stderr.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


def said(text: str) -> None:
    """A line as it is."""
    terminal.console.print(text, highlight=False, markup=False, soft_wrap=True)
