"""What tests of the coordinator's side share: a clock set by hand, and a platform's keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared import enrolment as wire
from shared.enrolment import JoinRequest, join_request


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Keys:
    """What a platform makes before it joins."""

    node: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def request(self, secret: bytes, name: str = "shop") -> JoinRequest:
        return join_request(secret, name=name, node=self.node, signing=self.signing)

    @property
    def node_key(self) -> bytes:
        return wire.node_public(self.node.public_key())


MakeKeys = Callable[[], Keys]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_keys() -> MakeKeys:
    """Makes a platform's keys, others each time."""
    return Keys
