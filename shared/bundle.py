"""The app bundle: all the code that a platform is asked to run, in one file with one SHA-256.

    pyproject.toml's [tool.flwr.app] ─files→ name → bytes ─pack→ ZIP ─SHA-256→ digest
                                                     ZIP ─files_of→ name → bytes, or one line

Flower's format: pyproject.toml, the code, .info/CONTENT with each file's SHA-256. Nothing in it is
compressed or dated and its order is fixed, so the same files give the same bytes on every machine.
Reading one trusts nothing: no path leaves the folder, no name comes twice, no size explodes.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.errors import BundleError
from shared.strict_parsing import toml_table

PROJECT, CONTENT = "pyproject.toml", ".info/CONTENT"
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP knows
LARGEST = 10 * 2**20  # bytes of a bundle, as Flower limits them
MOST = 2_000  # files
TEXT = (".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl")  # what Flower bundles
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_. +/-]{0,199}")
WRONG = "reject it, and ask the coordinator for one made by atoll-server release"


@dataclass(frozen=True)
class Bundle:
    """A bundle's bytes, its SHA-256 in hex, and the version that it says it is."""

    content: bytes
    digest: str
    version: str


def build(source: Path) -> Bundle:
    """The bundle of a source folder: the files that its pyproject.toml names, as they are.

    As Flower does, it leaves out tests, caches and links, and knows `fab-exclude`.

    Raises:
        BundleError: there is no pyproject.toml, it names nothing, or what it names is no bundle.
    """
    try:
        project = (source / PROJECT).read_bytes()
        told = toml_table(project)
        app = told["tool"]["flwr"]["app"]
        version = str(told["project"]["version"])
        left_out = _matches(source, app.get("fab-exclude", ()))
        names = sorted(_matches(source, app["fab-include"]) - left_out - {PROJECT})
        code = {name: (source / name).read_bytes() for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as fault:
        raise BundleError(
            f"holds no app to bundle ({type(fault).__name__})",
            where=source / PROJECT,
            todo="name the folder of Atoll's source with --source",
        ) from fault
    if not code:
        raise BundleError("names no file that is there", where=source / PROJECT, todo="mend it")
    content = pack({PROJECT: project, **code})
    files_of(content, where=str(source))  # nobody would take it otherwise
    return Bundle(content, hashlib.sha256(content).hexdigest(), version)


def version_of(files: Mapping[str, bytes], *, where: str) -> str:
    """The version that a bundle's files say they are; whoever wrote them can say any.

    Raises:
        BundleError: its project is none.
    """
    try:
        return str(toml_table(files[PROJECT])["project"]["version"])
    except (ValueError, KeyError, TypeError) as fault:
        raise BundleError(
            f"has no {PROJECT} that says a version", where=where, todo=WRONG
        ) from fault


def _matches(source: Path, patterns: Iterable[str]) -> set[str]:
    return {
        path.relative_to(source).as_posix()
        for pattern in patterns
        for path in source.glob(pattern)
        if path.is_file()
        and not path.is_symlink()
        and path.resolve() == source.resolve() / path.relative_to(source)
        and not re.fullmatch(r"test_.*\.py|.*_test\.py", path.name)
        and "__pycache__" not in path.parts
    }


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files as a ZIP: the project first, then by name, then the list of their digests."""
    order = sorted(files, key=lambda name: (name != PROJECT, name))
    told = "\n".join(
        f"{name},{hashlib.sha256(files[name]).hexdigest()},{8 * len(files[name])}" for name in order
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [*((name, files[name]) for name in order), (CONTENT, told.encode())]:
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def files_of(content: bytes, *, where: str) -> dict[str, bytes]:
    """The files of a bundle, by name.

    Args:
        content: of the bundle.
        where: its name, for errors.

    Raises:
        BundleError: it is no bundle, is too large, or holds what could do harm when unpacked.
    """
    if len(content) > LARGEST:
        raise BundleError(f"has {len(content):,} bytes", where=where, todo=WRONG)
    # zipfile makes an object of each entry before anybody can count them.
    if content.count(b"PK\x01\x02") > MOST:
        raise BundleError(f"has more than {MOST:,} files", where=where, todo=WRONG)
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > LARGEST:
                raise BundleError("is too large when unpacked", where=where, todo=WRONG)
            taken: set[str] = set()
            for entry in entries:
                _check(entry, taken, where)
                found[entry.filename] = archive.read(entry)
    except BundleError:
        raise
    # zipfile raises many kinds for what it cannot read, and a hostile file can choose which.
    except Exception as fault:
        raise BundleError(
            f"is no bundle ({type(fault).__name__})", where=where, todo=WRONG
        ) from fault
    if PROJECT not in found or CONTENT not in found:
        missing = PROJECT if PROJECT not in found else CONTENT
        raise BundleError(f"has no {missing}", where=where, todo=WRONG)
    # One form and no other: the list of digests is right, and every byte is some file's.
    if pack({name: found[name] for name in found if name != CONTENT}) != content:
        raise BundleError("is not packed as ours are", where=where, todo=WRONG)
    return found


def _check(entry: zipfile.ZipInfo, taken: set[str], where: str) -> None:
    """Refuse a name or a kind of file that no bundle of ours has.

    Args:
        entry: to look at.
        taken: lower-case names of the files so far, and of their folders with a slash behind;
            those of this one are added.
        where: the bundle, for errors.

    Raises:
        BundleError: says which.
    """
    name, mode = entry.filename, entry.external_attr >> 16
    parts = name.lower().split("/")
    above = {"/".join(parts[:depth]) + "/" for depth in range(1, len(parts))}
    lower = name.lower()
    faults = {
        "leads out of its folder": not {"", ".", ".."}.isdisjoint(parts) or "\\" in name,
        "is no plain file": name.endswith("/") or stat.S_IFMT(mode) not in (0, stat.S_IFREG),
        "comes twice": lower in taken
        or f"{lower}/" in taken
        or not taken.isdisjoint(folder[:-1] for folder in above),
        "is no plain name": not _NAME.fullmatch(name) or entry.orig_filename != name,
        "is no text that can be read": not name.endswith(TEXT) and name not in ("LICENSE", CONTENT),
        "is compressed": entry.compress_type != zipfile.ZIP_STORED,
        "is encrypted": entry.flag_bits & 1,
    }
    for what, so in faults.items():
        if so:
            raise BundleError(f"{ascii(name)[:80]} {what}", where=where, todo=WRONG)
    taken |= {lower, *above}
