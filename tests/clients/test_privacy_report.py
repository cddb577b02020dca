from __future__ import annotations

import base64
import html
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import clients.report as report_module
from clients.ledger import Asked, Ledger, balance, entries
from clients.report import Statement, facts, sign, signing_key, verify, write
from clients.report_page import eps, render
from shared.accounting import Charge, epsilon
from shared.backbone import load_backbone
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


def test_the_fields_of_nist_and_pipl_are_there(spent: PlatformConfig) -> None:
    report = told(spent, statement={"lawfulness": "contract & consent"})
    nist, pipl = report["NIST_SP_800-226"], report["PIPL_Articles_55_and_56"]
    assert ", ".join(nist) == (
        "Privacy parameter ε, Variant and δ, Unit of privacy, Bounded or unbounded, Composition, "
        "Mixing with other releases, Algorithm, Utility, Bias, Query model, Trust model, "
        "Mechanism implementation, Side channels, Data security and access control, "
        "Data collection exposure"
    )
    numbers = [re.match(r"5[56](\(\d\))?", asks) for asks in pipl]
    found = " ".join(number[0] for number in numbers if number)
    assert found == "55(1) 55(2) 55(3) 55(4) 55(5) 56(1) 56(2) 56(3) 56"
    assert "contract & consent" in pipl["56(1) purpose and manner lawful, legitimate and necessary"]
    # What only people can state is never made up.
    assert report["statement"]["sensitive"] == "to be stated by the controller"
    assert set(report["statement"]) == set(Statement.model_fields)


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
