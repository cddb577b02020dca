"""Three platforms under Plans, deployed, and what has to hold whatever went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.app import SIMULATED
from clients.app import app as client_app
from clients.ledger import entries
from clients.membership import home_of
from server.app import app as server_app
from server.registry import Registry
from shared.audit_log import verify
from shared.tables.config import load_platform
from simulations.deployed import Deployment
from simulations.harness import run_in_process

FEDERATION: dict[str, int | float | str] = {
    "rounds": 3,
    "quorum": 3,
    "batch": 4,
    "learning_rate": 0.05,
    "timeout": 60.0,
    "patience": 10,
}
PLAN = """
epsilon = 20.0
shoppers_at_least = 8
delta = 0.05
sampling_rate = 0.5
steps = 2
noise_multiplier = 1.0
"""
SEED = 7


@pytest.fixture
def deployment(trio: dict[str, Path], backbone: Path, tmp_path: Path) -> Iterator[Deployment]:
    """Three platforms under Plans, with noise that a seed repeats, so that runs can be compared."""
    files = {}
    for name, path in trio.items():
        text = path.read_text().replace("answer_seconds = 0.0", "answer_seconds = 1.0")
        text = text.replace("unprotected = true", PLAN)
        text = text.replace("share_metrics = true", "share_metrics = false")
        for table in ("interactions", "items"):
            text = text.replace(f'"{table}.tsv"', f'"{path.parent}/{table}.tsv"')
        (tmp_path / name).mkdir()
        files[name] = tmp_path / name / f"{name}.toml"
        files[name].write_text(text)
    made = Deployment(tmp_path, backbone, files, FEDERATION, seed=SEED)
    yield made
    made.stop()


@pytest.fixture
def undisturbed(deployment: Deployment, tmp_path: Path) -> Callable[[], Registry]:
    """The same federation in one process, where nothing goes wrong."""

    def run() -> Registry:
        nodes: dict[str, dict[str, bool | float | int | str]] = {}
        for name, path in deployment.platforms.items():
            copy = tmp_path / "same" / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(
                path.read_text().replace("answer_seconds = 1.0", "answer_seconds = 0.0")
            )
            nodes[name] = {"platform": str(copy), SIMULATED: SEED}
        folder = tmp_path / "harness"
        config = {
            **deployment.federation,
            "backbone": str(deployment.backbone),
            "folder": str(folder),
        }
        run_in_process(server_app, client_app, run_config=config, nodes=nodes)
        return Registry(folder)

    return run


@pytest.fixture
def check_counts() -> Callable[[Deployment], None]:
    """Every Update that the server averaged is in its platform's ledger once, and logs hold."""

    def check(deployment: Deployment) -> None:
        for name, path in deployment.platforms.items():
            averaged = [
                number
                for number in deployment.registry.rounds()[1:]
                if name in deployment.registry.load(number)[1].replied
            ]
            counted = released(path)
            assert set(averaged) <= set(counted), name
            assert len(counted) == len(set(counted)), name
            assert verify(home_of(path, name) / "audit.jsonl").count
        assert verify(deployment.home / "audit.jsonl").count

    return check


@pytest.fixture
def check_same(
    undisturbed: Callable[[], Registry], check_counts: Callable[[Deployment], None]
) -> Callable[[Deployment], None]:
    """Every platform took part in every round, to the adapter of a run without a fault."""

    def check(deployment: Deployment) -> None:
        for number in deployment.registry.rounds()[1:]:
            report = deployment.registry.load(number)[1]
            assert report.replied == tuple(sorted(deployment.platforms)), report
        assert digests(deployment.registry) == digests(undisturbed())
        check_counts(deployment)

    return check


@pytest.fixture
def released_by(deployment: Deployment) -> Callable[[str], list[int]]:
    """The rounds whose Update has left a platform, by its ledger."""
    return lambda name: released(deployment.platforms[name])


def released(path: Path) -> list[int]:
    policy = load_platform(path).policy
    assert policy is not None
    held = [entry for entry in entries(policy) if entry.kind == "release"]
    return [entry.asked.round for entry in held if entry.asked.purpose == "update"]


def digests(registry: Registry) -> list[str]:
    return [registry.load(number)[0].adapter.digest for number in registry.rounds()]
