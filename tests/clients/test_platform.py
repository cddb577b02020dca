from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import clients.platform
from clients.platform import Platform, open_platform
from shared.adapter import Adapter
from shared.backbone import fill_slots, is_slot, load_backbone
from shared.device import Use
from shared.errors import BackboneError, ConfigError, DataError
from shared.tables.config import load_platform
from shared.text import find_encoder, item_table

PLAN = """epsilon = 8.0
shoppers_at_least = 14
sampling_rate = 0.5
steps = 1
rounds = 2"""


@pytest.fixture
def harbour(trio: dict[str, Path]) -> Platform:
    return open_platform(load_platform(trio["harbour"]))


def noisy(platform: Platform, seed: int = 0) -> Adapter:
    """An adapter that adds something to the prior."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in platform.untrained.shapes.items()
    }
    return Adapter(tensors, platform.untrained.backbone, platform.untrained.task)


def slots(platform: Platform) -> list[float]:
    named = platform.backbone.named_parameters()
    return [float(value.detach().abs().sum()) for name, value in named if is_slot(name)]


def test_a_platform_is_opened_from_its_file_alone(harbour: Platform, backbone: Path) -> None:
    assert harbour.config.name == "harbour"
    assert (len(harbour.rows.histories), len(harbour.rows.catalogue)) == (14, 24)
    assert harbour.table.shape == (24, 16)
    assert harbour.digest == load_backbone(backbone).digest
    torch.testing.assert_close(harbour.table.norm(dim=1).cpu(), torch.ones(24))


@pytest.mark.parametrize("protected", [True, False])
def test_under_a_plan_a_gpu_is_left_alone(
    protected: bool,
    make_platform: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Use] = []

    def picked(use: Use) -> torch.device:
        asked.append(use)
        return torch.device("cpu")

    monkeypatch.setattr(clients.platform, "pick_device", picked)
    how = {"privacy": PLAN} if protected else {}
    open_platform(load_platform(make_platform(tmp_path, "shop", **how)))
    assert asked[0] == ("never" if protected else "auto")  # others encode public texts


def test_training_and_questions_part_each_history_without_overlap(harbour: Platform) -> None:
    history = harbour.rows.histories[0]
    assert harbour.training.histories[0].tolist() == history[:-2].tolist()
    assert harbour.told[0].tolist() == history[:-1].tolist()
    validation, test = harbour.question("validation"), harbour.question("test")
    assert validation.contexts[0].tolist() == history[:-2].tolist()
    assert validation.targets[0] == history[-2]
    assert test.contexts[0].tolist() == history[:-1].tolist()
    assert test.targets[0] == history[-1]


def test_the_untrained_state_is_the_prior_whatever_was_in_the_slots(harbour: Platform) -> None:
    fill_slots(harbour.backbone, noisy(harbour))
    assert sum(slots(harbour)) > 0
    assert all((tensor == 0).all() for tensor in harbour.untrained.tensors.values())
    assert harbour.untrained.version == 0


def test_a_ranking_is_that_of_the_adapter_given_and_of_no_earlier_one(harbour: Platform) -> None:
    prior = harbour.rank(harbour.untrained, "test").ranks
    assert not np.array_equal(harbour.rank(noisy(harbour), "test").ranks, prior)
    assert np.array_equal(harbour.rank(harbour.untrained, "test").ranks, prior)
    assert len(prior) == 14


def test_a_copy_shares_rows_and_vectors_but_not_the_slots(harbour: Platform) -> None:
    other = harbour.copy()
    fill_slots(other.backbone, noisy(harbour))
    assert sum(slots(harbour)) == 0 < sum(slots(other))
    assert (other.table is harbour.table, other.rows is harbour.rows) == (True, True)


def test_item_vectors_are_read_from_the_cache_when_it_has_them(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    config = load_platform(make_platform(tmp_path, "shop", seed=7, cache=tmp_path / "cache"))
    told: list[str] = []
    first, second = (
        open_platform(config, progress=lambda what, _done, _total: told.append(what))
        for _ in range(2)
    )
    assert told == ["reading item texts"]  # once
    assert torch.equal(first.table, second.table)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_damaged_cache_is_named_and_refused(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    config = load_platform(make_platform(tmp_path, "shop", seed=7, cache=tmp_path / "cache"))
    open_platform(config)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BackboneError, match="delete this file") as caught:
        open_platform(config)
    assert str(file) in str(caught.value)


def test_a_backbone_of_another_text_encoder_is_refused(
    encoder: Path, trio: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "encoder"
    shutil.copytree(encoder, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    config = replace(load_platform(trio["harbour"]), encoder=str(other))
    with pytest.raises(BackboneError, match="made for another text encoder") as caught:
        open_platform(config)
    assert str(config.backbone) in str(caught.value)


def test_without_a_backbone_the_next_step_is_told(trio: dict[str, Path]) -> None:
    config = replace(load_platform(trio["harbour"]), backbone=None)
    with pytest.raises(ConfigError, match=r"no backbone named; set path under \[backbone\]"):
        open_platform(config)


def test_a_damaged_backbone_is_named_and_refused(trio: dict[str, Path], tmp_path: Path) -> None:
    bad = tmp_path / "b.safetensors"
    bad.write_bytes(b"\x00" * 50)
    with pytest.raises(BackboneError, match="not a readable backbone") as caught:
        open_platform(replace(load_platform(trio["harbour"]), backbone=bad))
    assert str(bad) in str(caught.value)


def test_bad_rows_are_refused_before_any_text_is_read(
    make_platform: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_platform(tmp_path, "shop", cache=tmp_path / "cache")
    (tmp_path / "interactions.tsv").unlink()
    with pytest.raises(DataError, match="no such file"):
        open_platform(load_platform(path))
    assert not (tmp_path / "cache").exists()


def test_the_vectors_are_those_of_the_catalogue_in_its_order(
    harbour: Platform, encoder: Path
) -> None:
    expected = item_table(harbour.rows.catalogue, find_encoder(str(encoder)))
    np.testing.assert_allclose(harbour.table.cpu().numpy(), expected, atol=1e-6)
