"""Whatever the terminal's encoding is, no program ends because of a character."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from rich.table import Table

from clients.daemon import main as atoll_client
from server.daemon import main as atoll_server
from shared import logs, terminal
from shared.doctor import Check, end
from shared.errors import ConfigError
from shared.printable import PLAIN, encodable
from simulations.cli import main as atoll_sim

Make = Callable[..., Path]
ENCODINGS = ("gbk", "cp1252", "ascii", "latin-1", "utf-8", "utf-16")
OWN = "".join(PLAIN)  # every sign of ours that has a spelling in ASCII
NAME = "caf\u00e9 \u8336 \U0001f375 \udce9"  # Latin, Chinese, an emoji, a byte that is no text


class Streams:
    """Standard output and error of one encoding, as a terminal or pipe of it would be."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.out, self.err = (
            io.TextIOWrapper(io.BytesIO(), encoding, "strict", write_through=True) for _ in range(2)
        )

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make them the process's, from within a test: pytest sets its own before one."""
        monkeypatch.setattr(sys, "stdout", self.out)
        monkeypatch.setattr(sys, "stderr", self.err)

    def shown(self) -> str:
        return read(self.out)

    def errors(self) -> str:
        return read(self.err)


def read(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.fixture(params=ENCODINGS)
def streams(request: pytest.FixtureRequest) -> Streams:
    return Streams(request.param)


def ends(streams: Streams, main: Callable[[], None], *words: object) -> int:
    """The exit code of a program under these words."""
    with pytest.MonkeyPatch.context() as patch:
        streams.put(patch)
        patch.setattr(sys, "argv", ["program", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0)


def program(act: Callable[[], None]) -> Callable[[], None]:
    """The main function of a program of one command."""
    cli = typer.Typer(pretty_exceptions_enable=False)
    cli.command()(act)
    return lambda: terminal.run(cli)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Puts the handlers of the root logger back."""
    root = logging.getLogger()
    before, level = list(root.handlers), logging.getLogger("atoll").level
    yield
    root.handlers[:] = before
    logging.getLogger("atoll").setLevel(level)


def test_doctor_of_each_side_ends_with_its_checks(
    streams: Streams, make_platform: Make, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path / "shop")
    assert ends(streams, atoll_client, "doctor", "-p", platform) == 2  # it has not joined
    assert ends(streams, atoll_server, "doctor", "--home", tmp_path / "none") == 2
    utf = streams.encoding.startswith("utf")
    good, bad = ("✓", "✗") if utf else ("ok", "FAIL")
    assert f"{good} tables: " in streams.shown()
    assert f"{bad} membership: " in streams.shown()
    assert "Traceback" not in streams.errors()


def test_help_worlds_and_refusals_are_shown(streams: Streams, tmp_path: Path) -> None:
    assert ends(streams, atoll_sim, "plan", "--help") == 0
    assert ends(streams, atoll_sim, "worlds") == 0
    assert ends(streams, atoll_sim, "compare", tmp_path / NAME) == 2
    assert ends(streams, atoll_client, "check", "-p", tmp_path / NAME) == 2
    assert "market" in streams.shown()
    assert streams.errors().count("error: ") == 2


def test_tables_titles_and_progress_take_every_character(streams: Streams) -> None:
    def act() -> None:
        table = Table(title=NAME, caption=OWN)
        table.add_column("ε", footer="…")
        for _ in range(2):
            table.add_row(terminal.cell(OWN + NAME))
        with terminal.showing() as progress:
            progress(NAME + OWN, 0, 2)
            logging.getLogger("atoll.any").warning("%s %s", NAME, OWN)
        terminal.console.print(table)
        terminal.console.print(NAME, OWN, markup=False)
        end([Check(NAME, False, OWN)], as_json=False)

    assert ends(streams, program(act)) == 2
    assert "caf" in streams.shown()
    assert "caf" in streams.errors()


def test_an_error_keeps_its_words(streams: Streams) -> None:
    def act() -> None:
        raise ConfigError(f"ε = {NAME}", where="there", todo="write ε")

    assert ends(streams, program(act)) == 2
    told = streams.errors()
    assert told.startswith("error: there: ")
    assert "write " in told


def test_json_stays_json_and_holds_the_same(streams: Streams) -> None:
    document = {"name": NAME, "ε": OWN}
    assert ends(streams, program(lambda: terminal.print_json(document))) == 0
    assert json.loads(streams.shown()) == document


def test_log_lines_of_a_daemon_are_written(
    streams: Streams, quiet_logs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams.put(monkeypatch)
    logs.to_stderr(as_json=False)
    logging.getLogger("atoll.any").error("text %s %s", NAME, OWN)
    logs.to_stderr(as_json=True)
    logging.getLogger("atoll.any").error("json %s %s", NAME, OWN)
    text, line = streams.errors().splitlines()
    assert "ERROR text caf" in text
    assert "Logging error" not in streams.errors()
    assert json.loads(line)["message"] == f"json {NAME} {OWN}"


def test_columns_stay_in_line_where_a_sign_is_spelled_out() -> None:
    streams = Streams("cp1252")

    def act() -> None:
        table = Table(box=None, show_header=False)
        for label in ("federated", "under ε=8"):
            table.add_row(terminal.cell(label), "0.5")
        terminal.console.print(table)

    assert ends(streams, program(act)) == 0
    first, second = streams.shown().splitlines()
    assert "under epsilon=8" in second
    assert first.index("0.5") == second.index("0.5")


def test_own_signs_have_a_spelling_and_others_are_escaped() -> None:
    assert encodable("ε ✓ é", "cp1252") == "epsilon ok é"
    assert encodable("\u8336", "ascii") == "\\u8336"
    assert encodable("\U0001f375", "ascii") == "\\ud83c\\udf75"
    assert encodable("\u8336 ε", "gbk") == "\u8336 ε"
    assert all(spelled.isascii() for spelled in PLAIN.values())
    assert encodable("ε", "no such encoding") == "ε"
