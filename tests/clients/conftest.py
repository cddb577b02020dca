"""A coordinator on a port of its own, and a platform that has joined it or is about to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from clients.membership import Membership, join
from server import authority
from server.enrolment import Enrolment
from server.enrolment_service import handlers
from shared.audit_log import AuditLog
from shared.checkpoints import Checkpoints
from shared.signing import public_of, signing_key
from shared.token import Token

PLATFORM = """
[platform]
name = "shop"
[events]
path = "events.tsv"
columns = { shopper = "s", item = "i", order = "o" }
[items]
path = "items.tsv"
columns = { item = "i", text = "t" }
"""


@dataclass
class Coordinator:
    """A coordinator on a port of its own, whose certificate is rotated live."""

    home: Path
    store: Enrolment
    server: str
    port: grpc.Server

    def token(self, *, seconds: int = 600, ca: bytes | None = None) -> Token:
        der = authority.issuer(self.home).public_bytes(Encoding.DER)
        secret = self.store.invite("shop", seconds=seconds)
        return Token(secret, int(time.time()) + seconds, ca or der)

    @property
    def key(self) -> str:
        return public_of(signing_key(self.home / "signing.key"))


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    home = tmp_path / "server"
    home.mkdir()
    authority.create(home, hosts=["127.0.0.1"], name="coordinator")
    key, audit = signing_key(home / "signing.key"), AuditLog(home / "audit.jsonl")
    store = Enrolment(home / "platforms.sqlite")
    service = handlers(
        store,
        key=key,
        checkpoint=lambda: audit.checkpoint(key),
        keep=Checkpoints(home / "checkpoints").keep,
        ca_bundle=lambda: authority.ca_bundle(home),
        audit=audit,
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((service,))

    def fetched() -> Any:
        return grpc.ssl_server_certificate_configuration([authority.credentials(home)])

    secrets = grpc.dynamic_ssl_server_credentials(fetched(), fetched)
    port = server.add_secure_port("127.0.0.1:0", secrets)
    server.start()
    yield Coordinator(home, store, f"127.0.0.1:{port}", server)
    server.stop(0).wait()


@pytest.fixture
def platform(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "platform.toml").write_text(PLATFORM)
    return folder / "platform.toml"


@pytest.fixture
def member(coordinator: Coordinator, platform: Path) -> Membership:
    return join(coordinator.token(), coordinator.server, platform_file=platform)
