from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server.app import GridNodes
from server.registry import Registry
from shared import records, wire
from shared.backbone import load_backbone
from shared.errors import AtollError, ReplyError, RoundError
from simulations.harness import Fault, run_in_process

Run = Callable[..., Registry]


def digests(registry: Registry) -> list[str]:
    return [registry.load(number)[0].adapter.digest for number in registry.rounds()]


def test_a_federation_starts_from_the_untrained_state_and_records_each_round(
    run_federation: Run, trio: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    registry = run_federation(trio, tmp_path)
    states = [registry.load(number) for number in registry.rounds()]
    assert [report.round for _, report in states] == [0, 1, 2]
    untrained = states[0][0].adapter
    assert untrained.backbone == load_backbone(backbone).digest
    assert all((tensor == 0).all() for tensor in untrained.tensors.values())
    assert len(set(digests(registry))) == 3  # it moved in every round
    assert list(states[1][1].replied) == ["atelier", "harbour", "kiosk"]


def test_recorded_rounds_are_not_overwritten_unless_they_are_resumed(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    before = digests(run_federation(trio, tmp_path, rounds=1))
    with pytest.raises(RoundError, match="--resume") as caught:
        run_federation(trio, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert digests(Registry(tmp_path)) == before


@pytest.mark.parametrize("algorithm", ["fedavg", "fedadam"])
def test_resuming_gives_the_adapter_of_an_uninterrupted_run(
    algorithm: str, run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"rounds": 4, "algorithm": algorithm, "server_learning_rate": 0.1}
    whole = run_federation(trio, tmp_path / "whole", **keys)
    # A run that was killed in round 3 has rounds 0 to 2 on disk, and part of a third.
    for name in ("0000", "0001", "0002"):
        shutil.copytree(whole.folder / name, tmp_path / "cut" / "rounds" / name)
    (tmp_path / "cut" / "rounds" / ".0003.deadbeef").mkdir()
    resumed = run_federation(trio, tmp_path / "cut", resume=True, **keys)
    assert digests(resumed) == digests(whole)
    assert resumed.load(4)[0].moments.keys() == whole.load(4)[0].moments.keys()


def test_resuming_an_empty_folder_starts_one(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    assert run_federation(trio, tmp_path, rounds=1, resume=True).rounds() == [0, 1]


def test_rounds_of_another_backbone_are_not_gone_on_from(
    run_federation: Run,
    trio: dict[str, Path],
    make_backbone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    run_federation(trio, tmp_path, rounds=1)
    other = make_backbone(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(RoundError, match=r"belong to \w{12}…; use that backbone"):
        run_federation(trio, tmp_path, backbone=other, resume=True)


def test_rounds_of_another_algorithm_are_not_gone_on_from(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    run_federation(trio, tmp_path, rounds=1, algorithm="fedavg")
    with pytest.raises(RoundError, match="algorithm"):
        run_federation(trio, tmp_path, rounds=2, algorithm="fedadam", resume=True)


def test_two_federations_are_not_mixed_by_resuming(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    run_federation(trio, tmp_path, rounds=1, seed=0)
    with pytest.raises(RoundError, match="rounds recorded have seed = 0, not 7"):
        run_federation(trio, tmp_path, rounds=2, seed=7, resume=True)


@pytest.mark.parametrize("file", ["adapter.safetensors", "moments.safetensors"])
def test_a_damaged_last_round_says_how_to_go_on_and_then_one_can(
    file: str, run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    registry = run_federation(trio, tmp_path)
    last, before = registry.folder / "0002", digests(registry)
    (last / file).write_bytes(b"\x00\x01")
    with pytest.raises(AtollError, match="delete this folder; --resume then goes on"):
        run_federation(trio, tmp_path, resume=True)
    shutil.rmtree(last)
    assert digests(run_federation(trio, tmp_path, resume=True)) == before


def test_a_platform_whose_backbone_is_another_stays_out_and_the_rest_go_on(
    run_federation: Run,
    make_platform: Callable[..., Path],
    make_backbone: Callable[..., Path],
    trio: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = make_backbone(tmp_path / "other.safetensors", seed=1)
    files = {**trio, "island": make_platform(tmp_path / "i", "island", backbone=other)}
    _, report = run_federation(files, tmp_path, rounds=1).load(1)
    assert list(report.replied) == ["atelier", "harbour", "kiosk"]
    assert (list(report.missing), report.refused) == ([], {})
    assert "cannot take part: has backbone" in caplog.text


def test_a_run_without_enough_updates_stops_and_what_it_had_stays(
    run_federation: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    faults = [Fault(name, round_, "drop") for name in trio for round_ in (2, 3)]
    with pytest.raises(RoundError, match="round 3: 2 rounds in a row had fewer than 2 updates"):
        run_federation(trio, tmp_path, rounds=9, patience=2, faults=faults)
    found = digests(Registry(tmp_path))
    assert len(found) == 4
    assert found[1] == found[2] == found[3] != found[0]
    # The platforms come back, and the run goes on with round 4.
    resumed = run_federation(trio, tmp_path, rounds=4, resume=True)
    assert digests(resumed)[4] != found[3]


def test_a_platforms_own_words_do_not_reach_the_server(tmp_path: Path) -> None:
    far = ClientApp()

    @far.query("hello")
    def hello(message: Message, context: Context) -> Message:
        raise ReplyError("shopper-07 bought a lamp", todo="tell nobody")

    near, found = ServerApp(), list[tuple[int, records.Content | ReplyError]]()

    @near.main()
    def main(grid: Grid, _context: Context) -> None:
        nodes = GridNodes(grid)
        asked = nodes.ask(
            wire.HELLO, wire.hello("next-item"), nodes.present(), round_=0, timeout=5.0
        )
        found.extend(it for it in asked if it is not None)

    run_in_process(near, far, run_config={}, nodes={"a": {}})
    ((node, reply),) = found
    assert node == 1
    assert isinstance(reply, ReplyError)
    assert str(reply) == "the platform could not answer; look at the platform's log"
