"""How loudly signals speak, learnt from others who protect nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.memory import Memory
from clients.mixing import between, mixed
from clients.pretrained_weighing import PRETRAINED
from clients.recall import Recall
from clients.signals import Signals
from clients.sums import Places, exact, unprotected
from clients.taught import Taught, keep_sent, sent
from clients.weighing import (
    FEATURES,
    Shares,
    Weighing,
    best_way,
    fitted,
    spread,
    weighing_of,
)
from server.aggregate import total
from shared.events import Histories, from_lists, question
from shared.pairs import met
from shared.ranking import Scorer
from shared.tables.policy import Policy
from shared.tasks import co_visitation as task
from shared.update import Update
from shared.words import Texts

ITEMS = 30
WEIGHTS = (60.0, 28.0, 3.0)


def flat(seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=FEATURES).astype(np.float32)
    found[0] = 1  # the prior's own
    return found


def summed(weighings: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> Taught:
    """What comes of the sums of platforms that weigh like this, for the last of them."""
    pairs = met(("a", "b"), np.array([1], np.int64))
    here = Places(pairs, {"a": 0, "b": 1})
    none = from_lists([], ())
    parts = [
        Update(exact(none, here, weight=weight, weighing=it), "base", weight)
        for it, weight in zip(weighings, weights, strict=True)
    ]
    state = task.untrained(pairs).plus(total(parts).delta, version=1)
    whole = state.tensors[task.WEIGHING].astype(np.float64)
    return Taught(whole, weights[-1] * weighings[-1].astype(np.float64))


def test_a_list_has_as_many_numbers_as_a_weighing() -> None:
    assert task.FEATURES == FEATURES
    start = task.untrained(met(("a", "b"), np.array([1], np.int64)))
    assert start.tensors[task.WEIGHING].shape == spread(Shares()).flat.shape


def test_what_comes_of_the_sums_is_the_others_mean_by_public_weight() -> None:
    ways = [flat(1), flat(2), flat(3)]
    others = summed(ways, WEIGHTS).others
    assert others is not None
    expected = (60 * ways[0] + 28 * ways[1]) / 88
    np.testing.assert_allclose(others.flat, expected, rtol=1e-4, atol=1e-5)


def test_who_took_no_part_is_taught_by_all() -> None:
    ways = [flat(1), flat(2), flat(3)]
    others = replace(summed(ways, WEIGHTS), sent=np.zeros(FEATURES)).others
    assert others is not None
    expected = np.average(ways, axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(others.flat, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [1e-3, 1.0, 60.0])
def test_alone_there_is_nobody_to_be_taught_by(weight: float) -> None:
    assert summed([flat(1)], (weight,)).others is None


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


DEAF = weighing_of(np.eye(FEATURES)[0])  # to all but the prior
HEARS = spread(Shares(similar=0.0, next=3.0, popularity=0.0))  # in a world where next is all


@pytest.mark.parametrize(
    ("others", "share"),
    [(DEAF, 1.0), (HEARS, 0.75)],  # a quarter of what all is in is as good as all of it
)
def test_of_own_fits_and_the_others_as_much_is_taken_as_serves_best(
    others: Weighing, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.weighing.WAYS", (None,))  # own fits are the Shares by hand
    own = HEARS if others is DEAF else DEAF
    monkeypatch.setattr("clients.recall.PRETRAINED", own)
    monkeypatch.setattr("clients.weighing.spread", lambda _shares: own)
    start, asked = recall(), question(walks(), "validation")
    found = start.fitted(asked, others=others)
    np.testing.assert_allclose(found.weighing.flat, between(own, others, share).flat)
    best = start.field(asked).gain(found.weighing.flat)
    assert found.held_out == pytest.approx(best)
    assert best > start.field(asked).gain(DEAF.flat)


def test_of_equals_a_platform_keeps_its_own() -> None:
    """To all of them every score is the same, so nobody's weights are better."""
    start, asked = recall(), question(walks(), "validation")
    texts = Texts.of(np.eye(ITEMS, dtype=np.float32), ("item",) * ITEMS)
    nothing = Memory.of(walks().take(np.arange(0)), items=ITEMS)
    found = replace(start, signals=Signals(nothing, texts)).fitted(asked, others=HEARS).weighing
    np.testing.assert_allclose(found.flat, spread(Shares()).flat)


def test_a_public_table_counts_beside_own_rows_and_what_others_say() -> None:
    start, asked = recall(), question(walks(), "validation")
    field = start.field(asked)
    for others, elsewhere in ((None, [PRETRAINED]), (HEARS, [PRETRAINED, HEARS])):
        found = start.fitted(asked, others=others)
        expected = mixed(field, elsewhere)
        np.testing.assert_array_equal(found.weighing.flat, expected.weighing.flat)
        np.testing.assert_array_equal(found.own.flat, fitted(field, best_way(field)[1]).flat)
        assert found.held_out == expected.held_out


def test_where_nobody_is_asked_nobody_is_believed() -> None:
    start, nobody = recall(), question(walks(), "validation").take(np.arange(0))
    assert start.fitted(nobody, others=HEARS) is start


def policy(folder: Path) -> Policy:
    ledger, head, key = (folder / f"shop.{name}" for name in ("ledger", "head", "key"))
    return Policy(plan=None, dataset="shop", ledger=ledger, head=head, key=key)


def test_what_was_sent_is_known_again_in_that_run_and_to_its_owner_alone(tmp_path: Path) -> None:
    mine = policy(tmp_path / "home")
    assert sent(mine, "run") is None
    keep_sent(mine, "run", flat(1))
    keep_sent(mine, "later", flat(2))
    assert sent(mine, "run") is None
    np.testing.assert_array_equal(sent(mine, "later"), flat(2))
    (file,) = (tmp_path / "home").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"damaged")
    assert sent(mine, "later") is None
