from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clients.memory import DECAY, LAST
from clients.mixing import between, listened, mixed
from clients.pretrained_weighing import PRETRAINED
from clients.recall import Recall
from clients.weighing import (
    BELIEF,
    FEATURES,
    KINDS,
    OTHERS,
    SILENCE,
    Field,
    Shares,
    best_way,
    fitted,
    spread,
    tried,
    weighing_of,
)
from shared.events import Question, from_lists

SIMILAR = KINDS.index("similar") * LAST + 1  # the latest event's, among the features
SHARED = KINDS.index("shared") * LAST + 1
SHARED_MET = SHARED + len(KINDS) * LAST
TWICE_MET = 1 + len(KINDS) * LAST + KINDS.index("twice") * LAST
HAND = spread(Shares())
LEARNT = weighing_of(np.eye(FEATURES)[0] + np.eye(FEATURES)[TWICE_MET])  # elsewhere


def field(seed: int, *, shoppers: int, truth: dict[int, float], candidates: int = 40) -> Field:
    """Shoppers who take what the prior and these features make likely."""
    rng = np.random.default_rng(seed)
    features = np.zeros((shoppers, candidates, FEATURES), np.float32)
    features[:, :, 0] = rng.normal(0, 0.2, (shoppers, candidates))
    for place in truth:
        features[:, :, place] = rng.random((shoppers, candidates)) < 0.1
    weights = np.zeros(FEATURES)
    weights[0] = 10.0
    for place, weight in truth.items():
        weights[place] = 10 * weight
    drawn = features @ weights + rng.gumbel(size=(shoppers, candidates))
    valid = np.ones((shoppers, candidates), bool)
    return Field(features, valid, drawn.argmax(axis=1), shoppers)


def test_shares_are_spread_by_decay_and_come_back_the_same() -> None:
    shares = Shares(2.0, 3.0, popularity=0.5, lately=0.1, shared=0.7, shared_popularity=0.3)
    found = spread(shares)
    for name in ("similar", "next", "shared"):
        share = getattr(shares, name)
        np.testing.assert_allclose(found.loud[KINDS.index(name)], share * DECAY ** np.arange(LAST))
    assert not found.met.any()
    assert not found.words.any()
    assert found.liked.tolist() == [0.5, 0.1, 0.3]
    assert len(found.flat) == FEATURES
    again = weighing_of(3 * found.flat)  # whatever the temperature
    np.testing.assert_allclose(again.flat, found.flat)


def test_a_gain_is_the_mean_ndcg_of_all_who_were_asked_and_ties_share_their_ranks() -> None:
    features = np.zeros((2, 3, FEATURES), np.float32)
    features[0, :, 0] = [3, 2, 1]
    found = Field(features, np.ones((2, 3), bool), np.array([1, 0]), asked=4)
    weights = spread(SILENCE).flat
    np.testing.assert_allclose(found.gains(weights), [1 / np.log2(3), 1 / np.log2(3)], rtol=1e-6)
    assert found.gain(weights) == pytest.approx(2 / np.log2(3) / 4)


def test_a_column_that_stands_for_nothing_is_neither_ranked_nor_learnt_from() -> None:
    plain = field(0, shoppers=60, truth={SIMILAR: 1.0})
    features = np.concatenate([plain.features, plain.features[:, :1] + 9], axis=1)
    valid = np.concatenate([plain.valid, np.zeros((60, 1), bool)], axis=1)
    more = replace(plain, features=features, valid=valid)
    start = spread(Shares())
    np.testing.assert_array_equal(more.gains(start.flat), plain.gains(start.flat))
    np.testing.assert_allclose(
        mixed(more, [HAND]).weighing.flat, mixed(plain, [HAND]).weighing.flat, rtol=1e-4
    )


def test_what_speaks_of_the_target_is_learnt_however_it_speaks() -> None:
    """One that the Shares know, and one that they do not."""
    truth = {SIMILAR: 0.5, TWICE_MET: 0.5}
    seen, unseen = (field(seed, shoppers=800, truth=truth) for seed in (0, 1))
    start = spread(tried(seen, Shares()))
    found = mixed(seen, [HAND])
    assert found.held_out == pytest.approx(
        unseen.gain(found.weighing.flat), abs=0.03
    )  # it was not fitted to them
    assert unseen.gain(found.weighing.flat) > 1.05 * unseen.gain(start.flat)
    assert found.weighing.flat[SIMILAR] == pytest.approx(0.5, abs=0.1)
    assert found.weighing.flat[TWICE_MET] == pytest.approx(0.5, abs=0.1)


def test_a_signal_that_is_alike_for_all_changes_nothing() -> None:
    plain = field(0, shoppers=200, truth={SIMILAR: 0.5})
    more = replace(plain, features=plain.features.copy())
    more.features[:, :, -2] = 3.0
    found, other = (mixed(it, [HAND]).weighing for it in (plain, more))
    np.testing.assert_array_equal(found.flat, other.flat)
    assert found.liked[1] == 0


@pytest.mark.parametrize("seed", range(5))
def test_of_a_few_shoppers_no_more_is_learnt_than_they_can_teach(seed: int) -> None:
    few, others = field(seed, shoppers=12, truth={}), field(99, shoppers=800, truth={})
    noise = np.random.default_rng(seed).normal(0, 1, few.features[:, :, 1:].shape)
    few.features[:, :, 1:] = noise
    others.features[:, :, 1:] = np.random.default_rng(9).normal(
        0, 1, others.features[:, :, 1:].shape
    )
    found = mixed(few, [HAND])
    by_hand = spread(Shares())
    assert others.gain(found.weighing.flat) > 0.75 * others.gain(by_hand.flat)


def test_where_what_was_found_by_hand_is_as_good_it_stays() -> None:
    """The prior alone tells each target."""
    plain = field(0, shoppers=50, truth={})
    plain.features[np.arange(50), plain.target, 0] = 9.0
    found = mixed(plain, [HAND])
    np.testing.assert_array_equal(found.weighing.flat, spread(Shares()).flat)
    assert found.held_out == 1


def test_where_nobody_s_target_is_a_candidate_nothing_moves() -> None:
    nobody = Field(
        np.zeros((0, 3, FEATURES), np.float32), np.zeros((0, 3), bool), np.zeros(0, np.int64), 7
    )
    start = spread(Shares())
    assert tried(nobody, Shares()) == Shares()
    found = mixed(nobody, [HAND])
    np.testing.assert_array_equal(found.weighing.flat, start.flat)
    assert found.held_out == 0
    assert nobody.gain(start.flat) == 0


def test_the_others_features_are_theirs_and_a_silent_weighing_has_none_of_them() -> None:
    every = weighing_of(np.arange(1.0, FEATURES + 1))
    deaf = every.silent()
    last = KINDS.index("shared")
    assert not deaf.loud[last].any()
    assert not deaf.met[last].any()
    assert deaf.liked[2] == 0
    assert np.count_nonzero(deaf.flat == every.flat) == FEATURES - 2 * LAST - 1
    hand = spread(Shares())
    np.testing.assert_array_equal(hand.silent().hearing().flat, hand.flat)
    np.testing.assert_array_equal(every.hearing().silent().flat, deaf.flat)
    several = field(0, shoppers=5, truth={SIMILAR: 1.0, SHARED: 1.0, FEATURES - 1: 1.0})
    left = several.silent().features
    np.testing.assert_array_equal(left[:, :, SIMILAR], several.features[:, :, SIMILAR])
    assert not left[:, :, [SHARED, FEATURES - 1]].any()


def test_of_few_shoppers_what_was_learnt_elsewhere_counts_and_of_many_their_own() -> None:
    """Elsewhere one signal was found that is loud here too, and of the other nothing."""
    unseen = field(9, shoppers=800, truth={TWICE_MET: 1.0})
    few = field(1, shoppers=12, truth={TWICE_MET: 1.0})
    among = mixed(few, [LEARNT]).weighing
    assert unseen.gain(among.flat) > 1.05 * unseen.gain(mixed(few, [HAND]).weighing.flat)
    astray = field(2, shoppers=800, truth={SIMILAR: 1.0})
    alone = mixed(astray, [HAND]).weighing.flat
    np.testing.assert_array_equal(mixed(astray, [LEARNT]).weighing.flat, alone)
    np.testing.assert_array_equal(mixed(few, [HAND, LEARNT]).weighing.flat, among.flat)
    np.testing.assert_array_equal(mixed(few, [LEARNT, HAND]).weighing.flat, among.flat)


def test_what_is_not_known_elsewhere_is_as_own_shoppers_have_it() -> None:
    flat = LEARNT.flat
    flat[SIMILAR] = np.nan
    found = between(HAND, weighing_of(flat), 0.25).flat
    assert found[SIMILAR] == HAND.flat[SIMILAR]
    known = np.arange(FEATURES) != SIMILAR
    np.testing.assert_allclose(found[known], (0.25 * HAND.flat + 0.75 * LEARNT.flat)[known])


def test_who_listens_anew_mixes_that_with_what_was_learnt_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clients.mixing.OF_OWN", (0.5,))
    seen = field(0, shoppers=800, truth={SHARED_MET: 1.0})
    own = mixed(seen.silent(), [LEARNT]).weighing
    anew = fitted(seen, best_way(seen)[1])
    found = listened(seen, own, [LEARNT])
    np.testing.assert_array_equal(found.flat, between(anew, LEARNT.hearing(), 0.5).flat)
    assert found.flat[SHARED_MET] > 0.3  # by hand it is 0


def test_a_public_table_tells_nothing_of_the_others_and_the_rest_is_known() -> None:
    unknown = np.isnan(PRETRAINED.flat)
    assert unknown[OTHERS].all()
    assert unknown.sum() == len(OTHERS) + 1  # that table has no times
    assert np.isfinite(between(HAND, PRETRAINED, 0.0).flat).all()


def test_where_listening_by_hand_is_as_good_it_stays() -> None:
    plain = field(0, shoppers=50, truth={SHARED: 0.5})
    plain.features[np.arange(50), plain.target, 0] = 9.0
    own = mixed(plain.silent(), [HAND]).weighing.silent()
    np.testing.assert_array_equal(listened(plain, own, [HAND]).flat, HAND.flat)


def test_what_the_others_let_out_is_learnt_where_that_persuades() -> None:
    seen, unseen = (field(seed, shoppers=800, truth={SHARED_MET: 1.0}) for seed in (0, 1))
    found = listened(seen, HAND, [HAND])
    assert found.flat[SHARED_MET] == pytest.approx(1.0, abs=0.2)
    assert unseen.gain(found.flat) > 1.05 * unseen.gain(HAND.flat)


def test_who_is_led_astray_does_not_listen() -> None:
    astray = field(0, shoppers=800, truth={})
    rng = np.random.default_rng(1)
    astray.features[:, :, SHARED] = 4 * (rng.random(astray.features.shape[:2]) < 0.3)
    astray.features[np.arange(800), astray.target, SHARED] = 0
    found = listened(astray, HAND, [HAND])
    np.testing.assert_array_equal(found.flat, HAND.silent().flat)
    assert (HAND.hears, found.hears) == (True, False)


@pytest.mark.parametrize(("shoppers", "errors"), [(16, 19.5), (1600, 1.95), (160000, 0.195)])
def test_the_more_shoppers_the_less_sure_each_error_must_be(shoppers: int, errors: float) -> None:
    whole = replace(field(0, shoppers=4, truth={}), asked=shoppers)
    deviation = 0.78 * BELIEF * 100
    more = np.tile([deviation, -deviation], shoppers // 2)
    error = deviation / np.sqrt(shoppers)
    assert whole.persuades(more + 1.01 * errors * error)
    assert not whole.persuades(more + 0.99 * errors * error)


def test_nothing_more_and_the_gain_of_a_few_among_many_persuade_nobody() -> None:
    whole = field(0, shoppers=4, truth={})
    assert not whole.persuades(np.zeros(4))
    assert whole.persuades(np.full(4, 0.001))  # all alike
    assert not replace(whole, asked=400).persuades(np.array([0.5, -0.4, 0.3, -0.1]))


def test_where_nobody_is_asked_a_platform_listens_by_hand() -> None:
    nothing: Any = None  # neither prior nor signals are asked
    deaf = Recall(nothing, nothing, 6.0, spread(SILENCE).silent(), shared=nothing)
    nobody = Question(from_lists([], ()), np.zeros(0, np.int32))
    np.testing.assert_array_equal(deaf.listening(nobody).weighing.flat, spread(SILENCE).flat)


def test_the_same_field_gives_the_same_weighing() -> None:
    one, other = (field(3, shoppers=200, truth={SIMILAR: 0.7}) for _ in range(2))
    np.testing.assert_array_equal(
        mixed(one, [HAND]).weighing.flat, mixed(other, [HAND]).weighing.flat
    )
