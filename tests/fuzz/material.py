"""What targets share: a scratch folder in memory, keys and documents of a small federation."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate

from server.certificates import new_ca, new_leaf, san
from shared.adapter import Adapter
from shared.signing import public_of
from shared.trust import pem

NOW = 1_800_000_000.0
ADAPTER = Adapter(
    {"layers.0.adapter.weight": np.zeros((2, 3), np.float32), "gate.adapter": np.ones(1, "f4")},
    backbone="b" * 64,
    task="next-item",
    version=3,
)


@cache
def scratch() -> Path:
    """A folder of this process, in memory where the machine has such."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="atoll-fuzz-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def stored(name: str, content: bytes, *, private: bool = False) -> Path:
    """A file of the scratch folder with this content."""
    path = scratch() / name
    path.write_bytes(content)
    if private:
        path.chmod(0o600)
    return path


@cache
def signing_key() -> Ed25519PrivateKey:
    """Of everyone who signs; the same in every process."""
    return Ed25519PrivateKey.from_private_bytes(b"atoll fuzzing, this is no secret")


@cache
def public() -> str:
    """The key by which its signatures are checked."""
    return public_of(signing_key())


@cache
def node_key() -> ec.EllipticCurvePrivateKey:
    """Of a platform's node."""
    return ec.derive_private_key(2**200 + 1, ec.SECP384R1())


@cache
def authority() -> tuple[ec.EllipticCurvePrivateKey, Certificate]:
    """A coordinator's CA."""
    return new_ca("coordinator", 1)


@cache
def certificate() -> Certificate:
    """Of a server, by that CA."""
    key, ca = authority()
    return new_leaf(ca, key=key, hosts=san(["localhost", "127.0.0.1"]))[1]


def bundle() -> bytes:
    """The CAs that platforms trust, PEM."""
    return pem([authority()[1]])


def document(value: Any) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def document_of(case: bytes) -> Any:
    """The value of a case that is JSON, however odd; None if it is not."""
    try:
        return json.loads(case)
    except (ValueError, RecursionError):
        return None
