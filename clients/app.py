"""The ClientApp: what a platform answers. Rows are read here and go no further.

    query.hello  → who we are, for a task (public)
    train        → a BoundedUpdate of the Adapter that came, paid for from the budget:
                   by training, or for the task of co-visitation by counting
    evaluate     → validation metrics of it, if this platform shares them

Every reply goes through `gate`, and only what `clients.egress` builds comes out of it. The
platform's own file is named by `platform` in Flower's node configuration; nothing the server sends
can name another. The same object is deployed on a SuperNode and driven by the harness.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients import egress
from clients.ledger import rounds_left
from clients.permit import permitted
from clients.platform import Platform, open_platform
from clients.proof import prove
from clients.randomness import Randomness, secure, simulated
from clients.sums_update import counted
from clients.train import paid, request_of, update, validation
from shared import asking, manifest, records, wire
from shared.adapter import Adapter
from shared.errors import AdapterError, AtollError, ConfigError, LedgerError, ReplyError
from shared.records import SAME_VERSION
from shared.tables.config import load_platform
from shared.tasks import co_visitation
from shared.training import Recipe, Stretch

log = logging.getLogger("atoll.client")
COORDINATOR = "coordinator"  # key of the node configuration: who must have signed what is asked
SIMULATED = "simulated-noise"  # key of the node configuration; a harness sets it to a seed


def gate(
    message: Message, context: Context, answer: Callable[[Message, Context], Message]
) -> Message:
    """Let out what `clients.egress` builds; of a failure a number, at a time that tells little."""
    began, policy = time.monotonic(), None
    kind = message.metadata.message_type
    body: records.Content | Error
    try:
        # Before the tables: one that cannot be read must not tell by the time it takes.
        config = load_platform(named(context))
        policy, adapter, asked = config.policy, None, None
        if kind == wire.HELLO:
            task = wire.read_hello(message.content)
        else:
            adapter, asked = asking.read_request(message.content)
            check_sender(adapter, message.content, context)
            task = adapter.task
            permitted(config, kind, asked, task=task, now=datetime.now(UTC))
        platform = resident(context)
        reply = answer(message, context)
        noise, released = randomness(context).noise, None
        if adapter is not None:
            request = request_of(adapter, asked, asking.read_standing(message.content))
            released = paid(platform, request, noise=noise)
        body = egress.passed(
            kind,
            reply.content,
            platform.config,
            noise,
            member=member_of(platform, task),
            adapter=adapter,
            paid=released,
        )
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as fault:  # a panic of Polars' own code is no Exception
        which = context.node_config.get("platform")
        log.warning("%s: %s", which, fault, exc_info=not isinstance(fault, AtollError))
        if policy is not None:
            egress.note(policy, kind, fault)
        code = egress.refusal(fault)
        body = Error(int(code), wire.REFUSALS[code])
    if policy is not None:
        time.sleep(egress.wait(time.monotonic() - began, policy.answer_seconds))
    # Made last, because a Message says when it was made; and anew, so that nothing which an answer
    # hung on its own leaves with it.
    return Message(body, reply_to=message)


app = ClientApp(mods=[gate])

# A process serves few platforms and many messages; rows and item vectors are read once, and again
# when one of its files is written anew: who is erased from a table, or put on the list of erased
# shoppers, is absent from the next round.
FileState = tuple[int, int, int]  # inode, bytes, time of the last change; zeros without a file
_open: dict[Path, tuple[tuple[FileState, ...], Platform]] = {}
_opening = threading.Lock()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say who we are."""
    member = member_of(resident(context), wire.read_hello(message.content))
    return Message(wire.hello_reply(member), reply_to=message)


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train on our rows from the Adapter that came; answer with how far it moved."""
    platform = resident(context)
    start, asked = asking.read_request(message.content)
    check_fit(start, platform)
    if asked is None:
        raise ReplyError("asked to train without saying how", todo="run the same version")
    recipe, stretch = how(asked)
    standing = asking.read_standing(message.content)
    drawn = randomness(context, wire.TRAIN, platform.config.name, start.digest)
    if start.task == co_visitation.NAME:
        bounded, receipt = counted(platform, start, asked, standing, randomness=drawn)
    else:
        bounded, receipt = update(
            platform,
            start,
            asked,
            standing,
            recipe=recipe,
            stretch=stretch,
            rng=shuffle(asked.seed, asked.round, platform.config.name),
            randomness=drawn,
        )
    return Message(wire.update_reply(bounded, receipt), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validation metrics of the Adapter that came, or nothing unless the platform shares them."""
    platform = resident(context)
    adapter, _asked = asking.read_request(message.content)
    check_fit(adapter, platform)
    if adapter.task == co_visitation.NAME:  # what sums are worth shows in what is made of them
        return Message(wire.metrics_reply({}), reply_to=message)
    told = validation(
        platform,
        adapter,
        asking.read_standing(message.content),
        randomness=randomness(context, wire.EVALUATE, platform.config.name, adapter.digest),
    )
    return Message(wire.metrics_reply(told), reply_to=message)


def resident(context: Context) -> Platform:
    """The platform of this node, opened on its first message.

    Raises:
        ConfigError: the node configuration names no platform file.
    """
    path = named(context)
    with _opening:
        config = load_platform(path)
        listed = config.policy.pairs if config.policy is not None else None
        others = filter(None, [listed, config.events.erased])
        files = (path, config.events.path, config.items.path, *others)
        written = tuple(file_state(file) for file in files)
        if path not in _open or _open[path][0] != written:
            platform = open_platform(config)
            if platform.config.policy is not None and platform.config.policy.plan is not None:
                prove(platform.backbone, platform.table, speed=config.speed)
            _open[path] = (written, platform)
        return _open[path][1]


def file_state(path: Path) -> FileState:
    """What tells one state of a file, or of a folder of part files, from the next.

    Even within one tick of the clock.
    """
    try:
        found = path.stat()
        if path.is_dir():
            parts = [(it.name, *file_state(it)) for it in sorted(path.iterdir())]
            return found.st_ino, len(parts), hash(tuple(parts))
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def close(files: Iterable[Path]) -> None:
    """Let go of these platforms' rows and item vectors, by their files.

    A process that runs one federation after another would else keep the platforms of all.
    """
    with _opening:
        for file in files:
            _open.pop(file.resolve(), None)


def member_of(platform: Platform, task: str) -> wire.Member:
    """What it says of itself for this task, and for how many more rounds its budget lasts.

    A ledger that cannot be read is left to the first request that needs it.
    """
    member, policy = platform.member(task), platform.config.policy
    if policy is not None and policy.plan is not None:
        with suppress(LedgerError):
            left = rounds_left(policy, sums=task == co_visitation.NAME)
            return replace(member, rounds_left=left)
    return member


def named(context: Context) -> Path:
    """The platform's file.

    Raises:
        ConfigError: the node configuration names none.
    """
    which = context.node_config.get("platform")
    if not isinstance(which, str):
        raise ConfigError(
            "the node configuration names no platform",
            todo="start the node with platform=PATH of the platform's TOML file",
        )
    return Path(which).resolve()


def randomness(context: Context, *purpose: str) -> Randomness:
    """A new key from the operating system, unless the node's own configuration says to simulate."""
    seed = context.node_config.get(SIMULATED)
    if seed is None:
        return secure()
    return simulated(int(seed), *purpose)


def check_sender(adapter: Adapter, content: records.Content, context: Context) -> None:
    """Refuse an Adapter that the coordinator did not sign, on a node that knows its key.

    Raises:
        IdentityError: the signature is missing, or of another Adapter, run or key.
    """
    coordinator = context.node_config.get(COORDINATOR)
    if coordinator is None:
        return
    run, signature = asking.read_standing(content).run, asking.read_signature(content)
    manifest.check_request(adapter, run, signature, str(coordinator))


def check_fit(adapter: Adapter, platform: Platform) -> None:
    """Refuse an Adapter of another backbone or task.

    Raises:
        AdapterError: it names another.
    """
    member = platform.member(adapter.task)
    if (adapter.backbone, adapter.task) != (member.backbone, member.task):
        raise AdapterError(
            f"adapter is for {adapter.backbone[:12]}… and task {adapter.task!r}",
            todo="install this federation's backbone, or its list of pairs",
        )


def how(asked: asking.Training) -> tuple[Recipe, Stretch]:
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
        and 0 <= asked.proximal <= 1000
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
