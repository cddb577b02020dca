"""What a platform trusts: the certificates of the coordinator's CAs, and which bundle is newer.

Each CA has a number in its name, one more than the CA before it. Bundles follow each other as

    1        1 + 2        2        2 + 3        3
    rank 2   3            4        5            6     = smallest number + largest

so a platform tells a newer bundle from an older one by the certificates alone, and takes no step
back: an older bundle is what somebody who stole an old CA's key would like it to have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.errors import IdentityError

# A certificate is decoded bit by bit, when something is asked of it. What cannot be decoded raises
# ValueError, KeyError, InvalidVersion, UnsupportedGeneralNameType and more, as its maker chooses:
# hence `except Exception` wherever one is read.


def certificates(content: bytes, *, where: str | Path | None = None) -> list[x509.Certificate]:
    """The certificates of a PEM file; at least one.

    Raises:
        IdentityError: there is none, or one is damaged.
    """
    try:
        return x509.load_pem_x509_certificates(content)
    except Exception:
        raise IdentityError(
            "holds no certificates, or damaged ones", where=where, todo="put it back from a backup"
        ) from None


def authorities(content: bytes, *, where: str | Path | None = None) -> list[x509.Certificate]:
    """The CAs of a bundle, the oldest first: each an authority of its own, with its number.

    Raises:
        IdentityError: a certificate is none of a CA, or is damaged.
    """
    found = certificates(content, where=where)
    for ca in found:
        try:
            ca.verify_directly_issued_by(ca)
            basic = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not basic.ca or number(ca) < 1:
                raise ValueError
        except Exception:
            raise IdentityError(
                "holds a certificate that is no coordinator's CA",
                where=where,
                todo="ask the coordinator for its ca.pem",
            ) from None
    return sorted(found, key=number)


def number(ca: x509.Certificate) -> int:
    """Which CA of its coordinator's it is, from 1; 0 if it is none of ours."""
    try:
        found = ca.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    except Exception:
        return 0
    text = str(found[0].value) if found else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def rank(bundle: Sequence[x509.Certificate]) -> int:
    """Later bundles of one coordinator have higher ranks."""
    numbers = [number(ca) for ca in bundle]
    return min(numbers) + max(numbers)


def pem(bundle: Sequence[x509.Certificate]) -> bytes:
    """The certificates as a file."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in bundle)


def fingerprint(content: bytes) -> str:
    """By which both sides name a bundle: SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


def issued_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether the CA signed the certificate."""
    try:
        leaf.verify_directly_issued_by(ca)
    except Exception:
        return False
    return True


def hosts_of(leaf: x509.Certificate) -> list[str]:
    """The names and IP addresses that a certificate is for; none if they cannot be decoded."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        return []
    return [str(name.value) for name in names]
