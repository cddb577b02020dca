from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from clients.app import SIMULATED, app, resident
from clients.ledger import balance, entries
from server.registry import Registry
from shared import asking, records, wire
from shared.adapter import Adapter
from shared.asking import Standing
from shared.backbone import load_backbone, read_slots, save_backbone
from shared.records import Content
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.update import Receipt, check_update, norm
from shared.wire import Refusal
from simulations.harness import Config, run_in_process

TRAINING = asking.Training(1, 4, 1, 4, 0.05, "cosine", 0)
# One round costs ε = 0.38, two 0.73, three 1.04: two fit.
PLAN = """
epsilon = 0.9
shoppers_at_least = 10
sampling_rate = 0.5
steps = 2
noise_multiplier = 1.5
update_norm = 0.25
"""
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def learnt(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone whose gate has something to let in, as after pretraining."""
    path = tmp_path_factory.mktemp("learnt") / "backbone.safetensors"
    made = load_backbone(backbone)
    with torch.no_grad():
        made.pretrained.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    save_backbone(made, path)
    return path


@pytest.fixture(scope="module")
def start(learnt: Path) -> Adapter:
    backbone = load_backbone(learnt)
    return read_slots(backbone, digest=backbone.digest, task="next-item")


@pytest.fixture
def protected(make_platform: Make, learnt: Path, tmp_path: Path) -> Path:
    return make_platform(tmp_path / "shop", backbone=learnt, privacy=PLAN)


def policy(path: Path) -> Policy:
    found = load_platform(path).policy
    assert found is not None
    return found


def ask(path: Path, kind: str, *contents: Content, **config: int) -> list[Message]:
    """What the app of the platform at `path` answers, one request after another."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: object) -> None:
        for content in contents:
            found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), **config}
    run_in_process(probe, app, run_config={}, nodes={"it": node})
    assert len(found) == len(contents)
    return found


def round_(start: Adapter, number: int, standing: Standing | None = None) -> Content:
    return asking.request(start, replace(TRAINING, round=number), standing=standing)


def refusals(replies: list[Message]) -> list[int | None]:
    """The number of each refusal, of which no word is the platform's own."""
    for reply in replies:
        if reply.has_error():
            assert reply.error.reason == wire.REFUSALS[Refusal(reply.error.code)]
    return [reply.error.code if reply.has_error() else None for reply in replies]


def test_an_update_under_a_plan_has_its_bound_its_noise_and_a_receipt(
    protected: Path, start: Adapter
) -> None:
    (reply,) = ask(protected, wire.TRAIN, round_(start, 1))
    assert sorted(reply.content) == [records.REQUEST, wire.UPDATE]
    fields = dict(reply.content.config_records[records.REQUEST])
    head = entries(policy(protected))[-1].hash
    assert fields == {
        "base": start.digest,
        "weight": 1.0,
        "bound": 0.25,
        "noise": "secure",
        "receipt": f"2 {head}",
    }
    update = wire.read_update(reply.content)
    check_update(update, start)
    assert 0 < norm(update.delta) <= 0.25


def test_noise_is_repeatable_only_if_the_node_itself_says_to_simulate(
    make_platform: Make, learnt: Path, start: Adapter, tmp_path: Path
) -> None:
    def moved(folder: str, **config: int) -> tuple[str, list[float]]:
        path = make_platform(tmp_path / folder, backbone=learnt, privacy=PLAN)
        (reply,) = ask(path, wire.TRAIN, round_(start, 1), **config)
        update = wire.read_update(reply.content)
        return update.noise, np.concatenate([it.ravel() for it in update.delta.values()]).tolist()

    one, again, other = (moved(it, **{SIMULATED: int(it[-1])}) for it in ("a0", "b0", "c1"))
    assert one == again
    assert one[0] == other[0] == "simulated"
    assert one[1] != other[1]
    secure, twice = moved("d"), moved("e")
    assert secure[0] == twice[0] == "secure"
    assert secure[1] != twice[1]


def test_a_budget_ends_with_a_refusal_and_no_request_makes_it_larger(
    protected: Path, start: Adapter
) -> None:
    replies = ask(protected, wire.TRAIN, *(round_(start, number) for number in (1, 2, 3, 4)))
    assert refusals(replies) == [None, None, Refusal.EXHAUSTED, Refusal.EXHAUSTED]
    assert balance(policy(protected)).spent <= 0.9
    other = ask(protected, wire.TRAIN, round_(start, 1, Standing("another run")))
    assert refusals(other) == [Refusal.EXHAUSTED]


def test_a_request_that_comes_again_is_answered_again_at_no_cost(
    protected: Path, start: Adapter
) -> None:
    first, again = ask(protected, wire.TRAIN, round_(start, 1), round_(start, 1))
    one, two = wire.read_update(first.content), wire.read_update(again.content)
    assert all(np.array_equal(one.delta[name], two.delta[name]) for name in start.tensors)
    assert wire.read_receipt(first.content) == wire.read_receipt(again.content)
    assert balance(policy(protected)).releases == 1


@pytest.mark.parametrize("looser", [{"clip": 1.1}, {"noise_multiplier": 1.4}, {"steps": 3}])
def test_nobody_can_loosen_a_plan_from_outside(
    looser: dict[str, float], protected: Path, start: Adapter
) -> None:
    asked = asking.request(start, replace(TRAINING, **looser))  # type: ignore[arg-type]
    assert refusals(ask(protected, wire.TRAIN, asked)) == [Refusal.POLICY]
    assert entries(policy(protected)) == []
    (tighter,) = ask(
        protected,
        wire.TRAIN,
        asking.request(start, replace(TRAINING, clip=0.5, noise_multiplier=2.0, steps=1)),
    )
    assert not tighter.has_error()
    charge = entries(policy(protected))[-1].charge  # a whole round, whatever was asked
    assert (charge.noise_multiplier, charge.sampling_rate, charge.steps) == (1.5, 0.5, 2)


def test_a_ledger_that_is_damaged_or_set_back_answers_with_its_number(
    protected: Path, start: Adapter
) -> None:
    known = Standing("-", {"shop": Receipt(9, "a" * 64), "other": Receipt(99, "b" * 64)})
    assert refusals(ask(protected, wire.TRAIN, round_(start, 1, known))) == [Refusal.LEDGER]
    assert refusals(ask(protected, wire.TRAIN, round_(start, 1))) == [None]
    policy(protected).ledger.write_bytes(b"nothing that was ever a ledger")
    assert refusals(ask(protected, wire.TRAIN, round_(start, 2))) == [Refusal.LEDGER]


def test_a_platform_whose_file_says_nothing_of_privacy_trains_for_nobody(
    make_platform: Make, learnt: Path, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, backbone=learnt, share_metrics=True)
    text = path.read_text()
    path.write_text(text.replace("[privacy]\nanswer_seconds = 0.0\nunprotected = true\n", ""))
    assert path.read_text() != text
    assert refusals(ask(path, wire.TRAIN, round_(start, 1))) == [Refusal.POLICY]
    (reply,) = ask(path, wire.EVALUATE, asking.request(start))
    assert reply.has_error()
    (hello,) = ask(path, wire.HELLO, wire.hello("next-item"))
    assert wire.read_member(hello.content).platform == "shop"


def test_metrics_under_a_plan_are_noised_charged_and_end_with_the_budget(
    make_platform: Make, learnt: Path, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, backbone=learnt, privacy=PLAN, share_metrics=True)
    path.write_text(path.read_text() + "noise_multiplier = 5.0\nreleases = 3\n")
    moved = [replace(start, version=number) for number in range(6)]
    replies = ask(path, wire.EVALUATE, *(asking.request(it) for it in moved))
    told = [wire.read_metrics(it.content) for it in replies if not it.has_error()]
    assert all(sorted(it) == sorted(wire.METRIC_NAMES) for it in told)
    assert all(0 <= value <= 1 for it in told for value in it.values())
    assert refusals(replies) == [None] * len(told) + [Refusal.EXHAUSTED] * (6 - len(told))
    assert len(told) == 3
    assert balance(policy(path)).releases == len(told)
    assert len({it[wire.NDCG] for it in told}) > 1  # the same Adapter's tensors, and other noise


@pytest.mark.parametrize("kind", [wire.HELLO, wire.TRAIN, wire.EVALUATE])
def test_answers_leave_at_whole_multiples_of_the_policys_step(
    kind: str, make_platform: Make, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    path.write_text(path.read_text().replace("answer_seconds = 0.0", "answer_seconds = 0.2"))
    ask(path, kind, RecordDict())  # opened now
    began = time.monotonic()
    ask(path, kind, RecordDict())  # to train on nothing is refused, and no sooner
    assert time.monotonic() - began >= 0.2


def test_a_federation_goes_on_when_a_platforms_budget_is_exhausted(
    run_federation: Callable[..., Registry],
    make_platform: Make,
    learnt: Path,
    protected: Path,
    tmp_path: Path,
) -> None:
    files = {"shop": protected}
    for seed, name in enumerate(("open", "wide"), start=1):
        files[name] = make_platform(tmp_path / name, name, seed=seed, backbone=learnt)
    registry = run_federation(files, tmp_path / "run", backbone=learnt, rounds=3)
    reports = [registry.load(number)[1] for number in (1, 2, 3)]
    assert [list(it.refused) for it in reports] == [[], [], ["shop"]]
    assert "budget is exhausted" in reports[2].refused["shop"]
    assert all(it.moved for it in reports)
    assert [it.noise.get("shop") for it in reports] == ["secure", "secure", None]
    assert reports[2].noise == {"open": "none", "wide": "none"}
    last = entries(policy(protected))[-1]
    assert registry.standing().receipts == {"shop": Receipt(last.number, last.hash)}


def test_whoever_is_erased_from_a_table_is_absent_from_the_next_round(protected: Path) -> None:
    path = str(protected)
    node = {"platform": path}
    context = Context(1, 1, dict(node), RecordDict(), {})
    before = resident(context).rows.histories.shoppers
    table = protected.parent / "interactions.tsv"
    kept = [line for line in table.read_text().splitlines() if not line.startswith(before[0])]
    table.write_text("\n".join(kept) + "\n")
    assert resident(context).rows.histories.shoppers == before[1:]
