from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from server import release
from server.commands.release import release as command
from shared import terminal
from shared.audit_log import entries
from shared.bundle import CONTENT, build, files_of
from shared.errors import BundleError

Typed = Callable[..., tuple[int, str, str]]


def main() -> None:
    cli = typer.Typer(pretty_exceptions_enable=False)
    cli.command()(command)
    terminal.run(cli)


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small app under git, committed."""
    folder = tmp_path / "source"
    for name in ("shared/a.py", "clients/b.py", "server/c.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(f"# {name}\n")
    for name in ("pyproject.toml", "LICENSE"):
        (folder / name).write_bytes((release.SOURCE / name).read_bytes())
    (folder / ".gitignore").write_text("/shared/ignored.py\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_what_was_released_last_is_what_runs(tmp_path: Path) -> None:
    bundle = build(release.SOURCE)
    path = release.publish(tmp_path, bundle)
    assert path.name == f"{bundle.digest}.fab"
    assert release.current(tmp_path) == bundle


def test_without_a_release_there_is_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="atoll-server release"):
        release.current(tmp_path)


@pytest.mark.parametrize("text", [b"", b"../../etc/passwd", b"\xff", b"a" * 63])
def test_a_name_that_is_no_digest_leads_nowhere(text: bytes, tmp_path: Path) -> None:
    release.publish(tmp_path, build(release.SOURCE))
    (tmp_path / "releases" / "current").write_bytes(text)
    with pytest.raises(BundleError, match="names no bundle"):
        release.current(tmp_path)


def test_a_release_that_was_changed_on_the_disk_does_not_run(tmp_path: Path) -> None:
    path = release.publish(tmp_path, build(release.SOURCE))
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BundleError, match=rf"{path.name}: was changed since"):
        release.current(tmp_path)


def test_check_prints_the_digest_alone_and_writes_nothing(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    code, out, err = typed(main, "--check", "--home", home, "--source", source)
    assert (code, out, err) == (0, f"{build(source).digest}\n", "")
    assert not home.exists()


def test_the_command_writes_the_bundle_and_says_where_and_logs_it(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy.fab"
    code, out, err = typed(main, "--home", home, "--source", source, "--out", copy)
    assert (code, err) == (0, "")
    bundle = release.current(home)
    commit = release.commit_of(source)
    assert commit
    assert out.splitlines() == [
        bundle.digest,
        f"version {bundle.version}, 5 files, commit {commit[0]}",
        str(copy),
    ]
    assert copy.read_bytes() == bundle.content
    (entry,) = entries(home / "audit.jsonl")
    assert (entry.event, entry.fields["bundle"]) == ("released", bundle.digest)
    assert entry.fields["commit"] == commit[0]


def test_this_very_source_is_what_is_released_unless_another_is_named(typed: Typed) -> None:
    _, out, _ = typed(main, "--check")
    assert out == f"{build(release.SOURCE).digest}\n"


@pytest.mark.parametrize("how", ["edited", "added", "ignored", "removed", "unseen by the index"])
def test_a_source_that_is_not_its_commit_is_told(
    how: str, typed: Typed, source: Path, tmp_path: Path
) -> None:
    name = "shared/a.py"
    match how:
        case "edited":
            (source / name).write_text("# other\n")
        case "added":
            (source / (name := "clients/new.py")).write_text("")
        case "ignored":
            (source / (name := "shared/ignored.py")).write_text("")
        case "removed":
            (source / name).unlink()
            (source / "shared" / "other.py").write_text("")
            git(source, "add", "shared/other.py")
            git(source, "commit", "-qm", "second")
        case _:
            git(source, "update-index", "--assume-unchanged", name)
            (source / name).write_text("# other\n")
    code, _, err = typed(main, "--home", tmp_path / "home", "--source", source)
    commit = release.commit_of(source)
    assert commit
    assert code == 0
    assert err == (
        f"warning: {source} differs from commit {commit[0][:12]} in {name};"
        " nobody else can build this\n"
    )


def test_what_the_bundle_does_not_hold_may_differ(typed: Typed, source: Path) -> None:
    (source / "notes.md").write_text("mine")
    (source / "simulations").mkdir()
    (source / "simulations" / "x.py").write_text("")
    assert typed(main, "--check", "--source", source)[2] == ""


def test_a_folder_that_git_does_not_know_is_told(
    typed: Typed, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no git at all
    _, out, err = typed(main, "--check", "--source", source)
    assert out == f"{build(source).digest}\n"
    assert err.startswith(f"warning: git knows no commit of {source}")


def test_a_clone_elsewhere_gives_the_same_digest(source: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(source), "clone")
    assert build(tmp_path / "clone").digest == build(source).digest
    commit = release.commit_of(tmp_path / "clone")
    assert commit
    files = files_of(build(tmp_path / "clone").content, where="clone")
    assert release.differing(files, commit) == []
    assert CONTENT in files
