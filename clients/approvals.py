"""Which code may run on this platform: bundles by SHA-256, and what the operator said of each.

    offered ─→ waiting ─approve→ approved ─unpack→ runs
                  └─reject→ rejected

    FOLDER/DIGEST.fab       the bytes as they came
    FOLDER/DIGEST.json      what was decided, by whom, when

A decision is read anew each time, so it holds at once: a worker ends as soon as its bundle is
rejected, or as nobody can tell whether it is approved. What is unpacked is verified again: a file
that changed on the disk after it was approved runs no more than one that never was. Whoever may
write here as this user may approve, of course: it is his platform.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pwd
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from clients.differences import Change, compare
from shared.bundle import CONTENT, files_of
from shared.errors import BundleError
from shared.files import made_folder, replacing, unwritable
from shared.locking import locked
from shared.printable import printable
from shared.strict_parsing import LATEST, json_file

log = logging.getLogger("atoll.client")

Standing = Literal["approved", "waiting", "rejected", "unknown"]

WAITING = 16  # bundles in the queue; a server that offers more pushes the oldest out
LONGEST = 64 * 1024  # bytes of a decision; real ones have some 200
HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Decision:
    """What is known of a bundle.

    Attributes:
        digest: its SHA-256.
        standing: approved, waiting or rejected.
        time: when that was so, seconds since 1970.
        by: login of who decided, and of who called sudo for it; empty while it waits.
    """

    digest: str
    standing: Standing
    time: float
    by: str = ""


class Approvals:
    """The bundles under one folder."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock

    def offered(self, content: bytes, *, claimed: str) -> str:
        """Put a bundle into the queue, unless it is known already; its digest.

        Raises:
            BundleError: it is not the one it was said to be, or no bundle that could run.
            ConfigError: it cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        if digest != claimed:
            raise BundleError(
                f"is {digest[:12]}…, not {claimed[:12]}… as the server says",
                where="bundle",
                todo="ask the coordinator",
            )
        files_of(content, where=digest[:12])
        with self._alone():
            decision = self._decision(digest)
            if decision is None:
                self._make_room()
            if not self._holds(digest):
                with replacing(self._path(digest, "fab")) as part:
                    part.write_bytes(content)
            if decision is None:
                self._decide(Decision(digest, "waiting", self._clock()))
        return digest

    def standing(self, digest: str) -> Standing:
        """What the operator says of it now; unknown also if its bytes are gone, to be had again.

        Raises:
            BundleError: the file that says so is damaged.
        """
        found = self._decision(digest)
        if found is None or not self._path(digest, "fab").exists():
            return "unknown"
        return found.standing

    def permits(self, digest: str) -> bool:
        """Whether it may run now; not where it cannot be told."""
        try:
            return self.standing(digest) == "approved"
        except BundleError as fault:
            log.error("%s", fault)
            return False

    def approve(self, digest: str) -> Decision:
        """Let it run from now on; durable when this returns.

        Raises:
            BundleError: it is not here, or is not what its name says.
            ConfigError: it cannot be written.
        """
        return self._decided(digest, "approved")

    def reject(self, digest: str) -> Decision:
        """Let it run no more.

        Raises:
            BundleError: it is not here.
        """
        return self._decided(digest, "rejected")

    def entries(self) -> list[Decision]:
        """All that is known, the latest first."""
        if not self.folder.is_dir():
            return []
        digests = [path.stem for path in self.folder.glob("*.json") if HEX.fullmatch(path.stem)]
        found = [it for digest in digests if (it := self._decision(digest)) is not None]
        return sorted(found, key=lambda it: (-it.time, it.digest))

    def named(self, start: str) -> str:
        """The digest that begins so.

        Raises:
            BundleError: none does, or several, or fewer than 8 characters are given.
        """
        found = [it.digest for it in self.entries() if it.digest.startswith(start.lower())]
        if len(start) < 8 or len(found) != 1:
            raise BundleError(
                f"{start[:64]!r} names {len(found)} bundles",
                where=self.folder,
                todo="give at least 8 characters of one that atoll-client approvals list shows",
            )
        return found[0]

    def content(self, digest: str) -> bytes:
        """Its bytes, verified.

        Raises:
            BundleError: it is not here, or was changed on the disk.
        """
        try:
            content = self._path(digest, "fab").read_bytes() if HEX.fullmatch(digest) else None
        except OSError:
            content = None
        if content is None:
            raise _missing(digest)
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(
                "was changed on the disk since it came",
                where=self._path(digest, "fab"),
                todo="remove it; the server will offer it again",
            )
        return content

    def changes(self, digest: str, against: Mapping[str, bytes]) -> list[Change]:
        """How it differs from other files; names and lines are safe to print.

        Raises:
            BundleError: it is not here, or no bundle.
        """
        return compare(against, files_of(self.content(digest), where=digest[:12]))

    def approved_before(self, digest: str) -> str | None:
        """The bundle approved last, other than this one."""
        others = (it for it in self.entries() if it.digest != digest)
        return next((it.digest for it in others if it.standing == "approved"), None)

    def unpack(self, digest: str, into: Path) -> None:
        """Write its files into a new folder, to run from there.

        Raises:
            BundleError: it is not approved, was changed, or could do harm.
            ConfigError: it cannot be written.
        """
        if self.standing(digest) != "approved":
            raise BundleError(
                "is not approved here",
                where=digest[:12],
                todo=f"look at it with atoll-client approvals show {digest[:12]}",
            )
        files = files_of(self.content(digest), where=digest[:12])
        del files[CONTENT]
        try:
            into.mkdir(parents=True, mode=0o700)  # refuses a folder that is there: it may be a link
        except OSError as fault:
            raise unwritable(into, fault) from fault
        try:
            for name, content in files.items():
                path = into / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(content)
        except OSError as fault:
            shutil.rmtree(into, ignore_errors=True)
            raise unwritable(into, fault) from fault

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time: no decision is lost between a daemon and an operator."""
        lock = made_folder(self.folder) / ".lock"
        with locked(lock, write=True, error=BundleError):
            self.folder.chmod(0o700)
            yield

    def _decided(self, digest: str, standing: Standing) -> Decision:
        with self._alone():
            if self.standing(digest) == "unknown":
                raise _missing(digest)
            if standing == "approved":
                self.content(digest)
            return self._decide(Decision(digest, standing, self._clock(), login()))

    def _holds(self, digest: str) -> bool:
        try:
            return bool(self.content(digest))
        except BundleError:
            return False

    def _decide(self, decision: Decision) -> Decision:
        with replacing(self._path(decision.digest, "json")) as part:
            part.write_text(json.dumps(asdict(decision)) + "\n", encoding="utf-8")
        return decision

    def _decision(self, digest: str) -> Decision | None:
        if not HEX.fullmatch(digest):
            return None
        path = self._path(digest, "json")
        try:
            told = json_file(path, largest=LONGEST)
            standing = cast(Standing, str(told["standing"]))
            if told["digest"] != digest or standing not in ("approved", "waiting", "rejected"):
                raise ValueError
            if not 0 <= told["time"] <= LATEST:  # what has no date cannot be listed
                raise ValueError
            return Decision(digest, standing, float(told["time"]), str(told["by"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
            raise BundleError(
                f"cannot be read ({type(fault).__name__})",
                where=path,
                todo="remove it, decide anew",
            ) from fault

    def _make_room(self) -> None:
        for path in self.folder.glob("*.fab"):
            if not path.with_suffix(".json").exists():  # a crash came between the two
                path.unlink()
        waiting = [it for it in self.entries() if it.standing == "waiting"]
        for it in waiting[WAITING - 1 :]:
            for kind in ("json", "fab"):
                self._path(it.digest, kind).unlink(missing_ok=True)

    def _path(self, digest: str, kind: str) -> Path:
        return self.folder / f"{digest}.{kind}"


def login() -> str:
    """Who this is by the system, not by a variable; who called sudo is only what sudo says."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # a container's user may have no name
        name = str(user)
    caller = os.environ.get("SUDO_USER", "")
    return printable(f"{name} (sudo by {caller[:64]})" if caller else name)


def _missing(digest: str) -> BundleError:
    return BundleError(
        "is not here", where=digest[:12], todo="see atoll-client approvals list for those that are"
    )
