from __future__ import annotations

import base64
import html
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

import clients.report as report_module
from clients.ledger import Asked, Ledger, balance, entries
from clients.plain_sentence import detected
from clients.report import Statement, facts, sign, signing_key, verify, write
from clients.report_page import eps, render
from clients.report_template import BLANK, template
from shared.accounting import Charge, epsilon
from shared.backbone import load_backbone
from shared.config import read_toml
from shared.errors import ConfigError, LedgerError
from shared.tables.config import PlatformConfig, platform_from
from shared.tables.policy import Policy
from shared.update import Noise

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
START = datetime(2026, 6, 1, 9, 30, tzinfo=UTC).timestamp()
FILE = """
platform.name = "boutique"
events.path = "interactions.tsv"
events.columns = { shopper = "user_secret_column", item = "item", time = "ts", kind = "what" }
items.path = "items.tsv"
items.columns = { item = "item", title = "name", price = "price" }
"""
PLAN = """
[privacy]
epsilon = 3.0
delta = 1e-6
shoppers_at_least = 4000
sampling_rate = 0.01
steps = 50
noise_multiplier = 1.0
"""
ARTICLES = ("GDPR_Articles_17_30_and_35", "PIPL_Articles_47_55_and_56", "NIST_SP_800-226")
CHARGE = Charge(noise_multiplier=1.0, sampling_rate=0.01, steps=50)
UNPROTECTED = "[privacy]\nunprotected = true\n"
AUDIT = {
    "claim": {"epsilon": 1.0, "delta": 1e-5},
    "checks": [{"name": "membership", "passed": True, "told": "AUC 0.51"}],
    "lower_bound": {"epsilon": 0.21, "confidence": 0.95, "canaries": 400},
    "limits": ["one run, on a made-up world"],
}


def config_of(folder: Path, privacy: str = PLAN) -> PlatformConfig:
    return platform_from(tomllib.loads(FILE + privacy), where="p.toml", base=folder)


def policy_of(config: PlatformConfig) -> Policy:
    assert config.policy is not None
    return config.policy


def spend(config: PlatformConfig, *, rounds: int = 3, noise: Noise = "secure") -> None:
    """Rounds in a ledger, and a reservation given up after them."""
    with Ledger.open(policy_of(config), noise=noise, clock=lambda: START) as ledger:
        for number in range(1, rounds + 2):
            asked = Asked("update", "run-7", number, f"{number:064x}")
            reserved = ledger.reserve(asked, CHARGE)
            if number <= rounds:
                ledger.release(reserved, b"noised bytes of an update")
            else:
                ledger.abandon(reserved)


def told(config: PlatformConfig, **more: Any) -> dict[str, Any]:
    policy = policy_of(config)
    stands = balance(policy) if policy.plan else None
    return facts(config, entries=entries(policy), balance=stands, now=NOW, **more)


def page_of(config: PlatformConfig, **more: Any) -> str:
    return render(sign(told(config, **more), signing_key(policy_of(config).key)))


def figures(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Every leaf of the facts, with the name it has."""
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in figures(inner, key)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in figures(inner, name)]
    return [(name, value)]


@pytest.fixture
def spent(tmp_path: Path) -> PlatformConfig:
    config = config_of(tmp_path)
    spend(config)
    return config


def test_every_release_stands_in_the_report_with_its_charge(spent: PlatformConfig) -> None:
    report = told(spent)
    assert [it["round"] for it in report["releases"]] == [1, 2, 3]
    for count, release in enumerate(report["releases"], start=1):
        assert release["run"] == "run-7"
        assert release["time"].startswith("2026-06-01T09:")
        assert (release["noise_multiplier"], release["sampling_rate"]) == (1.0, 0.01)
        assert (release["mechanism"], release["steps"]) == ("gaussian", 50)
        assert release["epsilon_after"] == epsilon([CHARGE] * count, 1e-6)
    assert report["budget"]["spent"] == report["releases"][-1]["epsilon_after"]
    assert [it["adapter"][-1] for it in report["model_lineage"]["adapters"]] == ["1", "2", "3"]
    assert [it["round"] for it in report["refused_requests"]["abandoned"]] == [4]


def test_a_long_list_of_releases_never_tells_too_little(
    spent: PlatformConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "EXACT", 4)
    policy = policy_of(spent)
    one = next(it for it in entries(policy) if it.kind == "release")
    count = 10  # in stretches of three from the end, and the first alone
    many = [replace(one, number=number) for number in range(count)]
    stands = replace(balance(policy), releases=count)
    report = facts(spent, entries=many, balance=stands, now=NOW)
    after = [it["epsilon_after"] for it in report["releases"]]
    ends = (1, 4, 4, 4, 7, 7, 7, 10, 10, 10)
    assert after == [epsilon([one.charge] * end, 1e-6) for end in ends]


def test_a_shopper_of_k_platforms_is_told_both_figures(spent: PlatformConfig) -> None:
    rows = told(spent)["shopper_on_several_platforms"]
    assert [row["platforms"] for row in rows] == [1, 2, 3, 5]
    for row in rows:
        k = row["platforms"]
        assert row["sum_epsilon"] == pytest.approx(k * rows[0]["epsilon"])
        assert row["sum_delta"] == pytest.approx(k * 1e-6)
        assert row["budgets_epsilon"] == 3.0 * k
        assert k == 1 or row["epsilon"] < row["sum_epsilon"]


def test_the_page_shows_the_same_facts(spent: PlatformConfig) -> None:
    report = told(spent, audit=AUDIT, refused=["<b>asked for a larger clip</b>"])
    page = render(sign(report, signing_key(policy_of(spent).key)))
    assert "<b>asked" not in page
    shown = html.unescape(page)
    hidden = {"format", "columns", "answer_seconds", "share_metrics", "left"}  # said in words
    for name, value in figures({k: v for k, v in report.items() if k not in hidden}):
        if name in hidden or isinstance(value, bool) or value is None:
            continue
        is_epsilon = "epsilon" in name or name in ("spent", "reserved")
        text = eps(value) if is_epsilon and isinstance(value, float) else value
        text = f"{text:.6g}" if isinstance(text, float) else str(text)
        assert text in shown, (name, text)
    assert f"{report['budget']['left']:.4f}"[:-1] in shown


def test_an_edited_byte_of_the_report_fails_verification(
    spent: PlatformConfig, tmp_path: Path
) -> None:
    path = write(spent, tmp_path / "out", told=told(spent))
    ours = verify(path)["fingerprint"]
    assert sign(told(spent), signing_key(tmp_path / "other.key"))["fingerprint"] != ours
    raw = path.read_bytes()
    edited = [b"", raw[:-2], raw + b" ", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000]
    for place in (*range(0, len(raw), 41), len(raw) - 1):
        edited.append(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    for other in edited:
        path.write_bytes(other)
        with pytest.raises(ConfigError, match="no report as it was signed"):
            verify(path)
    with pytest.raises(ConfigError, match="no report as it was signed"):
        verify(tmp_path / "none.json")


def test_the_private_key_is_its_owner_s_alone_and_in_no_report(
    spent: PlatformConfig, tmp_path: Path
) -> None:
    path = write(spent, tmp_path / "out", told=told(spent))
    key = tmp_path / "boutique.key"
    assert key.stat().st_mode & 0o777 == 0o600
    raw = signing_key(key).private_bytes_raw()
    body = key.read_text().splitlines()[1]
    for file in (path, path.with_suffix(".html")):
        text = file.read_text()
        for secret in (raw.hex(), base64.b64encode(raw).decode(), body, "PRIVATE"):
            assert secret not in text
    assert signing_key(key).private_bytes_raw() == raw


def test_a_key_that_is_damaged_or_readable_by_others_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "k.key"
    signing_key(key)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may open \(mode 644\)"):
        signing_key(key)
    key.chmod(0o600)
    for damaged in (b"", key.read_bytes()[:60], b"\xff\x00"):
        key.write_bytes(damaged)
        with pytest.raises(ConfigError, match="no readable Ed25519 key"):
            signing_key(key)
    with pytest.raises(ConfigError, match="cannot be written"):
        signing_key(tmp_path / "no" / "such" / "k.key")


def test_nothing_of_a_shopper_is_in_it(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    events, items = tmp_path / "interactions.tsv", tmp_path / "items.tsv"
    events.write_text("user_secret_column\titem\tts\twhat\nshopper-ada\tshoes\t1\tbought\n")
    items.write_text("item\tname\tprice\nshoes\tRed shoes\t9\n")
    spend(config)
    path = write(config, tmp_path / "out", told=told(config))
    texts = path.read_text() + path.with_suffix(".html").read_text()
    words = ("shopper-ada", "shoes", "bought", "user_secret_column", "noised bytes")
    for secret in (*words, str(tmp_path)):
        assert secret not in texts
    # Rows cannot be in it: without them it is the same report.
    before = path.read_bytes()
    events.unlink()
    items.unlink()
    assert write(config, tmp_path / "out", told=told(config)).read_bytes() == before


def test_each_law_has_a_table_of_what_it_asks_what_is_shown_and_what_the_controller_adds(
    spent: PlatformConfig,
) -> None:
    stated = {"lawfulness": "contract & consent", "erasure_requests": "by mail, two weeks"}
    report = told(spent, statement=stated)
    gdpr, pipl, nist = (report[name] for name in ARTICLES)
    for row in (*gdpr, *pipl, *nist):
        assert list(row) == ["article", "asks", "evidence", "controller"]
        assert all(row.values())
    assert " ".join(row["article"].split()[0] for row in gdpr) == (
        "17(1) 17(2) 17(3) 30(1)(a) 30(1)(b) 30(1)(c) 30(1)(d), 30(1)(f) 30(1)(g) 35(1), 35(2),"
        " 35(7)(a) 35(7)(b) 35(7)(c) 35(7)(d) 35(11)"
    )
    assert " ".join(row["article"].split()[0] for row in pipl) == (
        "47 55(1) 55(2) 55(3) 55(4) 55(5) 56(1) 56(2) 56(3) 56"
    )
    assert ", ".join(row["article"] for row in nist) == (
        "Privacy parameter ε, Variant and δ, Unit of privacy, Bounded or unbounded, Composition, "
        "Mixing with other releases, Algorithm, Utility, Bias, Query model, Trust model, "
        "Mechanism implementation, Side channels, Data security and access control, "
        "Data collection exposure"
    )
    assert "by mail, two weeks" in gdpr[0]["controller"]
    assert "contract & consent" in pipl[6]["controller"]
    # What only people can state is never made up.
    assert report["statement"]["sensitive"] == "to be stated by the controller"
    assert set(report["statement"]) == set(Statement.model_fields)
    assert "no legal advice" in page_of(spent)


def test_every_statement_has_a_row_that_it_belongs_to(spent: PlatformConfig) -> None:
    report = told(spent, statement={name: f"<{name}>" for name in Statement.model_fields})
    rows = " ".join(row["controller"] for table in ARTICLES for row in report[table])
    assert [name for name in Statement.model_fields if f"<{name}>" not in rows] == []


def test_the_plain_sentence_is_the_definition_and_its_numbers_are_never_too_low(
    spent: PlatformConfig, tmp_path: Path
) -> None:
    report = told(spent)
    epsilon_spent, delta = report["budget"]["spent"], report["budget"]["delta"]
    sentence = report["in_plain_words"]
    (factor,) = map(float, re.findall(r"e\^ε = ([\d.e+]+) times", sentence))
    assert math.exp(epsilon_spent) <= factor <= math.exp(epsilon_spent) * 1.01
    assert "plus at most δ = 1e-06, and the same holds with the two exchanged." in sentence
    (caught,) = map(float, re.findall(r"at most ([\d.]+) in 100 who were", sentence))
    assert detected(0.01, epsilon_spent, delta) <= caught / 100
    assert "e^ε = 20.1 times" in report["in_plain_words_once_the_budget_is_spent"]
    assert html.unescape(page_of(spent)).count(sentence) >= 2
    (tmp_path / "new").mkdir()
    nothing = told(config_of(tmp_path / "new"))
    assert nothing["in_plain_words"].startswith("Nothing has left this platform yet")
    assert told(config_of(tmp_path, UNPROTECTED))["in_plain_words"] == "No promise is made."


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_no_test_for_one_shopper_is_better_than_the_example_says(sigma: float) -> None:
    # Of two Gaussians one apart, the best test at α has power Φ(Φ⁻¹(α) + 1/σ) (Neyman & Pearson).
    normal, delta = NormalDist(), 1e-5
    within = epsilon([Charge(noise_multiplier=sigma)], delta)
    for alpha in (1e-6, 1e-3, 0.01, 0.2, 0.7, 0.999):
        best = normal.cdf(normal.inv_cdf(alpha) + 1 / sigma)
        assert best <= detected(alpha, within, delta) <= 1
    assert detected(0.01, 0.0, 0.0) == 0.01
    assert detected(0.01, math.inf, 0.0) == 1.0


@pytest.mark.parametrize(("delta", "warned"), [(1e-6, False), (1e-5, False), (1.1e-5, True)])
def test_a_delta_above_a_hundred_thousandth_is_warned_of_and_the_claim_stays(
    delta: float, warned: bool, tmp_path: Path
) -> None:
    config = config_of(tmp_path, PLAN.replace("1e-6", repr(delta)))
    spend(config, rounds=1)
    report = told(config)
    assert ("LARGE δ" in " ".join(report["warnings"])) == warned
    assert ('<p class="banner">LARGE δ' in page_of(config)) == warned
    assert report["status"] == "protected"


def test_erasures_stand_in_the_report_and_an_open_one_is_named(spent: PlatformConfig) -> None:
    assert "No erasure has been recorded" in told(spent)[ARTICLES[0]][0]["evidence"]
    held = {"records": 3, "shoppers": 7, "last": "2026-06-30T00:00:00Z", "not_complete": [3]}
    report = told(spent, erasures=held)
    assert report["erasures"] == held
    for table in ARTICLES[:2]:
        evidence = report[table][0]["evidence"]
        assert "records of erasures: 3; shoppers on the erasure list: 7; the last" in evidence
        assert "NOT complete: record 3" in evidence


def test_the_template_asks_for_every_statement_and_its_blanks_state_nothing(
    spent: PlatformConfig, tmp_path: Path
) -> None:
    path = tmp_path / "statement.toml"
    path.write_text(template())
    blank = read_toml(path, Statement)
    assert set(tomllib.loads(template())) == set(Statement.model_fields)
    report = told(spent, statement=blank.model_dump())
    assert set(report["statement"].values()) == {"to be stated by the controller"}
    head, _, rest = template().partition("controller = '''\n" + BLANK)
    path.write_text(f"{head}controller = '''\nBoutique Ltd,\n'Quay' 1{rest}")
    report = told(spent, statement=read_toml(path, Statement).model_dump())
    assert report["statement"]["controller"] == "Boutique Ltd, 'Quay' 1"
    with pytest.raises(ConfigError, match=r"officer still has a blank, \[FILL IN\]"):
        told(spent, statement={"officer": f"Ada {BLANK}"})


@pytest.mark.parametrize("privacy", [PLAN, UNPROTECTED])
def test_simulated_noise_and_no_noise_are_shouted_and_nobody_called_protected(
    tmp_path: Path, privacy: str
) -> None:
    config = config_of(tmp_path, privacy)
    if privacy == PLAN:
        spend(config, noise="simulated")
    report, page = told(config), page_of(config)
    shouted = "SIMULATED NOISE" if privacy == PLAN else "UNPROTECTED"
    assert report["status"] == shouted.lower()
    assert report["noise"] == ("simulated" if privacy == PLAN else "none")
    assert report["claim"] == "No claim is made."
    assert f'<p class="banner">{shouted}' in page
    denied = r"unprotected|not protected|Nobody is protected"
    for text in (page, json.dumps(report)):
        assert "protected" not in re.sub(denied, "", text, flags=re.IGNORECASE).lower()
        assert "influence is bounded" not in text


def test_a_platform_that_has_released_nothing_claims_nothing(tmp_path: Path) -> None:
    report = told(config_of(tmp_path))
    assert (report["status"], report["noise"]) == ("nothing released", "none yet")
    assert report["releases"] == []


def test_an_audit_that_fails_takes_the_claim_away(spent: PlatformConfig) -> None:
    assert told(spent, audit=AUDIT)["status"] == "protected"
    refuted: dict[str, Any] = {**AUDIT, "lower_bound": {**AUDIT["lower_bound"], "epsilon": 1.5}}  # type: ignore[dict-item]
    failed = {**AUDIT, "checks": [{"name": "inversion", "passed": False, "told": "rows seen"}]}
    for audit in (refuted, failed):
        report = told(spent, audit=audit)
        assert (report["status"], report["claim"]) == ("audit failed", "No claim is made.")
    assert "run atoll-sim audit" in page_of(spent)
    for wrong in ({}, {**AUDIT, "claim": {}}, {**AUDIT, "checks": [{"passed": "yes"}]}):
        with pytest.raises(ConfigError, match="the audit"):
            told(spent, audit=wrong)


def test_more_than_the_budget_is_shouted(spent: PlatformConfig, tmp_path: Path) -> None:
    lowered = PLAN.replace("epsilon = 3.0", "epsilon = 0.85")
    report = told(config_of(tmp_path, lowered))
    assert (report["status"], report["budget"]["left"]) == ("over budget", 0.0)


def test_what_is_wrong_is_told_in_one_line(spent: PlatformConfig, tmp_path: Path) -> None:
    policy = policy_of(spent)
    with pytest.raises(ConfigError, match="unknown key 'lawfulnes'"):
        told(spent, statement={"lawfulnes": "x"})
    with pytest.raises(ConfigError, match=r"boutique: has no \[privacy\] section"):
        facts(config_of(tmp_path, ""), entries=[], balance=None, now=NOW)
    with pytest.raises(LedgerError, match="do not agree"):
        facts(spent, entries=entries(policy)[:-3], balance=balance(policy), now=NOW)


def test_the_backbone_is_told_by_its_digest(spent: PlatformConfig, backbone: Path) -> None:
    assert told(spent)["model_lineage"]["backbone"] == "not at hand"
    found = told(replace(spent, backbone=backbone))["model_lineage"]["backbone"]
    assert found == load_backbone(backbone).digest
