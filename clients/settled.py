"""How a platform weighs, kept beside its item vectors, so that it is not found anew each time.

    rows, backbone, sums ─key→ as in the file: what was settled      not so: found, and kept there

One file a platform: after rows change, an erasure among them, the next recommendation puts its own
in the place of what was settled by the old ones. It tells of shoppers' rows, so only its owner may
read it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clients.platform import Platform
from clients.pretrained_weighing import PRETRAINED
from clients.weighing import FEATURES, Weighing, weighing_of
from shared import manifest
from shared.cache_folder import default_cache
from shared.errors import ConfigError
from shared.files import made_folder, replacing
from shared.tables.config import PlatformConfig
from shared.tensor_files import check_header

log = logging.getLogger("atoll.cache")

RULE = "weighing/6"  # of how it is found; another one finds it anew


@dataclass(frozen=True)
class Settled:
    """What a platform settled on.

    Attributes:
        weighing: of everything.
        joined: whether the others' sums are listened to.
    """

    weighing: Weighing
    joined: bool


def place_of(config: PlatformConfig) -> Path | None:
    """Where a platform keeps how it weighs, in the cache that its file names or the user's own.

    All platforms of a user share the latter, so there the place of the events' table is part of
    the name. None where there can be no cache.
    """
    if config.cache:
        return config.cache / f"weighing-{config.name}.safetensors"
    folder, table = default_cache(), config.events.path
    if folder is None:
        return None
    # The folder alone is resolved: a link may lead to another export every day.
    place = os.fsencode(table.parent.resolve() / table.name)
    code = hashlib.sha256(place).hexdigest()[:16]
    return folder / f"weighing-{config.name}-{code}.safetensors"


def key_of(platform: Platform, sums: Path | None) -> str:
    """Of everything that decides how a platform weighs: SHA-256, in hexadecimal."""
    histories = platform.rows.histories
    parts = [RULE.encode(), PRETRAINED.flat.tobytes()]
    parts += [platform.digest.encode(), platform.rows.catalogue.digest.encode()]
    columns = (histories.items, histories.offsets, histories.days)
    parts += [b"" if it is None else it.tobytes() for it in columns]
    if sums is not None:
        parts += [sums.read_bytes(), manifest.beside(sums).read_bytes()]
        parts.append(repr(platform.config.weight).encode())  # by which its own part is taken out
    return hashlib.sha256(b"".join(hashlib.sha256(it).digest() for it in parts)).hexdigest()


def kept(path: Path, key: str) -> Settled | None:
    """What was settled under this key; None if nothing was, or it cannot be read."""
    try:
        check_header(path)
        with safe_open(path, framework="np") as file:
            told = file.metadata() or {}
            flat = file.get_tensor("weighing")
    # The last three: a header that is too long, types of number that numpy lacks.
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError):
        return None
    if told.get("key") != key or flat.shape != (FEATURES,) or not flat[0] > 0:
        return None
    return Settled(weighing_of(flat), told.get("joined") == "True")


def keep(path: Path, key: str, settled: Settled, *, spare: bool = False) -> None:
    """Put it in the place of what was settled before.

    Args:
        path: of the file.
        key: of everything that decides it.
        settled: on what.
        spare: nobody named the folder, so that one which cannot be written to costs time alone.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    header = {"key": key, "joined": str(settled.joined)}
    flat = np.ascontiguousarray(settled.weighing.flat)
    try:
        made_folder(path.parent)
        with replacing(path, private=True) as part:
            save_file({"weighing": flat}, part, metadata=header)
    except ConfigError as fault:
        if not spare:
            raise
        log.warning("how this platform weighs is not kept: %s", fault)
