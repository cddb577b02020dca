"""Every version of the model, whole or not at all, so that a federation can go on where it stood.

    ServerState, RoundReport ─record→ version: files, then one row with manifest and signature
    version ─promote→ the one that platforms are given; a history that is only ever added to
    Standing ─remember→ the platforms' last receipts, which outlive every run

Rounds are numbered within a run, versions over all of them. How it lies on the disk and survives
`kill -9` is server/registry_file.py's matter.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save_file

from server import runs
from server.aggregate import ServerState
from server.registry_file import RegistryFile, damaged
from server.versions import (
    COLUMNS,
    Promotion,
    RoundReport,
    Version,
    mean,
    row_of,
    verified,
    version_of,
)
from shared import manifest, signing
from shared.adapter import Adapter, save_adapter
from shared.asking import Standing
from shared.errors import RoundError

__all__ = ["Promotion", "Registry", "RoundReport", "Version"]

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM versions"
_INSERT = f"INSERT INTO versions VALUES ({', '.join('?' * len(COLUMNS))})"


class Registry:
    """The versions under one folder, which is made when something is written.

    Args:
        folder: of the run or of the server.
        signer: signs every version and every request; None leaves them unsigned.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        signer: Ed25519PrivateKey | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = RegistryFile(folder)
        self.folder = self._file.rounds
        self.path = self._file.path
        self.signer, self.clock = signer, clock

    def rounds(self) -> list[int]:
        """Rounds of this run that are there, in order."""
        if not self._file.exists():
            return []
        with self._file.reading() as base:
            return sorted(self._places(base))

    def adapter_path(self, round_: int) -> Path:
        """Where the Adapter after this round lies."""
        found = self._latest(round_)
        folder = self.folder / f"{round_:04d}" if found is None else found.folder
        return folder / "adapter.safetensors"

    def record(self, state: ServerState, report: RoundReport) -> None:
        """Write a round, and only then let it appear; nothing of it is left if that fails.

        Raises:
            RoundError: the round is there already, or the registry is damaged.
            ConfigError: it cannot be written.
        """
        text = json.dumps(asdict(report), sort_keys=True)
        moments = list[str]()

        def write(part: Path) -> None:
            save_adapter(state.adapter, part / "adapter.safetensors")
            save_file(dict(state.moments), part / "moments.safetensors")
            moments.append(signing.digest((part / "moments.safetensors").read_bytes()))

        with self._file.writing() as base:
            self._file.sweep(base)
            places = self._places(base)
            if report.round in places:
                raise RoundError(
                    f"round {report.round} is recorded already",
                    where=self.folder / places[report.round],
                    todo="go on with the round after it",
                )
            number = _one(base, "SELECT coalesce(max(version), 0) + 1 FROM versions")
            name = f"{report.round:04d}"
            if _one(base, "SELECT count(*) FROM versions WHERE place = ?", name):
                name += f"-{number}"  # of an earlier run, or deleted by people
            try:
                self._file.save(name, write)
                told = manifest.Manifest(
                    version=number,
                    adapter=state.adapter.digest,
                    parents=_parents(base, places, report.round),
                    backbone=state.adapter.backbone,
                    task=state.adapter.task,
                    run=runs.name_of(base),
                    round=report.round,
                    participants=report.replied,
                    metrics=mean(report.validation),
                    time=float(self.clock()),
                    atoll=manifest.here(),
                    moments=moments[0],
                    report=signing.digest(text),
                )
                signature = manifest.sign(told, self.signer) if self.signer else ""
                version = Version(told, told.digest, signature, self.folder / name, text)
                base.execute(_INSERT, row_of(version))
            except BaseException:
                self._file.forget(name)
                raise

    def load(self, round_: int) -> tuple[ServerState, RoundReport]:
        """The state after a round of this run and its report.

        Raises:
            RoundError: there is none, or a file of it is missing or damaged.
        """
        found = self._latest(round_)
        if found is None:
            raise RoundError(
                f"round {round_} is not recorded", where=self.folder, todo="name one that is"
            )
        adapter, moments = found.tensors()
        state = ServerState(adapter, {it: np.asarray(moments[it], np.float32) for it in moments})
        return state, self.report(found)

    def report(self, version: Version) -> RoundReport:
        """What happened in the round that a version comes from.

        Raises:
            RoundError: another version of Atoll wrote it.
        """
        return version.round_report(self.path)

    def versions(self) -> list[Version]:
        """All versions of all runs, also those whose files were deleted, in order.

        Raises:
            RoundError: a row was changed.
        """
        if not self._file.exists():
            return []
        with self._file.reading() as base:
            rows = base.execute(f"{_SELECT} ORDER BY version").fetchall()
        return [version_of(row, self.folder, self.path) for row in rows]

    def verify(self, version: int, *, public: str | None = None) -> Version:
        """Check a version's tensors, its manifest, and those of all that it comes from.

        Args:
            version: its number.
            public: the key that must have signed them all; left out, that of `signer`. With
                neither no signature is checked.

        Raises:
            RoundError: something is missing, damaged or edited.
            IdentityError: a signature is missing or false.
        """
        if public is None and self.signer is not None:
            public = signing.public_of(self.signer)
        return verified(self.versions(), version, public=public, path=self.path)

    def promote(
        self, version: int, *, who: str, why: str, kind: Literal["promote", "rollback"] = "promote"
    ) -> Promotion:
        """Add to the history which version platforms are given from now on; nothing is checked."""
        made = Promotion(version, kind, float(self.clock()), who, why)
        with self._file.writing() as base:
            number = _one(base, "SELECT coalesce(max(number), 0) + 1 FROM promotions")
            row = (number, version, kind, made.time, who, why)
            base.execute("INSERT INTO promotions VALUES (?, ?, ?, ?, ?, ?)", row)
        return made

    def promotions(self) -> list[Promotion]:
        """Every promotion and rollback, in order."""
        if not self._file.exists():
            return []
        with self._file.reading() as base:
            query = "SELECT version, kind, time, who, why FROM promotions ORDER BY number"
            return [Promotion(*row) for row in base.execute(query)]

    def current(self) -> Version | None:
        """The version that platforms are given; None before the first promotion.

        Raises:
            RoundError: its row was changed or is gone.
        """
        history = self.promotions()
        if not history:
            return None
        number = history[-1].version
        found = next((it for it in self.versions() if it.manifest.version == number), None)
        if found is None:
            raise damaged(self.path, f"version {number}, which was promoted, is not there")
        return found

    def settle(self, settings: Mapping[str, object]) -> None:
        """Write down what the rounds of this run depend on, or compare it with what stands there.

        Raises:
            RoundError: a setting differs, so that two federations would be mixed.
        """
        if self._file.exists():
            with self._file.reading() as base:
                before = runs.settings_of(base, self.path)
            if before is not None:
                return runs.check_same(before, settings, path=self.path)
        with self._file.writing() as base:
            runs.settle(base, settings)

    def standing(self) -> Standing:
        """The run's name, made up at its first start, and what is known of Ledgers.

        Raises:
            RoundError: the registry is damaged.
        """
        if not self._file.exists():
            with self._file.writing():
                pass  # it is made with a first run
        with self._file.reading() as base:
            return runs.standing_of(base)

    def remember(self, standing: Standing) -> None:
        """Write down a Standing, durably; receipts it does not name stay as they are."""
        with self._file.writing() as base:
            runs.remember(base, standing)

    def signature(self, adapter: Adapter) -> str:
        """The coordinator's signature of what platforms are sent; "" without a key."""
        if self.signer is None:
            return ""
        said = manifest.statement(adapter, self.standing().run)
        return signing.sign(self.signer, manifest.PURPOSE, said)

    def clear(self) -> None:
        """Remove every run, version and receipt: for simulations."""
        self._file.clear()

    def _places(self, base: sqlite3.Connection) -> dict[int, str]:
        """By round of this run, the name of the folder that is there; people may delete one."""
        there = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        query = "SELECT round, place FROM versions WHERE run = ? ORDER BY version"
        return {
            round_: place
            for round_, place in base.execute(query, (runs.name_of(base),))
            if place in there
        }

    def _latest(self, round_: int) -> Version | None:
        """The version of a round of this run that is there."""
        if not self._file.exists():
            return None
        with self._file.reading() as base:
            place = self._places(base).get(round_)
            row = base.execute(f"{_SELECT} WHERE place = ?", (place,)).fetchone()
        return version_of(row, self.folder, self.path) if row is not None else None


def _parents(base: sqlite3.Connection, places: Mapping[int, str], round_: int) -> tuple[str, ...]:
    """The manifest from which a round started: that of the last round before it."""
    before = [number for number in places if number < round_]
    if not before:
        return ()
    return (_one(base, "SELECT digest FROM versions WHERE place = ?", places[max(before)]),)


def _one(base: sqlite3.Connection, query: str, *values: str) -> Any:
    return base.execute(query, values).fetchone()[0]
