"""Sums over the network: what the harness takes, to the last bit, before the first round."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.app import SIMULATED
from clients.app import app as client_app
from clients.daemon import main as client_main
from clients.ledger import entries
from server.app import app as server_app
from server.daemon import main as server_main
from server.registry import Registry
from shared.pairs import near, save_pairs
from shared.tables.config import load_platform
from simulations.deployed import Deployment
from simulations.harness import Config, run_in_process

pytestmark = pytest.mark.e2e

SECTION = "\n[sums]\npairs = {}\nepsilon = 5.0\n[evaluation]"


@pytest.fixture
def listed(deployment: Deployment, tmp_path: Path) -> Path:
    """A list of pairs that the coordinator and every platform name in their files."""
    items = sorted(f"{name}-{place:02}" for name in deployment.platforms for place in range(18))
    vectors = np.random.default_rng(0).normal(size=(len(items), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path = tmp_path / "pairs.safetensors"
    save_pairs(near(items, vectors, count=3), path)
    for file in deployment.platforms.values():
        named = SECTION.format(json.dumps(str(path)))
        file.write_text(file.read_text().replace("\n[evaluation]", named))
    return path


def test_sums_are_taken_before_the_first_round_as_the_harness_takes_them(
    deployment: Deployment,
    listed: Path,
    tmp_path: Path,
    typed: Callable[..., tuple[int, str, str]],
    refused: Callable[..., str],
) -> None:
    deployment.found()
    settings = deployment.home / "server.toml"
    text = settings.read_text().replace('# pairs = "pairs.safetensors"', f'pairs = "{listed}"')
    settings.write_text(text)
    deployment.server().ready()
    for name in deployment.platforms:
        deployment.join(name)
        deployment.client(name)
    deployment.rounds(3)

    there = Registry(deployment.home / "sums")
    assert there.rounds() == [0, 1]
    assert there.load(1)[1].replied == tuple(sorted(deployment.platforms))
    for version in there.versions():
        there.verify(version.manifest.version)
    for file in deployment.platforms.values():
        policy = load_platform(file).policy
        assert policy is not None
        purposes = [entry.asked.purpose for entry in entries(policy) if entry.kind == "release"]
        assert purposes == ["sums", "update", "update", "update"]

    nodes: dict[str, Config] = {}
    for name, path in deployment.platforms.items():
        copy = tmp_path / "same" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text().replace("answer_seconds = 1.0", "answer_seconds = 0.0"))
        nodes[name] = {"platform": str(copy), SIMULATED: deployment.seed or 0}
    config: Config = {
        **deployment.federation,
        "rounds": 1,
        "pairs": str(listed),
        "folder": str(tmp_path / "harness"),
    }
    run_in_process(server_app, client_app, run_config=config, nodes=nodes)
    here = Registry(tmp_path / "harness")
    assert here.load(1)[0].adapter.digest == there.load(1)[0].adapter.digest

    # Handed out, they reach a platform that knows by its Ledger which part of them is its own.
    deployment.stop()
    sums, adapter = tmp_path / "sums.safetensors", tmp_path / "adapter.safetensors"
    export = ("models", "export", "--home", deployment.home, "--out")
    for words in ((*export, sums, "--sums"), (*export, adapter, "3")):
        code, _out, fault = typed(server_main, *words)
        assert code == 0, fault
    name, file = next(iter(deployment.platforms.items()))
    given = ("-p", file, "--sums", sums, "--adapter", adapter)
    code, out, fault = typed(client_main, "compare", *given, "--epochs", "0", "--json")
    assert (code, fault) == (0, "")
    names = [line["name"] for line in json.loads(out)["lines"]]
    assert names == ["prior", "own memory", "and sums", str(adapter)]
    code, out, fault = typed(client_main, "recommend", *given, "--history", f"{name}-03", "--json")
    assert (code, fault) == (0, "")
    assert len(json.loads(out)) == 10
    sums.with_suffix(".json").write_text("{}")
    assert "sums.json" in refused(client_main, "compare", *given)
