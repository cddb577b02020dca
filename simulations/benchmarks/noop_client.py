"""A ClientApp that answers a zero Update of the 1 MiB Adapter it is sent, and looks at nothing.

In a bundle it stands in the place of clients/app.py, so that what is timed is everything else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from shared import records, wire
from shared.update import MAX_NORM

PARTS = 4  # tensors of 256 KiB each
BACKBONE = TASK = "no-op"

app = ClientApp()
_zeros = records.pack({f"part{n}": np.zeros((256, 256), np.float32) for n in range(PARTS)})


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Its name is that of the platform's file."""
    name = Path(str(context.node_config["platform"])).stem
    member = wire.Member(name, 1.0, backbone=BACKBONE, task=TASK)
    return Message(wire.hello_reply(member), reply_to=message)


@app.train()
def train(message: Message, _context: Context) -> Message:
    """A zero Update."""
    return Message(update(message), reply_to=message)


@app.evaluate()
def evaluate(message: Message, _context: Context) -> Message:
    """No metrics."""
    return Message(wire.metrics_reply({}), reply_to=message)


def update(message: Message) -> RecordDict:
    """A zero Update of the Adapter in this message."""
    base = message.content.config_records[records.REQUEST]["digest"]
    fields = ConfigRecord({"base": base, "weight": 1.0, "bound": MAX_NORM, "noise": "none"})
    return RecordDict({wire.UPDATE: _zeros, records.REQUEST: fields})
