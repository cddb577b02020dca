from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from server.pretrain import RECIPE, Pretrained, pretrain, recipe, train_all
from shared.backbone import Backbone, BackboneSpec, is_slot, load_backbone, new_backbone
from shared.errors import DataError
from shared.events import from_lists
from shared.tables.config import PlatformConfig, load_platform
from shared.text import find_encoder
from shared.training import Recipe, Rows

SPEC = BackboneSpec(encoder="e", text_width=6, width=8, heads=2, layers=1, rank=2)


@pytest.fixture(scope="module")
def sources(trio: dict[str, Path]) -> list[PlatformConfig]:
    return [load_platform(trio[name]) for name in ("atelier", "harbour")]


@pytest.fixture(scope="module")
def made(
    sources: list[PlatformConfig], encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A backbone's file and digest, made from two sources."""
    path = tmp_path_factory.mktemp("made") / "new" / "backbone.safetensors"
    return path, pretrain(sources, path, recipe=recipe(2), encoder=str(encoder), seed=3)


def rows(seed: int) -> Rows:
    """Six Histories of four events over twelve random items of width 6."""
    rng = np.random.default_rng(seed)
    table = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(12, 6))).float(), dim=1)
    lists = [rng.integers(0, 12, size=4).astype(np.int32) for _ in range(6)]
    return Rows(from_lists(lists, tuple("abcdef")), table)


def trained(scores: Sequence[float]) -> tuple[Pretrained, list[dict[str, torch.Tensor]]]:
    """A training whose validation is scripted, and the frozen numbers at each look at it."""
    script, states = iter(scores), []

    def score(backbone: Backbone) -> float:
        state = backbone.state_dict().items()
        states.append({name: value.clone() for name, value in state if not is_slot(name)})
        return next(script)

    found = train_all(
        new_backbone(SPEC, seed=0),
        [rows(0), rows(1)],
        Recipe(epochs=len(scores) - 1, batch=3, learning_rate=0.01),
        rng=np.random.default_rng(0),
        score=score,
    )
    return found, states


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ((0.1, 0.3, 0.5, 0.4), 2),
        ((0.1, 0.2, 0.3, 0.4), 3),
        ((0.5, 0.4, 0.3, 0.2), 0),  # the untrained prior is among the candidates
        ((0.1, 0.3, 0.3, 0.3), 1),  # of equals the earliest
    ],
)
def test_the_epoch_with_the_best_validation_is_kept(scores: Sequence[float], kept: int) -> None:
    found, states = trained(scores)
    assert (found.kept, found.validation) == (kept, tuple(scores))
    held = found.backbone.state_dict()
    assert all(torch.equal(held[name], value) for name, value in states[kept].items())
    other = states[kept - 1]
    assert not all(torch.equal(held[name], value) for name, value in other.items())


def test_every_frozen_number_that_scores_depend_on_is_trained() -> None:
    _, (before, *_, after) = trained((0.1, 0.2, 0.3))
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    # A of each slot has nothing to do while B is zero.
    assert still == {name for name in before if name.endswith("down.weight")}


def test_what_is_made_is_frozen_with_its_gate_shut_and_its_slots_untouched() -> None:
    found, _ = trained((0.1, 0.2))
    assert all(is_slot(name) == p.requires_grad for name, p in found.backbone.named_parameters())
    slots = [p for name, p in found.backbone.named_parameters() if is_slot(name)]
    assert all(bool((slot == 0).all()) for slot in slots)


def test_what_is_made_is_the_prior_until_a_platform_opens_the_gate() -> None:
    backbone = trained((0.1, 0.2))[0].backbone.eval()
    vectors = rows(5).table[None]  # [1, 12, 6]
    with torch.no_grad():
        shut = backbone(vectors)
        torch.testing.assert_close(shut, SPEC.prior_scale * backbone.prior(vectors))
        backbone.gate.adapter.fill_(1.0)
        assert not torch.allclose(shut, backbone(vectors))  # there is something behind the gate


def test_a_backbone_knows_its_encoder(made: tuple[Path, str], encoder: Path) -> None:
    spec = load_backbone(made[0]).spec
    assert (spec.encoder, spec.text_width) == (find_encoder(str(encoder)).digest, 16)


def test_one_seed_makes_one_backbone_and_another_another(
    made: tuple[Path, str], sources: list[PlatformConfig], encoder: Path, tmp_path: Path
) -> None:
    digests = [
        pretrain(sources, tmp_path / "b.safetensors", recipe=recipe(2), encoder=name, seed=seed)
        for name, seed in ((str(encoder), 3), (str(encoder), 4))
    ]
    assert digests[0] == made[1]
    assert digests[1] != made[1]


def test_the_model_card_names_sources_digest_encoder_and_the_epoch_kept(
    made: tuple[Path, str], encoder: Path
) -> None:
    path, digest = made
    card = path.with_suffix(".md").read_text()
    assert load_backbone(path).digest == digest
    assert f"Digest `{digest}`" in card
    assert find_encoder(str(encoder)).digest in card
    assert "| atelier | 8 | 16 |" in card  # shoppers and items
    assert "| harbour | 14 | 24 |" in card
    curve = re.search(r"epoch: ([\d., ]+)\. Epoch (\d) was kept", card)
    assert curve is not None
    values = [float(value) for value in curve[1].split(", ")]
    assert len(values) == 3  # untrained and after each of two epochs
    assert values[int(curve[2])] == max(values)
    assert "seed 3" in card


def test_only_the_backbone_and_its_card_are_written(made: tuple[Path, str]) -> None:
    names = sorted(path.name for path in made[0].parent.iterdir())
    assert names == ["backbone.md", "backbone.safetensors"]


def test_a_source_that_cannot_be_read_leaves_nothing_behind(
    make_platform: Callable[..., Path], encoder: Path, trio: dict[str, Path], tmp_path: Path
) -> None:
    bad = make_platform(tmp_path / "bad", "bad")
    (tmp_path / "bad" / "items.tsv").unlink()
    paths = (trio["atelier"], bad)
    with pytest.raises(DataError, match="no such file"):
        pretrain(
            [load_platform(path) for path in paths], tmp_path / "out" / "b", encoder=str(encoder)
        )
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_a_backbone_changes_in_its_epochs_only() -> None:
    assert recipe(9) == Recipe(9, RECIPE.batch, RECIPE.learning_rate, RECIPE.schedule)
