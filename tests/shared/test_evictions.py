"""Statements of evictions, as a platform keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import AuditError, IdentityError
from shared.evictions import Eviction, Evictions
from shared.signing import public_of


def test_statements_are_kept_once_and_a_forged_one_never(tmp_path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    kept = Evictions(tmp_path / "evictions.json")
    first = Eviction("bazaar", "a" * 64, 1.0).signed(key)
    assert kept.keep([first], public_of(key)) == [first]
    assert kept.keep([first], public_of(key)) == []
    with pytest.raises(IdentityError):
        kept.keep([Eviction("kiosk", "b" * 64, 2.0).signed(other)], public_of(key))
    assert kept.all() == [first]
    assert kept.lacking([]) == [first]
    assert kept.lacking([first]) == []
    for spoilt in (b"{", b"[]", b'{"evictions":[{}]}', b"[" * 100_000):
        kept.path.write_bytes(spoilt)
        with pytest.raises(AuditError, match="is damaged"):
            kept.all()
