"""What the three command lines have in common: progress, one-line errors, exit code 2."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from shared import printable, text
from shared.errors import AtollError
from shared.printable import tolerate

console = Console()
stderr = Console(stderr=True)


def run(cli: typer.Typer) -> None:
    """Run a command line; an AtollError becomes one line on standard error and exit code 2.

    Standard output and error take every character, whatever their encoding.
    """
    tolerate(sys.stdout, sys.stderr)
    try:
        cli()
    except AtollError as fault:
        stderr.print(
            f"[bold red]error:[/] {escape(str(fault))}",
            soft_wrap=True,
            highlight=False,
            emoji=False,
        )
        sys.exit(2)


def cell(text: str, style: str = "") -> Text:
    """Text of a table's cell, as wide as it will be in the encoding of standard output."""
    return Text(encodable(text), style)


def encodable(text: str) -> str:
    """The text as standard output shows it in its encoding, to lay out columns by."""
    return printable.encodable(text, console.encoding)


def print_json(value: object) -> None:
    """One JSON document on standard output, in ASCII where that is not UTF-8."""
    ascii_only = not console.encoding.startswith("utf")
    console.print_json(json.dumps(value), ensure_ascii=ascii_only)


@contextlib.contextmanager
def showing(*, quiet: bool = False) -> Iterator[text.Progress]:
    """Progress on standard error, a bar for each thing that is being done; log lines above."""
    if quiet:
        with _logging(logging.WARNING):
            yield text.silent
        return
    columns = (
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>6.0f}/{task.total:<6.0f}"),
        TimeElapsedColumn(),
    )
    with (
        _logging(logging.INFO),
        Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar,
    ):
        yield _bars(bar)


def _bars(bar: Progress) -> text.Progress:
    """A bar for each thing that is being done, gone when it is; several threads may tell."""
    shown: dict[str, TaskID] = {}
    lock = threading.Lock()
    # Where there is no terminal to draw on, a line says that something began.
    tell: Callable[[str], None] = stderr.print if not stderr.is_terminal else lambda _what: None

    def progress(what: str, done: int, total: int) -> None:
        with lock:
            if what not in shown:
                shown[what] = bar.add_task(escape(what), total=total)
                tell(escape(what))
            bar.update(shown[what], completed=done, total=total, visible=done < total)

    return progress


@contextlib.contextmanager
def _logging(level: int) -> Iterator[None]:
    handler = RichHandler(console=stderr, show_path=False, show_level=False, show_time=False)
    logger = logging.getLogger("atoll")
    logger.addHandler(handler)
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False  # Opacus gives the root logger a handler: lines would come twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
