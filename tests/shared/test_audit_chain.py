"""Each line of an audit log is held by the one after it, also where the forger can seal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.audit_lines import sealed
from shared.audit_log import AuditLog, entries, verify
from shared.errors import AuditError
from shared.signing import canonical, public_of

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path / "audit.jsonl", clock=lambda: 1_700_000_000.0)
    for number in range(5):
        made.add("round", run="7", round=number)
    return made


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_a_line_that_was_changed_and_sealed_anew_is_missed_by_the_line_after_it(
    line: int, log: AuditLog
) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    entry = list(entries(log.path))[line - 1]
    forged = sealed(replace(entry, fields={**entry.fields, "run": "8"}))
    assert forged.hash != entry.hash
    lines[line - 1] = canonical(forged.as_dict()) + b"\n"
    log.path.write_bytes(b"".join(lines))
    found = f"line {line + 1} does not follow"
    with pytest.raises(AuditError, match=found):
        verify(log.path)
    with pytest.raises(AuditError, match=found):
        list(entries(log.path))
    # The checkpoint of the last line still fits its hash: only the chain finds this.
    with pytest.raises(AuditError, match=found):
        verify(log.path, known=[log.checkpoint(KEY)], public=public_of(KEY))


OTHERWISE: dict[str, Callable[[bytes], bytes]] = {
    "a space": lambda line: line.replace(b",", b", ", 1),
    "another order": lambda line: canonical_in_order(json.loads(line)),
    "a letter escaped": lambda line: line.replace(b'"round"', b'"\\u0072ound"', 1),
    "a key twice": lambda line: b'{"run":"8",' + line[1:],
    "a carriage return": lambda line: line + b"\r",
}


def canonical_in_order(fields: dict[str, object]) -> bytes:
    """The fields in another order than the canonical one."""
    return json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode()


@pytest.mark.parametrize("line", [2, 5])
@pytest.mark.parametrize("how", OTHERWISE)
def test_a_line_that_says_the_same_in_another_spelling_is_no_line(
    how: str, line: int, log: AuditLog
) -> None:
    lines = log.path.read_bytes().splitlines()
    spelt = OTHERWISE[how](lines[line - 1])
    assert json.loads(spelt) == json.loads(lines[line - 1])
    assert spelt != lines[line - 1]
    lines[line - 1] = spelt
    log.path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(AuditError, match="was edited"):
        verify(log.path)
