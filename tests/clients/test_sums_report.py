from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path

from clients.ledger import Asked, Ledger, balance, entries
from clients.report import facts, sign, signing_key
from clients.report_page import render
from shared.accounting import Charge, epsilon
from shared.tables.config import platform_from

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
FILE = """
platform.name = "boutique"
events.path = "interactions.tsv"
events.columns = { shopper = "user", item = "item", time = "ts" }
items.path = "items.tsv"
items.columns = { item = "item", title = "name" }
[privacy]
epsilon = 3.0
delta = 1e-6
shoppers_at_least = 4000
sampling_rate = 0.01
steps = 50
noise_multiplier = 1.0
[sums]
pairs = "pairs.safetensors"
epsilon = 0.5
"""


def test_a_release_of_sums_stands_in_the_report_as_a_laplace_mechanism(tmp_path: Path) -> None:
    config = platform_from(tomllib.loads(FILE), where="p.toml", base=tmp_path)
    policy = config.policy
    assert policy is not None
    assert policy.sums_noise == 2.0
    paid = Charge(policy.sums_noise, mechanism="laplace")
    with Ledger.open(policy, noise="secure") as ledger:
        ledger.release(ledger.reserve(Asked("sums", "run-7", 1, "0" * 64), paid), b"noised sums")
    report = facts(config, entries=entries(policy), balance=balance(policy), now=NOW)
    (release,) = report["releases"]
    assert (release["mechanism"], release["noise_multiplier"]) == ("laplace", 2.0)
    assert release["epsilon_after"] == epsilon([paid], 1e-6)
    page = render(sign(report, signing_key(policy.key)))
    assert "<td>laplace</td>" in page
    assert "a Laplace mechanism, L1 norm 1 a History" in page
