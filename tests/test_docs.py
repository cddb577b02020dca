"""What the documents say exists: commands, options, targets and links; and the quick ones run."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/**/*.md",
        "deploy/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
PROGRAMS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "scripts"
]
SCRIPTS = {"bash", "sh", "shell"}  # fences whose every line is a command
SESSIONS = {"", "console", "text"}  # fences where a command follows "$ " and the rest is output
QUICK = [["worlds"]]  # commands that write nothing and take no time; every `--help` is one too


def fences(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced code block."""
    for found in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", text, re.M | re.S):
        yield found[2], found[3]


def commands(text: str) -> Iterator[list[str]]:
    """Each `make` and each program of ours that a document's code blocks call, as words."""
    for language, block in fences(text):
        for line in block.replace("\\\n", " ").splitlines():
            prompted = line.strip().startswith("$ ")
            if language in SCRIPTS or (language in SESSIONS and prompted):
                yield from simple_commands(line.strip().removeprefix("$ "))


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of ours in one shell line, without assignments and folders before them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("|&;<>"):
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words and (name := Path(words[0]).name) in {"make", *PROGRAMS}:
            yield [name, *words[1:]]
        words = []


def targets() -> set[str]:
    """The Makefile's targets."""
    return set(re.findall(r"^([\w.-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M))


@cache
def program(name: str) -> typer.Typer:
    """The typer application behind an entry point; by convention its module calls it `cli`."""
    cli = importlib.import_module(PROGRAMS[name].partition(":")[0]).cli
    assert isinstance(cli, typer.Typer)
    return cli


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, by the words that call them."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from walk(f"{name} {word}", below)


def leaves(name: str) -> list[tuple[str, click.Command]]:
    """The commands of a program that do something themselves."""
    every = walk(name, typer.main.get_command(program(name)))
    return [(call, command) for call, command in every if not isinstance(command, click.Group)]


def unknown(words: list[str], command: click.Command) -> str | None:
    """The first word of a call that its program does not know."""
    flags = {name: option for option in command.params for name in option.opts}
    flags |= {name: option for option in command.params for name in option.secondary_opts}
    rest = iter(words)
    for word in rest:
        if word.startswith("-") and len(word) > 1:
            option, assigned, _ = word.partition("=")
            if option == "--help":
                continue
            if not isinstance(known := flags.get(option), click.Option):
                return option
            if not (assigned or known.is_flag or known.count):
                next(rest, None)
        elif isinstance(command, click.Group):
            below = command.commands.get(word)
            return word if below is None else unknown(list(rest), below)
    return None


def slugs(text: str) -> set[str]:
    """The anchors of a document's headings."""
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.+?) *#*$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(path: Path, text: str) -> list[str]:
    """Relative links of a document that lead to no file, or to no heading of it."""
    prose = re.sub(r"^( *)```.*?^\1```|`[^`\n]*`", "", text, flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose)
    dead = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        found = target.exists() and (not anchor or anchor in slugs(target.read_text()))
        if not found:
            dead.append(link)
    return dead


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def problem_of(words: list[str]) -> str | None:
    """What is wrong with one documented command."""
    if words[0] == "make":
        wanted = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return next(
            (f"make has no target {word}" for word in wanted if word not in targets()), None
        )
    word = unknown(words[1:], typer.main.get_command(program(words[0])))
    return word and f"{words[0]} knows no {word}"


def test_there_are_documents_to_read() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= set(map(named, DOCUMENTS))


def test_commands_are_found_in_code_blocks_and_nowhere_else() -> None:
    text = (
        "make no\n\n```\n$ cd x && A=1 .venv/bin/atoll-sim run \\\n  demo | less  # atoll-sim no\n"
        "make no\n```\n\n```sh\nmake demo test  # two\n```\n\n```toml\nmake no\n```\n"
    )
    assert list(commands(text)) == [["atoll-sim", "run", "demo"], ["make", "demo", "test"]]


def test_an_unknown_command_option_target_or_link_is_named() -> None:
    @click.group()
    def group() -> None: ...

    @group.command()
    @click.option("--out")
    @click.option("--json/--table")
    def run(out: str, json: bool) -> None: ...

    assert unknown(["run", "demo", "--out", "walk", "--table"], group) is None
    assert unknown(["walk"], group) == "walk"
    assert unknown(["run", "--out=x", "--in", "y"], group) == "--in"
    assert problem_of(["make", "gold"]) == "make has no target gold"
    assert dead_links(ROOT / "x.md", "[a](gone.md) [b](LICENSE) [c](#no) # no") == [
        "gone.md",
        "#no",
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_documented_commands_exist(path: Path) -> None:
    problems = [found for words in commands(path.read_text()) if (found := problem_of(words))]
    assert not problems, f"{named(path)}: {problems}"


def test_quick_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (words for path in DOCUMENTS for words in commands(path.read_text())):
        if words[0] in PROGRAMS and ("--help" in words or words[1:] in QUICK):
            result = CliRunner().invoke(program(words[0]), words[1:])
            assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_help_is_shown(name: str) -> None:
    for call, _ in walk(name, typer.main.get_command(program(name))):
        result = CliRunner().invoke(program(name), [*call.split()[1:], "--help"])
        assert result.exit_code == 0, f"{call} --help: {result.output}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_and_option_has_help(name: str) -> None:
    silent = []
    for call, command in walk(name, typer.main.get_command(program(name))):
        silent += [] if command.help else [call]
        silent += [
            f"{call} {each.name}" for each in command.params if not getattr(each, "help", "")
        ]
    assert not silent, f"write help for {silent}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_shows_an_example_that_works(name: str) -> None:
    for call, command in leaves(name):
        text = f"{command.help}\n{command.epilog or ''}"
        lines = re.findall(r"^ *(?:Example: *)?(atoll-.*)$", text, re.M)
        shown = [words for line in lines for words in simple_commands(line)]
        assert any(shlex.join(words).startswith(call) for words in shown), (
            f"{call} --help: give an example, a line `Example: {call} …`"
        )
        problems = [found for words in shown if (found := problem_of(words))]
        assert not problems, f"{call} --help: {problems}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_internal_links_lead_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text()) == [], named(path)


def test_every_decision_is_linked_from_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", (folder / "README.md").read_text()))
    assert linked >= {path.name for path in folder.glob("*.md")} - {"README.md"}


def test_no_document_is_left_with_a_place_to_fill() -> None:
    left = {
        str(path): found
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if (found := re.findall(r"^[A-Z]{4,}$|TODO|TBD", path.read_text(), re.M))
    }
    assert left == {}


def test_every_test_that_the_privacy_claims_name_exists() -> None:
    named_there = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "privacy.md").read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert named_there
    assert named_there - written == set()
