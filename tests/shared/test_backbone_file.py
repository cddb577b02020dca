from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.adapter import Adapter, save_adapter
from shared.backbone import (
    FORMAT,
    Backbone,
    BackboneSpec,
    fill_slots,
    is_slot,
    load_backbone,
    new_backbone,
    read_slots,
    save_backbone,
)
from shared.errors import BackboneError

SPEC = BackboneSpec(
    encoder="e" * 64, text_width=12, width=8, layers=2, heads=2, rank=2, out_rank=6, max_length=9
)
SLOTS = {
    "adapter.weight": (12, 6),
    "gate.adapter": (1,),
    "layers.0.query_key_value.adapter.weight": (24, 2),
    "layers.0.feed_in.adapter.weight": (32, 2),
    "layers.1.query_key_value.adapter.weight": (24, 2),
    "layers.1.feed_in.adapter.weight": (32, 2),
}


def frozen(seed: int = 0, spec: BackboneSpec = SPEC) -> Backbone:
    """A backbone whose every frozen weight is drawn, as if it were pretrained."""
    backbone = new_backbone(spec, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if not is_slot(name):
                value.copy_(torch.randn(value.shape, generator=rng))
    return backbone


def drawn(backbone: Backbone, seed: int, *, only: str = "") -> Adapter:
    """An Adapter drawn at random; with `only`, the other slots stay untrained."""
    rng = np.random.default_rng(seed)
    start = read_slots(backbone, digest="d" * 64, task="t")
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) if only in name else start.tensors[name]
        for name, shape in start.shapes.items()
    }
    return replace(start, tensors=tensors)


def queries(backbone: Backbone, adapter: Adapter, vectors: Tensor) -> Tensor:
    fill_slots(backbone, adapter)
    with torch.inference_mode():
        return cast(Tensor, backbone(vectors))


def unit(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=rng), dim=-1)


def test_one_seed_makes_one_backbone_and_touches_no_global_state() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    made = [new_backbone(SPEC, seed=seed).digest for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_digest_is_of_the_frozen_part_alone() -> None:
    backbone = frozen()
    before = backbone.digest
    fill_slots(backbone, drawn(backbone, 1))
    assert backbone.digest == before


@pytest.mark.parametrize("name", [name for name, _ in frozen().named_parameters()])
def test_the_digest_changes_with_every_frozen_number(name: str) -> None:
    backbone = frozen()
    before = backbone.digest
    with torch.no_grad():
        value = backbone.get_parameter(name).view(-1)
        value[-1] = torch.nextafter(value[-1], torch.tensor(9.0))
    assert (backbone.digest != before) == (name not in SLOTS)


OTHER_SPEC: dict[str, Any] = {
    "encoder": "f" * 64,
    "heads": 4,
    "max_length": 10,
    "prior_scale": 5.0,
    "decay": 0.8,
    "window": 6,
    "rank": 3,
    "out_rank": 7,
    "layers": 1,
    "width": 16,
    "text_width": 13,
}


@pytest.mark.parametrize("field", asdict(SPEC))
def test_the_digest_changes_with_every_number_of_the_spec(field: str) -> None:
    other = replace(SPEC, **{field: OTHER_SPEC[field]})
    assert new_backbone(other, seed=0).digest != new_backbone(SPEC, seed=0).digest


def test_a_loaded_backbone_is_the_saved_one_untrained(tmp_path: Path) -> None:
    backbone, path = frozen(), tmp_path / "backbone.safetensors"
    adapter = drawn(backbone, 1)
    fill_slots(backbone, adapter)
    digest = save_backbone(backbone, path)
    loaded = load_backbone(path)
    assert digest == backbone.digest == loaded.digest
    assert loaded.spec == SPEC
    vectors = unit(2, 5, 12)
    assert torch.equal(loaded.correction(vectors), torch.zeros(2, 5, 12))
    assert torch.equal(queries(loaded, adapter, vectors), queries(backbone, adapter, vectors))
    assert {n for n, v in loaded.named_parameters() if v.requires_grad} == set(SLOTS)
    assert list(tmp_path.iterdir()) == [path]


def refused(path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


def test_a_missing_backbone_is_named_with_the_way_to_make_one(tmp_path: Path) -> None:
    assert refused(tmp_path / "nix").endswith("make one with atoll-server pretrain")


def test_a_flipped_bit_or_a_cut_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    save_backbone(frozen(), path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    for place in [*range(0, header, 5), *rng.integers(header, len(whole), 60), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        assert "not a readable backbone" in refused(path)
    for size in (0, 7, header - 1, header, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "not a readable backbone" in refused(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_adapter(drawn(frozen(), 1), path)
    assert "header says format 'atoll-adapter-1'" in refused(path)
    save_file({"x": torch.ones(1)}, path)
    assert "header says format None" in refused(path)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "spec",
    ["{", "[]", '{"widths": 8}', '{"encoder": "e", "width": 0}', '{"encoder": "e", "rank": -1}'],
)
def test_a_spec_that_describes_no_backbone_is_refused(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata={"format": FORMAT, "spec": spec, "digest": "d"})
    assert "not a readable backbone" in refused(path)
