from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import typer

from shared import terminal
from shared.errors import AtollError, ConfigError

LONG = "x" * 300


def program(act: Callable[[], None]) -> typer.Typer:
    cli = typer.Typer()
    cli.command()(act)
    return cli


def ends_with(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> object:
    """The exit code of a program that does this."""
    monkeypatch.setattr("sys.argv", ["atoll-test"])
    with pytest.raises(SystemExit) as caught:
        terminal.run(program(act))
    return caught.value.code


@pytest.mark.parametrize(
    "what", ["key 'rounds' is 0", f"{LONG} {LONG}", "[bold]markup[/] and [0, 1]", "a:gift:b \\"]
)
def test_a_fault_is_one_line_on_standard_error_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    def act() -> None:
        raise ConfigError(what, where="a.toml", todo="mend it")

    assert ends_with(monkeypatch, act) == 2
    said = capsys.readouterr()
    assert said.err == f"error: a.toml: {what}; mend it\n"
    assert said.out == ""


def test_a_fault_behind_a_fault_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        try:
            raise ValueError("the cause")
        except ValueError as fault:
            raise AtollError("broken", todo="mend it") from fault

    assert ends_with(monkeypatch, act) == 2
    assert capsys.readouterr().err == "error: broken; mend it\n"


def test_a_program_that_succeeds_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends_with(monkeypatch, lambda: None) == 0


def test_an_unknown_option_ends_with_2_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["atoll-test", "--nix"])
    with pytest.raises(SystemExit) as caught:
        terminal.run(program(lambda: None))
    assert caught.value.code == 2


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise KeyboardInterrupt

    assert ends_with(monkeypatch, act) == 130


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("sys.argv", ["atoll-test"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        terminal.run(program(act))


def test_without_a_terminal_each_step_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.showing() as progress:
        for done in (1, 2, 3):
            progress("reading [a]", done, 3)
        progress("training", 1, 9)
    said = capsys.readouterr()
    assert said.err == "reading [a]\ntraining\n"
    assert said.out == ""


def test_log_lines_are_told_while_showing_and_no_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("atoll.test")
    with terminal.showing():
        log.info("round 1")
    log.info("after")
    assert capsys.readouterr().err.split() == ["round", "1"]


def test_a_line_is_told_once_though_a_library_gave_the_root_logger_a_handler(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, other = logging.getLogger(), logging.StreamHandler()
    root.addHandler(other)
    try:
        with terminal.showing():
            logging.getLogger("atoll.test").warning("once")
    finally:
        root.removeHandler(other)
    assert capsys.readouterr().err.split() == ["once"]


def test_quiet_tells_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("atoll.test")
    with terminal.showing(quiet=True) as progress:
        progress("reading", 1, 3)
        log.info("round 1")
        log.warning("a platform is missing")
    assert capsys.readouterr().err.split() == ["a", "platform", "is", "missing"]


def test_a_fault_while_showing_leaves_logging_as_it_was() -> None:
    logger = logging.getLogger("atoll")
    before = (logger.level, list(logger.handlers))
    with pytest.raises(ConfigError), terminal.showing():
        raise ConfigError("broken", todo="mend it")
    assert (logger.level, list(logger.handlers)) == before
