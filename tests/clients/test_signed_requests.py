"""A platform that knows the coordinator's key answers nothing else about an Adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from clients import egress
from clients.app import COORDINATOR, app
from clients.daemon import main
from clients.ledger import entries
from server.registry import Registry
from shared import asking, manifest, records, signing, wire
from shared.adapter import Adapter, save_adapter
from shared.backbone import load_backbone, read_slots
from shared.tables.config import load_platform
from shared.tables.policy import Policy
from shared.tasks import next_item
from shared.wire import Refusal
from simulations.harness import Config, run_in_process

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = signing.public_of(KEY)
TRAINING = asking.Training(1, 1, 1, 4, 0.05, "cosine", 0)
PLAN = """
epsilon = 8.0
delta = 1e-4
shoppers_at_least = 8
sampling_rate = 0.5
steps = 2
noise_multiplier = 6.0
"""

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
Make = Callable[..., Path]


def ask(path: Path, kind: str, content: RecordDict, *, coordinator: str | None = PUBLIC) -> Message:
    """What the platform at `path` answers, on a node that knows this key."""
    probe, found = ServerApp(), list[Message]()

    @probe.main()
    def run(grid: Grid, _context: Context) -> None:
        found.extend(grid.send_and_receive([Message(content, 1, kind)]))

    node: Config = {"platform": str(path)}
    if coordinator is not None:
        node[COORDINATOR] = coordinator
    run_in_process(probe, app, run_config={}, nodes={"it": node})
    (reply,) = found
    return reply


@pytest.fixture(scope="module")
def start(backbone: Path) -> Adapter:
    made = load_backbone(backbone)
    return read_slots(made, digest=made.digest, task=next_item.NAME)


def signed(adapter: Adapter, run: str = "run", key: Ed25519PrivateKey = KEY) -> str:
    return signing.sign(key, "model", manifest.statement(adapter, run))


def request(adapter: Adapter, kind: str, signature: str, *, run: str = "run") -> RecordDict:
    training = TRAINING if kind == wire.TRAIN else None
    return asking.request(adapter, training, standing=asking.Standing(run), signature=signature)


def policy_of(path: Path) -> Policy:
    policy = load_platform(path).policy
    assert policy is not None
    return policy


BOTH = pytest.mark.parametrize("kind", [wire.TRAIN, wire.EVALUATE])


@BOTH
def test_what_the_coordinator_signed_is_answered(
    kind: str, make_platform: Make, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    assert not ask(path, kind, request(start, kind, signed(start))).has_error()


@BOTH
def test_a_node_that_knows_no_key_asks_for_no_signature(
    kind: str, make_platform: Make, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path)
    assert not ask(path, kind, request(start, kind, ""), coordinator=None).has_error()


FALSE: dict[str, Callable[[Adapter], str]] = {
    "none": lambda _adapter: "",
    "no signature": lambda _adapter: "signed",
    "of somebody else": lambda adapter: signed(adapter, key=OTHER),
    "of another run": lambda adapter: signed(adapter, "another"),
    "of another version": lambda adapter: signed(replace(adapter, version=7)),
    "of other tensors": lambda adapter: signed(
        adapter.plus({name: it + 1 for name, it in adapter.tensors.items()}, version=0)
    ),
    "of another purpose": lambda adapter: signing.sign(
        KEY, "checkpoint", manifest.statement(adapter, "run")
    ),
}


@BOTH
@pytest.mark.parametrize("how", FALSE)
def test_a_request_without_the_coordinators_signature_fails_and_is_noted_at_home(
    how: str, kind: str, make_platform: Make, start: Adapter, tmp_path: Path
) -> None:
    path = make_platform(tmp_path, privacy=PLAN)
    reply = ask(path, kind, request(start, kind, FALSE[how](start)))
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (
        Refusal.FAILED,
        wire.REFUSALS[Refusal.FAILED],
    )
    (note,) = egress.notes(policy_of(path))
    assert (note["asked"], note["refused"]) == (kind, "failed")
    assert "signature" in note["why"]
    # Before anything of it was used: no budget is reserved for it.
    assert not policy_of(path).ledger.exists() or entries(policy_of(path)) == []


def test_a_signature_that_is_no_text_fails(
    make_platform: Make, start: Adapter, tmp_path: Path
) -> None:
    content = request(start, wire.TRAIN, signed(start))
    content.config_records[records.REQUEST]["signature"] = b"\x00"
    assert ask(make_platform(tmp_path), wire.TRAIN, content).error.code == Refusal.FAILED


@pytest.mark.parametrize("coordinator", ["", "x" * 64, PUBLIC[:-1], signing.public_of(OTHER)])
def test_a_node_with_another_key_or_none_that_is_one_answers_nothing(
    coordinator: str, make_platform: Make, start: Adapter, tmp_path: Path
) -> None:
    content = request(start, wire.TRAIN, signed(start))
    reply = ask(make_platform(tmp_path), wire.TRAIN, content, coordinator=coordinator)
    assert reply.error.code == Refusal.FAILED


def test_who_we_are_is_told_without_a_signature(make_platform: Make, tmp_path: Path) -> None:
    assert not ask(make_platform(tmp_path), wire.HELLO, wire.hello("next-item")).has_error()


def test_a_federation_signs_what_its_platforms_check(
    trio: dict[str, Path], backbone: Path, tmp_path: Path
) -> None:
    from server.app import app as server_app

    key = signing.signing_key(tmp_path / "signing.key")
    config: Config = {"rounds": 2, "batch": 4, "learning_rate": 0.05, "backbone": str(backbone)}
    config |= {"folder": str(tmp_path / "run"), "signing": str(tmp_path / "signing.key")}
    nodes: dict[str, Config] = {
        name: {"platform": str(path), COORDINATOR: signing.public_of(key)}
        for name, path in trio.items()
    }
    run_in_process(server_app, app, run_config=config, nodes=nodes)
    registry = Registry(tmp_path / "run", key)
    for number in (1, 2):
        report = registry.load(number)[1]
        assert (report.replied, report.refused) == (tuple(sorted(trio)), {})
    registry.verify(3)


@pytest.fixture
def shop(make_platform: Make, start: Adapter, tmp_path: Path) -> Path:
    """Its folder holds an adapter, with the coordinator's manifest beside it."""
    path = make_platform(tmp_path)
    save_adapter(start, tmp_path / "a.safetensors")
    told = manifest.Manifest(
        1, start.digest, (), start.backbone, start.task, "run", 0, ("kiosk",), time=1.0
    )
    manifest.write(tmp_path / "a.json", told, manifest.sign(told, KEY))
    return path


def joined(shop: Path, public: str = PUBLIC) -> Path:
    """The coordinator's key in the platform's home, as after joining."""
    home = shop.parent / f"{load_platform(shop).name}.atoll"
    home.mkdir(exist_ok=True)
    (home / "coordinator.pub").write_text(public + "\n")
    return home / "coordinator.pub"


def words(shop: Path, *more: str | Path) -> tuple[str | Path, ...]:
    adapter = shop.parent / "a.safetensors"
    return "recommend", "-p", shop, "--history", "shop-03", "--adapter", adapter, *more


def test_recommend_takes_an_adapter_that_the_coordinator_vouches_for(
    typed: Typed, shop: Path
) -> None:
    assert typed(main, *words(shop))[0] == 0  # no key is known
    joined(shop)
    assert typed(main, *words(shop))[0] == 0
    assert typed(main, *words(shop, "--unsigned"))[0] == 0


def test_recommend_and_compare_refuse_what_another_vouches_for(
    refused: Refused, shop: Path
) -> None:
    joined(shop, signing.public_of(OTHER))
    compare = ("compare", "-p", shop, "--adapter", shop.parent / "a.safetensors")
    for asked in (words(shop), words(shop, "--unsigned"), compare, (*compare, "--unsigned")):
        line = refused(main, *asked)
        assert line.startswith(f"{shop.parent / 'a.json'}: the model signature does not hold")


def test_recommend_refuses_an_adapter_that_the_manifest_is_not_of(
    refused: Refused, shop: Path, start: Adapter
) -> None:
    joined(shop)
    save_adapter(replace(start, version=3), shop.parent / "a.safetensors")
    assert "vouches for adapter" in refused(main, *words(shop))


def test_recommend_takes_an_adapter_without_a_manifest_only_where_told(
    typed: Typed, refused: Refused, shop: Path
) -> None:
    joined(shop)
    (shop.parent / "a.json").unlink()
    assert "has no manifest" in refused(main, *words(shop))
    assert typed(main, *words(shop, "--unsigned"))[0] == 0


def test_recommend_takes_the_coordinators_key_from_the_file_that_is_named(
    typed: Typed, refused: Refused, shop: Path
) -> None:
    key = joined(shop).rename(shop.parent / "other.pub")
    assert typed(main, *words(shop, "--coordinator", key))[0] == 0
    key.write_text(signing.public_of(OTHER))
    assert "does not hold" in refused(main, *words(shop, "--coordinator", key))
    missing = shop.parent / "none.pub"
    assert refused(main, *words(shop, "--coordinator", missing)).startswith(
        f"{missing}: the coordinator's key cannot be read"
    )
