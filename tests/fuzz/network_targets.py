"""Targets that anybody on the network, or a file that was sent, reaches."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding

from clients.differences import compare
from server.config import run_from
from server.enrolment_service import check_clock
from shared import bundle, channel, enrolment, health, manifest, signing, trust
from shared.checkpoints import Checkpoint
from shared.enrolment import (
    CheckpointReply,
    CheckpointRequest,
    HelloReply,
    JoinReply,
    JoinRequest,
    checkpoint_body,
    packed,
    unpacked,
)
from shared.signing import sign
from shared.token import Token
from tests.fuzz.fuzz_target import Target, each
from tests.fuzz.material import (
    ADAPTER,
    NOW,
    authority,
    certificate,
    document,
    document_of,
    node_key,
    public,
    signing_key,
    stored,
)
from tests.fuzz.material import bundle as ca_bundle


def _checkpoint() -> dict[str, Any]:
    return Checkpoint(3, "a" * 64, NOW, "").signed(signing_key()).as_dict()


def _join(case: bytes) -> None:
    enrolment.check_proofs(unpacked(case, JoinRequest, "join"))


def _join_seeds() -> Sequence[bytes]:
    request = enrolment.join_request(
        b"s" * 16, name="kiosk", node=node_key(), signing=signing_key()
    )
    return [packed(request), b"{}", b"[]"]


def _join_reply(case: bytes) -> None:
    reply = unpacked(case, JoinReply, "server")
    signature = sign(signing_key(), "ca", reply.ca.encode())
    signing.check(public(), "ca", reply.ca.encode(), signature, where="server")
    trust.authorities(reply.ca.encode(), where="server")


def _join_reply_seeds() -> Sequence[bytes]:
    content = ca_bundle()
    signature = sign(signing_key(), "ca", content)
    told = {"coordinator": public(), "server": "0.1.0", "ca": content.decode()}
    return [document({**told, "ca_signature": signature})]


def _exchange(case: bytes) -> None:
    request = unpacked(case, CheckpointRequest, "checkpoint")
    proof = sign(signing_key(), "exchange", checkpoint_body(request))  # past the signature
    signing.check(public(), "exchange", checkpoint_body(request), proof)
    check_clock(request.sent, NOW)
    if request.checkpoint is not None:
        Checkpoint.from_dict(request.checkpoint).check(public(), where="checkpoint")


def _exchange_seeds() -> Sequence[bytes]:
    told = {"platform": "kiosk", "sent": NOW, "ca": "c" * 64, "proof": "0" * 128}
    return [document({**told, "checkpoint": it}) for it in (_checkpoint(), None)]


def _exchange_reply(case: bytes) -> None:
    reply = unpacked(case, CheckpointReply, "server")
    Checkpoint.from_dict(reply.checkpoint or {}).check(public())
    bundle_ = reply.ca.encode()
    trust.rank(trust.authorities(bundle_, where="server"))


def _exchange_reply_seeds() -> Sequence[bytes]:
    told = {"now": NOW, "server": "0.1.0", "ca": ca_bundle().decode(), "ca_signature": "0" * 128}
    return [document({**told, "checkpoint": it}) for it in (_checkpoint(), None)]


def _hello_reply(case: bytes) -> None:
    unpacked(case, HelloReply, "server")


def _token(case: bytes) -> None:
    text = case.decode(errors="replace")
    word = Token.read(text) if text.startswith("atoll1.") else _checked_token(case)
    trust.authorities(word.roots)


def _checked_token(body: bytes) -> Token:
    """The token of a body, with the checksum that fits."""
    whole = body + hashlib.sha256(body).digest()[:4]
    return Token.read("atoll1." + base64.urlsafe_b64encode(whole).decode())


def _token_seeds() -> Sequence[bytes]:
    der = authority()[1].public_bytes(Encoding.DER)
    token = Token(b"s" * 16, int(NOW), der)
    return [str(token).encode(), b"s" * 16 + int(NOW).to_bytes(8, "big") + der]


def _certificates(case: bytes) -> None:
    """PEM as it is; anything else as the DER of one certificate."""
    content = case
    if not case.startswith(b"-----"):
        body = base64.encodebytes(case)
        content = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
    for one in trust.certificates(content, where="ca.pem"):
        trust.number(one)
        trust.hosts_of(one)
        trust.issued_by(one, authority()[1])
    trust.rank(trust.authorities(content, where="ca.pem"))


def _certificate_seeds() -> Sequence[bytes]:
    one, other = authority()[1], certificate()
    return [ca_bundle(), one.public_bytes(Encoding.DER), other.public_bytes(Encoding.DER)]


def _public_keys(case: bytes) -> None:
    text = case.decode(errors="replace")
    for check in (
        lambda: enrolment.node_key_from(case),
        lambda: signing.check(text[:64], "ca", b"", text[64:]),
        lambda: manifest.read_public(stored("coordinator.pub", case)),
    ):
        each(check)


def _private_keys(case: bytes) -> None:
    signing.signing_key(stored("signing.key", case, private=True))


def _key_seeds() -> Sequence[bytes]:
    node = node_key().public_key()
    der = node.public_bytes(Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature = sign(signing_key(), "ca", b"")
    return [
        enrolment.node_public(node),
        der,
        (public() + signature).encode(),
        public().encode() + b"\n",
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA"
        + b"A" * 42
        + b"=\n-----END PUBLIC KEY-----",
    ]


def _private_key_seeds() -> Sequence[bytes]:
    return [signing.private_pem(signing_key()), signing.private_pem(node_key()), b""]


def _bundle(case: bytes) -> None:
    files = bundle.files_of(case, where="bundle")
    bundle.version_of(files, where="bundle")
    compare(_files(), files)


@cache
def _files() -> dict[str, bytes]:
    project = b'[project]\nname = "atoll"\nversion = "0.1.0"\n'
    return {"pyproject.toml": project, "shared/a.py": b"x = 1\n", "clients/b.py": b"y = 2\n"}


def _bundle_members(case: bytes) -> None:
    """A ZIP of members that the case lists: name, content, mode, compression, comment."""
    members = document_of(case)
    if not isinstance(members, list):
        return
    content = io.BytesIO()
    try:
        with zipfile.ZipFile(content, "w") as archive:
            for name, text, mode, method, comment in members:
                entry = zipfile.ZipInfo(name, bundle.DATE)
                entry.create_system, entry.external_attr = 3, (mode & 0xFFFF) << 16
                entry.compress_type, entry.comment = method, comment.encode()
                archive.writestr(entry, text.encode())
    except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError, UserWarning):
        return  # no ZIP can be made of it
    except Exception:  # zipfile's own
        return
    _bundle(content.getvalue())
    files = {str(name): str(text).encode() for name, text, *_ in members}
    _bundle(bundle.pack(files))


def _bundle_seeds() -> Sequence[bytes]:
    return [bundle.pack(_files()), b"PK\x05\x06" + b"\0" * 18]


def _member_seeds() -> Sequence[bytes]:
    plain = [
        [name, text.decode(), stat.S_IFREG | 0o644, zipfile.ZIP_STORED, ""]
        for name, text in _files().items()
    ]
    packed_ = [*plain, ["shared/c.py", "z = 3\n" * 40, 0o100644, zipfile.ZIP_DEFLATED, "c"]]
    return [document(plain), document(packed_)]


def _manifest(case: bytes) -> None:
    path = stored("a.json", case)
    found, signature = manifest.read(path)
    manifest.check(
        found,
        signing.sign(signing_key(), manifest.PURPOSE, found.text().encode()),
        public(),
        where=path,
    )
    manifest.check(found, signature, public(), where=path)


def _manifest_seeds() -> Sequence[bytes]:
    made = manifest.Manifest(
        version=1,
        adapter=ADAPTER.digest,
        parents=("p" * 64,),
        backbone="b" * 64,
        task="next-item",
        run="r",
        round=1,
        participants=("kiosk",),
        metrics={"ndcg@10": 0.25},
        time=NOW,
    )
    told = {"manifest": json.loads(made.text()), "signature": manifest.sign(made, signing_key())}
    return [document(told)]


def _run_config(case: bytes) -> None:
    told = document_of(case)
    if isinstance(told, dict):
        run_from(told)


def _run_config_seeds() -> Sequence[bytes]:
    told = {"backbone": "b.safetensors", "folder": "run", "rounds": 3, "server-learning-rate": 0.5}
    return [document({**told, "algorithm": "fedadam", "resume": True, "timeout": 60.0})]


class _Wire:
    """A socket that says one request and keeps the answer."""

    def __init__(self, request: bytes) -> None:
        self.request, self.answer = request, io.BytesIO()

    def makefile(self, mode: str, _buffer: int = -1) -> io.BytesIO:
        return io.BytesIO(self.request)

    def sendall(self, content: bytes) -> None:
        self.answer.write(content)

    def settimeout(self, _seconds: float) -> None:
        """It waits for nobody."""


@cache
def _health_handler() -> type[BaseHTTPRequestHandler]:
    return health.handler(health.Health(state="fuzzed"))


def _health(case: bytes) -> None:
    wire: Any = _Wire(case)
    server: Any = SimpleNamespace(server_name="localhost", server_port=0)
    _health_handler()(wire, ("127.0.0.1", 1), server)
    if b"\r\n\r\n" in case and case.startswith((b"GET /live HTTP/1.1\r\n",)):
        assert wire.answer.getvalue().startswith((b"HTTP/1.0 200", b"HTTP/1.0 4")), "no answer"


def _addresses(case: bytes) -> None:
    text = case.decode(errors="surrogateescape")
    each(lambda: channel.address(text))
    each(lambda: channel.split(text, lowest=0))
    channel.plain(text)
    channel.nameless(text)


TARGETS = (
    Target("join request", _join, _join_seeds, "json"),
    Target("join reply", _join_reply, _join_reply_seeds, "json"),
    Target("checkpoint request", _exchange, _exchange_seeds, "json"),
    Target("checkpoint reply", _exchange_reply, _exchange_reply_seeds, "json"),
    Target("hello reply", _hello_reply, lambda: [document({"now": NOW})], "json", share=0.5),
    Target("token", _token, _token_seeds),
    Target("certificates", _certificates, _certificate_seeds),
    Target("public keys and signatures", _public_keys, _key_seeds),
    Target("private keys", _private_keys, _private_key_seeds, share=0.5),
    Target("bundle", _bundle, _bundle_seeds, words=(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")),
    Target("bundle members", _bundle_members, _member_seeds, "json", share=0.5),
    Target("manifest", _manifest, _manifest_seeds, "json"),
    Target("run configuration", _run_config, _run_config_seeds, "json"),
    Target(
        "health request",
        _health,
        lambda: [b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"],
        words=(b"GET ", b"POST ", b" HTTP/1.1", b" HTTP/0.9", b"\r\n", b"/live"),
    ),
    Target(
        "addresses",
        _addresses,
        lambda: [b"[::1]:9092", b"atoll.example.org:9092", b"10.0.0.1"],
        longest=256,
    ),
)
