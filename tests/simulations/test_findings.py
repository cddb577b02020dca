from __future__ import annotations

import math

import pytest

from simulations.findings import (
    PRIVACY_COLUMNS,
    figure,
    headline,
    kept_round,
    negative_transfer,
    percent,
    privacy_rows,
    span,
    verdict,
)

SENTENCES = {
    ("gain", "gain"): "Sharing helped 2 of 2 platforms and hurt none.",
    ("gain",): "Sharing helped 1 of 1 platform and hurt none.",
    ("gain", "loss"): "Sharing helped 1 of 2 platforms and hurt 1 (p1, −12.0 %).",
    ("loss", "loss", "no clear difference"): (
        "Sharing helped 0 of 3 platforms, hurt 2 (p0, −12.0 %; p1, −12.0 %) "
        "and made no clear difference for 1."
    ),
    (): "This run did not compare federated with local training.",
}


@pytest.mark.parametrize("verdicts", SENTENCES)
def test_the_headline_counts_verdicts_and_names_who_was_hurt(verdicts: tuple[str, ...]) -> None:
    platforms = {
        f"p{at}": {"federated_vs_local": {"verdict": kind, "relative": -0.12}}
        for at, kind in enumerate(verdicts)
    }
    assert headline({"platforms": platforms}) == SENTENCES[verdicts]


def test_the_headline_tells_of_each_plan_too() -> None:
    told = {
        "ε=8": ["gain", "gain"],
        "ε=3": ["gain", "no clear difference"],
        "ε=1": ["loss", "gain"],
    }
    platforms = {
        f"p{at}": {
            "federated_vs_local": {"verdict": "gain"},
            "against_local": {name: {"verdict": it[at]} for name, it in told.items()},
        }
        for at in (0, 1)
    }
    runs = [{"epsilon": float(name[2:]), "scorer": name} for name in told]
    assert headline({"platforms": platforms, "privacy": runs[:2]}) == (
        "Sharing helped 2 of 2 platforms and hurt none. "
        "Under ε = 8 / 3 it helped 2 / 1 and hurt none."
    )
    assert headline({"platforms": platforms, "privacy": runs}).endswith(
        " Under ε = 8 / 3 / 1 it helped 2 / 1 / 1 and hurt 0 / 0 / 1."
    )


def test_a_plans_row_has_what_was_reached_without_one_and_what_is_served_under_it() -> None:
    reached = {"local": 0.1, "federated": 0.2, "federated ε=3": 0.3, "served ε=3": 0.4}
    plan = {"spent": 2.9, "delta": 1e-4, "noise_multiplier": 2.0, "sampling_rate": 0.5, "steps": 4}
    metrics = {
        "platforms": {"a": {"scorers": {it: {"ndcg@10": reached[it]} for it in reached}}},
        "privacy": [
            {"epsilon": 3.0, "scorer": "federated ε=3", "rounds": 2, "platforms": {"a": plan}}
        ],
    }
    row = dict(zip(PRIVACY_COLUMNS, privacy_rows(metrics)[0], strict=True))
    assert (row["NDCG@10"], row["no Plan"], row["served"]) == ("0.3000", "0.2000", "0.4000")
    assert (row["ε"], row["spent"], row["steps"]) == ("3", "2.900", "2 × 4")


def test_where_there_are_plans_no_transfer_is_negative_without_one() -> None:
    calm = {"a": {"federated_vs_local": {"verdict": "gain"}}}
    assert negative_transfer({"platforms": calm}) == "No platform shows negative transfer."
    assert negative_transfer({"platforms": calm, "privacy": [{}]}) == (
        "No platform shows negative transfer without a Plan."
    )


def test_figures_have_a_true_minus_and_the_unknown_is_a_dash() -> None:
    assert figure(-0.00364, "+.4f") == "−0.0036"
    told = [percent(it) for it in (-0.012, 0.0, 0.5, 1.654)]
    assert told == ["−1.2 %", "+0.0 %", "+50.0 %", "+165 %"]
    assert span([-0.1, 0.25]) == "−0.1000 to 0.2500"
    assert [figure(it) for it in (None, math.nan, math.inf, "0.1")] == ["–"] * 4
    assert percent(None) == span(None) == span([0.1, None]) == "–"


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.001"), (0.0009, "< 0.001"), (0.031, "0.031"), (None, "–")]
)
def test_a_small_p_is_bounded_and_never_nought(p: float | None, text: str) -> None:
    assert verdict({"federated_vs_local": {"verdict": "gain", "p": p}}).p == text
    corrected = {"verdict": "gain", "p": 0.5, "p_holm": p}
    assert verdict({"federated_vs_local": corrected}).p == text


@pytest.mark.parametrize(
    ("kept", "at"), [("untrained", 0), ("round 12", 12), ("epoch 3", None), (None, None)]
)
def test_the_kept_round_is_read_from_its_words(kept: str | None, at: int | None) -> None:
    assert kept_round({"scorers": {"federated": {"kept": kept}}}) == at
    assert kept_round({"scorers": {}}) is None
