"""How a platform becomes one of the federation, and how both sides then hold each other to account.

    coordinator ─invite→ Token ─by another way→ platform
    platform ─Join(token, public keys, proofs)→ coordinator's public key, CAs
    platform ─Checkpoint(of its audit log)→ the coordinator's, CAs        every minute

Messages are JSON; requests travel in the headers of a call (shared/channel.py). A Token carries
the CA, so that the first connection already goes to the right server or nowhere. Private keys stay
where they are made: what is sent are proofs of having them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from shared.channel import ask
from shared.config import Section, parse
from shared.errors import ConfigError, IdentityError
from shared.evictions import MOST, SENT, Eviction
from shared.signing import canonical, check, public_of, sign
from shared.strict_parsing import json_value
from shared.token import Token

SERVICE = "atoll.Enrolment"
JOIN, CHECKPOINT, HELLO = (f"/{SERVICE}/{name}" for name in ("Join", "Checkpoint", "Hello"))
NAME = r"^[A-Za-z0-9_-]{1,64}$"  # of a platform
LARGEST = 64 * 1024  # bytes of a reply; the largest holds two certificates and a checkpoint
CLOCK = 60.0  # seconds a platform's clock may differ from the coordinator's
_HEX32 = r"^[0-9a-f]{64}$"
_HEX64 = r"^[0-9a-f]{128}$"

S = TypeVar("S", bound=Section)


class JoinRequest(Section):
    """What a platform sends to be admitted."""

    token: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: str = Field(pattern=NAME)
    node_key: str = Field(max_length=1000)  # public, PEM
    signing_key: str = Field(pattern=_HEX32)  # public
    node_proof: str = Field(pattern=r"^[0-9a-f]{100,220}$")
    proof: str = Field(pattern=_HEX64)


class JoinReply(Section):
    """Whom the platform has joined."""

    coordinator: str = Field(pattern=_HEX32)  # public signing key
    server: str = Field(max_length=40)  # version of Atoll
    ca: str = Field(max_length=40_000)  # CAs to trust, PEM
    ca_signature: str = Field(pattern=_HEX64)


class CheckpointRequest(Section):
    """Where a platform's audit log stands; without a checkpoint, only a sign of life."""

    platform: str = Field(pattern=NAME)
    sent: float  # on its clock
    ca: str = Field(pattern=_HEX32)  # fingerprint of the CAs it trusts
    checkpoint: dict[str, int | float | str] | None
    # Evidence against a coordinator that was put back from a backup: the newest checkpoint of it
    # that is held here, and evictions that its last reply lacked.
    held: dict[str, int | float | str] | None = None
    evictions: list[dict[str, float | str]] = Field(default=[], max_length=SENT)
    proof: str = Field(pattern=_HEX64)


class CheckpointReply(Section):
    """Where the coordinator's stands."""

    checkpoint: dict[str, int | float | str] | None
    now: float  # on its clock
    server: str = Field(max_length=40)
    ca: str = Field(max_length=40_000)
    ca_signature: str = Field(pattern=_HEX64)
    evictions: list[dict[str, float | str]] = Field(default=[], max_length=MOST)


class HelloReply(Section):
    """A sign of life for whoever trusts the certificate."""

    now: float


def node_public(key: ec.EllipticCurvePublicKey) -> bytes:
    """A node's public key in the form in which Flower sends it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form)


def node_key_from(text: bytes) -> ec.EllipticCurvePublicKey:
    """The node's public key in a PEM.

    Raises:
        IdentityError: it is none, or of another curve than P-384.
    """
    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    raise IdentityError("the node key is no P-384 public key", todo="join anew")


def join_request(
    secret: bytes, *, name: str, node: ec.EllipticCurvePrivateKey, signing: Ed25519PrivateKey
) -> JoinRequest:
    """A request to join, with the proofs that this platform has both keys."""
    node_key, public = node_public(node.public_key()).decode(), public_of(signing)
    body = _join_body(secret, name=name, node_key=node_key, signing_key=public)
    return JoinRequest(
        token=secret.hex(),
        name=name,
        node_key=node_key,
        signing_key=public,
        node_proof=node.sign(b"atoll join\n" + body, ec.ECDSA(hashes.SHA256())).hex(),
        proof=sign(signing, "join", body),
    )


def check_proofs(request: JoinRequest) -> None:
    """Whether who asks to join has both keys.

    Raises:
        IdentityError: not.
    """
    body = _join_body(
        bytes.fromhex(request.token),
        name=request.name,
        node_key=request.node_key,
        signing_key=request.signing_key,
    )
    check(request.signing_key, "join", body, request.proof)
    try:
        signed, proof = b"atoll join\n" + body, bytes.fromhex(request.node_proof)
        key = node_key_from(request.node_key.encode())
        key.verify(proof, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise IdentityError("the proof of the node key does not hold", todo="join anew") from None


def _join_body(secret: bytes, *, name: str, node_key: str, signing_key: str) -> bytes:
    token = hashlib.sha256(secret).hexdigest()
    return canonical(
        {"token": token, "name": name, "node_key": node_key, "signing_key": signing_key}
    )


def checkpoint_body(request: CheckpointRequest) -> bytes:
    """What the platform signs of its request."""
    return canonical(request.model_dump(exclude={"proof"}))


def packed(message: Section) -> bytes:
    """A message as it is sent."""
    return canonical(message.model_dump())


def unpacked(content: bytes, model: type[S], where: str) -> S:
    """A message as it came.

    Raises:
        IdentityError: it is no such message.
    """
    try:
        found = json_value(content, largest=LARGEST)
        if not isinstance(found, dict):
            raise ValueError
        return parse(found, model, where)
    except (ValueError, ConfigError):
        raise IdentityError(
            f"no {model.__name__} of this version", where=where, todo="use the same Atoll version"
        ) from None


def join(server: str, token: Token, request: JoinRequest) -> JoinReply:
    """Ask the coordinator at HOST:PORT to be admitted.

    Raises:
        ConfigError: nobody answers there.
        IdentityError: it is somebody else, to whom nothing was sent, or it refuses.
    """
    answer = ask(server, JOIN, packed(request), roots=token.roots)
    reply = unpacked(answer, JoinReply, server)
    check(reply.coordinator, "ca", reply.ca.encode(), reply.ca_signature, where=server)
    return reply


def exchange(
    server: str,
    checkpoint: Mapping[str, Any] | None,
    *,
    platform: str,
    signing: Ed25519PrivateKey,
    roots: bytes,
    ca: str,
    now: float,
    held: Mapping[str, Any] | None = None,
    evictions: Sequence[Eviction] = (),
) -> CheckpointReply:
    """Tell the coordinator where this platform's audit log stands, and hear where its stands.

    Args:
        server: HOST:PORT.
        checkpoint: this platform's, signed; None only gives a sign of life.
        platform: its name.
        signing: its key.
        roots: the CAs it trusts, PEM.
        ca: their fingerprint.
        now: on its clock.
        held: the newest checkpoint of the coordinator's audit log that is kept here.
        evictions: that the coordinator lacks; the newest `SENT` are sent.

    Raises:
        ConfigError: nobody answers there.
        IdentityError: it is somebody else, or it refuses.
    """
    blank = CheckpointRequest.model_construct(
        platform=platform,
        sent=now,
        ca=ca,
        checkpoint=None if checkpoint is None else dict(checkpoint),
        held=None if held is None else dict(held),
        evictions=[eviction.as_dict() for eviction in evictions[-SENT:]],
        proof="",
    )
    request = blank.model_copy(update={"proof": sign(signing, "exchange", checkpoint_body(blank))})
    return unpacked(ask(server, CHECKPOINT, packed(request), roots=roots), CheckpointReply, server)


def hello(server: str, *, roots: bytes) -> float:
    """The coordinator's clock, from whoever has a certificate by `roots`.

    Raises:
        ConfigError: nobody answers there.
        IdentityError: it is somebody else.
    """
    return unpacked(ask(server, HELLO, b"{}", roots=roots), HelloReply, server).now
