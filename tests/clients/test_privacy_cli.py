"""`atoll-client budget` and `report`, as an operator types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.daemon import main
from clients.egress import note
from clients.ledger import Asked, Ledger
from shared.accounting import epsilon
from shared.errors import PlanError
from shared.tables.config import load_platform
from shared.tables.policy import Policy

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]

PLAN = """
epsilon = 3.0
shoppers_at_least = 10
sampling_rate = 0.5
steps = 2
noise_multiplier = 4.0
"""


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    return make_platform(tmp_path / "shop", privacy=PLAN)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


def spend(path: Path, rounds: int) -> Policy:
    policy = policy_of(path)
    assert policy.plan is not None
    with Ledger.open(policy, noise="secure") as ledger:
        for round_ in range(1, rounds + 1):
            number = ledger.reserve(Asked("update", "run", round_, "a" * 64), policy.plan.charge)
            ledger.release(number, b"bytes")
    return policy


def test_budget_tells_what_is_spent_left_and_still_fits(typed: Typed, shop: Path) -> None:
    policy = spend(shop, 2)
    assert policy.plan is not None
    code, out, err = typed(main, "budget", "-p", shop, "--json")
    told = json.loads(out)
    assert (code, err, told["platform"], told["dataset"]) == (0, "", "shop", "shop")
    spent = epsilon([policy.plan.charge] * 2, policy.plan.delta)
    assert told["spent"] == pytest.approx(spent)
    assert told["left"] == pytest.approx(3.0 - spent)
    fits, more = ([policy.plan.charge] * (2 + told["rounds_left"] + extra) for extra in (0, 1))
    assert epsilon(fits, policy.plan.delta) <= 3.0 < epsilon(more, policy.plan.delta)
    code, out, _ = typed(main, "budget", "-p", shop)
    assert code == 0
    assert f"{told['rounds_left']} more rounds" in out


def test_a_platform_that_has_spent_nothing_has_all_of_its_budget(typed: Typed, shop: Path) -> None:
    told = json.loads(typed(main, "budget", "-p", shop, "--json")[1])
    assert (told["spent"], told["left"], told["releases"]) == (0.0, 3.0, 0)
    assert not policy_of(shop).ledger.exists()


def test_a_report_is_written_signed_and_verified(typed: Typed, shop: Path, tmp_path: Path) -> None:
    policy = spend(shop, 1)
    policy.refused.touch(mode=0o644)  # as an older version made it
    note(policy, "train", PlanError("the server asks for clip 9", todo="ask for less"))
    assert policy.refused.stat().st_mode & 0o777 == 0o600
    code, out, _ = typed(main, "report", "-p", shop, "--out", tmp_path / "report")
    written, page = map(Path, out.split())
    assert (code, written.suffix, page.suffix) == (0, ".json", ".html")
    assert "the server asks for clip 9" in written.read_text()
    code, out, _ = typed(main, "report", "--verify", written)
    assert code == 0
    assert out.startswith("signature holds")
    assert "-shopper-" not in written.read_text() + page.read_text()


def test_an_audit_is_attached_with_the_checks_of_every_epsilon(
    typed: Typed, shop: Path, tmp_path: Path
) -> None:
    spend(shop, 1)
    audits = [
        {
            "claim": {"epsilon": claim, "delta": 1e-5},
            "checks": [{"name": "one run", "passed": True, "told": f"at least 0.{number}"}],
            "lower_bound": {"epsilon": 0.1 * number, "confidence": 0.95, "canaries": 800},
            "limits": ["a lower bound proves nothing"],
        }
        for number, claim in enumerate((1.0, 3.0), start=1)
    ]
    audit = tmp_path / "audit.json"
    audit.write_text(json.dumps({"audits": audits, "seed": 0}))
    code, out, err = typed(main, "report", "-p", shop, "--out", tmp_path / "r", "--audit", audit)
    assert code == 0, err
    told = json.loads(Path(out.split()[0]).read_text())["facts"]["audit"]
    assert [check["name"] for check in told["checks"]] == [
        "epsilon 1, one run",
        "epsilon 3, one run",
    ]
    assert told["claim"]["epsilon"] == 3.0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report"], "need one of --platform, --verify and"),
        (["report", "-p", "SHOP", "--verify", "SHOP"], "need one of --platform, --verify and"),
        (["report", "--verify", "SHOP"], "SHOP: "),
        (["report", "-p", "SHOP", "--audit", "SHOP"], "SHOP: is no audit"),
        (["report", "-p", "SHOP", "--audit", "gone.json"], "gone.json: is no audit"),
        (
            ["report", "-p", "SHOP", "--statement", "SHOP"],
            "SHOP: is a platform's file, which is not asked for here",
        ),
    ],
)
def test_what_no_report_can_be_made_of_is_told_in_one_line(
    words: list[str], told: str, refused: Refused, shop: Path
) -> None:
    typed_words = [str(shop) if word == "SHOP" else word for word in words]
    assert refused(main, *typed_words).startswith(told.replace("SHOP", str(shop)))


@pytest.mark.parametrize("command", ["budget", "report"])
def test_a_platform_whose_file_says_nothing_is_told_so(
    command: str, refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "bare")
    text = path.read_text()
    start, end = text.index("[privacy]"), text.index("[evaluation]")
    path.write_text(text[:start] + text[end:])
    assert "has no [privacy] section" in refused(main, command, "-p", path)


def test_an_unprotected_platform_has_no_budget_and_a_report_that_says_so(
    typed: Typed, refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "open")
    assert "is unprotected, so it has no budget" in refused(main, "budget", "-p", path)
    code, out, _ = typed(main, "report", "-p", path, "--out", tmp_path / "r")
    assert code == 0
    assert json.loads(Path(out.split()[0]).read_text())["facts"]["status"] == "unprotected"


def test_the_template_is_written_once_and_goes_into_the_report(
    typed: Typed, refused: Refused, shop: Path, tmp_path: Path
) -> None:
    path = tmp_path / "statement.toml"
    assert typed(main, "report", "--template", path)[0] == 0
    assert "is there already" in refused(main, "report", "--template", path)
    words = ("report", "-p", shop, "--out", tmp_path / "r", "--statement", path)
    assert typed(main, *words)[0] == 0


def test_a_large_delta_is_warned_of_and_one_over_n_refused(
    typed: Typed, refused: Refused, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path / "few", privacy=PLAN)
    _, out, _ = typed(main, "budget", "-p", path)
    assert "LARGE δ: δ = 0.0794 is above 1e-05" in out  # 10^-1.1
    (warned,) = json.loads(typed(main, "budget", "-p", path, "--json")[1])["warnings"]
    assert warned.startswith("LARGE δ: δ = 0.0794")
    small = make_platform(tmp_path / "small", privacy=f"{PLAN}delta = 1e-5\n")
    assert "LARGE" not in typed(main, "budget", "-p", small)[1]
    whole = make_platform(tmp_path / "whole", privacy=f"{PLAN}delta = 0.1\n")
    assert "delta 0.1 is not below 1/10" in refused(main, "budget", "-p", whole)
