"""The federation's own certificate authority: a CA, the server's certificate, and their rotation.

    ca.key    keys of the CAs in ca.pem       server.key   key of the leaf; for a moment two
    ca.pem    what platforms trust            server.pem   leaf, then the CA that issued it

    create       ca.pem = old          leaf by old
    rotate_ca    ca.pem = old + new    leaf by old    platforms fetch ca.pem, a minute each
    finish_ca    ca.pem = new          leaf by new

Of two files that belong together the key is written first, and holds the key before it as well: so
whoever reads, and whatever a crash leaves, finds a key for the certificate.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.certificates import Certificate, Key, name_of, new_ca, new_leaf, san
from shared.errors import ConfigError, IdentityError
from shared.files import replacing
from shared.signing import private_pem, read_private, write_private
from shared.trust import authorities, certificates, hosts_of, issued_by, number, pem

CA_PEM, CA_KEY, SERVER_PEM, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"


def create(home: Path, *, hosts: Sequence[str], name: str) -> None:
    """A CA and the server's certificate, in a folder that has none.

    Args:
        home: the folder.
        hosts: names and IP addresses by which platforms reach the server.
        name: of the coordinator; stands in the certificates.

    Raises:
        ConfigError: there are some already, a host is none, or they cannot be written.
    """
    names = san(hosts)
    for file in (CA_PEM, CA_KEY, SERVER_PEM, SERVER_KEY):
        if (home / file).exists():
            raise ConfigError("is there already", where=home / file, todo="rotate it instead")
    with _locked(home):
        key, ca = new_ca(name, 1)
        write_private(home / CA_KEY, private_pem(key))
        _write(home / CA_PEM, pem([ca]))
        _install(home, ca, key=key, hosts=names)


def rotate_server(home: Path, *, also: Sequence[str] = ()) -> None:
    """A new key and certificate for the server, for the same hosts, by the CA that all trust.

    Args:
        home: the folder.
        also: further hosts.

    Raises:
        ConfigError: a host is none.
        IdentityError: a file of the authority is missing or damaged.
    """
    with _locked(home):
        old = _cas(home)[0]
        hosts = san([*hosts_of(leaf_of(home)), *also])
        _install(home, old, key=_key_of(home, old), hosts=hosts)


def rotate_ca(home: Path) -> None:
    """First phase: a new CA stands beside the old one; the server keeps its certificate.

    Raises:
        IdentityError: a rotation has begun already, or a file is missing or damaged.
    """
    with _locked(home):
        cas = _cas(home)
        if len(cas) > 1:
            raise IdentityError(
                "a new CA is there already",
                where=home / CA_PEM,
                todo="finish that rotation first: rotate --ca --finish",
            )
        old = cas[0]
        key, ca = new_ca(name_of(old), number(old) + 1)
        write_private(home / CA_KEY, private_pem(_key_of(home, old)) + private_pem(key))
        _write(home / CA_PEM, pem([old, ca]))


def finish_ca(home: Path) -> None:
    """Second phase: the server's certificate is the new CA's, and the old one is forgotten.

    A crash on the way leaves the first phase, in which either certificate is trusted.

    Raises:
        IdentityError: no rotation has begun, or a file is missing or damaged.
    """
    with _locked(home):
        cas = _cas(home)
        if len(cas) < 2:
            raise IdentityError(
                "holds one CA, so there is no rotation to finish",
                where=home / CA_PEM,
                todo="begin one: rotate --ca",
            )
        new = cas[-1]
        key = _key_of(home, new)
        _install(home, new, key=key, hosts=san(hosts_of(leaf_of(home))))
        _write(home / CA_PEM, pem([new]))
        write_private(home / CA_KEY, private_pem(key))


def credentials(home: Path) -> tuple[bytes, bytes]:
    """The server's key and its certificate chain, in PEM, which always belong together.

    Raises:
        IdentityError: a file is missing or damaged, or no key fits the certificate.
    """
    # A rotation may fall between the two reads; it is over after a few milliseconds.
    for _ in range(20):
        chain = _read(home / SERVER_PEM)
        leaf = certificates(chain, where=home / SERVER_PEM)[0]
        for key in _keys(home / SERVER_KEY):
            if key.public_key() == leaf.public_key():
                return private_pem(key), chain
        time.sleep(0.01)
    raise IdentityError(
        "is not the key of the server's certificate",
        where=home / SERVER_KEY,
        todo="rotate the server's certificate: rotate",
    )


def ca_bundle(home: Path) -> bytes:
    """The CAs that a platform must trust from now on, in PEM, the oldest first.

    Raises:
        IdentityError: the file is missing or damaged.
    """
    bundle = _read(home / CA_PEM)
    authorities(bundle, where=home / CA_PEM)
    return bundle


def issuer(home: Path) -> Certificate:
    """The CA that issued the server's certificate: what a first connection is pinned to.

    Raises:
        IdentityError: a file is missing or damaged, or none of the CAs did.
    """
    leaf = leaf_of(home)
    for ca in _cas(home):
        if issued_by(leaf, ca):
            return ca
    raise IdentityError(
        "was issued by none of the CAs", where=home / SERVER_PEM, todo="rotate it: rotate"
    )


def leaf_of(home: Path) -> Certificate:
    """The server's certificate.

    Raises:
        IdentityError: its file is missing or damaged.
    """
    return certificates(_read(home / SERVER_PEM), where=home / SERVER_PEM)[0]


def _install(home: Path, ca: Certificate, *, key: Key, hosts: x509.SubjectAlternativeName) -> None:
    """Make the server's key and certificate and put them in place, under a server that runs."""
    new, leaf = new_leaf(ca, key=key, hosts=hosts)
    path = home / SERVER_KEY
    before = path.read_bytes() if path.exists() else b""
    write_private(path, private_pem(new) + before)
    _write(home / SERVER_PEM, pem([leaf, ca]))
    write_private(path, private_pem(new))


def _cas(home: Path) -> list[Certificate]:
    return authorities(_read(home / CA_PEM), where=home / CA_PEM)


def _key_of(home: Path, ca: Certificate) -> Key:
    """The CA's private key."""
    for key in _keys(home / CA_KEY):
        if key.public_key() == ca.public_key():
            return key
    raise IdentityError(
        "holds no key of the CA", where=home / CA_KEY, todo="put it back from a backup"
    )


def _keys(path: Path) -> list[Key]:
    """The EC keys in a file, the newest first or last."""
    end = b"-----END PRIVATE KEY-----\n"
    found = []
    for block in read_private(path).split(end)[:-1]:
        try:
            key = serialization.load_pem_private_key(block + end, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue  # whatever is no key fits no certificate
        if isinstance(key, ec.EllipticCurvePrivateKey):
            found.append(key)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise IdentityError(
            f"cannot be read ({why})", where=path, todo="put it back from a backup"
        ) from None


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One rotation at a time; the handle on the folder lets go when its process ends."""
    try:
        handle = os.open(home, os.O_RDONLY)
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(
            f"cannot be opened ({why})", where=home, todo="name the server's home"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
