from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from shared.accounting import Charge, epsilon
from shared.errors import AtollError, ConfigError, PlanError
from shared.plan import Plan
from shared.tables import policy as module
from shared.tables.config import PlatformConfig, load_platform, platform_from
from shared.tables.dump import dump_platform
from shared.tables.policy import Policy, SumsSection

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
NUMBERS = """
[privacy]
epsilon = 3.0
shoppers_at_least = 4000
sampling_rate = 0.064
steps = 16
"""
LASTING = NUMBERS + "rounds = 20\n"
NOISED = NUMBERS + "noise_multiplier = 4.0\n"
OPEN = "\n[privacy]\nunprotected = true\n"
SUMS = '\n[sums]\npairs = "pairs.safetensors"\n'
DELTA = 4000**-1.1


def read(more: str, base: Path = Path("/shop")) -> PlatformConfig:
    return platform_from(tomllib.loads(SHOP + more), where="p.toml", base=base)


def policy(more: str) -> Policy:
    found = read(more).policy
    assert found is not None
    return found


def both(more: str) -> tuple[Plan, float]:
    """The Plan, and b of the sums beside it."""
    found = policy(more)
    assert found.plan is not None
    assert found.sums_noise is not None
    return found.plan, found.sums_noise


def laplace(noise: float) -> Charge:
    return Charge(noise, mechanism="laplace")


def refused(more: str) -> str:
    with pytest.raises(AtollError) as caught:
        read(more)
    said = str(caught.value)
    assert said.startswith("p.toml")
    assert "\n" not in said
    return said


def test_a_platform_without_the_section_tells_nothing_of_pairs() -> None:
    for privacy in (OPEN, LASTING):
        found = policy(privacy)
        assert (found.pairs, found.sums_noise) == (None, None)


def test_sums_without_a_word_on_privacy_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^p.toml \[sums\]: stands without \[privacy\]; write"):
        read(SUMS + "epsilon = 1.0\n")
    assert "stands without [privacy]" in refused(SUMS)


@pytest.mark.parametrize("privacy", [LASTING, NOISED])
@pytest.mark.parametrize("noise", ["", "epsilon = 1.0\nnoise_multiplier = 9.0\n"])
def test_under_a_plan_sums_need_exactly_one_of_epsilon_and_noise(privacy: str, noise: str) -> None:
    assert refused(privacy + SUMS + noise) == (
        "p.toml [sums]: needs either epsilon or noise_multiplier under a Plan;"
        " give exactly one of the two"
    )


@pytest.mark.parametrize(
    "noise",
    ["epsilon = 1.0\n", "noise_multiplier = 9.0\n", "epsilon = 1.0\nnoise_multiplier = 9\n"],
)
def test_noise_for_rows_that_nobody_protects_is_refused(noise: str) -> None:
    told = "p.toml [sums]: has noise for rows that are unprotected; leave both out"
    assert refused(OPEN + SUMS + noise) == told


def test_sums_of_unprotected_rows_have_no_noise() -> None:
    found = policy(OPEN + SUMS)
    assert (found.plan, found.sums_noise) == (None, None)
    assert found.pairs == Path("/shop/pairs.safetensors")


def test_pairs_stand_where_the_file_says() -> None:
    more = SUMS.replace("pairs.safetensors", "/public/list")
    assert policy(OPEN + more).pairs == Path("/public/list")
    more = SUMS.replace("pairs.safetensors", "../list")
    assert policy(NOISED + more + "noise_multiplier = 9.0\n").pairs == Path("/list")


@pytest.mark.parametrize(("delta", "value"), [("", DELTA), ("delta = 1e-6\n", 1e-6)])
def test_the_noise_of_sums_follows_from_their_epsilon_alone(delta: str, value: float) -> None:
    plan, noise = both(LASTING + delta + SUMS + "epsilon = 1.5\n")
    assert plan.delta == pytest.approx(value)
    assert noise == 1 / 1.5
    assert 1.49 < epsilon([laplace(noise)], value) <= 1.5


def test_a_noise_that_is_given_stands() -> None:
    assert both(NOISED + SUMS + "noise_multiplier = 9.0\n")[1] == 9.0


@pytest.mark.parametrize(
    "noise", ["epsilon = 2.5\n", "epsilon = 0.5\n", "noise_multiplier = 3.0\n"]
)
def test_the_plan_s_rounds_and_the_sums_together_use_up_the_budget_and_no_more(noise: str) -> None:
    plan, sums = both(LASTING + SUMS + noise)
    spent = epsilon([laplace(sums), *[plan.charge] * 20], plan.delta)
    assert 0.99 * plan.epsilon < spent <= plan.epsilon == 3.0
    alone = policy(LASTING).plan
    assert alone is not None
    assert plan.noise_multiplier > alone.noise_multiplier


def test_a_plan_whose_noise_is_given_keeps_it_beside_sums() -> None:
    assert both(NOISED + SUMS + "epsilon = 2.5\n")[0] == policy(NOISED).plan


@pytest.mark.parametrize(
    "noise", ["epsilon = 3.0\n", "epsilon = 5.0\n", "noise_multiplier = 0.3\n"]
)
def test_sums_that_take_the_whole_budget_are_refused_in_one_line(noise: str) -> None:
    told = r"^p.toml \[privacy\]: what is released besides costs epsilon \S+ of 3, which"
    assert re.match(told, refused(LASTING + SUMS + noise))
    told = r"^p.toml \[privacy\]: one round with what is released besides costs epsilon \S+, the"
    assert re.match(told, refused(NOISED + SUMS + noise))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("epsilon = 0.0", "p.toml [sums]: epsilon 0.0 is not a positive number"),
        ("epsilon = -1.0", "p.toml [sums]: epsilon -1.0 is not a positive number"),
        ("epsilon = inf", "p.toml: 'sums.epsilon' is"),
        ('epsilon = "1"', "p.toml: 'sums.epsilon' is"),
        ("noise_multiplier = 0.01", "p.toml: 'sums.noise_multiplier' is 0.01"),
        ("noise_multiplier = 10001", "p.toml: 'sums.noise_multiplier' is 10001"),
        ("noise_multiplier = nan", "p.toml: 'sums.noise_multiplier' is"),
        ("noise = 9.0", "p.toml: unknown key 'sums.noise'"),
    ],
)
def test_a_number_of_sums_with_which_no_promise_holds_is_named(line: str, told: str) -> None:
    assert refused(NOISED + SUMS + line + "\n").startswith(told)


def test_an_epsilon_that_no_noise_reaches_is_refused_as_that_of_the_sums() -> None:
    with pytest.raises(PlanError, match=r"^p.toml \[sums\]: epsilon 1e-06 is out of reach of nois"):
        read(NOISED + SUMS + "epsilon = 1e-6\n")


def test_sums_without_a_list_of_pairs_are_refused_by_key() -> None:
    assert "missing key 'sums.pairs'" in refused(NOISED + "[sums]\nepsilon = 1.0\n")


def test_a_fault_of_the_plan_itself_is_not_told_of_the_sums() -> None:
    with pytest.raises(PlanError, match=r"^p.toml \[privacy\]: steps 0 are fewer than 1; "):
        read(LASTING.replace("steps = 16", "steps = 0") + SUMS + "epsilon = 1.0\n")


@pytest.mark.parametrize(
    "more",
    [
        OPEN + SUMS,
        OPEN + SUMS.replace("pairs.safetensors", '/far/ünder \\"it\\"'),
        LASTING + SUMS + "epsilon = 2.5\n",
        NUMBERS + "rounds = 1\n" + SUMS + "epsilon = 2.99\n",
        NOISED + "delta = 1e-7\n" + SUMS + "noise_multiplier = 7.3\n",
        NOISED + SUMS + "epsilon = 2.0\n",
    ],
)
def test_sums_survive_a_dump_to_the_last_bit_from_any_folder(more: str, tmp_path: Path) -> None:
    config = read(more)
    path = tmp_path / "elsewhere.toml"
    path.write_text(dump_platform(config))
    assert load_platform(path) == config


def test_the_example_of_the_documentation_names_every_key_and_loads() -> None:
    example = (module.__doc__ or "").split("[sums]")[2].split("[privacy]")[0]
    for key in SumsSection.model_fields:
        assert re.search(rf"\b{key}\b", example)
    assert both(LASTING + "\n[sums]" + example)[0].epsilon == 3.0
