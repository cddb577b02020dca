"""Writing to disk so that nothing half-written is ever left behind."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from shared.errors import AtollError, ConfigError

_TEMPORARY = re.compile(r"\.(.+)\.atoll-[0-9a-f]{8}", re.DOTALL)


def temporary(path: Path) -> Path:
    """A new name for a file that is to take `path`'s place: hidden, in the same folder."""
    return path.with_name(f".{path.name}.atoll-{uuid.uuid4().hex[:8]}")


def replaces(path: Path) -> str | None:
    """The name that a temporary file was to get; None for a file that Atoll did not name so."""
    match = _TEMPORARY.fullmatch(path.name)
    return match[1] if match else None


@contextmanager
def replacing(path: Path, *, private: bool = False, public: bool = False) -> Iterator[Path]:
    """A path to write to that durably takes `path`'s place, only if the body succeeds.

    Args:
        path: to be replaced.
        private: only its owner may read it, from the first byte on.
        public: whoever the umask lets may read it, also where a library writes it for its owner
            alone, as safetensors 0.8 does.

    Raises:
        ConfigError: the disk is full, or the folder is missing or may not be written to.
    """
    part = temporary(path)
    try:
        if private:
            part.touch(0o600)
        yield part
        if private:  # whoever writes may have put another file there
            os.chmod(part, 0o600)
        if public:
            os.chmod(part, 0o666 & ~umask())
        # On the disk before it has the name, and the name before anybody is told.
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    except (OSError, SafetensorError) as fault:
        raise unwritable(path, fault) from fault
    finally:
        part.unlink(missing_ok=True)


def umask() -> int:
    """This process's umask, which may be asked for only by setting it: other threads write too."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(it for it in lines if it.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def check_readable(path: Path, error: type[AtollError], *, missing: str, todo: str) -> None:
    """Refuse a file that is not there or may not be read, with the system's own reason.

    Args:
        path: of the file.
        error: what is raised.
        missing: what to say if it is not there.
        todo: the next step then.

    Raises:
        AtollError: of the type `error`.
    """
    try:
        if not path.is_file():
            raise error(missing, where=path, todo=todo)
        path.open("rb").close()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise error(
            f"cannot be read ({why})", where=path, todo="mend its rights, or those of its folder"
        ) from None


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
