"""The bundle that platforms are sent: built from a source folder, kept by its digest.

source ─build→ Bundle ─publish→ HOME/releases/DIGEST.fab, HOME/releases/current
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from shared.bundle import CONTENT, Bundle, build, files_of, version_of
from shared.errors import BundleError
from shared.files import made_folder, replacing

__all__ = ["SOURCE", "build", "commit_of", "current", "differing", "publish"]

SOURCE = Path(__file__).parents[1]  # where this very code lies
Commit = tuple[str, dict[str, str]]  # its id, and the object id of each file in it


def publish(home: Path, bundle: Bundle) -> Path:
    """Make a bundle the one that runs from now on.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = made_folder(home / "releases")
    path = folder / f"{bundle.digest}.fab"
    with replacing(path) as part:
        part.write_bytes(bundle.content)
    with replacing(folder / "current") as part:
        part.write_text(bundle.digest + "\n", encoding="utf-8")
    return path


def current(home: Path) -> Bundle:
    """The bundle that runs now.

    Raises:
        BundleError: there is none, or it was changed since.
    """
    folder = home / "releases"
    try:
        digest = (folder / "current").read_bytes().decode("ascii", errors="replace").strip()
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise BundleError(
                "names no bundle", where=folder / "current", todo="run atoll-server release again"
            )
        path = folder / f"{digest}.fab"
        content = path.read_bytes()
    except OSError as fault:
        raise BundleError(
            "no bundle was released", where=home, todo=f"run atoll-server release --home {home}"
        ) from fault
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(
            "was changed since its release", where=path, todo="run atoll-server release again"
        )
    files = files_of(content, where=digest[:12])
    return Bundle(content, digest, version_of(files, where=digest[:12]))


def commit_of(source: Path) -> Commit | None:
    """What git has of a folder in its last commit; None where there is no git or no commit."""
    found = _git(source, "rev-parse", "HEAD"), _git(source, "ls-tree", "-r", "-z", "HEAD")
    if found[0] is None or found[1] is None:
        return None
    blobs = {}
    for entry in filter(None, found[1].split(b"\0")):
        told, _, name = entry.partition(b"\t")
        blobs[os.fsdecode(name)] = told.split()[2].decode()
    return found[0].decode().strip(), blobs


def differing(files: Mapping[str, bytes], commit: Commit) -> list[str]:
    """The files of a bundle that are not in the commit to the byte, and its code that is missing.

    Nothing is asked of git's index, so neither an ignored file nor a hidden change passes.
    """
    _, blobs = commit
    found = {name for name in files if name != CONTENT}
    tops = {name.partition("/")[0] for name in found if name.endswith(".py")}
    gone = {
        name
        for name in blobs
        if name.endswith(".py") and name.partition("/")[0] in tops and name not in found
    }
    other = {name for name in found if blobs.get(name, "") not in _blobs(files[name])}
    return sorted(gone | other)


def _blobs(content: bytes) -> set[str]:
    """The ids that git may give to a file's content; it knows two hashes."""
    whole = b"blob %d\0%b" % (len(content), content)
    return {hashlib.new(of, whole, usedforsecurity=False).hexdigest() for of in ("sha1", "sha256")}


def _git(source: Path, *words: str) -> bytes | None:
    try:
        told = subprocess.run(
            ["git", "-C", str(source), *words], capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout if told.returncode == 0 else None
