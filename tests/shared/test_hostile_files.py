"""Files that ask for much, or are damaged on purpose: one line, and no memory taken for them."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from clients import settled, taught
from shared import trust
from shared.adapter import load_adapter
from shared.backbone import BackboneSpec, load_backbone, new_backbone, save_backbone
from shared.config import Section, parse, read_toml
from shared.errors import (
    AdapterError,
    AtollError,
    BackboneError,
    ConfigError,
    IdentityError,
    LedgerError,
)
from shared.pairs import load_pairs
from shared.tensor_files import LARGEST_HEADER
from shared.token import Token
from shared.update import from_bytes

CASES = Path(__file__).parents[1] / "fuzz" / "regressions"


def tensors(header: object, *, metadata: dict[str, str] | None = None) -> bytes:
    text = json.dumps({"__metadata__": metadata} if metadata else header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("load", [load_adapter, load_pairs, load_backbone])
def test_a_file_of_very_many_tensors_is_refused_by_the_length_of_its_header(
    load: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path.write_bytes(tensors({f"t{number}": empty for number in range(20_000)}))
    with pytest.raises(AtollError, match=f"a header of .* bytes, more than {LARGEST_HEADER:,}"):
        load(path)


def test_weights_in_such_a_file_are_found_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.weighing"
    policy: Any = type("Policy", (), {"ledger": tmp_path / "ledger"})
    bfloat = {"weighing": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    for content in ((2**40).to_bytes(8, "little"), tensors({"__metadata__": {"run": "r"}, **bfloat})
                    + b"\0\0", b""):  # fmt: skip
        path.write_bytes(content)
        assert settled.kept(path, "k") is None
        assert taught.sent(policy, "r") is None


def test_a_version_of_thousands_of_digits_is_no_version(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors({}, metadata={"format": "atoll-adapter-1", "version": "9" * 5_000}))
    with pytest.raises(AdapterError, match=r"header says version '9{20}', which"):
        load_adapter(path)


@pytest.mark.parametrize(
    "numbers",
    [
        {"text_width": 1_000_000, "width": 100_000},
        {"layers": 10**9},
        {"window": 2**30},
        {"out_rank": 10**9},
        {"rank": 10**9},
        {"rank": -1},
        {"width": "4"},
    ],
)
def test_a_backbone_whose_spec_asks_for_gigabytes_takes_none(
    numbers: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "b.safetensors"
    spec = BackboneSpec("e", text_width=4, width=2, layers=1, heads=1, rank=1, out_rank=1)
    save_backbone(new_backbone(spec, seed=0), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    said = json.loads(header["__metadata__"]["spec"])
    header["__metadata__"]["spec"] = json.dumps({**said, **numbers})
    path.write_bytes(tensors(header) + content[8 + length :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BackboneError, match="not a readable backbone"):
        load_backbone(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("path", sorted((CASES / "payload-of-a-ledger").iterdir()), ids=str)
def test_a_payload_that_is_no_update_is_a_fault_of_the_ledger(path: Path) -> None:
    with pytest.raises(LedgerError, match="keeps an answer that is no Update"):
        from_bytes(path.read_bytes())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", sorted((CASES / "certificates").iterdir()), ids=lambda it: it.name)
def test_a_certificate_that_cannot_be_decoded_is_no_ca(path: Path) -> None:
    content = path.read_bytes()
    try:
        one = x509.load_der_x509_certificate(content)
    except x509.InvalidVersion:
        token = str(Token(b"s" * 16, 1, content))
        with pytest.raises(IdentityError, match="this is no token"):
            Token.read(token)
        return
    pem = trust.pem([one])
    assert trust.number(one) in (0, 1)
    assert trust.hosts_of(one) == []
    with pytest.raises(IdentityError, match="holds"):
        trust.authorities(pem, where="ca.pem")


class _Model(Section):
    path: str


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = " + b"[" * 5_000, "holds values nested more than 32 levels deep"),
        (b"path = " + b"9" * 5_000, "holds an integer of more than 64 bits"),
        (b"a." * 5_000 + b"a = 1", "holds a key of more than 32 parts"),
        (b"a" * 5_000 + b" = 1", r"unknown key 'a{100}...'"),
        (b'path = "a\\u0000b"', "a text holds the character of code 0"),
        (b"#" * 300_000, "holds longer than 262,144 bytes"),
    ],
)
def test_a_toml_file_that_asks_for_much_is_one_short_line(
    content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as fault:
        read_toml(path, _Model)
    assert len(str(fault.value)) < 1_000


def test_a_text_may_hold_a_backslash_before_u0000() -> None:
    assert parse({"path": "a\\u0000b"}, _Model, "a.toml").path == "a\\u0000b"
