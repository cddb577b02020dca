"""A version of the model as the registry holds it: one row, and what it says is checked.

Manifest, signature, report ─row_of→ row of the database ─version_of→ the same, or one line
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load_file

from server.aggregate import Moments
from server.registry_file import damaged
from shared.adapter import Adapter, load_adapter
from shared.errors import AdapterError, RoundError
from shared.manifest import Manifest, check, parse
from shared.signing import digest
from shared.strict_parsing import json_value

COLUMNS = (
    "version",
    "run",
    "round",
    "place",
    "digest",
    "adapter",
    "parents",
    "participants",
    "metrics",
    "manifest",
    "signature",
    "report",
)


LARGEST_REPORT = 16 * 2**20  # bytes; of each platform some hundreds


@dataclass(frozen=True)
class RoundReport:
    """What happened in a round; round 0 is the untrained state.

    Attributes:
        round: from 0.
        seconds: from the first request to the last metric, on the server's clock.
        bytes_down: tensors sent to platforms.
        bytes_up: tensors received from them.
        replied: names of the platforms whose Update was averaged.
        refused: why, by name, for those that answered what cannot be used.
        missing: names of those that did not answer in time.
        validation: by name, the metrics of those that share them.
        moved: whether the quorum was met, so that the Adapter moved.
        noise: by name, how each Update was protected: none, simulated or secure.
        asked: names of the platforms that were asked to train.
    """

    round: int
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    replied: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    moved: bool = True
    noise: dict[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Version:
    """A recorded version.

    Attributes:
        manifest: what it is, and where it comes from.
        digest: SHA-256 of the manifest; what its children name it by.
        signature: the coordinator's, "" if the registry had no key.
        folder: where its tensors lie.
        report: what is written down of its round, as JSON.
    """

    manifest: Manifest
    digest: str
    signature: str
    folder: Path
    report: str

    @property
    def adapter_path(self) -> Path:
        """The Adapter's file."""
        return self.folder / "adapter.safetensors"

    @property
    def moments_path(self) -> Path:
        """The file of the server optimizer's memory."""
        return self.folder / "moments.safetensors"

    @property
    def present(self) -> bool:
        """Whether its folder is still there: people may delete one that is damaged."""
        return self.folder.is_dir()

    def tensors(self) -> tuple[Adapter, Moments]:
        """What is in its files, once they are found to be those of the manifest.

        Raises:
            RoundError: a file is missing, damaged or another.
        """
        try:
            adapter = load_adapter(self.adapter_path)
            content = self.moments_path.read_bytes()
            if (adapter.digest, digest(content)) != (self.manifest.adapter, self.manifest.moments):
                raise ValueError("tensors of another version")
            return adapter, load_file(self.moments_path)
        except (AdapterError, OSError, ValueError, TypeError, SafetensorError) as fault:
            raise RoundError(
                f"round {self.manifest.round} cannot be read ({type(fault).__name__})",
                where=self.folder,
                todo="delete this folder; --resume then goes on from the round before it",
            ) from fault

    def round_report(self, path: Path) -> RoundReport:
        """What happened in its round.

        Raises:
            RoundError: another version of Atoll wrote it into the database at `path`.
        """
        try:
            told = json_value(self.report, largest=LARGEST_REPORT)
            told |= {key: tuple(told[key]) for key in ("replied", "missing", "asked")}
            return RoundReport(**told)
        except (ValueError, KeyError, TypeError) as fault:
            raise damaged(path, f"the report of version {self.manifest.version}") from fault


@dataclass(frozen=True)
class Promotion:
    """One change of the version that platforms are given."""

    version: int
    kind: Literal["promote", "rollback"]
    time: float
    who: str
    why: str


def mean(validation: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """By metric, the mean over the platforms that share it."""
    names = sorted({name for metrics in validation.values() for name in metrics})
    shared = {name: [it[name] for it in validation.values() if name in it] for name in names}
    return {name: sum(values) / len(values) for name, values in shared.items()}


def row_of(version: Version) -> tuple[Any, ...]:
    """The row that is written, in the order of COLUMNS."""
    told = version.manifest
    return (
        told.version,
        told.run,
        told.round,
        version.folder.name,
        version.digest,
        told.adapter,
        json.dumps(told.parents),
        json.dumps(told.participants),
        json.dumps(dict(told.metrics), sort_keys=True),
        told.text(),
        version.signature,
        version.report,
    )


def version_of(row: tuple[Any, ...], rounds: Path, path: Path) -> Version:
    """A Version from its row.

    Args:
        row: its columns, in the order of COLUMNS.
        rounds: the folder in which the folders of tensors lie.
        path: of the database, for errors.

    Raises:
        RoundError: the row was edited or damaged.
    """
    number, place, named, text, signature, report = (row[it] for it in (0, 3, 4, 9, 10, 11))
    try:
        if not all(isinstance(it, str) for it in (place, text, signature, report)):
            raise TypeError("columns that are no text")
        manifest = parse(text)
        found = Version(manifest, digest(text), signature, rounds / place, report)
        if row_of(found) != row or digest(report) != manifest.report or "/" in place:
            raise ValueError("other columns than the manifest's")
    # OverflowError: a metric that no float holds.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as fault:
        raise damaged(path, f"version {number}, digest {str(named)[:12]}, was changed") from fault
    return found


def verified(
    versions: Sequence[Version], number: int, *, public: str | None, path: Path
) -> Version:
    """Check the tensors of a version, and the manifests of it and of all that it comes from.

    Args:
        versions: all of the registry.
        number: of the version.
        public: the key that must have signed them all; None checks no signature.
        path: of the database, for errors.

    Raises:
        RoundError: something is missing, damaged or edited.
        IdentityError: a signature is missing or false.
    """
    by_digest = {it.digest: it for it in versions}
    asked = next((it for it in versions if it.manifest.version == number), None)
    if asked is None:
        raise RoundError(f"version {number} is not recorded", where=path, todo="name one that is")
    asked.tensors()
    line, seen = [asked], {asked.digest}
    while line:
        it = line.pop()
        if public is not None:
            check(it.manifest, it.signature, public, where=f"{path}: version {it.manifest.version}")
        for parent in set(it.manifest.parents) - seen:
            if parent not in by_digest:
                raise damaged(path, f"version {it.manifest.version} has lost its parent")
            seen.add(parent)
            line.append(by_digest[parent])
    return asked
