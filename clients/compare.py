"""What a platform has of others, on its own shoppers, and what it should serve with.

    own memory, an adapter trained at home                 ─validated→ the best it has alone
    sums and adapters of others, and these trained at home ─validated→ the best of all
    each of them ─ranked→ figures, gains over the best alone

The validation part chooses, adapters by what stands beside them all; the last items tell what that
is worth, and choose nothing. All of it stays at home: nothing is sent, and nothing spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clients.kept import Kept, better, trained, validated
from clients.platform import Platform
from clients.recall import Recall
from shared import metrics
from shared.adapter import Adapter
from shared.errors import DataError
from shared.metrics import Paired
from shared.text import Progress, silent, titled
from shared.training import Recipe

PRIOR, OWN, ALONE, SUMS, ON = "prior", "own memory", "trained alone", "and sums", "trained on"
SEED = 0  # of the order of Histories, and of resamples


@dataclass(frozen=True)
class Line:
    """One state that a platform could serve with.

    Attributes:
        name: PRIOR, OWN, ALONE, SUMS, ON, or what the adapter of others is called.
        kept: which state of a training it is.
        validation: mean NDCG@10 on the validation part, by which it is chosen or not.
        hit_rate: HR@10 on last items.
        ndcg: NDCG@10 on them.
        gain: NDCG@10 over the best alone, p by Holm over all lines; None for what is not of others.
    """

    name: str
    kept: str
    validation: float
    hit_rate: float
    ndcg: float
    gain: Paired | None = None


@dataclass(frozen=True)
class Comparison:
    """Every state, and the one to serve with.

    Attributes:
        shoppers: whose last items were asked for.
        lines: each state.
        alone: name of the best without others.
        best: name of the one to serve with.
        listens: whether the sums are heard there.
        adapter: its adapter, to be kept where it was trained here.
    """

    shoppers: int
    lines: tuple[Line, ...]
    alone: str
    best: str
    listens: bool
    adapter: Adapter

    def line(self, name: str) -> Line:
        """The line of that name."""
        return next(line for line in self.lines if line.name == name)


def compare(
    platform: Platform,
    alone: Recall,
    found: Recall,
    adapters: Mapping[str, Adapter],
    *,
    recipe: Recipe,
    sums: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Set what came from others beside what a platform has alone.

    Args:
        platform: whose shoppers are asked.
        alone: its own memory, fitted.
        found: what it listens to, fitted; `alone` if to nobody.
        adapters: of others, by name; each stands beside `found`.
        recipe: of training at home; of no epochs nothing is trained.
        sums: whether there were any to listen to, so that a line tells of them.
        progress: called after each batch and each state.

    Raises:
        DataError: no shopper is left to ask.
    """
    for part in ("validation", "test"):
        if not len(platform.question(part).contexts):
            raise DataError(
                "no shopper is left to ask: each one's last items stand earlier in the History",
                where=platform.config.name,
                todo="give more Histories, or a longer time",
            )

    untrained = platform.untrained
    own = validated(platform, untrained, "untrained", alone)
    states = {PRIOR: validated(platform, untrained), OWN: own}
    best_alone, best = OWN, OWN
    if recipe.epochs:
        states[ALONE] = _at_home(platform, own, recipe, 0, titled(progress, ALONE))
        if states[ALONE] is not own:
            best_alone = best = ALONE
    start = of_others = own
    if sums:
        if found is not alone:
            # Chosen by shoppers that neither was fitted to, so validation is not asked again.
            start = of_others = validated(platform, untrained, "untrained", found)
            best = SUMS
        states[SUMS] = start
    for place, (name, adapter) in enumerate(adapters.items()):
        progress("adapters", place, len(adapters))
        states[name] = start.offered(platform, adapter, "as given")
        of_others = better(of_others, states[name])
        if states[name].validation > states[best].validation:
            best = name
    progress("adapters", len(adapters), len(adapters))
    if recipe.epochs and of_others is not own:
        states[ON] = _at_home(platform, of_others, recipe, 1, titled(progress, ON))
        if states[ON].validation > states[best].validation:
            best = ON
    return Comparison(
        shoppers=len(platform.question("test").contexts),
        lines=_told(platform, states, best_alone, progress),
        alone=best_alone,
        best=best,
        listens=states[best].beside is not alone,
        adapter=states[best].adapter,
    )


def _at_home(
    platform: Platform, start: Kept, recipe: Recipe, order: int, progress: Progress
) -> Kept:
    name = platform.config.name
    kept = trained([platform], {name: start}, recipe, seed=(SEED, order), progress=progress)
    return kept[name]


def _told(
    platform: Platform, states: Mapping[str, Kept], alone: str, progress: Progress
) -> tuple[Line, ...]:
    """A line of each state, all of them on the same last items."""
    lines: dict[str, Line] = {}
    values, ranked = {}, {}
    for place, (name, state) in enumerate(states.items()):
        progress("last items", place, len(states))
        if id(state) not in ranked:  # one state may stand under several names
            ranked[id(state)] = state.rank(platform, "test").ranks
        ranks = ranked[id(state)]
        values[name] = np.asarray(metrics.ndcg(ranks), np.float64)
        hits, ndcg = float(metrics.hit_rate(ranks).mean()), float(values[name].mean())
        lines[name] = Line(name, state.name, state.validation, hits, ndcg)
    progress("last items", len(states), len(states))
    gains = {
        name: metrics.paired(it, values[alone], rng=np.random.default_rng(SEED))
        for name, it in values.items()
        if name not in (PRIOR, OWN, ALONE)
    }
    corrected = metrics.holm([it.p for it in gains.values()])
    for (name, gain), p in zip(gains.items(), corrected, strict=True):
        lines[name] = replace(lines[name], gain=replace(gain, p=p))
    return tuple(lines.values())
