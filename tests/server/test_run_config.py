from __future__ import annotations

import re
import tomllib
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

from server.config import (
    Federation,
    FederationSection,
    RunSection,
    federation_from,
    run_from,
)
from shared.errors import ConfigError

FILES: dict[str, object] = {"backbone": "b.safetensors", "folder": "runs/x"}


def said(**keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        run_from({**FILES, **keys})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_alone_are_a_run_with_the_defaults() -> None:
    run = run_from(FILES)
    assert run.federation == federation_from(FederationSection())
    assert (run.backbone, run.folder, run.resume) == (Path("b.safetensors"), Path("runs/x"), False)


def test_every_key_arrives_where_it_belongs() -> None:
    keys: dict[str, object] = {
        "rounds": 3,
        "quorum": 4,
        "patience": 5,
        "fraction": 0.25,
        "timeout": 7.5,
        "grace": 1.5,
        "algorithm": "fedadam",
        "server_learning_rate": 0.01,
        "epochs": 8,
        "batch": 9,
        "learning_rate": 0.125,
        "schedule": "linear",
        "proximal": 0.25,
        "seed": 11,
        "clip": 0.5,
        "noise_multiplier": 1.5,
        "steps": 12,
    }
    assert asdict(run_from({**FILES, **keys}).federation) == keys
    assert set(keys) == set(FederationSection.model_fields)


def test_the_projects_file_holds_every_key_with_its_default() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    shipped = project["tool"]["flwr"]["app"]["config"]
    assert {key.replace("-", "_") for key in shipped} == set(RunSection.model_fields)
    assert run_from(shipped).federation == federation_from(FederationSection())


def test_flowers_dashes_are_our_underscores() -> None:
    assert run_from({**FILES, "learning-rate": 0.5}).federation.learning_rate == 0.5


def test_a_whole_number_stands_for_a_fraction() -> None:
    assert run_from({**FILES, "timeout": 5}).federation.timeout == 5.0


def test_an_unknown_key_is_told_with_the_nearest_known_one() -> None:
    assert said(learning_rat=0.1) == (
        "run configuration: unknown key 'learning_rat'; the nearest known key is 'learning_rate'"
    )


def test_a_run_without_its_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="missing key 'folder'"):
        run_from({"backbone": "b"})


def test_a_run_over_pairs_names_them_in_the_backbones_place() -> None:
    run = run_from({"pairs": "p.safetensors", "folder": "runs/x", "rounds": 1})
    assert (run.backbone, run.pairs) == (None, Path("p.safetensors"))
    assert run_from(FILES).pairs is None


@pytest.mark.parametrize("files", [{}, {"backbone": "b", "pairs": "p"}])
def test_a_run_has_exactly_one_of_backbone_and_pairs(files: dict[str, object]) -> None:
    keys: dict[str, object] = {"backbone": "", "pairs": "", "rounds": 1, **files}
    assert said(**keys) == ("run configuration: not valid; give exactly one of backbone and pairs")


@pytest.mark.parametrize("rounds", [{}, {"rounds": 2}])
def test_sums_over_pairs_are_taken_in_one_round(rounds: dict[str, object]) -> None:
    told = said(backbone="", pairs="p.safetensors", **rounds)
    assert told == "run configuration: not valid; sums over pairs are taken in one round"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 0),
        ("rounds", 2.5),
        ("rounds", "3"),
        ("quorum", 0),
        ("patience", 0),
        ("fraction", 0.0),
        ("fraction", 1.5),
        ("timeout", 0.0),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("algorithm", "fedsgd"),
        ("server_learning_rate", 0.0),
        ("epochs", 0),
        ("batch", 0),
        ("learning_rate", -0.1),
        ("schedule", "step"),
        ("seed", -1),
        ("seed", True),
        ("clip", -0.5),
        ("clip", float("inf")),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", "1"),
        ("steps", -1),
        ("steps", 1.5),
        ("resume", "yes"),
        ("resume", 1),
    ],
)
def test_a_value_out_of_range_or_of_another_type_names_its_key(key: str, value: object) -> None:
    assert re.match(rf"run configuration: '{key}' is ", said(**{key: value}))


def test_a_federation_cannot_be_changed() -> None:
    federation = federation_from(FederationSection())
    with pytest.raises(FrozenInstanceError):
        federation.rounds = 1  # type: ignore[misc]
    assert set(Federation.__dataclass_fields__) == set(FederationSection.model_fields)
