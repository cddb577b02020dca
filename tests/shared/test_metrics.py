from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics import (
    bootstrap_ci,
    coverage,
    gained,
    hit_rate,
    holm,
    mrr,
    ndcg,
    paired,
    summary,
)
from shared.ranking import NO_ITEM, Ranking

RANKS = np.array([1, 3, 10, 10.5, 40], dtype=np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_hit_rate_counts_targets_among_the_first_k() -> None:
    assert hit_rate(RANKS).tolist() == [1, 1, 1, 0, 0]
    assert hit_rate(RANKS, k=2).tolist() == [1, 0, 0, 0, 0]


def test_ndcg_discounts_by_the_logarithm_of_the_rank() -> None:
    expected = [1.0, 0.5, 1 / np.log2(11), 0.0, 0.0]  # log2(1 + 3) = 2
    np.testing.assert_allclose(ndcg(RANKS), expected, rtol=1e-12)


def test_mrr_looks_past_the_first_ten() -> None:
    np.testing.assert_allclose(mrr(RANKS), [1, 1 / 3, 0.1, 1 / 10.5, 0.025], rtol=1e-6)


def test_metrics_of_nobody_are_empty() -> None:
    nobody = np.zeros(0, dtype=np.float32)
    assert hit_rate(nobody).shape == ndcg(nobody).shape == mrr(nobody).shape == (0,)


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    top = np.array([[0, 1], [1, NO_ITEM]], dtype=np.int32)
    assert coverage(top, 8) == 0.25
    assert coverage(np.full((3, 2), NO_ITEM, dtype=np.int32), 8) == 0.0


def test_the_interval_of_hits_is_close_to_the_binomial_one() -> None:
    hits = np.array([1.0] * 300 + [0.0] * 700)
    low, high = bootstrap_ci(hits, rng=rng())
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.003)
    assert high == pytest.approx(0.3 + half, abs=0.003)


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = rng(1).normal(size=200)
    narrow, wide = (bootstrap_ci(values, rng=rng(), level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_depends_on_the_generator_alone() -> None:
    values = rng(1).normal(size=200)
    assert bootstrap_ci(values, rng=rng(5)) == bootstrap_ci(values, rng=rng(5))
    assert bootstrap_ci(values, rng=rng(5)) != bootstrap_ci(values, rng=rng(6))


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7])
def test_values_without_spread_are_their_own_interval(values: list[float]) -> None:
    assert bootstrap_ci(np.array(values), rng=rng()) == (0.25, 0.25)


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no values"):
        bootstrap_ci(np.zeros(0), rng=rng())


def test_paired_measures_the_first_against_the_second() -> None:
    result = paired(np.array([0.5, 0.5, 1.0, 1.0]), np.array([0.5, 0.0, 0.5, 1.0]), rng=rng())
    assert result.difference == 0.25
    assert result.relative == 0.5
    assert 0 <= result.ci95[0] <= 0.25 <= result.ci95[1] <= 0.5


def test_p_is_that_of_all_sign_flips() -> None:
    differences = np.array([0.9, -0.2, 0.4, 0.3, -0.1, 0.8, 0.5, 0.0, 0.6, -0.3])
    flips = np.array(list(product([1, -1], repeat=10))) @ differences
    exact = np.mean(np.abs(flips) >= abs(differences.sum()) - 1e-12)
    assert 0.01 < exact < 0.1
    result = paired(differences, np.zeros(10), rng=rng())
    assert result.p == pytest.approx(exact, abs=0.006)  # three standard errors of 10,000 flips


def test_p_is_the_same_whichever_scorer_comes_first() -> None:
    first, second = rng(1).random(50), rng(2).random(50)
    forth, back = paired(first, second, rng=rng()), paired(second, first, rng=rng())
    assert forth.p == back.p
    assert forth.difference == -back.difference


def test_p_is_never_zero() -> None:
    assert paired(np.ones(500), np.zeros(500), rng=rng()).p == pytest.approx(1 / 10_001)


def test_p_is_even_where_nothing_differs() -> None:
    # Under the hypothesis p falls below 0.05 about once in twenty times: here 200 draws.
    draws = [rng(seed).normal(size=(2, 40)) for seed in range(200)]
    small = np.mean([paired(a, b, rng=rng(9)).p < 0.05 for a, b in draws])
    assert 0.01 <= small <= 0.10


def test_scorers_that_agree_on_every_shopper_do_not_differ() -> None:
    result = paired(np.array([0.0, 1.0]), np.array([0.0, 1.0]), rng=rng())
    assert (result.difference, result.relative, result.p) == (0.0, 0.0, 1.0)
    assert result.ci95 == (0.0, 0.0)


def test_a_gain_over_nothing_has_no_relative_size() -> None:
    assert paired(np.array([1.0, 0.0]), np.zeros(2), rng=rng()).relative is None


def test_one_shopper_proves_nothing() -> None:
    assert paired(np.array([1.0]), np.array([0.0]), rng=rng()).p == 1.0


def test_unequal_numbers_of_shoppers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 shoppers"):
        paired(np.zeros(2), np.zeros(3), rng=rng())


def test_a_summary_holds_every_figure_and_goes_into_json() -> None:
    top = np.tile(np.arange(10, dtype=np.int32), (5, 1))
    figures = summary(Ranking(RANKS, top), 40, rng=rng())
    assert list(figures) == ["n", "hr@10", "ndcg@10", "mrr", "coverage", "ci95"]
    assert figures["n"] == 5
    assert figures["hr@10"] == 0.6
    assert figures["coverage"] == 0.25
    again = json.loads(json.dumps(figures, allow_nan=False))
    for name in ("hr@10", "ndcg@10", "mrr"):
        low, high = again["ci95"][name]
        assert low <= again[name] <= high


def test_a_summary_of_nobody_is_an_error_with_a_next_step() -> None:
    nobody = Ranking(np.zeros(0, dtype=np.float32), np.zeros((0, 10), dtype=np.int32))
    with pytest.raises(DataError, match="no shopper is left to test on"):
        summary(nobody, 40, rng=rng())


def test_holm_s_p_values_are_those_of_his_method_in_any_order() -> None:
    # Holm 1979: 4 · .01, then 3 · .02, then the larger of that and 2 · .03, then 1 · .5.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


# Over seeds -----------------------------------------------------------------------------------


def test_a_gain_is_a_ratio_of_means_with_the_interval_of_its_residuals() -> None:
    steady = gained([0.1, 0.2, 0.3], [0.12, 0.24, 0.36])
    assert steady.gain == pytest.approx(0.2)
    assert steady.half == pytest.approx(0, abs=1e-12)
    assert steady.p < 1e-6
    told = gained([0.1, 0.1], [0.10, 0.12])
    assert told.gain == pytest.approx(0.1)
    # Residuals -.01 and .01: a standard error of .01, of .1 a tenth; t of one degree is 12.706.
    assert told.half == pytest.approx(1.2706, rel=1e-4)
    assert told.p == pytest.approx(0.5)  # t is 1, and at one degree a half is beyond it


def test_what_is_the_same_has_gained_nothing_for_certain() -> None:
    told = gained([0.1, 0.2], [0.1, 0.2])
    assert (told.gain, told.half, told.p) == (0, 0, 1)


def test_a_gain_s_interval_holds_zero_just_where_its_p_is_above_a_twentieth() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        base = 0.1 + 0.01 * rng.random(5)
        told = gained(base.tolist(), (base + 0.004 * rng.normal(0.5, 1, 5)).tolist())
        assert (abs(told.gain) > told.half) == (told.p < 0.05)
