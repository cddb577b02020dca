"""A federation in one process: Flower's Grid, and on its far side the deployed ClientApp.

    ServerApp ─Message→ InProcessGrid ─Message→ ClientApp of node 1, 2, 3 …
                              └ faults of the scenario: drop, delay, fail, corrupt

The two app objects are those that are deployed, and the Messages are real. Platforms answer one
after another or on threads; either way replies come back in the order of the requests, so one seed
gives one result. Time is simulated: a delayed reply is late, but nobody waits for it.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import Array, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

# Flower 1.39 takes a new Message's run and sender from here, and sets it only in its own processes.
from flwr.supercore.task_identity import TaskIdentity

from shared import records, wire
from shared.errors import AtollError, ConfigError

log = logging.getLogger("atoll.harness")

RUN_ID = 1
SERVER = 0  # node id
RAY_START = 60.0  # seconds that Ray has to register its nodes
RAISED = 2  # Flower's error code for an exception in a ClientApp

Config = dict[str, bool | float | int | str]
Kind = Literal["drop", "delay", "fail", "corrupt"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one platform in one round.

    Attributes:
        platform: its name.
        round: from 1; training only.
        kind: drop: the request is lost. delay: the reply is late by `seconds`. fail: the platform
            raises. corrupt: the reply is spoilt in the way `corruption` says.
        seconds: of a delay, against the timeout of the round.
        corruption: nan, shape, digest or empty.
    """

    platform: str
    round: int
    kind: Kind
    seconds: float = 0.0
    corruption: Literal["nan", "shape", "digest", "empty"] = "nan"


def check_faults(faults: Sequence[Fault], names: Sequence[str], path: Path) -> None:
    """Refuse faults that could not strike.

    Args:
        faults: of a scenario.
        names: of its platforms.
        path: the scenario's file.

    Raises:
        ConfigError: of a platform that is not there, or two of one platform in one round.
    """
    struck: set[tuple[str, int]] = set()
    for fault in faults:
        if fault.platform not in names:
            raise ConfigError(
                f"fault of {fault.platform!r}, which is no platform here",
                where=path,
                todo=f"name one of {', '.join(names)}",
            )
        if (fault.platform, fault.round) in struck:
            raise ConfigError(
                f"two faults of {fault.platform!r} in round {fault.round}",
                where=path,
                todo="keep one",
            )
        struck.add((fault.platform, fault.round))


class InProcessGrid(Grid):
    """Delivers Messages to a ClientApp, one Context a node; nothing is serialized."""

    def __init__(
        self,
        client_app: ClientApp,
        nodes: Mapping[str, Config],
        *,
        threads: int = 1,
        faults: Sequence[Fault] = (),
    ) -> None:
        """Args: nodes: each platform's node configuration, by name. threads: answering at once."""
        self.client_app = client_app
        self.threads = threads
        self.names = dict(enumerate(nodes, start=1))
        self.contexts = {
            node: Context(RUN_ID, node, dict(nodes[name]), RecordDict(), {})
            for node, name in self.names.items()
        }
        self.faults = {(fault.platform, str(fault.round)): fault for fault in faults}
        self.sent: dict[str, Message] = {}
        self.numbers = itertools.count(1)

    def set_run(self, run: object) -> None:
        """There is one run."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """Not kept: the ServerApp does not ask."""
        raise NotImplementedError("an in-process run has no Flower run record")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A Message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every platform's node."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take requests; they are answered when they are pulled."""
        ids = []
        for message in messages:
            number = str(next(self.numbers))
            # As Flower's own grids do: the identifier is set when a message is sent.
            message.metadata.__dict__["_message_id"] = number
            self.sent[number] = message
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer the requests of these identifiers."""
        return self._answer([self.sent.pop(number) for number in message_ids], timeout=None)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer requests, less those that are dropped or later than `timeout`."""
        return self._answer(list(messages), timeout=timeout)

    def _answer(self, messages: list[Message], timeout: float | None) -> list[Message]:
        def answer(message: Message) -> Message | None:
            return self._deliver(message, timeout)

        if self.threads == 1:
            replies = [answer(message) for message in messages]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                replies = list(pool.map(answer, messages))
        return [reply for reply in replies if reply is not None]

    def _deliver(self, message: Message, timeout: float | None) -> Message | None:
        node = message.metadata.dst_node_id
        name = self.names[node]
        fault = None
        if message.metadata.message_type == wire.TRAIN:
            fault = self.faults.get((name, message.metadata.group_id))
        if fault is not None and fault.kind == "drop":
            return None
        if fault is not None and fault.kind == "fail":
            return Message(Error(RAISED, "a fault of the scenario"), reply_to=message)
        try:
            reply = self.client_app(message, self.contexts[node])
        except Exception as error:  # as Flower does: whatever a ClientApp raises is a reply
            log.warning("%s: %s", name, error, exc_info=error)
            return Message(Error(RAISED, "platform raised"), reply_to=message)
        if reply.has_error():
            return reply
        if fault is None:
            return reply
        if fault.kind == "delay":
            return None if timeout is not None and fault.seconds > timeout else reply
        return corrupted(reply, fault.corruption)


def corrupted(reply: Message, corruption: str) -> Message:
    """The reply, spoilt."""
    content = RecordDict(dict(reply.content.items()))
    arrays = content.array_records[wire.UPDATE]
    first = next(iter(arrays))
    if corruption == "empty":
        del content[wire.UPDATE]
    elif corruption == "digest":
        content[records.REQUEST] = ConfigRecord(
            {**content.config_records[records.REQUEST], "base": "?"}
        )
    elif corruption == "shape":
        arrays[first] = Array("float32", (1,), records.RAW, bytes(4))
    else:
        spoilt = np.frombuffer(arrays[first].data, "<f4").copy()
        spoilt[0] = np.nan
        arrays[first] = Array("float32", arrays[first].shape, records.RAW, spoilt.tobytes())
    reply.content = content
    return reply


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    run_config: Config,
    nodes: Mapping[str, Config],
    threads: int = 1,
    faults: Sequence[Fault] = (),
) -> None:
    """Run a ServerApp to its end against a ClientApp with these nodes."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER, 1
    grid = InProcessGrid(client_app, nodes, threads=threads, faults=faults)
    server_app(grid, Context(RUN_ID, SERVER, {}, RecordDict(), run_config))


def require_ray() -> None:
    """Raises: ConfigError if the extra is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("the Ray engine is not installed", todo="run pip install -e '.[ray]'")


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    run_config: Config,
    nodes: Mapping[str, Config],
) -> None:
    """The same on Flower's Ray engine, which names nodes by number and takes no configuration.

    Raises:
        ConfigError: the extra is not installed.
    """
    require_ray()
    from flwr.simulation import run_simulation

    configs = list(nodes.values())

    def with_node(context: Context) -> Context:
        # A Context of its own: Ray keeps the one it gave, and looks for its partition there.
        mine = {**context.node_config, **configs[int(context.node_config["partition-id"])]}
        return Context(
            context.run_id, context.node_id, mine, context.state, dict(context.run_config)
        )

    far = ClientApp()
    serve: Callable[[Message, Context], Message] = lambda m, c: client_app(m, with_node(c))  # noqa: E731
    far.query("hello")(serve)
    far.train()(serve)
    far.evaluate()(serve)

    near = ServerApp()

    @near.main()
    def main(grid: Grid, context: Context) -> None:
        # Ray starts the ServerApp beside its nodes, which may not all be registered yet.
        patience = time.monotonic() + RAY_START
        while len(list(grid.get_node_ids())) < len(configs) and time.monotonic() < patience:
            time.sleep(0.05)
        context.run_config = run_config
        server_app(grid, context)

    try:
        run_simulation(near, far, num_supernodes=len(configs))
    except RuntimeError as error:
        raise error.__cause__ if isinstance(error.__cause__, AtollError) else error from None
