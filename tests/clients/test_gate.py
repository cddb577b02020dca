"""What comes out of a ClientApp when what went into its gate is wrong; and metrics under a Plan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.app import SIMULATED, app, gate
from clients.ledger import balance, entries
from clients.platform import Platform
from shared import asking, wire
from shared.accounting import Charge, epsilon
from shared.adapter import Adapter
from shared.backbone import load_backbone, read_slots, save_backbone
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.tasks import next_item
from shared.update import MAX_NORM, BoundedUpdate
from simulations.harness import Config, run_in_process

METRICS = Charge(5.0)
DELTA = 1e-4
# A budget for metrics twice, and a round beside them.
TWO = round(epsilon([METRICS, METRICS, Charge(6.0, 0.5, 2)], DELTA) + 0.01, 3)
PLAN = f"""
epsilon = {TWO}
delta = {DELTA}
shoppers_at_least = 8
sampling_rate = 0.5
steps = 2
noise_multiplier = 6.0
"""
TRAINING = asking.Training(
    round=1, rounds=4, epochs=1, batch=4, learning_rate=0.05, schedule="cosine", seed=0
)
SECRET = "shop-shopper-03"


def ask(path: Path, *questions: tuple[str, RecordDict], through: ClientApp = app) -> list[Message]:
    """What an app answers to real Messages for the platform at `path`, one after another."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: Context) -> None:
        for kind, content in questions:
            found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), SIMULATED: 7}
    run_in_process(probe, through, run_config={}, nodes={"it": node})
    assert len(found) == len(questions)
    return found


@pytest.fixture(scope="module")
def lit(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone as pretraining leaves it: its gate has something to let in."""
    made = load_backbone(backbone)
    with torch.no_grad():
        made.pretrained.weight.copy_(torch.eye(16, 8))
    path = tmp_path_factory.mktemp("lit") / "backbone.safetensors"
    save_backbone(made, path)
    return path


@pytest.fixture(scope="module")
def start(lit: Path) -> Adapter:
    made = load_backbone(lit)
    slots = read_slots(made, digest=made.digest, task=next_item.NAME)
    return replace(slots, tensors={name: it * 0 for name, it in slots.tensors.items()})


@pytest.fixture
def shop(make_platform: Callable[..., Path], lit: Path, tmp_path: Path) -> Path:
    """Shares noised metrics under a Plan."""
    path = make_platform(tmp_path, backbone=lit, privacy=PLAN, share_metrics=True)
    path.write_text(path.read_text() + "noise_multiplier = 5.0\nreleases = 2\n")
    return path


@pytest.fixture
def plain(make_platform: Callable[..., Path], lit: Path, tmp_path: Path) -> Path:
    """Protects nobody: what it answers is checked all the same."""
    return make_platform(tmp_path, backbone=lit)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


def after(start: Adapter, version: int) -> Adapter:
    return start.plus({n: it + 0.01 for n, it in start.tensors.items()}, version=version)


def evaluating(adapter: Adapter, *, run: str = "run") -> tuple[str, RecordDict]:
    return wire.EVALUATE, asking.request(adapter, standing=asking.Standing(run))


def told(reply: Message) -> dict[str, float]:
    return wire.read_metrics(reply.content)


def answering(content: RecordDict) -> ClientApp:
    """An app whose every answer is this, behind the gate."""
    made = ClientApp(mods=[gate])

    def answer(message: Message, _context: Context) -> Message:
        return Message(content, reply_to=message)

    made.query("hello")(answer)
    made.train()(answer)
    made.evaluate()(answer)
    return made


# Metrics -------------------------------------------------------------------------------------


def test_metrics_under_a_plan_are_noised_and_charged_once_for_a_run_and_adapter(
    shop: Path, start: Adapter, lit: Path
) -> None:
    one, again, other = ask(
        shop, evaluating(start), evaluating(start), evaluating(start, run="another")
    )
    assert told(one) == told(again)
    assert set(told(one)) == {wire.NDCG, wire.HIT_RATE}
    assert not other.has_error()
    written = entries(policy_of(shop))
    assert [entry.charge for entry in written] == [METRICS] * 4
    assert {entry.asked.purpose for entry in written} == {"metrics"}
    assert balance(policy_of(shop)).spent == epsilon([METRICS, METRICS], DELTA)


def test_metrics_that_the_budget_does_not_hold_are_not_told(shop: Path, start: Adapter) -> None:
    *_, third = ask(shop, *(evaluating(after(start, n)) for n in (1, 2, 3)))
    assert third.error.code == 101
    assert len(entries(policy_of(shop))) == 4


def test_noised_metrics_are_not_the_true_ones(
    shop: Path, start: Adapter, make_platform: Callable[..., Path], lit: Path, tmp_path: Path
) -> None:
    true = make_platform(tmp_path / "open", backbone=lit, share_metrics=True)
    (noised,), (bare,) = ask(shop, evaluating(start)), ask(true, evaluating(start))
    assert told(noised) != told(bare)


def test_metrics_are_withheld_by_default_and_cost_nothing(
    make_platform: Callable[..., Path], lit: Path, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, backbone=lit, privacy=PLAN)
    (reply,) = ask(path, evaluating(start))
    assert told(reply) == {}
    assert not policy_of(path).ledger.exists()


# Failures ------------------------------------------------------------------------------------


def test_what_an_exception_holds_does_not_reach_the_reply(
    plain: Path, start: Adapter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_platform: Platform, *_rest: object, **_how: object) -> None:
        raise KeyError(f"no vector for {SECRET}")

    monkeypatch.setattr("clients.app.update", failing)
    with caplog.at_level(logging.CRITICAL):
        (reply,) = ask(plain, (wire.TRAIN, asking.request(start, TRAINING)))
    assert (reply.error.code, reply.error.reason) == (2, "the platform could not answer")
    assert SECRET not in repr(vars(reply))


def test_training_that_fails_keeps_its_charge_and_fails_again_without_another(
    shop: Path, start: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_parts: object, **_how: object) -> Adapter:
        raise MemoryError(SECRET)

    asked = (wire.TRAIN, asking.request(start, TRAINING))
    with monkeypatch.context() as broken:
        broken.setattr("clients.train.train", failing)
        (failed,) = ask(shop, asked)
    assert failed.error.code == 2
    # Rows were touched: that it failed is an answer, and must not be had again for nothing.
    assert [entry.kind for entry in entries(policy_of(shop))] == ["reserve", "release"]
    (again,) = ask(shop, asked)
    assert again.error.code == 2
    assert balance(policy_of(shop)).releases == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.5e3, 3e38])
@pytest.mark.parametrize("kind", [wire.TRAIN, wire.EVALUATE])
def test_an_adapter_that_could_overflow_is_refused_before_a_row_is_touched(
    shop: Path, start: Adapter, kind: str, value: float
) -> None:
    tensors = {name: it.copy() for name, it in start.tensors.items()}
    next(iter(tensors.values())).flat[0] = value
    hostile = replace(start, tensors=tensors)
    training = TRAINING if kind == wire.TRAIN else None
    (reply,) = ask(shop, (kind, asking.request(hostile, training)))
    assert reply.error.code == 2
    assert entries(policy_of(shop)) == []


def test_a_reply_says_it_was_made_when_it_left(
    shop: Path, start: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("clients.app.egress.wait", lambda _elapsed, _step: 0.25)
    monkeypatch.setattr("clients.app.time.sleep", lambda _s: waited.append(time.time()))
    (reply,) = ask(shop, (wire.TRAIN, asking.request(start, TRAINING)))
    assert waited
    assert reply.metadata.created_at >= waited[-1]


@pytest.mark.parametrize("asked", [{"noise_multiplier": 1e300}, {"clip": 1e-320}])
def test_a_plan_tightened_beyond_all_numbers_is_refused_by_policy(
    shop: Path, start: Adapter, asked: dict[str, float]
) -> None:
    training = replace(TRAINING, **asked)  # type: ignore[arg-type]
    (reply,) = ask(shop, (wire.TRAIN, asking.request(start, training)))
    assert reply.error.code == 102
    assert balance(policy_of(shop)).spent == 0


# An app that is not honest -------------------------------------------------------------------


def update(start: Adapter, **keys: object) -> RecordDict:
    delta = {name: np.zeros_like(it) for name, it in start.tensors.items()}
    made = BoundedUpdate(delta, base=start.digest, weight=1.0, bound=MAX_NORM, noise="none")
    return wire.update_reply(replace(made, **keys))  # type: ignore[arg-type]


def test_an_answer_s_own_records_and_metadata_stay_at_home(plain: Path, start: Adapter) -> None:
    content = update(start)
    content["debug"] = ConfigRecord({"who": SECRET})
    content["losses"] = MetricRecord({"loss": 1.5, "num-examples": 10})
    question = (wire.TRAIN, asking.request(start, TRAINING))
    (reply,) = ask(plain, question, through=answering(content))
    assert reply.content == update(start)


def test_a_text_that_only_the_platform_knows_cannot_pass_in_a_field_of_text(
    plain: Path, start: Adapter
) -> None:
    member = wire.Member("shop", 1.0, start.backbone, start.task)
    asked = (wire.TRAIN, asking.request(start, TRAINING))
    hello = (wire.HELLO, wire.hello("next-item"))
    named = {SECRET: np.zeros(1, np.float32)}
    spoilt = {
        "task": (hello, wire.hello_reply(replace(member, task=SECRET))),
        "backbone": (hello, wire.hello_reply(replace(member, backbone=SECRET))),
        "base": (asked, update(start, base=SECRET)),
        "a tensor's name": (asked, update(start, delta=named)),
    }
    passed = []
    for field, (question, content) in spoilt.items():
        (reply,) = ask(plain, question, through=answering(content))
        if not reply.has_error() and SECRET in repr(dict(reply.content.items())):
            passed.append(field)
    assert passed == []


def test_an_answer_that_is_an_error_with_words_leaves_without_them(
    plain: Path, start: Adapter
) -> None:
    from flwr.app import Error

    wordy = ClientApp(mods=[gate])

    @wordy.train()
    def fit(message: Message, _context: Context) -> Message:
        return Message(Error(9, SECRET), reply_to=message)

    (reply,) = ask(plain, (wire.TRAIN, asking.request(start, TRAINING)), through=wordy)
    assert (reply.error.code, reply.error.reason) == (2, "the platform could not answer")
