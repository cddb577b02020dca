from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.approvals import Approvals
from clients.commands import approvals as commands
from shared import terminal
from shared.audit_log import AuditLog, entries, verify
from shared.bundle import CONTENT, PROJECT, build, files_of, pack
from shared.errors import ConfigError

Typed = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def main() -> None:
    terminal.run(commands.cli)


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    return make_platform(tmp_path)


@pytest.fixture
def home(shop: Path) -> Path:
    place = shop.parent / "shop.atoll"
    place.mkdir()
    return place


def waiting(home: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return Approvals(home / "approvals").offered(content, claimed=digest)


def altered(name: str, line: bytes) -> bytes:
    """This very code with a line more at the end of a file."""
    files = files_of(build(ROOT).content, where="here")
    del files[CONTENT]
    files[name] = files.get(name, b"") + line
    return pack(files)


def lines(typed: Typed, *words: str | Path) -> list[str]:
    code, out, err = typed(main, *words)
    assert (code, err) == (0, "")
    return out.splitlines()


def test_code_that_is_the_same_as_here_is_told_to_be_so(
    typed: Typed, shop: Path, home: Path
) -> None:
    digest = waiting(home, build(ROOT).content)
    first, same, counts = lines(typed, "show", digest[:8], "-p", shop)
    assert first.startswith(f"bundle {digest}, waiting, ")
    assert same == "byte for byte the bundle that the code installed here makes"
    assert counts.startswith("against the code installed here: 0 files differ")


def test_what_is_new_is_shown_first_against_the_code_here_then_against_what_was_approved(
    typed: Typed, shop: Path, home: Path
) -> None:
    digest = waiting(home, altered("shared/plan.py", b"EVIL = 1\n"))
    _, another, counts, *diff = lines(typed, "show", digest[:8], "-p", shop)
    assert another == f"another than the code installed here makes, {build(ROOT).digest[:12]}"
    assert counts.endswith("1 files differ: 1 changed, 0 added, 0 removed; lines +1 -0")
    assert diff[:2] == ["", "changed shared/plan.py  +1 -0"]
    assert diff[-1] == "+EVIL = 1"
    lines(typed, "approve", digest[:8], "-p", shop)
    second = waiting(home, altered("clients/new.py", b"MORE = 1\n"))
    told = lines(typed, "show", second[:8], "-p", shop)
    assert told[2] == (
        f"against bundle {digest[:12]}, approved before: 2 files differ:"
        " 1 changed, 1 added, 0 removed; lines +1 -1"
    )
    assert "-EVIL = 1" in told
    shown: dict[str, Any] = json.loads(
        "\n".join(lines(typed, "show", second[:8], "-p", shop, "--json"))
    )
    assert (shown["against"], shown["as_installed"]) == (digest, False)
    assert [(it["kind"], it["name"]) for it in shown["changes"]] == [
        ("added", "clients/new.py"),
        ("changed", "shared/plan.py"),
    ]


def test_where_a_wheel_is_installed_the_packages_are_compared(
    typed: Typed, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"shared/a.py": "A = 1\n", "clients/b.py": "B = 1\n", "x/c.py": ""}.items():
        (tmp_path / "wheel" / name).parent.mkdir(parents=True)
        (tmp_path / "wheel" / name).write_text(text)
    monkeypatch.setattr(commands, "INSTALLED", tmp_path / "wheel")
    project = b"[project]\nversion = '1'\n"
    digest = waiting(home, pack({PROJECT: project, "shared/a.py": b"A = 2\n", "LICENSE": b"x\n"}))
    _, no_bundle, counts, *diff = lines(typed, "show", digest, "--home", home)
    assert no_bundle.startswith("the code installed here makes no bundle to compare with")
    assert counts.endswith("2 files differ: 1 changed, 0 added, 1 removed; lines +1 -2")
    assert {"changed shared/a.py  +1 -1", "removed clients/b.py  +0 -1"} <= set(diff)


def test_what_would_steer_a_terminal_is_spelled_out_in_both_forms(
    typed: Typed, shop: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "INSTALLED", tmp_path / "nowhere")
    text = "x = '\x1b[2J\u202e'\n# coding: \r\x07 [bold]a[/]\n"
    content = pack({PROJECT: b"[project]\nversion = '1\\u001b[2J'\n", "shared/a.py": text.encode()})
    digest = waiting(home, content)
    for words in ((), ("--json",)):
        _, out, _ = typed(main, "show", digest, "-p", shop, *words)
        assert all(letter.isprintable() or letter in "\n\t" for letter in out)
        assert "[bold]a[/]" in out
    assert "NOTE: holds characters that draw nothing" in "\n".join(
        lines(typed, "show", digest, "-p", shop)
    )


def test_a_decision_is_listed_and_stands_in_the_audit_log(
    typed: Typed, shop: Path, home: Path
) -> None:
    (none,) = lines(typed, "list", "-p", shop)
    assert none.startswith("no bundle has been offered yet: the server offers its code with the")
    digest = waiting(home, build(ROOT).content)
    assert f"{digest}  waiting " in lines(typed, "list", "-p", shop)[0]
    (told,) = lines(typed, "approve", digest[:12], "-p", shop)
    assert told.startswith(f"{digest}  approved  ")
    assert Approvals(home / "approvals").standing(digest) == "approved"
    lines(typed, "reject", digest[:12], "--home", home)
    (listed,) = json.loads("\n".join(lines(typed, "list", "-p", shop, "--json")))
    assert (listed["digest"], listed["standing"]) == (digest, "rejected")
    assert listed["by"]
    log = home / "audit.jsonl"
    assert [(it.event, it.fields["bundle"]) for it in entries(log)] == [
        ("approved", digest),
        ("rejected", digest),
    ]
    assert verify(log).count == 2


def test_code_is_not_let_in_while_the_audit_log_cannot_tell_of_it(typed: Typed, home: Path) -> None:
    digest = waiting(home, build(ROOT).content)
    AuditLog(home / "audit.jsonl").add("started")
    (home / "audit.jsonl").write_bytes(b"")
    assert typed(main, "approve", digest, "--home", home)[0] == 2
    assert Approvals(home / "approvals").standing(digest) == "waiting"
    assert typed(main, "reject", digest, "--home", home)[0] == 2
    assert Approvals(home / "approvals").standing(digest) == "rejected"  # to stop code always goes


@pytest.mark.parametrize("command", ["show", "approve", "reject"])
def test_a_digest_that_names_no_bundle_is_one_line(
    command: str, refused: Callable[..., str], home: Path
) -> None:
    waiting(home, build(ROOT).content)
    for digest in ("", "0" * 7, "0" * 64, "../x"):
        assert "give at least 8" in refused(main, command, "--home", home, "--", digest)


def test_a_bundle_altered_on_the_disk_is_named_and_not_approved(
    refused: Callable[..., str], home: Path
) -> None:
    digest = waiting(home, build(ROOT).content)
    path = home / "approvals" / f"{digest}.fab"
    path.write_bytes(path.read_bytes() + b"\n")
    for command in ("show", "approve"):
        told = refused(main, command, digest[:8], "--home", home)
        assert told.startswith(f"{path}: was changed on the disk")


def test_without_a_platform_nothing_is_guessed(refused: Callable[..., str]) -> None:
    assert refused(main, "list").startswith("need --platform or --home")
    with pytest.raises(ConfigError):
        commands.home_given(None, None)
