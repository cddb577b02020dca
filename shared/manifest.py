"""What the coordinator vouches for: the Adapter in a request, and a version in a file.

    Adapter, run ─statement→ bytes ─sign("model")→ goes with every request to train or evaluate
    Manifest ─canonical→ bytes ─sign("model")→ NAME.json beside NAME.safetensors

A manifest holds digests, so its signature covers the tensors, and those of its parents, so it
covers all that led to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared import signing
from shared.adapter import Adapter, load_adapter
from shared.errors import IdentityError
from shared.strict_parsing import LATEST, json_file, json_value

PURPOSE = "model"
FORMAT = "atoll-model-1"


@dataclass(frozen=True)
class Manifest:
    """What a version is, and where it comes from.

    Attributes:
        version: counts the versions of a registry, from 1.
        adapter: digest of its Adapter.
        parents: digests of the manifests that it was made from; a first version has none.
        backbone: digest of the Backbone it fits.
        task: name of its Task.
        run: name of the federation.
        round: of that run, from 0.
        participants: names of the Platforms whose Updates are in it.
        metrics: by name, the mean over the Platforms that share theirs.
        time: when it was recorded, seconds since 1970.
        atoll: version of Atoll that recorded it.
        moments: SHA-256 of the file of the server optimizer's memory.
        report: SHA-256 of what is written down of its round.
    """

    version: int
    adapter: str
    parents: tuple[str, ...]
    backbone: str
    task: str
    run: str
    round: int
    participants: tuple[str, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: float = 0.0
    atoll: str = ""
    moments: str = ""
    report: str = ""

    def text(self) -> str:
        """The one form in which it is signed and hashed."""
        return signing.canonical({"format": FORMAT, **asdict(self)}).decode()

    @property
    def digest(self) -> str:
        """SHA-256 of its text."""
        return signing.digest(self.text())


def parse(text: str) -> Manifest:
    """A Manifest from its text.

    Raises:
        ValueError: it is none, or not in the one form.
    """
    told = json_value(text)
    if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
        raise ValueError("not a manifest")
    if set(told) != {it.name for it in fields(Manifest)}:
        raise ValueError("other fields than a manifest's")
    manifest = Manifest(
        version=_of(told, "version", int),
        adapter=_of(told, "adapter", str),
        parents=_names(told, "parents"),
        backbone=_of(told, "backbone", str),
        task=_of(told, "task", str),
        run=_of(told, "run", str),
        round=_of(told, "round", int),
        participants=_names(told, "participants"),
        metrics={str(name): float(value) for name, value in dict(told["metrics"]).items()},
        time=_of(told, "time", float),
        atoll=_of(told, "atoll", str),
        moments=_of(told, "moments", str),
        report=_of(told, "report", str),
    )
    if not 0 <= manifest.time <= LATEST:
        raise ValueError("not a time that has a date")
    if manifest.text() != text:
        raise ValueError("not in the form that is signed")
    return manifest


def here() -> str:
    """The version of Atoll that runs; an app bundle is run without being installed."""
    try:
        return metadata.version("atoll")
    except metadata.PackageNotFoundError:
        return "not installed"


def statement(adapter: Adapter, run: str) -> bytes:
    """What is signed of a request: these tensors, of this run."""
    return signing.canonical(
        {
            "adapter": adapter.digest,
            "backbone": adapter.backbone,
            "task": adapter.task,
            "version": adapter.version,
            "run": run,
        }
    )


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> str:
    """The coordinator's signature of a version."""
    return signing.sign(key, PURPOSE, manifest.text().encode())


def check(
    manifest: Manifest, signature: str, public: str, *, where: str | Path | None = None
) -> None:
    """Raises: IdentityError if the coordinator did not sign this version."""
    _signed(signature, where)
    signing.check(public, PURPOSE, manifest.text().encode(), signature, where=where)


def check_request(adapter: Adapter, run: str, signature: str, public: str) -> None:
    """Raises: IdentityError if the coordinator did not sign this Adapter for this run."""
    _signed(signature, "request")
    signing.check(public, PURPOSE, statement(adapter, run), signature, where="request")


def beside(adapter: Path) -> Path:
    """Where the manifest of an adapter file lies."""
    return adapter.with_suffix(".json")


def write(path: Path, manifest: Manifest, signature: str) -> None:
    """Write a manifest and its signature for people and programs to read.

    The caller makes it durable and gives it its name.
    """
    told = {"manifest": json.loads(manifest.text()), "signature": signature}
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[Manifest, str]:
    """A manifest and its signature, "" if it has none; nothing is checked yet.

    Raises:
        IdentityError: it cannot be read, or is something else.
    """
    try:
        told = json_file(path)
        manifest = parse(signing.canonical(told["manifest"]).decode())
        return manifest, _of(told, "signature", str)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise IdentityError(
            f"is no manifest ({type(fault).__name__})",
            where=path,
            todo="fetch it anew from the coordinator",
        ) from None


def check_file(path: Path, public: str, *, unsigned: bool = False) -> None:
    """Whether the coordinator vouches for an adapter file by the manifest beside it.

    Args:
        path: the adapter's file.
        public: the coordinator's key.
        unsigned: a file without a manifest passes; one whose manifest is false never does.

    Raises:
        IdentityError: the manifest is missing or false, or of another adapter.
        AdapterError: the adapter cannot be read.
    """
    adapter = load_adapter(path)
    place = beside(path)
    if unsigned and not place.exists():
        return
    if not place.exists():
        raise IdentityError(
            f"has no manifest ({place.name}), so nobody vouches for it",
            where=path,
            todo="fetch both files from the coordinator, or use --unsigned",
        )
    manifest, signature = read(place)
    check(manifest, signature, public, where=place)
    if manifest.adapter != adapter.digest:
        raise IdentityError(
            f"vouches for adapter {manifest.adapter[:12]}…, {path.name} is {adapter.digest[:12]}…",
            where=place,
            todo="fetch both files anew from the coordinator",
        )


def read_public(path: Path) -> str:
    """The coordinator's key from a file that holds nothing else.

    Raises:
        IdentityError: it cannot be read, or holds no key.
    """
    try:
        public = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as fault:
        raise IdentityError(
            f"the coordinator's key cannot be read ({type(fault).__name__})",
            where=path,
            todo="put coordinator.pub back, or join anew",
        ) from None
    signing.public_key(public)
    return public


def _signed(signature: str, where: str | Path | None) -> None:
    if not signature:
        raise IdentityError(
            "carries no signature of the coordinator",
            where=where,
            todo="ask the coordinator for a signed one",
        )


def _of(told: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = told[name]
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{name} is no {kind.__name__}")
    return value


def _names(told: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_of({name: it}, name, str) for it in _of(told, name, list))
