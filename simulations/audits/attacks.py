"""Two attacks on what leaves a platform, to show what a Plan is for.

    membership   final Adapter ─likelihood ratio→ was this shopper's History trained on?
    inversion    Update of one step ─match gradients→ the items of the shopper's History

Both attackers know what the threat model gives them: the Backbone, the Catalogue and the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.private import gradients as left_by_hooks
from clients.private import per_history, unhooked
from shared.adapter import Adapter, Tensors
from shared.backbone import Backbone, fill_slots
from shared.events import Histories, from_lists
from shared.tasks import next_item
from shared.training import Engine, Recipe, Rows, train

PIECE = 64  # Histories whose gradients are in memory at once
STARTS = 6  # orders of the first guess that an inversion begins with
SWEEPS = 6  # over all places of a History; most end earlier
LIKELY = 6  # items tried for an event
CERTAIN = 0.9  # cosine; a History with one wrong item is far below it


def slots(backbone: Backbone) -> list[nn.Parameter]:
    """The adapter slots, in the order in which gradients are laid flat."""
    return [value for value in backbone.parameters() if value.requires_grad]


def gradients(backbone: Backbone, table: Tensor, histories: Histories) -> Iterator[Tensor]:
    """[b, d] gradients of Histories, one a row, in pieces, where the slots stand."""
    moved = slots(backbone)
    module = per_history(backbone)
    try:
        for start in range(0, len(histories), PIECE):
            places = np.arange(start, min(start + PIECE, len(histories)))
            batch = next_item.pad(histories, places, max_length=backbone.spec.max_length)
            next_item.losses(backbone, table, batch.to(table.device)).sum().backward()  # type: ignore[no-untyped-call]
            yield torch.cat([left_by_hooks(value).flatten(1) for value in moved], 1).cpu()
            module.zero_grad(set_to_none=True)
    finally:
        unhooked(backbone, module)


# Membership


@dataclass(frozen=True)
class Shadows:
    """Runs on random halves of the same Histories.

    Attributes:
        scores: [runs, targets] how far the final Adapter went the way each target would push it.
        inside: [runs, targets] whether the target was trained on.
    """

    scores: NDArray[np.float64]
    inside: NDArray[np.bool_]


def shadow_runs(
    backbone: Backbone,
    start: Adapter,
    rows: Rows,
    recipe: Recipe,
    *,
    engines: Sequence[Callable[..., Engine]],
    rng: np.random.Generator,
) -> Shadows:
    """Train once with each engine, every target in or out by a fair coin."""
    count = len(rows.histories)
    fill_slots(backbone, start)
    pushes = torch.cat(list(gradients(backbone, rows.table, rows.histories))).double()
    pushes = torch.nn.functional.normalize(pushes, dim=1)  # [targets, d]
    order = [name for name, value in backbone.named_parameters() if value.requires_grad]
    scores, inside = [], []
    for engine in engines:
        coins = rng.random(count) < 0.5
        half = Rows(rows.histories.take(np.flatnonzero(coins)), rows.table)
        delta = train(backbone, start, [half], recipe, rng=rng, engine=engine).minus(start)
        moved = torch.from_numpy(np.concatenate([delta[name].ravel() for name in order])).double()
        scores.append((pushes @ -moved).numpy())
        inside.append(coins)
    return Shadows(np.array(scores), np.array(inside))


def likelihood_ratios(shadows: Shadows) -> NDArray[np.float64]:
    """[runs, targets] log-likelihood ratio of in against out (LiRA, Carlini et al., 2112.03570).

    For each run the Gaussians of a target in and out are fitted to all other runs; with so few, one
    variance is fitted for all targets together.
    """
    answer = np.zeros_like(shadows.scores)
    for run in range(len(answer)):
        others = np.arange(len(answer)) != run
        x, inside = shadows.scores[others], shadows.inside[others]
        mean_in, mean_out = (
            np.where(which, x, 0).sum(0) / np.maximum(which.sum(0), 1)
            for which in (inside, ~inside)
        )
        spread = np.square(x - np.where(inside, mean_in, mean_out)).mean()
        here = shadows.scores[run]
        answer[run] = ((here - mean_out) ** 2 - (here - mean_in) ** 2) / (2 * spread)
    return answer


def roc(
    scores: NDArray[np.float64], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates, from (0, 0) to (1, 1), one point a threshold."""
    order = np.argsort(-scores.ravel(), kind="stable")
    flat, hit = scores.ravel()[order], inside.ravel()[order]
    ends = np.append(flat[1:] != flat[:-1], True)  # equal scores fall together
    true, false = np.cumsum(hit)[ends] / hit.sum(), np.cumsum(~hit)[ends] / (~hit).sum()
    return np.append(0.0, false), np.append(0.0, true)


# Inversion


def invert(
    delta: Tensors, backbone: Backbone, start: Adapter, table: Tensor, *, length: int
) -> NDArray[np.int64]:
    """A History of `length` events whose gradient is most like an Update of one step.

    The slot before the scores tells most: its gradient is (softmax - onehot)·table for each place,
    times the state there. So items that were taken stand out when the Update is matched with the
    table. Out of those the History is put right one place at a time; the first place, which is
    never predicted, may be any item. Adam's first step keeps signs alone, so signs are compared.
    """
    fill_slots(backbone, start)
    order = [name for name, value in backbone.named_parameters() if value.requires_grad]
    push = torch.from_numpy(-np.concatenate([delta[name].ravel() for name in order])).sign()
    seen = torch.from_numpy(np.asarray(delta["adapter.weight"])).to(table.device)
    likely = (table @ seen).norm(dim=1).argsort(descending=True).cpu().numpy()
    every, best = np.arange(len(table)), likely[: LIKELY * length]
    rng = np.random.default_rng(0)
    found: list[tuple[float, NDArray[np.int64]]] = []
    for _ in range(STARTS):
        history, fit = rng.permutation(likely[:length]), -np.inf
        for _ in range(SWEEPS):
            before = fit
            for place in rng.permutation(length):
                items = every if place == 0 else best
                tried = np.repeat(history[None], len(items), axis=0)
                tried[:, place] = items
                fits = _alike(push, backbone, table, tried)
                history, fit = tried[fits.argmax()], float(fits.max())
            if fit <= before:
                break
        found.append((fit, history))
        if fit > CERTAIN:
            break
    return max(found, key=lambda it: it[0])[1]


def _alike(
    push: Tensor, backbone: Backbone, table: Tensor, tried: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[N] cosine of the signs of each History's gradient with the push."""
    rows = from_lists(list(tried.astype(np.int32)), ("",) * len(tried))
    parts = [
        (piece.sign() @ push / piece.sign().norm(dim=1).clamp(min=1)).numpy()
        for piece in gradients(backbone, table, rows)
    ]
    return np.concatenate(parts)


def recovered(guess: NDArray[np.int64], truth: NDArray[np.int32]) -> int:
    """How many different items of a History were guessed, in whatever order."""
    return len(set(guess.tolist()) & set(truth.tolist()))
