"""What a round costs beside training: no-op platforms, adapters of 1 MiB, the real server.

server/rounds.py ─request→ engine ─→ a ClientApp that answers a zero Update
                                   └ in process, and on Flower's Ray engine, in one run

Writing the round to disk is not counted.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server.aggregate import fedavg
from server.app import GridNodes
from server.config import FederationSection, federation_from
from server.rounds import federate
from shared import records, wire
from shared.update import MAX_NORM
from simulations.benchmarks.noop_server import BACKBONE, TASK, Clock, adapter
from simulations.harness import Config, run_in_process, run_on_ray


def no_op() -> ClientApp:
    """Answers a zero Update of the Adapter it is sent, whose tensors it never looks at."""
    app = ClientApp()
    # Each platform has memory of its own, as it would: one buffer for all would stay in the cache.
    zeros: dict[object, ArrayRecord] = {}

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        number = str(context.node_config["partition-id"])
        member = wire.Member(f"p{number}", 1.0, backbone=BACKBONE, task=TASK)
        return Message(wire.hello_reply(member), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = context.node_config["partition-id"]
        if number not in zeros:
            zeros[number] = records.pack(adapter().tensors)
        base = message.content.config_records[records.REQUEST]["digest"]
        fields = ConfigRecord({"base": base, "weight": 1.0, "bound": MAX_NORM, "noise": "none"})
        content = RecordDict({wire.UPDATE: zeros[number], records.REQUEST: fields})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, _context: Context) -> Message:
        return Message(wire.metrics_reply({}), reply_to=message)

    return app


def measure(*, platforms: int, rounds: int, ray: bool) -> dict[str, float | None]:
    """Median seconds a round on each engine; None where Ray is not wanted or not installed.

    Args:
        platforms: no-op platforms, all asked in every round.
        rounds: timed on the harness; Ray, far slower, runs a quarter of them, at least three.
        ray: whether to time Flower's Ray engine beside it.
    """
    nodes: dict[str, Config] = {f"p{place}": {"partition-id": place} for place in range(platforms)}
    logger = logging.getLogger("atoll")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return _measured(nodes, rounds=rounds, ray=ray)
    finally:
        logger.setLevel(before)


def _measured(nodes: dict[str, Config], *, rounds: int, ray: bool) -> dict[str, float | None]:
    with_ray = ray and importlib.util.find_spec("ray") is not None
    slow = None
    if with_ray:
        clock, few = Clock(), max(3, rounds // 4)
        run_on_ray(timed(clock, few), no_op(), run_config={}, nodes=nodes)
        slow = statistics.median(clock.seconds[1:])
    clock = Clock()
    run_in_process(timed(clock, rounds), no_op(), run_config={}, nodes=nodes)
    fast = statistics.median(clock.seconds[1:])
    return {"in_process_s_per_round": fast, "ray_s_per_round": slow}


def timed(clock: Clock, rounds: int) -> ServerApp:
    """The deployed rounds over the no-op adapter, timed by the clock."""
    federation = replace(federation_from(FederationSection()), rounds=rounds, quorum=1)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        rule = fedavg()
        federate(GridNodes(grid), rule.init(adapter()), federation, rule, clock)

    return app
