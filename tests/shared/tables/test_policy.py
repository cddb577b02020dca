from __future__ import annotations

import math
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from shared.errors import AtollError, ConfigError, PlanError
from shared.plan import Plan
from shared.tables import policy as module
from shared.tables.config import PlatformConfig, load_platform, platform_from
from shared.tables.dump import dump_platform
from shared.tables.policy import Policy, PrivacySection
from shared.training import Speed

SHOP = """
[platform]
name = "kiosk"
[events]
path = "e.parquet"
columns = { shopper = "user", item = "item", time = "ts" }
[items]
path = "i.csv"
columns = { item = "item", text = "text" }
"""
PLAN = """
[privacy]
epsilon = 3.0
shoppers_at_least = 4000
sampling_rate = 0.064
steps = 16
noise_multiplier = 2.0
"""
OPEN = "\n[privacy]\nunprotected = true\n"


def read(more: str, base: Path = Path("/shop")) -> PlatformConfig:
    return platform_from(tomllib.loads(SHOP + more), where="p.toml", base=base)


def policy(more: str) -> Policy:
    found = read(more).policy
    assert found is not None
    return found


def plan(more: str) -> Plan:
    found = policy(more).plan
    assert found is not None
    return found


def refused(more: str) -> str:
    with pytest.raises(AtollError) as caught:
        read(more)
    said = str(caught.value)
    assert said.startswith("p.toml")
    assert "\n" not in said
    return said


def documented() -> tuple[str, str]:
    """The module's own two examples: a Plan with every key, and no protection."""
    one, two = (module.__doc__ or "").split("\n\n", 1)[1].split("[privacy]")[1:]
    return f"\n[privacy]{one}", f"\n[privacy]{two}"


def test_a_platform_whose_file_says_nothing_has_no_policy() -> None:
    assert read("").policy is None


def test_an_unprotected_platform_says_so_and_has_no_plan() -> None:
    found = policy(OPEN)
    assert found.plan is None
    assert (found.dataset, found.answer_seconds, found.metrics_noise) == ("kiosk", 1.0, None)


def test_every_number_of_a_plan_arrives() -> None:
    more = "delta = 1e-5\nclip = 0.5\nexpected_batch = 200.0\nupdate_norm = 7.0\n"
    assert plan(PLAN + more) == Plan(
        clip=0.5,
        noise_multiplier=2.0,
        sampling_rate=0.064,
        steps=16,
        expected_batch=200.0,
        epsilon=3.0,
        delta=1e-5,
        shoppers_at_least=4000,
        update_norm=7.0,
    )


def test_what_a_plan_leaves_out_follows_from_public_numbers() -> None:
    found = plan(PLAN)
    assert found.delta == pytest.approx(4000**-1.1)
    assert found.expected_batch == pytest.approx(0.064 * 4000)
    assert (found.clip, found.update_norm, found.unit) == (1.0, module.UPDATE_NORM, "shopper")


def test_the_rounds_a_budget_is_to_last_for_give_the_noise() -> None:
    found = plan(PLAN.replace("noise_multiplier = 2.0", "rounds = 20"))
    spent = found.epsilon_after(20)
    assert 2.99 < spent <= 3.0
    assert found.epsilon_after(21) > 3.0


def test_files_stand_beside_the_platforms_own_unless_they_are_named() -> None:
    found = policy(PLAN)
    names = ("kiosk.ledger", "kiosk.head", "kiosk.key")
    assert (found.ledger, found.head, found.key) == tuple(Path("/shop") / it for it in names)
    assert found.dataset == "kiosk"
    more = 'dataset = "sales.2024"\nledger = "l/x"\nhead = "/other/disk/x"\nkey = "k"\n'
    found = policy(PLAN + more + "answer_seconds = 2.5\n")
    assert (found.dataset, found.answer_seconds) == ("sales.2024", 2.5)
    assert (found.ledger, found.head) == (Path("/shop/l/x"), Path("/other/disk/x"))
    assert found.key == Path("/shop/k")


def test_the_examples_of_the_documentation_load_and_name_every_key() -> None:
    protected, open_ = documented()
    assert plan(protected).epsilon == 3.0
    assert policy(open_).plan is None
    text = protected + open_
    missing = [key for key in PrivacySection.model_fields if not re.search(rf"\b{key}\b", text)]
    assert missing == []


@pytest.mark.parametrize("key", ["epsilon", "shoppers_at_least", "sampling_rate", "steps"])
def test_a_plan_that_lacks_a_number_is_told_which(key: str) -> None:
    lines = [line for line in PLAN.splitlines() if not line.startswith(key)]
    assert f"a Plan needs {key} as well" in refused("\n".join(lines))


def test_an_empty_section_is_told_all_that_a_plan_needs() -> None:
    said = refused("\n[privacy]\n")
    assert "a Plan needs epsilon, shoppers_at_least, sampling_rate, steps as well" in said


@pytest.mark.parametrize("key", ["epsilon = 3.0", "shoppers_at_least = 9", "steps = 16"])
def test_both_a_plan_and_no_protection_are_refused(key: str) -> None:
    assert "either unprotected = true or a Plan, not both" in refused(OPEN + key)
    assert "not both" in refused(PLAN + "unprotected = true\n")


def test_a_plan_needs_exactly_one_of_noise_and_rounds() -> None:
    for more in (PLAN + "rounds = 20\n", PLAN.replace("noise_multiplier = 2.0", "")):
        with pytest.raises(PlanError, match=r"p.toml \[privacy\]: needs either noise_multiplier"):
            read(more)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epsilon = 3.0", "epsilon = 0.0", "epsilon 0.0 is not a positive number"),
        ("epsilon = 3.0", "epsilon = -1.0", "epsilon -1.0 is not a positive number"),
        ("epsilon = 3.0", "epsilon = 0.01", "one round costs epsilon "),
        ("epsilon = 3.0", 'epsilon = "3"', "'privacy.epsilon' is"),
        ("epsilon = 3.0", "epsilon = inf", "'privacy.epsilon' is"),
        ("epsilon = 3.0", "epsilom = 3.0", "the nearest known key is 'privacy.epsilon'"),
        ("steps = 16", "steps = 16\ndelta = 0.001", "delta 0.001 is not below 1/4000"),
        ("steps = 16", "steps = 16\ndelta = 0.0", "delta 0.0 is not in (0, 1)"),
        ("steps = 16", "steps = 0", "steps 0 are fewer than 1"),
        ("steps = 16", "steps = 1.5", "'privacy.steps' is 1.5"),
        ("= 4000", "= 1", "shoppers_at_least 1 is fewer than 2"),
        ("= 0.064", "= 0.0", "sampling_rate 0.0 is not in (0, 1]"),
        ("= 0.064", "= 1.5", "sampling_rate 1.5 is not in (0, 1]"),
        ("= 2.0", "= 0.0", "noise_multiplier 0.0 is not a positive number"),
        ("steps = 16", "steps = 16\nclip = 0.0", "clip 0.0 is not a positive number"),
        ("steps = 16", "steps = 16\nupdate_norm = -1.0", "update_norm -1.0 is not a positive"),
        ("steps = 16", "steps = 16\nexpected_batch = 0.0", "expected_batch 0.0 is not a posi"),
        ("steps = 16", "steps = 16\nanswer_seconds = -1", "'privacy.answer_seconds' is -1"),
        ("steps = 16", 'steps = 16\ndataset = "a b"', "'privacy.dataset' is \"a b\""),
        ("steps = 16", 'steps = 16\nunit = "event"', "unknown key 'privacy.unit'"),
    ],
)
def test_a_number_with_which_no_promise_holds_is_named(old: str, new: str, told: str) -> None:
    assert told in refused(PLAN.replace(old, new))


SHARE = "[evaluation]\nshare_metrics = true\n"


def test_metrics_are_shared_under_a_plan_only_with_noise() -> None:
    with pytest.raises(ConfigError, match=r"p.toml \[evaluation\]: share_metrics under a Plan ne"):
        read(PLAN + SHARE)
    assert policy(PLAN + SHARE + "noise_multiplier = 20.0\n").metrics_noise == 20.0
    assert read(OPEN + SHARE).share_metrics  # nobody is protected there
    assert "'evaluation.noise_multiplier' is 0" in refused(
        PLAN + "[evaluation]\nnoise_multiplier = 0"
    )


def test_speed_has_a_section_that_holds_no_number_of_the_plan() -> None:
    assert read("").speed == Speed(microbatch=64)
    found = read(PLAN + "[performance]\nmicrobatch = 8\n")
    assert found.speed == Speed(microbatch=8)
    assert found.policy == read(PLAN).policy
    assert not {it.name for it in fields(Speed)} & {it.name for it in fields(Plan)}
    assert "unknown key 'performance.clip'" in refused(PLAN + "[performance]\nclip = 9.0\n")
    assert "'performance.microbatch' is 0" in refused("[performance]\nmicrobatch = 0\n")


@pytest.mark.parametrize(
    "more",
    [
        "",
        OPEN,
        OPEN + SHARE,
        PLAN,
        PLAN + 'delta = 1e-7\nclip = 0.3\nledger = "/far/ünder.ledger"\nhead = "../h"\n',
        PLAN.replace("noise_multiplier = 2.0", "rounds = 3") + "answer_seconds = 0.0\n",
        PLAN + SHARE + "noise_multiplier = 20.0\n[performance]\nmicrobatch = 8\n",
        OPEN + "[evaluation]\nnoise_multiplier = 3.0\n",
    ],
)
def test_a_policy_survives_a_dump_to_the_last_bit_from_any_folder(
    more: str, tmp_path: Path
) -> None:
    config = read(more)
    path = tmp_path / "elsewhere.toml"
    path.write_text(dump_platform(config))
    assert load_platform(path) == config


def test_numbers_that_need_seventeen_digits_survive_a_dump(tmp_path: Path) -> None:
    config = read(PLAN)
    assert config.policy is not None
    odd = replace(plan(PLAN), noise_multiplier=math.nextafter(2, 3), sampling_rate=1 / 3, clip=1e-9)
    config = replace(config, policy=replace(config.policy, plan=replace(odd, epsilon=99.1)))
    (tmp_path / "p.toml").write_text(dump_platform(config))
    assert load_platform(tmp_path / "p.toml") == config
