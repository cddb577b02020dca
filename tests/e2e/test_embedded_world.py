"""The embedded world over the network: the adapter that the harness reaches, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from clients.app import app as client_app
from server.app import app as server_app
from server.registry import Registry
from simulations.deployed import Deployment
from simulations.federations import one_core_each
from simulations.harness import Config, run_in_process
from simulations.prepare import Ready, prepare
from simulations.scenario import Scenario, find_scenario, load_scenario

pytestmark = pytest.mark.e2e

PLATFORMS = ("hearth", "kiosk", "market")
ROUNDS = 5


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    found = load_scenario(find_scenario("demo"))
    return replace(found, federation=replace(found.federation, rounds=ROUNDS, quorum=3))


@pytest.fixture(scope="module")
def ready(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    out = tmp_path_factory.mktemp("world")
    return prepare(scenario, out, cache=out / "cache", seed=scenario.federation.seed)


@pytest.fixture
def deployment(scenario: Scenario, ready: Ready, tmp_path: Path) -> Iterator[Deployment]:
    files = {name: ready.files[name] for name in PLATFORMS}
    federation = {k: v for k, v in asdict(scenario.federation).items() if v is not None}
    made = Deployment(tmp_path, ready.backbone, files, federation)
    yield made
    made.stop()


def test_three_supernodes_train_it_to_the_adapter_of_the_harness(
    deployment: Deployment, scenario: Scenario, ready: Ready, tmp_path: Path
) -> None:
    deployment.begun()
    deployment.rounds(ROUNDS, 600)
    config = {
        **asdict(scenario.federation),
        "backbone": str(ready.backbone),
        "folder": str(tmp_path / "harness"),
    }
    nodes: dict[str, Config] = {
        name: {"platform": str(path)} for name, path in deployment.platforms.items()
    }
    with one_core_each():
        run_in_process(server_app, client_app, run_config=config, nodes=nodes)
    here, there = Registry(tmp_path / "harness"), deployment.registry
    for number in range(ROUNDS + 1):
        mine, theirs = here.load(number)[0].adapter, there.load(number)[0].adapter
        # To the last bit on some processors; on others a sum depends on where its array begins.
        for name, tensor in mine.tensors.items():
            np.testing.assert_allclose(theirs.tensors[name], tensor, rtol=0, atol=1e-5)
        assert there.load(number)[1].moved
    for version in there.versions():
        there.verify(version.manifest.version)
