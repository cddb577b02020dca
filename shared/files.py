"""Writing to disk so that nothing half-written is ever left behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from shared.errors import ConfigError

LARGEST_HEADER = (
    1 << 20
)  # bytes of a safetensors header; those that Atoll writes have some thousand
MOST_TENSORS = 4096  # in one file or message; an Adapter has some ten


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A path to write to that durably takes `path`'s place, only if the body succeeds.

    Args:
        path: to be replaced.
        private: only its owner may read it, from the first byte on.

    Raises:
        ConfigError: the disk is full, or the folder is missing or may not be written to.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if private:
            part.touch(0o600)
        yield part
        if private:  # whoever writes may have put another file there
            os.chmod(part, 0o600)
        # On the disk before it has the name, and the name before anybody is told.
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    except (OSError, SafetensorError) as fault:
        raise unwritable(path, fault) from fault
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file with more tensors than any of ours, before its header is parsed.

    Raises:
        ValueError: its header is too long, or names too many tensors.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"its header has {size} bytes, {LARGEST_HEADER} at most are read")
        count = file.read(size).count(b'"data_offsets"')
    if count > MOST_TENSORS:
        raise ValueError(f"it holds {count} tensors, {MOST_TENSORS} at most are read")


def made_folder(path: Path) -> Path:
    """Make a folder and those above it; it may be there already.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise unwritable(path, fault) from fault
    return path


def unwritable(path: Path, fault: Exception) -> ConfigError:
    """The error for a place that cannot be written to."""
    why = getattr(fault, "strerror", None) or str(fault).splitlines()[0]
    return ConfigError(
        f"cannot be written ({why})", where=path, todo="free some space or name another place"
    )
