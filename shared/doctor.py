"""Is this machine ready? Checks that both sides share, and how a list of checks is told.

    ✓ holds     ✗ is wrong, and what to do     – cannot be told, or is worth knowing

A check never raises and changes nothing: what is wrong is what it is there to say.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import typer
from packaging.requirements import Requirement

from shared.channel import split
from shared.errors import AtollError
from shared.terminal import console, print_json

GIB = 2**30
DISK = 1 * GIB  # rounds and bundles of months; an Adapter is a few hundred kB
MEMORY = 2 * GIB  # torch, a text encoder and a backbone
CLOCK = 60.0  # seconds, beyond which the coordinator refuses a checkpoint
DRIFT = 5.0  # seconds that no time server leaves

Clock = Callable[[], float]

MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        ok: whether it is right; None where that cannot be told, or nothing need be done.
        told: what was found.
        todo: the next step; empty if there is none.
    """

    name: str
    ok: bool | None
    told: str
    todo: str = ""

    def line(self) -> str:
        """For people."""
        todo = f"; {self.todo}" if self.todo else ""
        return " ".join(f"{MARKS[self.ok]} {self.name}: {self.told}{todo}".split())


def tried(name: str, look: Callable[[], str]) -> Check:
    """A check that is right, and tells what `look` returns, unless that raises an AtollError."""
    try:
        return Check(name, True, look())
    except AtollError as fault:
        return wrong(name, fault)


def wrong(name: str, fault: AtollError) -> Check:
    """A check that found this fault."""
    place = f"{fault.where}: " if fault.where is not None else ""
    return Check(name, False, f"{place}{fault.what}", fault.todo)


def end(checks: Sequence[Check], *, as_json: bool) -> None:
    """Print the checks.

    Raises:
        typer.Exit: one is wrong; the exit code is 2.
    """
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            console.print(check.line(), highlight=False, markup=False, soft_wrap=True)
    if any(check.ok is False for check in checks):
        raise typer.Exit(2)


def machine(folder: Path) -> list[Check]:
    """Python, packages, disk and memory: what both sides need."""
    return [python(), packages(), disk(folder), memory()]


def python() -> Check:
    """Whether this is the Python that Atoll is tested with."""
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    right = sys.version_info[:2] == (3, 11)
    return Check("python", right, found, "" if right else "use Python 3.11")


def packages(needed: Iterable[str] | None = None) -> Check:
    """Whether what is installed is what Atoll asks for; None reads that of its own package."""
    todo = "install Atoll anew, with its constraints.txt"
    try:
        asked = [
            Requirement(line) for line in (requires("atoll") if needed is None else needed) or ()
        ]
    except PackageNotFoundError:
        return Check("packages", False, "atoll itself is not installed", todo)
    wrong, count = [], 0
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            has = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(has, prereleases=True):
            wrong.append(f"{one.name} is {has}, not {one.specifier}")
    return Check(
        "packages",
        not wrong,
        ", ".join(wrong) or f"{count} as pinned",
        todo if wrong else "",
    )


def disk(folder: Path, *, least: int = DISK) -> Check:
    """Free space where `folder` is or will be."""
    try:
        there = next(it for it in (folder.absolute(), *folder.absolute().parents) if it.is_dir())
        free = shutil.disk_usage(there).free
    except (OSError, StopIteration):
        return Check("disk", None, f"cannot be looked at: {folder}")
    todo = "" if free >= least else f"free some: {least / GIB:.0f} GiB are little enough"
    return Check("disk", free >= least, f"{free / GIB:.1f} GiB free", todo)


def memory(*, least: int = MEMORY, source: Path = Path("/proc/meminfo")) -> Check:
    """Memory that a program could have now."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
        free = next(int(it.split()[1]) for it in lines if it.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return Check("memory", None, "this system does not say")
    todo = "" if free >= least else "end other programs, or use a larger machine"
    return Check("memory", free >= least, f"{free / GIB:.1f} GiB available", todo)


def gpu() -> Check:
    """Whether training has a GPU."""
    try:
        import torch
    except ImportError:
        return Check("gpu", False, "torch cannot be imported", "install Atoll anew")
    if torch.cuda.is_available():
        return Check("gpu", True, torch.cuda.get_device_name(0))
    return Check("gpu", None, "none: training runs on the CPU")


def clock(*, theirs: float, mine: float) -> Check:
    """Whether this clock and the other side's agree."""
    off = mine - theirs
    told = f"{abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} the coordinator's"
    if abs(off) > CLOCK:
        todo = "set both by a time server: the coordinator refuses this"
        return Check("clock", False, told, todo)
    if abs(off) > DRIFT:
        return Check("clock", None, told, "set both by a time server")
    return Check("clock", True, told)


def private(folder: Path, keys: Sequence[str]) -> Check:
    """Whether nobody else may read the folder's keys."""
    wrong, missing = [], []
    for name in keys:
        try:
            mode = stat.S_IMODE((folder / name).stat().st_mode)
        except OSError:
            missing.append(f"{name} is missing")
            continue
        if mode & 0o077:
            wrong.append(f"{name} has mode {mode:o}")
    if missing:
        return Check("keys", False, ", ".join([*missing, *wrong]), "put it back from a backup")
    if wrong:
        todo = "chmod 600, and renew it if anybody may have read it"
        return Check("keys", False, ", ".join(wrong), todo)
    return Check("keys", True, "for their owner alone")


def port(name: str, listen: str, *, ours: bool, todo: str = "stop what listens there") -> Check:
    """Whether an address can be listened on, or is by our own daemon.

    Args:
        name: of the check.
        listen: HOST:PORT; empty for none.
        ours: whether our own daemon is running.
        todo: the next step where something else has it.
    """
    if not listen:
        return Check(name, None, "none")
    try:
        host, number = split(listen, lowest=0)
    except AtollError as fault:
        return Check(name, False, fault.what, fault.todo)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            # As servers do: a port whose last connections are still fading away is free.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((host, number))
            attempt.listen(1)
    except OSError as fault:
        if ours:
            return Check(name, True, f"{listen}, in use by the one that is up")
        why = fault.strerror or str(fault)
        return Check(name, False, f"{listen} cannot be used ({why})", todo)
    if ours and number:
        return Check(name, False, f"{listen}: one is up, but not there", "restart it")
    return Check(name, True, f"{listen} is free")


def running(home: Path) -> bool:
    """Whether a daemon works on this folder (see shared.files.alone)."""
    try:
        handle = os.open(home / ".lock", os.O_RDONLY)
    except OSError:
        return False
    with suppress(OSError):
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False
