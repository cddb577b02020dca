"""Where an audit takes place: a platform, how much is tried there, and attacks without a Plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared.adapter import Adapter
from shared.backbone import Backbone, BackboneSpec, new_backbone, read_slots
from shared.events import training_part
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from shared.tasks import next_item
from shared.text import Progress, find_encoder, item_table, silent
from shared.training import Engine, PlainEngine, Recipe, Rows, train
from simulations.audits.attacks import Shadows, invert, shadow_runs
from simulations.audits.canaries import nameless
from simulations.worlds.embedded import generate, write
from simulations.worlds.specs import default_world

PLATFORM = "kiosk"
MOST_EVENTS = 8  # of a History that an inversion is tried on; the last ones
PLAIN_EPOCHS = 10  # of a run without a Plan: as many as so small a platform is trained for


@dataclass(frozen=True)
class Ground:
    """A platform to audit on.

    Attributes:
        backbone: on the table's device; its slots are overwritten.
        rows: what its shoppers did.
        titles: [N] of its Catalogue.
    """

    backbone: Backbone
    rows: Rows
    titles: Sequence[str]

    @cached_property
    def start(self) -> Adapter:
        """The untrained Adapter."""
        found = read_slots(self.backbone, digest=self.backbone.digest, task=next_item.NAME)
        return replace(found, tensors={name: 0 * it for name, it in found.tensors.items()})


@dataclass(frozen=True)
class Size:
    """How much is tried; more sees more and takes longer.

    Attributes:
        canaries: of the one run.
        guesses: how many of them are guessed at, settled in advance.
        sampling_rate: q of the Plan.
        steps: of the Plan.
        clip: C of the Plan.
        shadows: runs of the membership test.
        victims: Histories that an inversion is tried on.
        rounds: that the Ledger's budget is planned for.
        round_steps: of one of these rounds.
    """

    canaries: int = 800
    guesses: int = 200
    sampling_rate: float = 0.25
    steps: int = 20
    clip: float = 0.5
    shadows: int = 32
    victims: int = 8
    rounds: int = 6
    round_steps: int = 4


@dataclass(frozen=True)
class Unprotected:
    """What the attacks find without a Plan: the same whatever ε is audited.

    Attributes:
        shadows: of the membership test.
        victims: places of the Histories that inversions are tried on.
        guesses: what the inversions gave.
    """

    shadows: Shadows
    victims: list[int]
    guesses: list[NDArray[np.int64]]


def embedded_ground(out: Path, *, cache: Path, seed: int, progress: Progress = silent) -> Ground:
    """The smallest platform of the embedded world, its tables written under `out`/data.

    On the CPU, where Plans are kept.
    """
    everyone = default_world()
    spec = next(it for it in everyone.platforms if it.name == PLATFORM)
    world = generate(replace(everyone, platforms=(spec,)), seed=seed)
    rows = read_platform(load_platform(write(world, out / "data")[PLATFORM]))
    text = find_encoder()
    table = torch.from_numpy(item_table(rows.catalogue, text, cache=cache, progress=progress))
    backbone = new_backbone(BackboneSpec(encoder=text.digest, text_width=text.width), seed=seed)
    kept = Rows(training_part(rows.histories), table)
    return Ground(backbone, kept, rows.catalogue.texts)


def unprotected(
    ground: Ground, *, seed: int, size: Size, progress: Progress = silent
) -> Unprotected:
    """Both attacks on training without a Plan."""
    progress("membership without a Plan", 0, 1)
    rng = np.random.default_rng(seed)
    shadows = shadow_runs(
        ground.backbone,
        ground.start,
        ground.rows,
        Recipe(epochs=PLAIN_EPOCHS, batch=16),
        engines=[PlainEngine] * size.shadows,
        rng=rng,
    )
    long = np.flatnonzero(ground.rows.histories.lengths >= 3)
    victims = [int(it) for it in rng.choice(long, size=min(size.victims, len(long)), replace=False)]
    return Unprotected(shadows, victims, inversions(ground, victims, [PlainEngine] * len(victims)))


def inversions(
    ground: Ground, victims: Sequence[int], engines: Sequence[Callable[..., Engine]]
) -> list[NDArray[np.int64]]:
    """Each victim's items, guessed from the Update of one step on their History alone."""
    guesses = []
    for place, engine in zip(victims, engines, strict=True):
        history = ground.rows.histories[place][-MOST_EVENTS:]
        alone = Rows(nameless([history]), ground.rows.table)
        after = train(
            ground.backbone,
            ground.start,
            [alone],
            Recipe(batch=1),
            rng=np.random.default_rng(0),  # one History has one order
            engine=engine,
        )
        delta = after.minus(ground.start)
        guesses.append(
            invert(delta, ground.backbone, ground.start, alone.table, length=len(history))
        )
    return guesses
