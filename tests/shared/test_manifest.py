from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared import manifest, signing
from shared.adapter import Adapter, save_adapter
from shared.errors import AdapterError, IdentityError
from shared.manifest import Manifest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = signing.public_of(KEY)
ADAPTER = Adapter({"w": np.ones(3, np.float32)}, backbone="b" * 64, task="next-item", version=4)
MANIFEST = Manifest(
    version=5,
    adapter=ADAPTER.digest,
    parents=("p" * 64,),
    backbone=ADAPTER.backbone,
    task=ADAPTER.task,
    run="a1b2",
    round=4,
    participants=("Reef & Söhne 礁", "kiosk"),
    metrics={"ndcg@10": 0.25},
    time=1.5,
    atoll="0.1.0",
    moments="m" * 64,
    report="r" * 64,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An adapter with its signed manifest beside it."""
    path = tmp_path / "kiosk.safetensors"
    save_adapter(ADAPTER, path)
    manifest.write(manifest.beside(path), MANIFEST, manifest.sign(MANIFEST, KEY))
    return path


def refused(path: Path, *, public: str = PUBLIC, unsigned: bool = False) -> str:
    with pytest.raises(IdentityError) as caught:
        manifest.check_file(path, public, unsigned=unsigned)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_manifest_is_read_back_as_it_was_written(file: Path) -> None:
    read, signature = manifest.read(manifest.beside(file))
    assert (read, read.digest) == (MANIFEST, MANIFEST.digest)
    manifest.check(read, signature, PUBLIC)
    assert manifest.parse(MANIFEST.text()) == MANIFEST


CHANGES: list[dict[str, Any]] = [
    {"version": 6},
    {"adapter": "f" * 64},
    {"parents": ()},
    {"backbone": "c" * 64},
    {"task": "other"},
    {"run": "other"},
    {"round": 5},
    {"participants": ("kiosk",)},
    {"metrics": {"ndcg@10": 0.26}},
    {"time": 2.5},
    {"atoll": "0.2.0"},
    {"moments": "f" * 64},
    {"report": "f" * 64},
]


def test_every_field_is_signed() -> None:
    assert [next(iter(it)) for it in CHANGES] == list(asdict(MANIFEST))
    signature = manifest.sign(MANIFEST, KEY)
    for change in CHANGES:
        changed = replace(MANIFEST, **change)
        assert changed.digest != MANIFEST.digest
        with pytest.raises(IdentityError, match="signature does not hold"):
            manifest.check(changed, signature, PUBLIC)


def test_a_file_that_the_coordinator_vouches_for_passes(file: Path) -> None:
    manifest.check_file(file, PUBLIC)
    manifest.check_file(file, PUBLIC, unsigned=True)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        place = manifest.beside(path)
        told = json.loads(place.read_text())
        change(told)
        place.write_text(json.dumps(told))

    return edit


def exchanged(path: Path) -> None:
    save_adapter(replace(ADAPTER, tensors={"w": np.zeros(3, np.float32)}), path)


def resigned(path: Path) -> None:
    manifest.write(manifest.beside(path), MANIFEST, manifest.sign(MANIFEST, OTHER))


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: manifest.beside(path).write_bytes(content)


def a_folder(path: Path) -> None:
    manifest.beside(path).unlink()
    manifest.beside(path).mkdir()


FALSE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another adapter": (exchanged, "vouches for adapter"),
    "signed by somebody else": (resigned, "signature does not hold"),
    "no signature": (edited(lambda it: it.update(signature="")), "carries no signature"),
    "signature cut": (edited(lambda it: it.update(signature="ab")), "does not hold"),
    "signature a number": (edited(lambda it: it.update(signature=1)), "is no manifest"),
    "signature gone": (edited(lambda it: it.pop("signature")), "is no manifest"),
    "edited": (edited(lambda it: it["manifest"].update(round=5)), "does not hold"),
    "one field more": (edited(lambda it: it["manifest"].update(x=5)), "is no manifest"),
    "one field less": (edited(lambda it: it["manifest"].pop("run")), "is no manifest"),
    "another format": (edited(lambda it: it["manifest"].update(format="x")), "is no manifest"),
    "another type": (edited(lambda it: it["manifest"].update(parents="pp")), "is no manifest"),
    "true for 1": (edited(lambda it: it["manifest"].update(version=True)), "is no manifest"),
    "no object": (holding(b"[]"), "is no manifest"),
    "empty": (holding(b""), "is no manifest"),
    "binary": (holding(b"\xff\x00"), "is no manifest"),
    "deep": (holding(b"[" * 9**6), "is no manifest"),
    "a folder": (a_folder, "is no manifest"),
}


@pytest.mark.parametrize("how", FALSE)
@pytest.mark.parametrize("unsigned", [False, True])
def test_a_file_whose_manifest_is_false_never_passes(how: str, unsigned: bool, file: Path) -> None:
    spoil, said = FALSE[how]
    spoil(file)
    assert said in refused(file, unsigned=unsigned)


def test_a_file_without_a_manifest_passes_only_where_that_is_asked_for(file: Path) -> None:
    manifest.beside(file).unlink()
    assert refused(file) == (
        f"{file}: has no manifest (kiosk.json), so nobody vouches for it;"
        " fetch both files from the coordinator, or use --unsigned"
    )
    manifest.check_file(file, PUBLIC, unsigned=True)


def test_a_file_that_is_no_adapter_is_told(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such adapter file"):
        manifest.check_file(tmp_path / "none.safetensors", PUBLIC)


def test_a_request_is_signed_for_its_adapter_and_its_run() -> None:
    signature = signing.sign(KEY, "model", manifest.statement(ADAPTER, "run"))
    manifest.check_request(ADAPTER, "run", signature, PUBLIC)
    others = [
        (replace(ADAPTER, version=5), "run", signature, PUBLIC),
        (replace(ADAPTER, backbone="c" * 64), "run", signature, PUBLIC),
        (replace(ADAPTER, task="other"), "run", signature, PUBLIC),
        (replace(ADAPTER, tensors={"w": np.zeros(3, np.float32)}), "run", signature, PUBLIC),
        (ADAPTER, "another run", signature, PUBLIC),
        (ADAPTER, "run", signature[::-1], PUBLIC),
        (ADAPTER, "run", "", PUBLIC),
        (ADAPTER, "run", signature, signing.public_of(OTHER)),
        (ADAPTER, "run", signature, "no key"),
    ]
    for adapter, run, signed, public in others:
        with pytest.raises(IdentityError):
            manifest.check_request(adapter, run, signed, public)


def test_a_manifests_signature_serves_no_request_and_the_other_way_round() -> None:
    with pytest.raises(IdentityError):
        manifest.check_request(ADAPTER, "a1b2", manifest.sign(MANIFEST, KEY), PUBLIC)
    signature = signing.sign(KEY, "model", manifest.statement(ADAPTER, "a1b2"))
    with pytest.raises(IdentityError):
        manifest.check(MANIFEST, signature, PUBLIC)


def test_the_coordinators_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.pub"
    path.write_text(PUBLIC + "\n")
    assert manifest.read_public(path) == PUBLIC
    for content in (b"", b"00", PUBLIC.upper().encode(), b"\xff" * 64, PUBLIC.encode() * 2):
        path.write_bytes(content)
        with pytest.raises(IdentityError):
            manifest.read_public(path)
    with pytest.raises(IdentityError, match="cannot be read"):
        manifest.read_public(tmp_path / "none.pub")
