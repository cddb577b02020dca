"""A ClientApp that says hello like any other, and trains for minutes.

In a bundle it stands in the place of clients/app.py, with BACKBONE replaced. The worker that runs
it writes its number beside the platform's file when it begins to train.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from shared import wire
from shared.tasks import next_item

BACKBONE = "digest"

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Its name is that of the platform's file."""
    name = Path(str(context.node_config["platform"])).stem
    member = wire.Member(name, 1.0, backbone=BACKBONE, task=next_item.NAME)
    return Message(wire.hello_reply(member), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Nothing, for minutes."""
    file = Path(str(context.node_config["platform"])).with_suffix(".worker")
    file.write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600.0)
    return Message(wire.metrics_reply({}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, _context: Context) -> Message:
    """No metrics."""
    return Message(wire.metrics_reply({}), reply_to=message)
