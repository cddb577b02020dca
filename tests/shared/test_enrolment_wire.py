from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from server.certificates import new_ca
from shared.channel import address, split
from shared.enrolment import (
    JoinRequest,
    check_proofs,
    join_request,
    node_key_from,
    node_public,
    packed,
    unpacked,
)
from shared.errors import ConfigError, IdentityError
from shared.signing import private_pem
from shared.token import Token
from shared.trust import authorities, number, pem, rank

NODE = ec.generate_private_key(ec.SECP384R1())
SIGNING = Ed25519PrivateKey.generate()
CA = new_ca("coordinator", 1)[1]
TOKEN = Token(bytes(range(16)), 1_800_000_000, CA.public_bytes(Encoding.DER))
REQUEST = join_request(TOKEN.secret, name="shop", node=NODE, signing=SIGNING)


def test_a_token_is_one_word_that_reads_back() -> None:
    word = str(TOKEN)
    assert word.startswith("atoll1.")
    assert not set(word) & set(" \n=+/")
    assert Token.read(word) == TOKEN
    assert TOKEN.roots == CA.public_bytes(Encoding.PEM)


def test_a_token_that_mail_broke_into_lines_reads_back() -> None:
    word = str(TOKEN)
    assert Token.read(f"  {word[:70]}\n {word[70:140]}\r\n{word[140:]}\n") == TOKEN


def flipped(word: str, at: int) -> str:
    return word[:at] + ("A" if word[at] != "A" else "B") + word[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda word: "",
        lambda word: word[:-5],
        lambda word: word[1:],
        lambda word: flipped(word, 9),
        lambda word: flipped(word, 200),
        lambda word: word + "AAAA",
        lambda word: word.replace("atoll1", "atoll2"),
        lambda word: "atoll1." + base64.urlsafe_b64encode(bytes(50)).decode(),
        lambda word: "atoll1.é" + word[8:],
    ],
)
def test_an_altered_token_is_no_token(spoil: Callable[[str], str]) -> None:
    with pytest.raises(IdentityError, match="no token, or not all of it"):
        Token.read(spoil(str(TOKEN)))


def test_no_secret_in_what_is_logged() -> None:
    shown = repr(TOKEN)
    assert TOKEN.secret.hex() not in shown
    assert str(TOKEN) not in shown


def test_a_node_key_has_flowers_own_bytes() -> None:
    flower = importlib.import_module(
        "flwr.supercore.primitives.asymmetric"
    )  # of its pinned version
    assert node_public(NODE.public_key()) == flower.public_key_to_bytes(NODE.public_key())
    assert private_pem(NODE) == flower.private_key_to_bytes(NODE)
    assert node_public(node_key_from(node_public(NODE.public_key()))) == node_public(
        flower.bytes_to_public_key(node_public(NODE.public_key()))
    )


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_a_node_key_of_another_curve_is_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(IdentityError, match=r"no P-384 public key"):
        node_key_from(node_public(ec.generate_private_key(curve).public_key()))
    with pytest.raises(IdentityError, match=r"no P-384 public key"):
        node_key_from(b"no key")


def test_no_private_key_is_in_a_request() -> None:
    content = packed(REQUEST)
    raw = serialization.PrivateFormat.Raw
    seed = SIGNING.private_bytes(Encoding.Raw, raw, serialization.NoEncryption())
    scalar = NODE.private_numbers().private_value.to_bytes(48, "big")
    for secret in (seed, scalar):
        for shape in (
            secret,
            secret.hex().encode(),
            base64.b64encode(secret)[4:-4],
            base64.urlsafe_b64encode(secret)[4:-4],
        ):
            assert shape not in content
    assert b"PRIVATE" not in content
    assert sorted(json.loads(content)) == sorted(JoinRequest.model_fields)


def test_a_request_reads_back_and_its_proofs_hold() -> None:
    read = unpacked(packed(REQUEST), JoinRequest, "here")
    assert read == REQUEST
    check_proofs(read)


OTHER = join_request(
    TOKEN.secret,
    name="shop",
    node=ec.generate_private_key(ec.SECP384R1()),
    signing=Ed25519PrivateKey.generate(),
)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"token": "0" * 32},
        {"node_key": OTHER.node_key},
        {"signing_key": OTHER.signing_key},
        {"node_proof": OTHER.node_proof},
        {"proof": OTHER.proof},
        {"node_key": OTHER.node_key, "node_proof": OTHER.node_proof},
    ],
)
def test_a_proof_holds_for_this_very_request(change: dict[str, str]) -> None:
    with pytest.raises(IdentityError, match="does not hold"):
        check_proofs(REQUEST.model_copy(update=change))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 20_000,
        packed(REQUEST)[:-1],
        packed(REQUEST).replace(b'"shop"', b'"../shop"'),
        packed(REQUEST).replace(b'"shop"', b"7"),
        packed(REQUEST).replace(b'"shop"', b'"shop","more":1'),
        b" " * 70_000 + packed(REQUEST),
    ],
    ids=["empty", "list", "no keys", "no text", "deep", "cut", "path", "number", "more", "long"],
)
def test_what_is_no_message_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(IdentityError, match=r"^here: no JoinRequest of this version; .*$"):
        unpacked(content, JoinRequest, "here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("atoll.example.org", "atoll.example.org:9092"),
        ("atoll.example.org:443", "atoll.example.org:443"),
        (" 10.0.0.1 ", "10.0.0.1:9092"),
        ("[::1]:9092", "[::1]:9092"),
        ("fd00::7", "[fd00::7]:9092"),
    ],
)
def test_a_host_alone_has_the_default_port(text: str, expected: str) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "https://a", "a:b", "a:0", "a:65536", "a/b", ":9092", "a b", "[::1", "a:1:2x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        address(text)


def test_a_port_may_be_left_to_the_machine_where_one_listens() -> None:
    assert split("127.0.0.1:0", lowest=0) == ("127.0.0.1", 0)


def test_a_later_bundle_has_a_higher_rank() -> None:
    one, two, three = (new_ca("c", place)[1] for place in (1, 2, 3))
    ranks = [rank(it) for it in ([one], [one, two], [two], [two, three], [three])]
    assert ranks == sorted(set(ranks))
    assert [number(it) for it in authorities(pem([two, one]))] == [1, 2]
