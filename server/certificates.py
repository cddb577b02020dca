"""The certificates of a federation: a CA's, and the server's that it issues. Elliptic curve P-256.

CA       issues for servers, and for no CA below it; has a number, see shared/trust.py
server   its hosts, for TLS servers alone
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import ConfigError

Key = ec.EllipticCurvePrivateKey
Certificate = x509.Certificate

CA_LIFE = timedelta(days=3650)  # rotated by hand, with every platform's help
LEAF_LIFE = timedelta(days=397)  # the longest that browsers grant: a year, and time to renew
EARLIER = timedelta(hours=1)  # before now, for platforms whose clock is behind

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$)(?!(.*\.)?[0-9]+$){_LABEL}(\.{_LABEL})*")


def san(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Hosts as a certificate names them.

    Raises:
        ConfigError: there is none, or one is neither a name nor an IP address.
    """
    if not hosts:
        raise ConfigError("no host is named", todo="give --host, as platforms write it")
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(host.strip().lower() for host in hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"host {host!r} is neither a name nor an IP address",
                    todo="give it without scheme and port",
                ) from None
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def new_ca(name: str, number: int) -> tuple[Key, Certificate]:
    """A CA that issues for servers and for no CA below it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, number)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    builder = (
        _builder(subject, subject, key, life=CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .add_extension(by, critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def new_leaf(
    ca: Certificate, *, key: Key, hosts: x509.SubjectAlternativeName
) -> tuple[Key, Certificate]:
    """A key for the server, and the certificate that the CA, by its own `key`, issues for it."""
    new = ec.generate_private_key(ec.SECP256R1())
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    until = ca.not_valid_after_utc
    leaf = (
        _builder(_subject(name_of(ca)), ca.subject, new, life=LEAF_LIFE, until=until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issues=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(hosts, critical=False)
        .add_extension(by, critical=False)
    )
    return new, leaf.sign(key, hashes.SHA256())


def name_of(certificate: Certificate) -> str:
    """The coordinator's name in it."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _builder(
    subject: x509.Name, by: x509.Name, key: Key, *, life: timedelta, until: datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(min(now + life, until or now + life))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _subject(name: str, number: int | None = None) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "Atoll"), (NameOID.COMMON_NAME, name)]
    if number is not None:
        parts.append((NameOID.SERIAL_NUMBER, str(number)))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        key_cert_sign=issues,
        crl_sign=issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
