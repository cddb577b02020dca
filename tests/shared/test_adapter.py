from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from shared.adapter import FORMAT, Adapter, load_adapter, save_adapter
from shared.errors import AdapterError, ConfigError

Values = dict[str, NDArray[np.float32]]

FILLED: Values = {
    "gate": np.array([0.5], np.float32),
    "layers.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
}
ADAPTER = Adapter(FILLED, backbone="b" * 64, task="next-item", version=3)


def write(
    path: Path, tensors: Values | None = None, *, header: dict[str, str | None] | None = None
) -> Path:
    """A file like one of `save_adapter`, but for these tensors and header fields."""
    held = replace(ADAPTER, tensors=FILLED if tensors is None else tensors)
    fields: dict[str, str | None] = {
        "format": FORMAT,
        "backbone": held.backbone,
        "task": held.task,
        "version": "3",
        "digest": held.digest,
        **(header or {}),
    }
    save_file(
        dict(held.tensors), path, metadata={key: value for key, value in fields.items() if value}
    )
    return path


def refused(path: Path, **used_with: str) -> str:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path, **used_with)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


def assert_same(one: Adapter, other: Adapter) -> None:
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert other.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(other.tensors[name], tensor, strict=True)
    assert (one.backbone, one.task, one.version) == (other.backbone, other.task, other.version)


def test_the_digest_is_sha256_of_header_names_shapes_and_bytes() -> None:
    held = Adapter({"x": np.array([1, 2], np.float32)}, backbone="B", task="T")
    data = np.array([1, 2], "<f4").tobytes()
    assert (
        held.digest == hashlib.sha256(b'["atoll-adapter-1", "B", "T", 0]x(2,)\n' + data).hexdigest()
    )


def turned(name: str, tensor: NDArray[np.float32]) -> Adapter:
    return replace(ADAPTER, tensors=FILLED | {name: tensor})


MINUS_ZERO = np.array([[-1, 1, 1], [1, 1, 1]], np.float32)
OTHERS: dict[str, Adapter] = {
    "next number": turned("gate", np.nextafter(FILLED["gate"], np.float32(1))),
    "shape": turned("layers.0.weight", FILLED["layers.0.weight"].reshape(3, 2)),
    "sign of zero": turned("layers.0.weight", np.copysign(FILLED["layers.0.weight"], MINUS_ZERO)),
    "axis more": turned("gate", FILLED["gate"][None]),
    "axis less": turned("gate", FILLED["gate"].reshape(())),
    "order of numbers": turned("layers.0.weight", FILLED["layers.0.weight"][:, ::-1]),
    "name": replace(ADAPTER, tensors={"gates": FILLED["gate"], **dict(list(FILLED.items())[1:])}),
    "tensor more": replace(ADAPTER, tensors=FILLED | {"z": np.zeros(0, np.float32)}),
    "tensor less": replace(ADAPTER, tensors={"gate": FILLED["gate"]}),
    "backbone": replace(ADAPTER, backbone="c" * 64),
    "task": replace(ADAPTER, task="next-basket"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_digest_changes_with(what: str) -> None:
    assert OTHERS[what].digest != ADAPTER.digest


def test_the_digest_knows_nothing_of_the_order_of_names_or_of_memory() -> None:
    backwards = {name: np.asfortranarray(tensor) for name, tensor in reversed(list(FILLED.items()))}
    assert list(backwards) != list(FILLED)
    assert replace(ADAPTER, tensors=backwards).digest == ADAPTER.digest


def test_tensors_that_swap_their_names_change_the_digest() -> None:
    one, two = np.ones(2, np.float32), np.zeros(2, np.float32)
    there = Adapter({"a": one, "b": two}, backbone="b", task="t")
    swapped = Adapter({"a": two, "b": one}, backbone="b", task="t")
    assert there.digest != swapped.digest


def test_size_and_shapes_count_what_travels() -> None:
    assert ADAPTER.size == 7
    assert ADAPTER.shapes == {"gate": (1,), "layers.0.weight": (2, 3)}


def test_minus_is_the_way_back_from_plus() -> None:
    delta = {name: np.full_like(tensor, 0.25) for name, tensor in FILLED.items()}
    moved = ADAPTER.plus(delta, version=4)
    assert moved.version == 4
    assert moved.tensors["gate"].tolist() == [0.75]
    assert moved.tensors["layers.0.weight"].tolist() == [[0.25, 1.25, 2.25], [3.25, 4.25, 5.25]]
    assert ADAPTER.tensors["gate"].tolist() == [0.5]  # what was is left as it was
    back = moved.minus(ADAPTER)
    assert {name: tensor.tolist() for name, tensor in back.items()} == {
        name: tensor.tolist() for name, tensor in delta.items()
    }
    assert {tensor.dtype for tensor in (*moved.tensors.values(), *back.values())} == {
        np.dtype(np.float32)
    }


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    held = replace(ADAPTER, tensors=FILLED | {"none": np.zeros((0, 4), np.float32)})
    path = tmp_path / "adapter.safetensors"
    save_adapter(held, path)
    loaded = load_adapter(path, backbone="b" * 64, task="next-item")
    assert_same(held, loaded)
    assert loaded.digest == held.digest


def test_a_tensor_is_saved_by_its_meaning_not_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(turned("layers.0.weight", np.asfortranarray(FILLED["layers.0.weight"])), path)
    assert_same(ADAPTER, load_adapter(path))


def test_saving_again_takes_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(OTHERS["task"], path)
    save_adapter(ADAPTER, path)
    assert_same(ADAPTER, load_adapter(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = tmp_path / "adapter.safetensors"
    taken.mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        save_adapter(ADAPTER, taken)
    assert list(tmp_path.rglob("*")) == [taken]


def test_a_header_as_saved_is_accepted(tmp_path: Path) -> None:
    assert_same(ADAPTER, load_adapter(write(tmp_path / "adapter.safetensors")))


def test_a_truncated_file_is_named_and_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter.safetensors")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert "not a readable adapter" in refused(path)


def test_a_file_with_more_at_its_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter.safetensors")
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path)


def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(ADAPTER, path)
    whole = path.read_bytes()
    version = whole.index(b'"version":"3"')
    for place in range(len(whole)):
        if version <= place < version + len(b'"version":"3"'):
            continue  # what this promises of the version stands below
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        refused(path)


@pytest.mark.parametrize("version", [None, "three", "-1", "1.5", "²"])
def test_a_version_that_counts_no_rounds_is_refused(tmp_path: Path, version: str | None) -> None:
    assert "version" in refused(
        write(tmp_path / "adapter.safetensors", header={"version": version})
    )


@pytest.mark.parametrize("field", ["backbone", "task", "digest"])
@pytest.mark.parametrize("value", [None, "edited"])
def test_an_edited_header_is_refused(tmp_path: Path, field: str, value: str | None) -> None:
    said = refused(write(tmp_path / "adapter.safetensors", header={field: value}))
    assert "contents hash to" in said
    assert said.endswith("fetch it anew from the server")


@pytest.mark.parametrize("other", [None, "atoll-adapter-2", "pt"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, other: str | None) -> None:
    said = refused(write(tmp_path / "adapter.safetensors", header={"format": other}))
    assert "header says format" in said


def test_a_file_without_any_header_is_refused(tmp_path: Path) -> None:
    save_file(FILLED, tmp_path / "plain")
    assert "header says format null" in refused(tmp_path / "plain")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_no_file_or_an_empty_one_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "adapter.safetensors")
    refused(tmp_path / "adapter.safetensors")


def test_an_adapter_of_another_backbone_or_task_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "adapter.safetensors")
    assert "belongs to backbone bbbbbbbbbbbb…, this one is cccccccccccc…" in refused(
        path, backbone="c" * 64
    )
    assert "belongs to task 'next-item', this one is 'x'" in refused(path, task="x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    spoilt = FILLED | {"gate": np.array([bad], np.float32)}
    assert "'gate'" in refused(write(tmp_path / "adapter.safetensors", spoilt))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_numbers_of_another_kind_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "adapter.safetensors"
    header = {
        "format": FORMAT,
        "backbone": ADAPTER.backbone,
        "task": ADAPTER.task,
        "version": "3",
        "digest": replace(ADAPTER, tensors={"gate": np.ones(1, np.float32)}).digest,
    }
    save_torch({"gate": torch.ones(1, dtype=kind)}, path, metadata=header)
    refused(path)
