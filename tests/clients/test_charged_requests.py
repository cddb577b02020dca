"""What must hold before a request under a Plan may cost, or repeat, anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from torch import Tensor

from clients.app import SIMULATED, app, randomness
from clients.item_data import ItemData, item_data
from clients.ledger import Asked, entries
from clients.platform import open_platform
from clients.randomness import Randomness, Stream, simulated
from clients.train import charged, update, validation
from shared import asking, wire
from shared.accounting import Charge
from shared.adapter import Adapter
from shared.asking import Standing
from shared.backbone import Backbone, load_backbone, read_slots, save_backbone
from shared.catalogue import Catalogue
from shared.errors import DataError
from shared.pairs import near, save_pairs
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.tasks import co_visitation, next_item
from shared.training import Recipe, Stretch
from shared.update import Receipt
from shared.wire import Refusal
from simulations.harness import Config, run_in_process

Make = Callable[..., Path]
TRAINING = asking.Training(1, 4, 1, 4, 0.05, "cosine", 0)
# A round, a release of metrics and one of sums fit; each has its own noise.
PLAN = """
epsilon = 8.0
delta = 1e-4
shoppers_at_least = 8
sampling_rate = 0.5
steps = 1
noise_multiplier = 6.0
"""
SUMS = '[sums]\npairs = "pairs.safetensors"\nnoise_multiplier = 2.0\n'
ROUND = Charge(6.0, 0.5)  # of this Plan
ITEMS = tuple(f"shop-{place:02}" for place in range(16))
LATER = Receipt(9, "a" * 64)  # of a ledger that has come further than any here


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
    made = load_backbone(learnt)
    return read_slots(made, digest=made.digest, task=next_item.NAME)


@pytest.fixture
def shop(make_platform: Make, learnt: Path, tmp_path: Path) -> Path:
    """Trains, counts and tells noised metrics, all under one Plan."""
    vectors = np.random.default_rng(0).normal(size=(len(ITEMS), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    save_pairs(near(ITEMS, vectors, count=4), tmp_path / "pairs.safetensors")
    path = make_platform(tmp_path, backbone=learnt, privacy=PLAN, more=SUMS, share_metrics=True)
    path.write_text(path.read_text() + "noise_multiplier = 5.0\n")
    return path


def policy_of(path: Path) -> Policy:
    found = load_platform(path).policy
    assert found is not None
    return found


def asked(kind: str, path: Path, start: Adapter, standing: Standing) -> tuple[str, RecordDict]:
    """The request of each kind: train, evaluate, or sums."""
    if kind == "sums":
        start = co_visitation.untrained(open_platform(load_platform(path)).places.pairs)
        training = replace(TRAINING, rounds=1)
        return wire.TRAIN, asking.request(start, training, standing=standing)
    training_or_none = TRAINING if kind == wire.TRAIN else None
    return kind, asking.request(start, training_or_none, standing=standing)


def answer(path: Path, kind: str, content: RecordDict, **config: int) -> Message:
    """What the app of the platform at `path` answers."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def main(grid: Grid, _context: Context) -> None:
        found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path), **config}
    run_in_process(probe, app, run_config={}, nodes={"shop": node})
    (reply,) = found
    return reply


CHARGED = pytest.mark.parametrize("kind", [wire.TRAIN, wire.EVALUATE, "sums"])


@CHARGED
def test_whatever_is_charged_is_answered_from_a_ledger_as_new_as_the_servers_receipt(
    kind: str, shop: Path, start: Adapter
) -> None:
    old = answer(shop, *asked(kind, shop, start, Standing("run", {"shop": LATER})))
    assert (old.has_error(), entries(policy_of(shop))) == (True, [])
    assert old.error.code == Refusal.LEDGER
    other = Standing("run", {"another shop": LATER})
    assert not answer(shop, *asked(kind, shop, start, other)).has_error()


@CHARGED
def test_nothing_is_charged_or_told_of_rows_in_which_one_shopper_displaces_another(
    kind: str, shop: Path, start: Adapter
) -> None:
    request = asked(kind, shop, start, Standing("run"))
    shop.write_text(shop.read_text().replace("[events]", "[events]\nlimit = 8"))
    reply = answer(shop, *request)
    assert reply.has_error()
    assert reply.error.code == Refusal.POLICY
    assert entries(policy_of(shop)) == []


def test_losses_that_mix_shoppers_are_found_before_a_shopper_is_trained_on(
    shop: Path, start: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = next_item.losses

    def mixing(*parts: object, **more: object) -> Tensor:
        losses: Tensor = honest(*parts, **more)  # type: ignore[arg-type]
        return losses * losses.detach().mean()

    monkeypatch.setattr(next_item, "losses", mixing)
    reply = answer(shop, *asked(wire.TRAIN, shop, start, Standing("run")))
    assert reply.has_error()
    assert reply.error.code == Refusal.FAILED
    assert entries(policy_of(shop)) == []


@CHARGED
def test_what_another_data_set_released_is_never_told_again_as_this_ones(
    kind: str, shop: Path, start: Adapter
) -> None:
    request = asked(kind, shop, start, Standing("run"))
    first, again = answer(shop, *request), answer(shop, *request)
    assert first.content == again.content
    assert len(entries(policy_of(shop))) == 2
    shop.write_text(shop.read_text().replace("[privacy]", '[privacy]\ndataset = "other"'))
    other = answer(shop, *request)
    assert other.content != first.content  # counted anew, with noise of its own
    assert [it.dataset for it in entries(policy_of(shop))] == ["shop", "shop", "other", "other"]


def test_a_run_s_configuration_cannot_make_the_noise_predictable(
    shop: Path, start: Adapter
) -> None:
    run_config: Config = {SIMULATED: 7, "platform": "another.toml"}
    context = Context(1, 1, {"platform": str(shop)}, RecordDict(), run_config)
    drawn = randomness(context, wire.TRAIN)
    assert drawn.noise == "secure"
    assert drawn.key != randomness(context, wire.TRAIN).key
    kind, content = asked(wire.TRAIN, shop, start, Standing("run"))
    message = Message(content, 1, kind)
    message.metadata.__dict__["_message_id"] = "1"
    update = wire.read_update(app(message, context).content)
    assert update.noise == "secure"


def test_a_shoppers_rank_under_a_plan_is_computed_without_anybody_elses_rows(
    shop: Path, start: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here arithmetic depends strongly on the shape of a batch, as single precision does weakly."""
    forward = Backbone.forward

    def by_shape(self: Backbone, vectors: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(vectors.shape[0] * 1000 + vectors.shape[1])
        return forward(self, vectors) + 100 * torch.randn(vectors.shape[-1], generator=rng)

    seen: list[NDArray[np.float32]] = []

    def noised(ranks: NDArray[np.float32], **_how: object) -> dict[str, float]:
        seen.append(ranks)
        return dict.fromkeys(wire.METRIC_NAMES, 0.5)

    monkeypatch.setattr(Backbone, "forward", by_shape)
    monkeypatch.setattr("clients.train.noised_metrics", noised)
    table = shop.parent / "interactions.tsv"
    rows = table.read_text()
    moved = start.plus({name: it + 0.01 for name, it in start.tensors.items()}, version=1)
    more = "".join(f"shop-shopper-99\tshop-{place:02}\t{place}\n" for place in range(9))
    for run, content in (("one", rows), ("two", rows + more)):
        table.write_text(content)
        platform = open_platform(load_platform(shop))
        validation(platform, moved, Standing(run), randomness=simulated(0))
    without, with_one_more = seen
    assert len(with_one_more) == len(without) + 1
    assert np.array_equal(with_one_more[: len(without)], without)


@dataclass(frozen=True, repr=False)
class Watched(Randomness):
    """Remembers what it was asked for."""

    drawn: list[tuple[Stream, int]] = field(default_factory=list)

    def words(self, stream: Stream, number: int, count: int) -> NDArray[np.uint64]:
        self.drawn.append((stream, number))
        return super().words(stream, number, count)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_round_takes_the_steps_that_are_charged_however_many_epochs_are_asked_for(
    epochs: int, shop: Path, start: Adapter
) -> None:
    shop.write_text(shop.read_text().replace("steps = 1", "steps = 2"))
    watched = Watched(bytes(32), "simulated")
    update(
        open_platform(load_platform(shop)),
        start,
        replace(TRAINING, epochs=epochs),
        Standing("run"),
        recipe=Recipe(epochs=epochs),
        stretch=Stretch(0, 1),
        rng=np.random.default_rng(0),
        randomness=watched,
    )
    for stream in (Stream.SAMPLE, Stream.NOISE):  # a draw of each for each step, never one twice
        assert [number for which, number in watched.drawn if which == stream] == [0, 1]
    assert entries(policy_of(shop))[-1].charge == Charge(6.0, 0.5, 2)


def test_work_that_failed_once_fails_again_without_touching_a_row(shop: Path) -> None:
    asked_for, worked = Asked("update", "run", 1, "adapter"), []

    def failing() -> bytes:
        worked.append(1)
        raise MemoryError

    def again(work: Callable[[], bytes]) -> None:
        charged(policy_of(shop), asked_for, ROUND, work, noise="secure", receipt=None)

    with pytest.raises(MemoryError):
        again(failing)
    with pytest.raises(DataError, match="this very request failed before"):
        again(failing)
    assert len(worked) == 1
    assert [it.kind for it in entries(policy_of(shop))] == ["reserve", "release"]


def test_a_fault_that_is_no_exception_is_paid_for_too(shop: Path) -> None:
    class Panic(BaseException):
        """As Polars raises one on damaged bytes."""

    def failing() -> bytes:
        raise Panic

    with pytest.raises(Panic):
        charged(
            policy_of(shop),
            Asked("update", "run", 1, "a"),
            ROUND,
            failing,
            noise="secure",
            receipt=None,
        )
    assert [it.kind for it in entries(policy_of(shop))] == ["reserve", "release"]


def test_what_is_released_stands_in_the_ledger_before_work_and_before_it_is_returned(
    shop: Path,
) -> None:
    kinds: list[list[str]] = []

    def work() -> bytes:
        kinds.append([it.kind for it in entries(policy_of(shop))])
        return b"payload"

    asked_for = Asked("update", "run", 1, "adapter")
    payload, receipt = charged(
        policy_of(shop), asked_for, ROUND, work, noise="secure", receipt=None
    )
    last = entries(policy_of(shop))[-1]
    assert (kinds, payload) == ([["reserve"]], b"payload")
    assert (last.kind, receipt) == ("release", Receipt(2, last.hash))


def test_under_a_plan_a_platform_computes_on_no_gpu(
    shop: Path, make_platform: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, cpu = torch.device("cpu", 0), torch.device("cpu")  # "cpu:0" stands for a GPU
    devices: list[torch.device] = []

    def placed(catalogue: Catalogue, *, device: torch.device, **how: Any) -> ItemData:
        devices.append(device)
        return item_data(catalogue, device=device, **how)

    monkeypatch.setattr("clients.platform.pick_device", {"never": cpu, "auto": gpu}.__getitem__)
    monkeypatch.setattr("clients.platform.item_data", placed)
    open_platform(load_platform(shop))
    open_platform(load_platform(make_platform(tmp_path / "open")))
    assert devices == [cpu, gpu]
