"""The ClientApp: what a platform answers. Rows are read here and go no further.

    query.hello  → who we are (public)
    train        → an Update of the Adapter that came
    evaluate     → validation metrics of it, if this platform shares them

The platform's own file is named by `platform` in Flower's node configuration; nothing the server
sends can name another. The same object is deployed on a SuperNode and driven by the harness.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.platform import Platform, open_platform
from shared import metrics, wire
from shared.adapter import Adapter
from shared.errors import AdapterError, AtollError, ConfigError, ReplyError
from shared.tables.config import load_platform
from shared.tasks import next_item
from shared.training import Recipe, Stretch, train
from shared.update import Update
from shared.wire import SAME_VERSION

log = logging.getLogger("atoll.client")
FAILED = 2  # Flower's error code for an exception in a ClientApp


def coarse(
    message: Message, context: Context, answer: Callable[[Message, Context], Message]
) -> Message:
    """A failure leaves as a code alone; Flower would send the exception's words, paths and all."""
    try:
        return answer(message, context)
    except Exception as fault:
        ours = isinstance(fault, AtollError)
        log.warning("%s: %s", context.node_config.get("platform"), fault, exc_info=not ours)
        return Message(Error(FAILED, "the platform could not answer"), reply_to=message)


app = ClientApp(mods=[coarse])

# A process serves few platforms and many messages; rows and item vectors are read once, and again
# when the platform's file is written anew.
_open: dict[Path, tuple[int, Platform]] = {}
_opening = threading.Lock()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say who we are."""
    platform = resident(context)
    member = wire.Member(
        platform=platform.config.name,
        weight=platform.config.weight,
        backbone=platform.digest,
        task=next_item.NAME,
    )
    return Message(wire.hello_reply(member), reply_to=message)


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on our rows from the Adapter that came; answer with how far it moved."""
    platform = resident(context)
    start, asked = wire.read_request(message.content)
    check_fit(start, platform)
    if asked is None:
        raise ReplyError("asked to train without saying how", todo="run the same version")
    recipe, stretch = how(asked)
    after = train(
        platform.backbone,
        start,
        [platform.training],
        recipe,
        rng=shuffle(asked.seed, asked.round, platform.config.name),
        stretch=stretch,
    )
    update = Update(after.minus(start), base=start.digest, weight=platform.config.weight)
    return Message(wire.update_reply(update), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validation metrics of the Adapter that came, or nothing unless the platform shares them."""
    platform = resident(context)
    adapter, _asked = wire.read_request(message.content)
    check_fit(adapter, platform)
    shared: dict[str, float] = {}
    if platform.config.share_metrics:
        ranks = platform.rank(adapter, "validation").ranks
        shared = {
            wire.NDCG: float(metrics.ndcg(ranks).mean()),
            wire.HIT_RATE: float(metrics.hit_rate(ranks).mean()),
        }
    return Message(wire.metrics_reply(shared), reply_to=message)


def resident(context: Context) -> Platform:
    """The platform of this node, opened on its first message.

    Raises:
        ConfigError: the node configuration names no platform file.
    """
    named = context.node_config.get("platform")
    if not isinstance(named, str):
        raise ConfigError(
            "the node configuration names no platform",
            todo="start the node with platform=PATH of the platform's TOML file",
        )
    path = Path(named).resolve()
    with _opening:
        config = load_platform(path)
        written = path.stat().st_mtime_ns
        if path not in _open or _open[path][0] != written:
            _open[path] = (written, open_platform(config))
        return _open[path][1]


def check_fit(adapter: Adapter, platform: Platform) -> None:
    """Refuse an Adapter of another backbone or task.

    Raises:
        AdapterError: it names another.
    """
    if (adapter.backbone, adapter.task) != (platform.digest, next_item.NAME):
        raise AdapterError(
            f"adapter is for backbone {adapter.backbone[:12]}… and task {adapter.task!r}",
            todo="install this federation's backbone",
        )


def how(asked: wire.Training) -> tuple[Recipe, Stretch]:
    """The recipe the server asked for, and which part of the schedule this round is.

    Raises:
        ConfigError: a number is out of range.
    """
    possible = (
        1 <= asked.round <= asked.rounds
        and 1 <= asked.epochs <= 100
        and asked.batch >= 1
        and 0 < asked.learning_rate <= 1
        and asked.seed >= 0
    )
    if not possible:
        raise ConfigError(f"the server asks for an impossible round: {asked}", todo=SAME_VERSION)
    recipe = Recipe(
        epochs=asked.epochs,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        schedule=asked.schedule,
    )
    return recipe, Stretch((asked.round - 1) / asked.rounds, asked.round / asked.rounds)


def shuffle(seed: int, round_: int, name: str) -> np.random.Generator:
    """The order of Histories, different for each platform and round, repeatable by the seed."""
    return np.random.default_rng([seed, round_, zlib.crc32(name.encode())])
