"""Signatures that serve one purpose each, and the private keys behind them.

    document ─canonical→ bytes ─sign(purpose)→ hex        key ─public_of→ 64 hex ─check→ or one line

A signature is Ed25519's over `atoll PURPOSE`, a line end and the bytes: none can be passed off as
another kind. A private key lies in a file of its own that its owner alone may read.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import IdentityError
from shared.files import replacing, sync, unwritable

PRIVATE = 0o600  # the mode of every private key


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in a file; made if there is none, whole or not at all.

    Of several processes that make it at once, all get the same.

    Raises:
        IdentityError: it is damaged, or others may read it.
        ConfigError: it cannot be made.
    """
    if not path.exists():
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            _write(part, private_pem(Ed25519PrivateKey.generate()))
            # Unlike a rename, a link replaces nobody's key.
            with suppress(FileExistsError):
                os.link(part, path)
            sync(path.parent)
        except OSError as fault:
            raise unwritable(path, fault) from fault
        finally:
            part.unlink(missing_ok=True)
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(
            "is damaged, or no Ed25519 key", where=path, todo="put it back from a backup"
        )
    return key


def public_of(key: Ed25519PrivateKey) -> str:
    """The public key, as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def sign(key: Ed25519PrivateKey, purpose: str, body: bytes) -> str:
    """The signature of `body` for this purpose alone, as hexadecimal digits."""
    return key.sign(_signed(purpose, body)).hex()


def check(
    public: str, purpose: str, body: bytes, signature: str, *, where: str | Path | None = None
) -> None:
    """Whether the key's owner signed `body` for this purpose.

    Args:
        public: 64 hexadecimal digits.
        purpose: what the signature is to serve.
        body: what was signed, to the byte.
        signature: 128 hexadecimal digits.
        where: whence it came, for the error.

    Raises:
        IdentityError: not, or what is given is no key or no signature.
    """
    key = public_key(public)
    try:
        if not re.fullmatch(r"[0-9a-f]{128}", signature):
            raise InvalidSignature
        key.verify(bytes.fromhex(signature), _signed(purpose, body))
    except (InvalidSignature, TypeError):
        raise IdentityError(
            f"the {purpose} signature does not hold for key {str(public)[:16]}",
            where=where,
            todo="ask its sender for it again, and for the fingerprint of the key",
        ) from None


def public_key(public: str) -> Ed25519PublicKey:
    """The public key in 64 hexadecimal digits.

    Raises:
        IdentityError: it is none.
    """
    try:
        if not re.fullmatch(r"[0-9a-f]{64}", public):
            raise ValueError
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except (ValueError, TypeError):
        raise IdentityError(
            f"{str(public)[:16]!r} is no Ed25519 public key", todo="give its 64 hexadecimal digits"
        ) from None


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one form in which a document is signed: JSON, keys sorted, no spaces, ASCII.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(content: str | bytes) -> str:
    """SHA-256, hex."""
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def private_pem(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS8 in PEM, without a password: a service starts unattended."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that its owner alone may read; it is on the disk when this returns.

    Raises:
        ConfigError: it cannot be written; the one before is left.
    """
    with replacing(path) as part:
        _write(part, content)


def read_private(path: Path) -> bytes:
    """What is in a file that its owner alone may read.

    Raises:
        IdentityError: it is missing or cannot be read, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise IdentityError(
            f"the key cannot be read ({why})", where=path, todo="put it back from a backup"
        ) from None
    if mode & 0o077:
        raise IdentityError(
            f"a key that others may open (mode {mode:o})",
            where=path,
            todo="chmod 600 it, and make a new one if anybody may have read it",
        )
    return content


def _signed(purpose: str, body: bytes) -> bytes:
    return b"atoll " + purpose.encode("ascii") + b"\n" + body


def _write(path: Path, content: bytes) -> None:
    """Write a new file that nobody else may read at any moment, down to the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
