"""Make a backbone: train the sequence encoder on public rows, freeze it, describe it.

    public rows ─read, encode→ Rows ─train everything→ Backbone + model card

The correction starts at zero and the prior is never trained, so the epoch with the best validation
NDCG@10 is kept and is at least the prior's. Platforms get the result with its gate shut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from shared import metrics
from shared.backbone import Backbone, BackboneSpec, is_slot, new_backbone, save_backbone
from shared.device import pick_device
from shared.events import question, training_part
from shared.files import made_folder, replacing
from shared.ranking import rank
from shared.tables.config import PlatformConfig
from shared.tables.table import read_platform
from shared.tasks import next_item
from shared.text import EncoderSpec, Progress, find_encoder, item_table, silent
from shared.training import PlainEngine, Recipe, Rows, epochs

SHAPE = BackboneSpec(encoder="")
RECIPE = Recipe(epochs=6, batch=64, learning_rate=0.001)


def recipe(epochs: int) -> Recipe:
    """The recipe of a backbone, for so many passes."""
    return replace(RECIPE, epochs=epochs)


@dataclass(frozen=True)
class Pretrained:
    """A backbone and how it did on the validation part of its source, by epoch.

    Attributes:
        backbone: frozen, as it was after the best epoch.
        validation: mean NDCG@10 after each epoch; the first is the untrained prior's.
        kept: the epoch kept; 0 is the untrained one.
    """

    backbone: Backbone
    validation: tuple[float, ...]
    kept: int


def pretrain(
    sources: Sequence[PlatformConfig],
    out: Path,
    *,
    recipe: Recipe = RECIPE,
    encoder: str,
    shape: BackboneSpec = SHAPE,
    seed: int = 0,
    progress: Progress = silent,
) -> str:
    """Train on public sources, write the backbone and beside it its model card.

    Args:
        sources: tables whose rows may be read by anyone.
        out: the backbone's file; the card gets the suffix .md.
        recipe: how long and how fast.
        encoder: name of the text encoder.
        shape: of the backbone; its encoder and text width are set here.
        seed: of weights and batches.
        progress: called while it works.

    Returns:
        The digest of the backbone.

    Raises:
        AtollError: a source cannot be read, or the encoder is not there.
    """
    text = find_encoder(encoder)
    device = pick_device()
    read = [read_platform(source) for source in sources]
    tables = [
        torch.from_numpy(
            item_table(part.catalogue, text, cache=source.cache, progress=progress)
        ).to(device)
        for source, part in zip(sources, read, strict=True)
    ]
    spec = replace(shape, encoder=text.digest, text_width=text.width)

    def score(backbone: Backbone) -> float:
        """Mean validation NDCG@10 over the shoppers of all sources."""
        each = []
        for part, table in zip(read, tables, strict=True):
            scorer = next_item.NextItemScorer(backbone, table)
            asked = question(part.histories, "validation")
            each.append(metrics.ndcg(rank(scorer, asked, items=len(table)).ranks))
        return float(np.concatenate(each).mean())

    rows = [
        Rows(training_part(part.histories), table) for part, table in zip(read, tables, strict=True)
    ]
    made = train_all(
        new_backbone(spec, seed=seed).to(device),
        rows,
        recipe,
        rng=np.random.default_rng(seed),
        score=score,
        progress=progress,
    )
    made_folder(out.parent)
    digest = save_backbone(made.backbone, out)
    with replacing(out.with_suffix(".md")) as card:
        sizes = {
            source.name: (len(part.histories), len(part.catalogue))
            for source, part in zip(sources, read, strict=True)
        }
        card.write_text(
            model_card(made, digest=digest, encoder=text, recipe=recipe, seed=seed, sources=sizes),
            encoding="utf-8",
        )
    return digest


def train_all(
    backbone: Backbone,
    rows: Sequence[Rows],
    recipe: Recipe,
    *,
    rng: np.random.Generator,
    score: Callable[[Backbone], float],
    progress: Progress = silent,
) -> Pretrained:
    """Train every frozen number with the gate open; keep the best epoch, shut the gate, freeze."""
    for name, value in backbone.named_parameters():
        value.requires_grad_(not is_slot(name))
    with torch.no_grad():
        backbone.gate.adapter.fill_(1.0)
    validation = [score(backbone)]
    best = copy.deepcopy(backbone.state_dict())
    engine = PlainEngine(backbone, rows, recipe, rng=rng)
    for _epoch in epochs(backbone, rows, recipe, engine, progress=progress):
        reached = score(backbone)
        if reached > max(validation):
            best = copy.deepcopy(backbone.state_dict())
        validation.append(reached)
    backbone.load_state_dict(best)
    with torch.no_grad():
        backbone.gate.adapter.fill_(0.0)
    backbone.freeze()
    return Pretrained(backbone, tuple(validation), kept=int(np.argmax(validation)))


def model_card(
    made: Pretrained,
    *,
    digest: str,
    encoder: EncoderSpec,
    recipe: Recipe,
    seed: int,
    sources: Mapping[str, tuple[int, int]],
) -> str:
    """Markdown that says what the backbone is, what made it and what it is not for."""
    rows = "\n".join(
        f"| {name} | {shoppers:,} | {items:,} |" for name, (shoppers, items) in sources.items()
    )
    curve = ", ".join(f"{value:.4f}" for value in made.validation)
    shape = "\n".join(f"- {key}: {value}" for key, value in asdict(made.backbone.spec).items())
    return f"""# Backbone {digest[:12]}

Digest `{digest}`. Text encoder `{encoder.name}`, digest `{encoder.digest}`.

## What it is
A causal sequence encoder over whitened text vectors of items. It adds a correction to a prior that
is never trained. Platforms get it frozen, with its correction shut off; a few numbers in the
adapter open and move it.

## What it was trained on
| source | shoppers | items |
| --- | --- | --- |
{rows}

Every source must be public: this training has no privacy protection, and the file goes to everyone.

## How
{recipe.epochs} epochs, batches of {recipe.batch}, Adam at {recipe.learning_rate:g}, seed {seed}.
Validation NDCG@10 (leave-one-out, full catalogue, seen items masked) untrained and after each
epoch: {curve}. Epoch {made.kept} was kept.

## What it is not for
It knows the behaviour of its sources alone. Whether its correction helps a platform is for that
platform's validation to say; untrained, it never replaces the prior.

## Shape
{shape}
"""
