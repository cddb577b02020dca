"""The user's own cache folder: what is made again from other files, kept where none is named.

    $XDG_CACHE_HOME/atoll, else ~/.cache/atoll      (XDG Base Directory Specification)

Only its owner may read it or write to it, since what lies there is taken for what was computed. A
machine without such a folder, such as a container whose root is read-only, does without.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("atoll.cache")

MOST = 4 * 2**30  # bytes of one kind of file; the oldest go first


def default_cache() -> Path | None:
    """The folder, made if it is missing; None where there can be none that is ours alone."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        folder = base / "atoll"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError):  # no home, or one that cannot be written to
        return None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        log.warning("%s is not used as a cache: others own it or may write to it", folder)
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def used(file: Path) -> None:
    """Mark a file as wanted now, so that others are pruned before it."""
    with suppress(OSError):
        os.utime(file)


def prune(folder: Path, pattern: str, *, most: int = MOST) -> None:
    """Remove the files of a pattern that were wanted longest ago, beyond so many bytes in all.

    Other processes may do the same at the same time.
    """
    found = []
    for file in folder.glob(pattern):
        with suppress(OSError):
            at = file.stat()
            found.append((at.st_mtime_ns, at.st_size, file))
    total = 0
    for _time, size, file in sorted(found, reverse=True):
        total += size
        if total > most:
            with suppress(OSError):
                file.unlink()
