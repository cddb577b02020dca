from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.commands import audit as client
from server.commands import audit as server
from shared import terminal
from shared.audit_log import AuditLog, entries
from shared.checkpoints import Checkpoint, Checkpoints
from shared.signing import public_of, signing_key

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]
Main = Callable[[], None]


def at_server() -> None:
    terminal.run(server.cli)


def at_client() -> None:
    terminal.run(client.cli)


BOTH = pytest.mark.parametrize("main", [at_server, at_client])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    signing_key(place / "signing.key")
    log = AuditLog(place / "audit.jsonl", clock=lambda: 1_700_000_000.0)
    for number in range(3):
        log.add("round", round=number, told="\x1b[2J [bold]x[/]")
    return place


def exported(home: Path, path: Path) -> Path:
    """What the other side would export of this home's log, as it stands."""
    held = Checkpoints(path.parent / "theirs")
    key = signing_key(home / "signing.key")
    held.keep("us", AuditLog(home / "audit.jsonl").checkpoint(key), public_of(key))
    path.write_bytes((held.folder / "us.jsonl").read_bytes())
    return path


@BOTH
def test_a_log_that_holds_is_told_with_what_that_proves(
    main: Main, typed: Typed, home: Path, tmp_path: Path
) -> None:
    code, out, _ = typed(main, "verify", "--home", home)
    head = list(entries(home / "audit.jsonl"))[-1].hash
    count, caveat = out.splitlines()
    assert (code, count) == (0, f"3 lines hold, head {head}")
    assert caveat.startswith("no checkpoint of the other side was compared")
    known = exported(home, tmp_path / "known.jsonl")
    _, out, _ = typed(main, "verify", "--home", home, "--known", known)
    assert out.splitlines()[1] == "1 checkpoints fit: the other side knows 3 lines"


@BOTH
def test_a_log_that_was_touched_is_one_line(
    main: Main, refused: Refused, home: Path, tmp_path: Path
) -> None:
    log = home / "audit.jsonl"
    known = exported(home, tmp_path / "known.jsonl")
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"round":1', b'"round":7'))
    assert "line 2 was edited" in refused(main, "verify", "--home", home)
    assert "line 2 was edited" in refused(main, "show", "--home", home)
    # Made anew from nothing: only the other side can tell.
    log.unlink()
    (home / "audit.jsonl.head").unlink()
    for _ in range(4):
        AuditLog(log).add("round")
    told = refused(main, "verify", "--home", home, "--known", known)
    assert "line 3 is not the one that the other side knows" in told


def test_half_a_line_that_a_crash_left_is_told(typed: Typed, home: Path) -> None:
    with (home / "audit.jsonl").open("ab") as file:
        file.write(b'{"before"')
    _, out, _ = typed(at_server, "verify", "--home", home)
    assert out.splitlines()[2].startswith("a crash left half a line of 9 bytes")


def test_checkpoints_that_this_side_never_signed_are_refused(
    refused: Refused, home: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known.jsonl"
    other = signing_key(tmp_path / "other.key")
    false = Checkpoint(9, "ab" * 32, 1.0, "").signed(other)
    known.write_text(json.dumps(false.as_dict()) + "\n")
    told = refused(at_server, "verify", "--home", home, "--known", known)
    assert told.startswith("checkpoint of 9 lines: the checkpoint signature does not hold")
    known.write_text("")
    assert "holds no checkpoint" in refused(at_server, "verify", "--home", home, "--known", known)
    known.write_text("{}\n")
    assert "is no checkpoint" in refused(at_server, "verify", "--home", home, "--known", known)
    (home / "signing.key").unlink()
    exported_line = json.dumps(false.as_dict())
    known.write_text(exported_line + "\n")
    assert "no signing.key" in refused(at_server, "verify", "--home", home, "--known", known)


@BOTH
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\x00", b"[platform]\n", b"a,b\n", b"1\n"])
def test_what_is_no_export_of_checkpoints_is_one_line(
    content: bytes, main: Main, refused: Refused, home: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.write_bytes(content)
    told = refused(main, "verify", "--home", home, "--known", known)
    assert told == (
        f"{known}: is no export of checkpoints: line 1 is no checkpoint;"
        " give the file that the other side wrote with `audit held --out`"
    )
    for other in (home / "audit.jsonl", home, tmp_path / "none"):
        told = refused(main, "verify", "--home", home, "--known", other)
        assert told.startswith(f"{other}: is no export of checkpoints: ")


@BOTH
def test_a_home_without_a_log_is_one_line(main: Main, refused: Refused, tmp_path: Path) -> None:
    assert "has no audit log" in refused(main, "verify", "--home", tmp_path)
    assert "cannot be read" in refused(main, "show", "--home", tmp_path)


@BOTH
def test_the_last_lines_are_shown_and_steer_no_terminal(
    main: Main, typed: Typed, home: Path
) -> None:
    _, out, _ = typed(main, "show", "--home", home, "--last", "2")
    assert out.splitlines() == [
        f"     {number + 1}  2023-11-14 22:13:20  round  round={number}  told=\\x1b[2J [bold]x[/]"
        for number in (1, 2)
    ]
    _, out, _ = typed(main, "show", "--home", home, "--json")
    shown = [json.loads(line) for line in out.splitlines()]
    assert shown == [entry.as_dict() for entry in entries(home / "audit.jsonl")]
    assert "\x1b" not in out


@BOTH
def test_what_is_held_of_the_other_side_is_listed_and_exported_for_it(
    main: Main, typed: Typed, refused: Refused, home: Path, tmp_path: Path
) -> None:
    assert typed(main, "held", "--home", home)[1] == "no checkpoint of another side is held yet\n"
    assert "nothing is held of 'kiosk'" in refused(main, "held", "kiosk", "--home", home)
    theirs = tmp_path / "their"
    theirs.mkdir()
    key, log = signing_key(theirs / "signing.key"), AuditLog(theirs / "audit.jsonl")
    held = Checkpoints(home / "checkpoints")
    for _ in range(2):
        log.add("round")
        held.keep("kiosk", log.checkpoint(key), public_of(key))
    assert typed(main, "held", "--home", home)[1] == "kiosk  2 checkpoints, the last of 2 lines\n"
    out = tmp_path / "kiosk.jsonl"
    _, told, _ = typed(main, "held", "--home", home, "--out", out)  # there is no other
    assert told == f"2 checkpoints of kiosk\n{out}\n"
    assert typed(main, "held", "kiosk", "--home", home)[1] == out.read_text()
    code, told, _ = typed(at_client, "verify", "--home", theirs, "--known", out)
    assert (code, told.splitlines()[1]) == (
        0,
        "2 checkpoints fit: the other side knows 2 lines",
    )
    held.keep("atelier", log.checkpoint(key), public_of(key))
    assert "name one of them" in refused(main, "held", "--home", home, "--out", tmp_path / "x")
    assert "is nobody's name" in refused(main, "held", "../x", "--home", home)


def test_a_platform_s_home_lies_beside_its_file(
    typed: Typed, make_platform: Make, tmp_path: Path
) -> None:
    shop = make_platform(tmp_path)
    AuditLog(tmp_path / "audit.jsonl").add("not this one")
    (tmp_path / "shop.atoll").mkdir()
    AuditLog(tmp_path / "shop.atoll" / "audit.jsonl").add("this one")
    code, out, _ = typed(at_client, "show", "-p", shop)
    assert (code, out.split("  ")[-1]) == (0, "this one\n")
