from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigError, IdentityError
from shared.signing import (
    canonical,
    check,
    private_pem,
    public_of,
    read_private,
    sign,
    signing_key,
    write_private,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    first = public_of(signing_key(path))
    assert public_of(signing_key(path)) == first
    assert mode(path) == 0o600
    assert [it.name for it in tmp_path.iterdir()] == ["signing.key"]


def test_all_that_make_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: public_of(signing_key(tmp_path / "k")), range(16)))
    assert len(set(made)) == 1
    assert [it.name for it in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        private_pem(KEY)[:60],
        private_pem(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["empty", "no key", "cut", "another kind"],
)
def test_a_damaged_key_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    write_private(path, content)
    with pytest.raises(IdentityError, match=r"signing\.key: is damaged"):
        signing_key(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_open_is_refused(open_to: int, tmp_path: Path) -> None:
    signing_key(tmp_path / "k")
    (tmp_path / "k").chmod(open_to)
    with pytest.raises(IdentityError, match="others may open"):
        signing_key(tmp_path / "k")


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        signing_key(tmp_path / "none" / "k")


def test_a_private_file_is_private_before_it_has_content(tmp_path: Path) -> None:
    write_private(tmp_path / "k", b"one")
    write_private(tmp_path / "k", b"two")
    assert (read_private(tmp_path / "k"), mode(tmp_path / "k")) == (b"two", 0o600)
    with pytest.raises(IdentityError, match="cannot be read"):
        read_private(tmp_path / "none")


@given(st.binary(max_size=200))
def test_a_signature_holds_for_its_purpose_and_bytes_alone(body: bytes) -> None:
    signature = sign(KEY, "model", body)
    check(public_of(KEY), "model", body, signature)
    other = public_of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for public, purpose, content in (
        (public_of(KEY), "ca", body),
        (public_of(KEY), "model", body + b"x"),
        (other, "model", body),
    ):
        with pytest.raises(IdentityError, match="does not hold"):
            check(public, purpose, content, signature)


def test_no_purpose_runs_into_the_body() -> None:
    with pytest.raises(IdentityError, match="does not hold"):
        check(public_of(KEY), "c", b"ax", sign(KEY, "ca", b"x"))
    with pytest.raises(IdentityError, match="does not hold"):
        check(public_of(KEY), "caa", b"x", sign(KEY, "ca", b"ax"))
    signature = sign(KEY, "ca", b"x\ny")
    with pytest.raises(IdentityError):
        check(public_of(KEY), "ca\nx", b"y", sign(KEY, "ca", b"y"))
    check(public_of(KEY), "ca", b"x\ny", signature)


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "AB" * 32, public_of(KEY) + "0"])
def test_what_is_no_public_key_is_refused(public: str) -> None:
    with pytest.raises(IdentityError, match="no Ed25519 public key"):
        check(public, "ca", b"", sign(KEY, "ca", b""))


@pytest.mark.parametrize("signature", ["", "00", "zz" * 64, sign(KEY, "ca", b"").upper()])
def test_what_is_no_signature_is_refused_with_its_place(signature: str) -> None:
    with pytest.raises(IdentityError, match=r"^here: the ca signature does not hold"):
        check(public_of(KEY), "ca", b"", signature, where="here")


def test_a_document_has_one_form() -> None:
    assert canonical({"b": 1.5, "a": "ä", "c": [True, None]}) == (
        rb'{"a":"\u00e4","b":1.5,"c":[true,null]}'
    )
    assert canonical({"x": 1, "y": 2}) == canonical({"y": 2, "x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})
