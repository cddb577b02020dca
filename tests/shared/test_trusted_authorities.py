"""Of what certificates a bundle of CAs may be made, and which bundle is newer."""

from __future__ import annotations

import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.certificates import new_ca, new_leaf, san
from shared.errors import IdentityError
from shared.trust import authorities, issued_by, number, pem, rank

KEYS = [new_ca("coordinator", at) for at in (1, 2, 3)]
CAS = [ca for _key, ca in KEYS]


def certificate(
    *, serial: str | None = "1", is_ca: bool = True, foreign: bool = False
) -> x509.Certificate:
    """A certificate of this name, signed by itself or by another key."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")]
    if serial is not None:
        names.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    name, like = x509.Name(names), CAS[0]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    return builder.sign(other if foreign else key, hashes.SHA256())


def test_a_coordinators_ca_is_one() -> None:
    made = certificate()  # so that what is refused below is refused for its one difference
    assert authorities(pem([made])) == [made]
    assert authorities(pem([CAS[1], CAS[0]])) == CAS[:2]  # the oldest first


WRONG = {
    "signed by another key": {"foreign": True},
    "of no authority": {"is_ca": False},
    "without a number": {"serial": None},
    "of number 0": {"serial": "0"},
    "of a number that is none": {"serial": "one"},
}


@pytest.mark.parametrize("how", WRONG)
def test_a_certificate_that_is_no_coordinators_ca_is_refused_also_among_others(how: str) -> None:
    wrong = certificate(**WRONG[how])  # type: ignore[arg-type]
    for bundle in ([wrong], [CAS[0], wrong], [wrong, CAS[0]]):
        with pytest.raises(IdentityError, match="a certificate that is no coordinator's CA"):
            authorities(pem(bundle))


def test_the_servers_own_certificate_is_no_authority() -> None:
    key, ca = KEYS[0]
    _own, leaf = new_leaf(ca, key=key, hosts=san(["127.0.0.1"]))
    assert issued_by(leaf, ca)
    assert not issued_by(leaf, CAS[1])
    with pytest.raises(IdentityError, match="no coordinator's CA"):
        authorities(pem([leaf]))


def test_bundles_follow_each_other_in_one_order() -> None:
    assert [number(ca) for ca in CAS] == [1, 2, 3]
    turns = [CAS[:1], CAS[:2], CAS[1:2], CAS[1:], CAS[2:]]
    assert [rank(bundle) for bundle in turns] == [2, 3, 4, 5, 6]
    for old, new in itertools.pairwise(turns):
        assert rank(old) < rank(new)
