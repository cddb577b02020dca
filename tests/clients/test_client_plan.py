"""The ClientApp under a Plan, asked with real Messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from clients.app import SIMULATED, app
from clients.ledger import Ledger, balance, entries
from shared import asking, wire
from shared.accounting import Charge, epsilon
from shared.adapter import Adapter
from shared.backbone import load_backbone, read_slots, save_backbone
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.tasks import next_item
from shared.update import Receipt, norm
from simulations.harness import Config, run_in_process

ROUND = Charge(4.0, 0.5, 2)
DELTA = 1e-4
TWO = round(epsilon([ROUND, ROUND], DELTA) + 0.01, 3)  # a budget for two rounds, not for three
PLAN = f"""
epsilon = {TWO}
delta = {DELTA}
shoppers_at_least = 8
sampling_rate = 0.5
steps = 2
noise_multiplier = 4.0
clip = 0.5
update_norm = 0.05
"""
TRAINING = asking.Training(
    round=1, rounds=4, epochs=1, batch=4, learning_rate=0.05, schedule="cosine", seed=0
)


def ask(path: Path, *questions: tuple[str, RecordDict], seed: int | None = 7) -> list[Message]:
    """What the app of the platform at `path` answers to real Messages; without a seed, securely."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: Context) -> None:
        for kind, content in questions:
            found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path)}
    if seed is not None:
        node[SIMULATED] = seed
    run_in_process(probe, app, run_config={}, nodes={"it": node})
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
    return make_platform(tmp_path, backbone=lit, privacy=PLAN)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


def training(start: Adapter, **keys: Any) -> tuple[str, RecordDict]:
    """A request to train of one run; the keys are those of Training, and receipt."""
    receipt: Receipt | None = keys.pop("receipt", None)
    run: str = keys.pop("run", "run")
    known = {} if receipt is None else {"shop": receipt}
    asked = replace(TRAINING, **keys)
    return wire.TRAIN, asking.request(start, asked, standing=asking.Standing(run, known))


def after(start: Adapter, round_: int) -> Adapter:
    """Another Adapter, as a later round has it."""
    return start.plus({n: it + 0.01 for n, it in start.tensors.items()}, version=round_)


def tensors(reply: Message) -> dict[str, bytes]:
    return {name: it.data for name, it in reply.content.array_records[wire.UPDATE].items()}


def code(reply: Message) -> int:
    """The number of a refusal, which has no body and says nothing of its own."""
    assert reply.has_error()
    assert not reply.has_content()
    assert reply.error.reason == wire.REFUSALS[wire.Refusal(reply.error.code)]
    return int(reply.error.code)


def test_a_round_is_paid_for_before_it_leaves_and_is_bounded(shop: Path, start: Adapter) -> None:
    (reply,) = ask(shop, training(start))
    update, receipt = wire.read_update(reply.content), wire.read_receipt(reply.content)
    assert (update.bound, update.noise, update.base) == (0.05, "simulated", start.digest)
    assert 0 < norm(update.delta) <= 0.05
    assert any(bool(it.any()) for it in update.delta.values())
    reserve, release = entries(policy_of(shop))
    assert (reserve.kind, release.kind) == ("reserve", "release")
    assert reserve.charge == ROUND
    assert (reserve.asked.run, reserve.asked.round) == ("run", 1)
    assert reserve.asked.adapter == start.digest
    assert receipt == Receipt(2, release.hash)
    spent = balance(policy_of(shop))
    assert (spent.spent, spent.reserved) == (epsilon([ROUND], DELTA), 0)


def test_the_same_request_again_is_answered_with_the_same_bytes_at_no_cost(
    shop: Path, start: Adapter
) -> None:
    one, two = ask(shop, training(start), training(start, seed=5))
    (three,) = ask(shop, training(start), seed=8)
    assert tensors(one) == tensors(two) == tensors(three)
    assert one.content == two.content == three.content
    assert len(entries(policy_of(shop))) == 2
    assert balance(policy_of(shop)).releases == 1


def test_an_exhausted_budget_is_answered_with_a_number_and_no_tensor(
    shop: Path, start: Adapter
) -> None:
    adapters = [start, after(start, 1), after(start, 2)]
    asked = [training(it, round=n) for n, it in enumerate(adapters, start=1)]
    first, second, third = ask(shop, *asked)
    assert not first.has_error()
    assert not second.has_error()
    assert code(third) == 101
    assert len(entries(policy_of(shop))) == 4
    (again,) = ask(shop, training(adapters[1], round=2))  # what was paid for is still to be had
    assert tensors(again) == tensors(second)


def test_the_federation_goes_on_without_whom_the_budget_has_left(
    make_platform: Callable[..., Path],
    run_federation: Callable[..., Any],
    lit: Path,
    tmp_path: Path,
) -> None:
    files = {
        name: make_platform(
            tmp_path / name,
            name,
            backbone=lit,
            seed=seed,
            **({"privacy": PLAN} if seed == 1 else {}),
        )
        for seed, name in enumerate(("a", "b", "c"), start=1)
    }
    # Whoever asks here has no simulated noise: the budget is spent for good.
    registry = run_federation(files, tmp_path / "run", backbone=lit, rounds=3)
    members = [registry.load(number)[1] for number in registry.rounds() if number]
    assert len(members) == 3
    assert balance(policy_of(files["a"])).releases == 2
    assert "exhausted" in str(members[-1])
    assert "exhausted" not in str(members[0]) + str(members[1])


@pytest.mark.parametrize(
    "asked",
    [{"clip": 0.51}, {"noise_multiplier": 3.9}, {"steps": 3}, {"clip": -1.0}, {"steps": -1}],
)
def test_a_server_that_asks_for_a_looser_plan_gets_a_number_and_nothing_is_spent(
    shop: Path, start: Adapter, asked: dict[str, Any]
) -> None:
    (reply,) = ask(shop, training(start, **asked))
    assert code(reply) == 102
    assert not policy_of(shop).ledger.exists()


def test_a_server_may_ask_for_less_and_a_round_is_charged_whole(shop: Path, start: Adapter) -> None:
    (reply,) = ask(shop, training(start, clip=0.1, noise_multiplier=6.0, steps=1))
    assert not reply.has_error()
    assert entries(policy_of(shop))[-1].charge == ROUND


def test_a_plan_that_changes_in_mid_run_is_refused_and_the_budget_untouched(
    shop: Path, start: Adapter
) -> None:
    ask(shop, training(start))
    before = entries(policy_of(shop))
    shop.write_text(shop.read_text().replace("clip = 0.5", "clip = 0.4"))
    (edited,) = ask(shop, training(after(start, 1), round=2))
    assert code(edited) == 103
    assert entries(policy_of(shop)) == before
    (next_run,) = ask(shop, training(after(start, 1), run="another"))
    assert not next_run.has_error()


def test_a_ledger_in_use_by_another_is_refused(shop: Path, start: Adapter) -> None:
    with Ledger.open(policy_of(shop), noise="simulated"):
        (reply,) = ask(shop, training(start))
    assert code(reply) == 103
    assert entries(policy_of(shop)) == []


def test_without_a_privacy_section_a_platform_trains_for_nobody(shop: Path, start: Adapter) -> None:
    words = shop.read_text()
    shop.write_text(words[: words.index("[privacy]")] + words[words.index("[evaluation]") :])
    hello, refused = ask(shop, (wire.HELLO, wire.hello("next-item")), training(start))
    assert wire.read_member(hello.content).platform == "shop"
    assert code(refused) == 102


def test_a_copied_back_old_ledger_is_refused(shop: Path, start: Adapter, tmp_path: Path) -> None:
    policy = policy_of(shop)
    ask(shop, training(start))
    olds = [(it, tmp_path / f"old{n}") for n, it in enumerate((policy.ledger, policy.head))]
    for live, old in olds:
        copyfile(live, old)
    (second,) = ask(shop, training(after(start, 1), round=2))
    receipt = wire.read_receipt(second.content)
    for live, old in olds:  # both files: only the server's receipt knows
        copyfile(old, live)
    (reply,) = ask(shop, training(after(start, 2), round=3, receipt=receipt))
    assert code(reply) == 103
    (forgetful,) = ask(shop, training(after(start, 1), round=2, receipt=Receipt(2, "0" * 64)))
    assert code(forgetful) == 103
    assert len(entries(policy)) == 2


def test_simulated_and_secure_noise_never_share_a_ledger(shop: Path, start: Adapter) -> None:
    (simulated,) = ask(shop, training(start))
    assert wire.read_update(simulated.content).noise == "simulated"
    (secure,) = ask(shop, training(after(start, 1), round=2), seed=None)
    assert code(secure) == 103
    assert len(entries(policy_of(shop))) == 2


def test_secure_noise_says_so_and_is_another_on_every_platform_that_is_new(
    make_platform: Callable[..., Path], lit: Path, start: Adapter, tmp_path: Path
) -> None:
    told = []
    for folder in ("one", "two"):
        path = make_platform(tmp_path / folder, backbone=lit, privacy=PLAN)
        (reply,) = ask(path, training(start), seed=None)
        assert wire.read_update(reply.content).noise == "secure"
        told.append(tensors(reply))
    assert told[0] != told[1]
