from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import time
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab
from flwr.common.config import (
    get_fab_config,
    get_fused_config_from_fab,
    get_metadata_from_config,
)
from flwr.supercore.run import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bundle import CONTENT, LARGEST, PROJECT, build, files_of, pack, version_of
from shared.errors import BundleError

ROOT = Path(__file__).parents[2]
GOOD = {PROJECT: b"[project]\nname = 'x'\n", "shared/a.py": b"A = 1\n"}


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_the_same_source_gives_the_same_digest_wherever_and_however_it_lies(
    tmp_path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        copy = tmp_path / "elsewhere"
        # Last first, so that the folder lists them in another order.
        for name in sorted(files_of(build(ROOT).content, where="here"), reverse=True):
            if name != CONTENT:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes((ROOT / name).read_bytes())
                os.utime(copy / name, (1, 1))
    finally:
        os.umask(before)
    (copy / "shared" / "tables" / "__init__.py").chmod(0o755)
    (copy / "shared" / "notes.txt").write_text("no code")
    (copy / "simulations").mkdir()
    (copy / "simulations" / "cli.py").write_text("not sent")
    assert build(copy).digest == build(ROOT).digest


@pytest.mark.parametrize("file", ["shared/plan.py", "clients/egress.py", "pyproject.toml"])
def test_a_byte_that_differs_anywhere_gives_another_digest(tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    for name in ("server", "clients", "shared"):
        shutil.copytree(ROOT / name, copy / name)
    for name in (PROJECT, "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    (copy / file).write_bytes((copy / file).read_bytes() + b"\n")
    assert build(copy).digest != build(ROOT).digest


def test_it_holds_code_the_licence_and_the_project_and_nothing_else() -> None:
    names = set(files_of(build(ROOT).content, where="here"))
    assert {name.partition("/")[0] for name in names} == {
        "clients",
        "server",
        "shared",
        "LICENSE",
        PROJECT,
        ".info",
    }
    assert all(name.endswith(".py") for name in names - {"LICENSE", PROJECT, CONTENT})


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_reads_it_and_would_put_the_same_files_into_its_own() -> None:
    bundle = build(ROOT)
    assert get_metadata_from_config(get_fab_config(bundle.content)) == ("atoll/atoll", "0.1.0")
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT))) as theirs:
        assert set(theirs.namelist()) == set(files_of(bundle.content, where="here"))


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flower_leaves_out_what_is_left_out_here(tmp_path: Path) -> None:
    project = (ROOT / PROJECT).read_text()
    marked = project.replace("fab-include", 'fab-exclude = ["server/o*.py"]\nfab-include')
    (tmp_path / PROJECT).write_text(marked)
    shutil.copy(ROOT / "LICENSE", tmp_path)
    kept = ["shared/a.py", "shared/deep/er/b.py", "clients/c.py", "server/d.py"]
    for name in [
        *kept,
        "server/out.py",
        "server/test_x.py",
        "clients/x_test.py",
        "shared/__pycache__/a.py",
        "other/x.py",
        "shared/data.csv",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "shared" / "link.py").symlink_to("a.py")
    (tmp_path / "clients" / "linked").symlink_to(tmp_path / "shared")
    names = set(files_of(build(tmp_path).content, where="here"))
    assert names == {*kept, "LICENSE", PROJECT, CONTENT}
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(tmp_path))) as theirs:
        assert set(theirs.namelist()) == names


def test_flower_installs_it(tmp_path: Path) -> None:
    bundle = build(ROOT)
    run = Run.create_empty(run_id=1)
    fused = get_fused_config_from_fab(bundle.content, run)
    assert fused["rounds"] == 10
    place = install_from_fab(bundle.content, tmp_path, skip_prompt=True)
    files = files_of(bundle.content, where="here")
    del files[CONTENT]
    found = {it.relative_to(place).as_posix(): it for it in place.rglob("*") if it.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files


def test_its_list_holds_each_file_s_own_digest() -> None:
    found = files_of(pack(GOOD), where="here")
    for line in found[CONTENT].decode().splitlines():
        name, digest, bits = line.split(",")
        assert hashlib.sha256(found[name]).hexdigest() == digest
        assert int(bits) == 8 * len(found[name])


def test_a_folder_that_is_no_source_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--source"):
        build(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[project]\nname = 'x'\n",
        "[project]\nversion='1'\n[tool.flwr.app]\nfab-include = ['../*.py']\n",
        "[project]\nversion='1'\n[tool.flwr.app]\nfab-include = ['/etc/*.py']\n",
        "[project]\nversion='1'\n[tool.flwr.app]\nfab-include = [5]\n",
        "[project]\nversion='1'\n[tool.flwr.app]\nfab-include = ['shared/*.py']\n",
        "[tool]\nflwr = 5\n",
    ],
)
def test_a_project_that_names_no_bundle_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / PROJECT).write_text(text)
    with pytest.raises(BundleError, match=PROJECT):
        build(tmp_path / "app")


def test_a_source_that_nobody_would_take_is_refused_where_it_is_made(tmp_path: Path) -> None:
    shutil.copy(ROOT / PROJECT, tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "größe.py").write_text("")
    with pytest.raises(BundleError, match="no plain name"):
        build(tmp_path)


def test_the_version_is_what_the_project_says_or_one_line() -> None:
    assert version_of({PROJECT: b"[project]\nversion = '1.2'\n"}, where="x") == "1.2"
    for text in (b"", b"\xff", b"project = 1", b"[project]\n", b"x = " + b"[" * 5000):
        with pytest.raises(BundleError, match="says a version"):
            version_of({PROJECT: text}, where="x")


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("shared/link.py")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


HOSTILE = {
    "out of the folder": zipped((PROJECT, b""), ("../x.py", b"")),
    "absolute": zipped((PROJECT, b""), ("/etc/x.py", b"")),
    "backslashes": zipped((PROJECT, b""), ("shared\\..\\x.py", b"")),
    "a link": zipped((PROJECT, b""), (link(), b"/etc/passwd")),
    "a folder": zipped((PROJECT, b""), ("shared/", b"")),
    "two that differ in case": zipped((PROJECT, b""), ("shared/A.py", b"1"), ("shared/a.py", b"2")),
    "compressed": zipped((PROJECT, b"x" * 99), how=zipfile.ZIP_DEFLATED),
    "a bomb": zipped(("shared/x.py", b"\0" * (LARGEST + 1)), how=zipfile.ZIP_DEFLATED),
    "too many": zipped(*((f"shared/{number}.py", b"") for number in range(2001))),
    "an escape in a name": zipped((PROJECT, b""), ("shared/\x1b[2J.py", b"")),
    "a name in other letters": zipped((PROJECT, b""), ("shared/\u0440\u0430ypal.py", b"")),
    "no project": zipped(("shared/a.py", b"")),
    "a folder that is a file": zipped((PROJECT, b""), ("a.py", b""), ("a.py/b.py", b"")),
    "a file that is a folder": zipped((PROJECT, b""), ("a.py/b.py", b""), ("A.py", b"")),
    "steps that go nowhere": zipped((PROJECT, b""), ("shared/./a.py", b"")),
    "an empty step": zipped((PROJECT, b""), ("shared//a.py", b"")),
    "a drive": zipped((PROJECT, b""), ("c:/a.py", b"")),
    "compiled code": zipped((PROJECT, b""), ("shared/__pycache__/a.cpython-311.pyc", b"")),
    "a library": zipped((PROJECT, b""), ("shared/a.so", b"")),
    "a file that runs on start": zipped((PROJECT, b""), ("x.pth", b"import os")),
    "no list": zipped((PROJECT, b"")),
    "bytes before": b"#!/bin/sh\n" + pack(GOOD),
    "a comment": pack(GOOD)[:-2] + b"\x02\x00hi",
    "a false list": pack(GOOD).replace(b",48", b",49"),
    "no archive": b"hello",
    "nothing": b"",
    "cut": pack(GOOD)[:-30],
    "too large": b"\0" * (LARGEST + 1),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line(kind: str) -> None:
    with pytest.raises(BundleError) as caught:
        files_of(HOSTILE[kind], where="offer")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        content = zipped((PROJECT, b"1"), ("shared/a.py", b"1"), ("shared/a.py", b"2"))
    with pytest.raises(BundleError, match="twice"):
        files_of(content, where="offer")


def test_an_entry_that_lies_of_its_size_is_refused() -> None:
    content = bytearray(zipped((PROJECT, b""), ("shared/a.py", b"A" * 64)))
    place = content.rfind(b"PK\x01\x02")
    content[place + 24 : place + 28] = (8).to_bytes(4, "little")  # the size, when unpacked
    with pytest.raises(BundleError):
        files_of(bytes(content), where="offer")


def test_a_name_that_hides_its_end_is_refused() -> None:
    content = pack({**GOOD, "shared/b.pyx.py": b""}).replace(
        b"shared/b.pyx.py", b"shared/b.py\0.py"
    )
    with pytest.raises(BundleError):
        files_of(content, where="offer")


def test_a_bomb_of_many_entries_over_the_same_bytes_is_refused_before_it_is_read() -> None:
    content = zipped(("shared/x.py", b"\0" * 2**20))
    start = content.rfind(b"PK\x01\x02")
    end = content.rfind(b"PK\x05\x06")
    central = content[start:end]
    for times in (100, 200_000):  # 100 MB by 100 names; more names than anybody should count
        many = central * times
        tail = bytearray(content[end:])
        tail[8:12] = (times & 0xFFFF).to_bytes(2, "little") * 2
        tail[12:16] = len(many).to_bytes(4, "little")
        began = time.monotonic()
        with pytest.raises(BundleError):
            files_of(content[:start] + many + bytes(tail), where="offer")
        assert time.monotonic() - began < 2


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_change_of_a_bundle_gives_one_line_or_other_files_and_never_a_crash(
    data: st.DataObject,
) -> None:
    content = bytearray(pack(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = files_of(bytes(content), where="offer")
    except BundleError as fault:
        line = str(fault)
        assert line.isprintable()
    else:
        assert bytes(content) == pack({it: found[it] for it in found if it != CONTENT})
