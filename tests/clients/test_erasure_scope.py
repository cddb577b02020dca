"""How far an erasure reaches: models, copies of the table, platforms of other kinds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clients import derived_files, taught
from clients.erasure import erase
from clients.erasure_plan import Request
from clients.erasure_record import verify_record
from clients.ledger import Asked, Ledger
from shared import manifest
from shared.accounting import Charge
from shared.adapter import Adapter, save_adapter
from shared.audit_log import AuditLog
from shared.errors import ConfigError
from shared.tables.config import load_platform
from shared.tables.policy import Policy

PLAN = """
epsilon = 3.0
delta = 1e-6
shoppers_at_least = 5
sampling_rate = 0.5
steps = 2
noise_multiplier = 2.0
"""
CHARGE = Charge(noise_multiplier=2.0, sampling_rate=0.5, steps=2)
Make = Callable[..., Path]
ADA = "shop-shopper-03"


@pytest.fixture
def shop(make_platform: Make, tmp_path: Path) -> Path:
    """A platform under a Plan, with a cache and a membership of its own."""
    (tmp_path / "shop.atoll").mkdir()
    return make_platform(tmp_path, cache=tmp_path / "cache", privacy=PLAN)


def request_of(path: Path, *shoppers: str, **more: Any) -> Request:
    config = load_platform(path)
    home = path.parent / f"{config.name}.atoll"
    return Request(config=config, file=path, home=home, shoppers=shoppers, **more)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


def make_model(path: Path, place: Path, seed: float = 1.0) -> None:
    """An adapter as `compare --out` leaves it."""
    made = Adapter({"a": np.full((2, 2), seed, np.float32)}, backbone="b" * 64, task="next-item")
    config = load_platform(path)
    derived_files.register(config, "adapter", place, digest=made.digest, time=1.0)
    save_adapter(made, place, private=True)


def test_models_that_were_moved_kept_or_replaced_are_accounted_for(
    shop: Path, tmp_path: Path
) -> None:
    place = shop.parent / "home.safetensors"
    make_model(shop, place)
    elsewhere = tmp_path / "elsewhere.safetensors"
    place.rename(elsewhere)
    first = erase(request_of(shop, ADA, rewrite=True))
    assert "home.safetensors: a model made from rows is not there any more" in str(
        first.facts["remaining"]
    )
    with pytest.raises(ConfigError, match="is not made from this platform's rows"):
        erase(request_of(shop, models=(shop,)))
    kept = erase(request_of(shop, models=(elsewhere,), keep_models=True))
    assert not kept.complete
    assert elsewhere.exists()
    last = erase(request_of(shop, models=(elsewhere,)))
    assert last.complete
    assert not elsewhere.exists()
    assert derived_files.load_register(load_platform(shop)) == []

    # What is made after an erasure holds nothing of the shopper, and stays.
    made = load_platform(shop)
    derived_files.register(made, "adapter", place, digest="d", time=2e10)
    assert erase(request_of(shop, ADA)).record is None
    derived_files.save_register(made, [])
    # Another file in the place of a model is not the model.
    make_model(shop, place, seed=1.0)
    place.unlink()
    make_model(shop, tmp_path / "theirs.safetensors", seed=2.0)
    os.replace(tmp_path / "theirs.safetensors", place)
    derived_files.save_register(
        made, [it for it in derived_files.load_register(made) if it.path == "home.safetensors"]
    )
    erase(request_of(shop, "shop-shopper-05", rewrite=True))
    assert place.exists()
    # One that came from the federation is not this platform's to erase.
    manifest.beside(place).write_text("{}")
    with pytest.raises(ConfigError, match="is not made from this platform's rows"):
        erase(request_of(shop, models=(place,)))


def test_models_that_were_deleted_by_hand_are_stated_to_be(shop: Path) -> None:
    make_model(shop, shop.parent / "home.safetensors")
    (shop.parent / "home.safetensors").unlink()
    assert not erase(request_of(shop, ADA, rewrite=True)).complete
    assert erase(request_of(shop, models_deleted=True)).complete
    assert derived_files.load_register(load_platform(shop)) == []


def test_copies_of_the_table_in_other_formats_are_rewritten(shop: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(shop.parent / "interactions.tsv", separator="\t")
    copies = tuple(tmp_path / name for name in ("old.parquet", "old.csv", "old.jsonl"))
    frame.write_parquet(copies[0])
    frame.write_csv(copies[1])
    frame.write_ndjson(copies[2])
    outcome = erase(request_of(shop, ADA, rewrite=True, copies=copies))
    assert outcome.complete
    wanted = frame.filter(pl.col("user") != ADA)
    assert pl.read_parquet(copies[0]).equals(wanted)
    assert copies[1].read_text() == wanted.write_csv()
    assert copies[2].read_text() == wanted.write_ndjson()
    counts = [table["rows_removed"] for table in outcome.facts["tables"]]
    assert counts == [len(frame) - len(wanted)] * 4


def test_a_table_with_a_second_name_is_told(shop: Path) -> None:
    os.link(shop.parent / "interactions.tsv", shop.parent / "backup.tsv")
    outcome = erase(request_of(shop, ADA, rewrite=True))
    assert not outcome.complete
    assert "hard link" in str(outcome.facts["remaining"])


def test_an_unprotected_platform_names_what_left_and_that_nothing_bounds_it(
    make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    policy = policy_of(path)
    taught.sent_path(policy).write_bytes(b"weights")
    (tmp_path / "shop.atoll").mkdir()
    log = AuditLog(tmp_path / "shop.atoll" / "audit.jsonl")
    log.add("answered", kind="query.hello", round="", sha256="a" * 64)
    log.add("answered", kind="train", round="3", sha256="b" * 64)
    log.add("answered", kind="train", round="4", refused=3)
    outcome = erase(request_of(path, ADA, rewrite=True))
    told = outcome.facts["earlier_releases"]
    assert "UNPROTECTED" in told["explanation"]
    assert [(it["kind"], it["round"]) for it in told["releases"]] == [("train", "3")]
    assert not taught.sent_path(policy).exists()


def test_simulated_noise_is_called_no_protection(shop: Path) -> None:
    with Ledger.open(policy_of(shop), noise="simulated") as ledger:
        ledger.release(ledger.reserve(Asked("update", "r", 1, "a" * 64), CHARGE), b"x")
    told = erase(request_of(shop, ADA)).facts["earlier_releases"]["explanation"]
    assert "SIMULATED" in told
    assert "bounded" not in told


def test_what_the_officer_should_look_at_is_warned_of(make_platform: Make, tmp_path: Path) -> None:
    plan = PLAN.replace("1e-6", "1e-4").replace("at_least = 5", "at_least = 10")
    path = make_platform(tmp_path, privacy=plan)
    table = tmp_path / "interactions.tsv"
    table.write_text(table.read_text() + f"{ADA.upper()}\tshop-01\t1\n")
    for dry in (True, False):
        warned = " ".join(erase(request_of(path, ADA), dry_run=dry).facts["warnings"])
        assert "shoppers_at_least is 10, and fewer are left" in warned
        assert "LARGE δ" in warned
        assert "1 other shoppers differ from an erased one in case alone" in warned


def test_a_platform_without_a_privacy_section_signs_with_a_key_of_its_own(
    shop: Path,
) -> None:
    text = shop.read_text()
    start, end = text.index("[privacy]"), text.index("[evaluation]")
    shop.write_text(text[:start] + text[end:])
    outcome = erase(request_of(shop, ADA, rewrite=True))
    assert outcome.record is not None
    assert verify_record(outcome.record)["facts"]["dataset"] is None
