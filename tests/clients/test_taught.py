"""How loudly signals speak, learnt from others who protect nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.memory import Memory
from clients.recall import Recall
from clients.shared_memory import Taught
from clients.signals import Signals
from clients.sums import Places, exact, unprotected
from clients.weighing import FEATURES, Shares, spread, weighing_of
from server.aggregate import total
from shared.events import Histories, from_lists, question
from shared.pairs import met
from shared.ranking import Scorer
from shared.tasks import co_visitation as task
from shared.update import Update
from shared.words import Texts

ITEMS = 30
WEIGHTS = (60.0, 28.0, 3.0)


def flat(seed: int) -> NDArray[np.float64]:
    found = np.random.default_rng(seed).normal(size=FEATURES)
    found[0] = 1  # the prior's own
    return found


def summed(weighings: list[NDArray[np.float64]], weights: tuple[float, ...]) -> Taught:
    """What comes of the sums of platforms that weigh like this, for the last of them."""
    pairs = met(("a", "b"), np.array([1], np.int64))
    here = Places(pairs, {"a": 0, "b": 1})
    none = from_lists([], ())
    parts = [
        Update(exact(none, here, weight=weight, weighing=it), "base", weight)
        for it, weight in zip(weighings, weights, strict=True)
    ]
    state = task.untrained(pairs).plus(total(parts).delta, version=1)
    return Taught(state.tensors[task.WEIGHING].astype(np.float64), weights[-1])


def test_a_list_has_as_many_numbers_as_a_weighing() -> None:
    assert task.FEATURES == FEATURES
    start = task.untrained(met(("a", "b"), np.array([1], np.int64)))
    assert start.tensors[task.WEIGHING].shape == spread(Shares()).flat.shape


def test_what_comes_of_the_sums_is_the_others_mean_by_public_weight() -> None:
    ways = [flat(1), flat(2), flat(3)]
    others = summed(ways, WEIGHTS).others(weighing_of(ways[2]))
    assert others is not None
    expected = (60 * ways[0] + 28 * ways[1]) / 88
    np.testing.assert_allclose(others.flat, expected, rtol=1e-4, atol=1e-5)


def test_who_took_no_part_is_taught_by_all() -> None:
    ways = [flat(1), flat(2), flat(3)]
    others = replace(summed(ways, WEIGHTS), weight=0.0).others(weighing_of(flat(4)))
    assert others is not None
    expected = np.average(ways, axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(others.flat, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [1e-3, 1.0, 60.0])
def test_alone_there_is_nobody_to_be_taught_by(weight: float) -> None:
    assert summed([flat(1)], (weight,)).others(weighing_of(flat(1))) is None


def test_bounded_sums_tell_nothing_of_how_a_platform_weighs() -> None:
    pairs = replace(met(("a", "b"), np.array([1], np.int64)), directed=False)
    told = unprotected(
        from_lists([np.array([0, 1], np.int32)], ("s",)),
        Places(pairs, {"a": 0, "b": 1}),
        weight=1.0,
        weighing=flat(1),
    )
    assert task.WEIGHING not in told
    assert task.WEIGHING not in task.untrained(pairs).tensors


class Flat:
    """A prior that says the same of everything."""

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        return np.zeros((len(contexts), ITEMS), np.float32)


def walks() -> Histories:
    """Shoppers who go from one item to the next one, all the way round."""
    rows = [(np.arange(5) + start) % ITEMS for start in range(ITEMS)] * 2
    return from_lists(
        [row.astype(np.int32) for row in rows], tuple(str(place) for place in range(len(rows)))
    )


def recall() -> Recall:
    rows = walks()
    rng = np.random.default_rng(0)
    table = rng.normal(size=(ITEMS, 8)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    texts = Texts.of(table, tuple(f"item {place}" for place in range(ITEMS)))
    memory = Memory.of(rows.without_last(2), items=ITEMS)
    prior: Scorer = Flat()
    return Recall(prior, Signals(memory, texts), 1.0)


def test_what_others_know_is_taken_only_where_it_serves_own_shoppers_better() -> None:
    start, asked = recall(), question(walks(), "validation")
    deaf = weighing_of(np.concatenate([[1.0], np.zeros(FEATURES - 1)]))  # to all but the prior
    hears = spread(Shares())
    poor = replace(start, weighing=deaf, held_out=start.field(asked).gain(deaf.flat))
    taught = poor.taught_by(hears, asked)
    assert taught.weighing is hears
    assert taught.held_out == start.field(asked).gain(hears.flat) > poor.held_out
    assert taught.taught_by(deaf, asked) is taught
    assert taught.taught_by(hears, asked) is taught  # as good is not better


def test_where_nobody_is_asked_nobody_is_believed() -> None:
    start, nobody = recall(), question(walks(), "validation").take(np.arange(0))
    assert start.taught_by(weighing_of(flat(1)), nobody) is start
