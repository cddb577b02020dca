from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from clients.app import SIMULATED, app
from clients.egress import notes
from clients.permit import permitted
from clients.platform import open_platform
from shared import asking, wire
from shared.adapter import Adapter
from shared.asking import Training
from shared.backbone import load_backbone, read_slots
from shared.errors import HoursError, PlanError
from shared.tables.config import EventTable, ItemTable, PlatformConfig, load_platform
from shared.tables.participation import Hours, Participation
from shared.tables.policy import Policy
from shared.tasks import next_item
from shared.wire import Refusal
from simulations.harness import Config, run_in_process

HERE = Path("/shop")
OPEN = Policy(None, "shop", HERE / "shop.ledger", HERE / "shop.head", HERE / "shop.key")
NOON = datetime(2026, 6, 3, 12, tzinfo=UTC)  # a Wednesday
NIGHT = Participation(hours=(Hours(22 * 60, 6 * 60),), timezone="UTC")
TRAINING = Training(
    round=1,
    rounds=4,
    epochs=1,
    batch=4,
    learning_rate=0.05,
    schedule="cosine",
    seed=0,
    cohort=2,
)
PLAN = """
epsilon = 4.0
delta = 1e-4
shoppers_at_least = 8
sampling_rate = 0.5
steps = 2
noise_multiplier = 4.0
"""


def config(participation: Participation, **keys: Any) -> PlatformConfig:
    plain = PlatformConfig(
        name="shop",
        weight=1.0,
        events=EventTable(HERE / "e.csv", "csv", {}),
        items=ItemTable(HERE / "i.csv", "csv", {}),
        policy=OPEN,
        participation=participation,
    )
    return replace(plain, **keys)


def check(
    config: PlatformConfig,
    *,
    kind: str = wire.TRAIN,
    task: str = next_item.NAME,
    now: datetime = NOON,
    **asked: Any,
) -> None:
    training = replace(TRAINING, **asked) if kind == wire.TRAIN else None
    permitted(config, kind, training, task=task, now=now)


def test_a_platform_that_chose_nothing_works_at_any_hour() -> None:
    for kind in (wire.HELLO, wire.TRAIN, wire.EVALUATE):
        check(config(Participation(), share_metrics=True), kind=kind, cohort=0)


def test_outside_its_hours_a_platform_does_not_train() -> None:
    check(config(NIGHT), now=NOON + timedelta(hours=10))
    with pytest.raises(HoursError, match="shop: is asked at 12:00 UTC, outside its hours"):
        check(config(NIGHT))
    with pytest.raises(HoursError):
        check(
            config(replace(NIGHT, days=("wed",))), now=NOON + timedelta(hours=34)
        )  # Thursday 22:00
    check(config(replace(NIGHT, days=("wed",))), now=NOON + timedelta(hours=17))  # Thursday 05:00


def test_metrics_are_worked_out_in_its_hours_only_and_withheld_at_any() -> None:
    with pytest.raises(HoursError):
        check(config(NIGHT, share_metrics=True), kind=wire.EVALUATE)
    check(config(NIGHT), kind=wire.EVALUATE)
    check(config(NIGHT, share_metrics=True), kind=wire.HELLO)


def test_a_platform_trains_for_the_tasks_it_names_only() -> None:
    others = Participation(tasks=("next-basket",))
    with pytest.raises(PlanError, match="asked for task 'next-item', its file names next-basket"):
        check(config(others))
    with pytest.raises(PlanError, match="task"):
        check(config(others, share_metrics=True), kind=wire.EVALUATE)


@pytest.mark.parametrize(("cohort", "fits"), [(-1, False), (0, False), (2, False), (3, True)])
def test_a_round_of_too_few_platforms_is_refused(cohort: int, fits: bool) -> None:
    three = config(Participation(minimum_cohort=3))
    if fits:
        check(three, cohort=cohort)
    else:
        with pytest.raises(PlanError, match="its file wants 3"):
            check(three, cohort=cohort)


@pytest.mark.parametrize(("name", "most"), [("epochs", 3), ("batch", 64)])
def test_a_round_without_a_plan_is_no_longer_than_the_file_admits(name: str, most: int) -> None:
    short = config(Participation(max_epochs=3, max_batch=64))
    within: dict[str, Any] = {name: most}
    beyond: dict[str, Any] = {name: most + 1}
    check(short, **within)
    with pytest.raises(PlanError, match=f"asked for {name} {most + 1}, its file admits {most}"):
        check(short, **beyond)


def test_a_platform_that_wants_a_gpu_does_not_train_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    always = config(Participation(gpu="always"), share_metrics=True)
    with pytest.raises(PlanError, match="on a GPU only, and there is none"):
        check(always)
    check(always, kind=wire.EVALUATE)
    check(config(Participation(gpu="never")))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check(always)


# With the deployed app -------------------------------------------------------------------------


def asked(path: Path, kind: str, content: RecordDict) -> Message:
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: Context) -> None:
        found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), SIMULATED: 7}
    run_in_process(probe, app, run_config={}, nodes={"it": node})
    (reply,) = found
    return reply


@pytest.fixture(scope="module")
def start(backbone: Path) -> Adapter:
    made = load_backbone(backbone)
    slots = read_slots(made, digest=made.digest, task=next_item.NAME)
    return replace(slots, tensors={name: it * 0 for name, it in slots.tensors.items()})


def later() -> str:
    """Hours that begin in two, and end in three."""
    now = datetime.now(UTC)
    clock = [f"{now + timedelta(hours=hours):%H:%M}" for hours in (2, 3)]
    return f'[participation]\ntimezone = "UTC"\nhours = ["{"-".join(clock)}"]\n'


def test_a_request_at_another_hour_gets_a_number_and_neither_rows_nor_ledger_are_touched(
    make_platform: Callable[..., Path], tmp_path: Path, start: Adapter
) -> None:
    path = make_platform(tmp_path, privacy=PLAN, more=later())
    (tmp_path / "interactions.tsv").unlink()  # whoever opened it would fail, with another number
    reply = asked(path, wire.TRAIN, asking.request(start, TRAINING))
    assert reply.error.code == Refusal.NOT_NOW
    assert reply.error.reason == "the platform does not train at this hour"
    policy = load_platform(path).policy
    assert policy is not None
    assert not policy.ledger.exists()
    (note,) = notes(policy)
    assert (note["asked"], note["refused"]) == ("train", "not_now")
    assert "outside its hours" in note["why"]


@pytest.mark.parametrize(
    ("more", "asks"),
    [
        ("minimum_cohort = 3", {}),
        ("minimum_cohort = 2", {"cohort": 0}),
        ("max_epochs = 2", {"epochs": 3}),
        ("max_batch = 3", {}),
    ],
)
def test_what_the_file_does_not_admit_is_refused_by_the_number_of_a_policy(
    more: str,
    asks: dict[str, Any],
    make_platform: Callable[..., Path],
    tmp_path: Path,
    start: Adapter,
) -> None:
    path = make_platform(tmp_path, more=f"[participation]\n{more}\n")
    reply = asked(path, wire.TRAIN, asking.request(start, replace(TRAINING, **asks)))
    assert reply.error.code == Refusal.POLICY


def test_a_platform_that_withholds_its_metrics_says_so_at_any_hour(
    make_platform: Callable[..., Path], tmp_path: Path, start: Adapter
) -> None:
    path = make_platform(tmp_path, more=later())
    hello = asked(path, wire.HELLO, wire.hello("next-item"))
    assert wire.read_member(hello.content).platform == "shop"
    assert wire.read_metrics(asked(path, wire.EVALUATE, asking.request(start)).content) == {}


def test_within_its_hours_and_cohort_a_platform_trains_as_ever(
    make_platform: Callable[..., Path], tmp_path: Path, start: Adapter
) -> None:
    more = '[participation]\nhours = ["00:00-24:00"]\nminimum_cohort = 2\ngpu = "never"\n'
    path = make_platform(tmp_path, more=more)
    reply = asked(path, wire.TRAIN, asking.request(start, TRAINING))
    assert wire.read_update(reply.content).base == start.digest
    assert open_platform(load_platform(path)).table.device.type == "cpu"
