"""The daemons as they are deployed: real processes, TLS, node keys, approvals. The short run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.registry import Registry
from simulations.deployed import Deployment

FEDERATION = {
    "rounds": 2,
    "quorum": 3,
    "batch": 4,
    "learning_rate": 0.05,
    "timeout": 60.0,
}


@pytest.fixture
def deployment(trio: dict[str, Path], backbone: Path, tmp_path: Path) -> Iterator[Deployment]:
    files = {}
    for name, path in trio.items():
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text(
            path.read_text()
            .replace('"interactions.tsv"', f'"{path.parent}/interactions.tsv"')
            .replace('"items.tsv"', f'"{path.parent}/items.tsv"')
        )
    made = Deployment(tmp_path, backbone, files, FEDERATION)
    yield made
    made.stop()


def test_a_client_without_work_ends_within_seconds_of_being_told_to(
    deployment: Deployment,
) -> None:
    deployment.found()
    deployment.server().ready()  # it waits for two more
    deployment.join("kiosk")
    client = deployment.client("kiosk").ready()
    time.sleep(1.0)  # its question is held by now, for 20 s
    began = time.monotonic()
    assert client.stop() == 0
    assert time.monotonic() - began < 5.0


def test_three_daemons_reach_the_adapter_that_the_harness_reaches(
    deployment: Deployment, run_federation: Callable[..., Registry], tmp_path: Path
) -> None:
    deployment.found()
    server = deployment.server("--once").ready()
    for name in deployment.platforms:
        deployment.join(name)
    clients = [deployment.client(name) for name in deployment.platforms]
    assert server.end(120) == 0, server.log.read_text()
    assert [client.stop() for client in clients] == [0, 0, 0]  # asked to end, they end well
    here = run_federation(deployment.platforms, tmp_path / "harness")
    found = deployment.registry
    assert found.rounds() == here.rounds() == [0, 1, 2]
    for number in found.rounds():
        assert found.load(number)[0].adapter.digest == here.load(number)[0].adapter.digest
