"""The process in which approved code runs: one bundle, kept warm from request to request.

    supernode ─JSON of the Context, Message→ worker ─Message→ supernode      over one socket pair

Started as a file, `python -I worker.py BUNDLE SOCKET`, so that nothing of ours is imported but
what lies in the unpacked bundle: the three packages are told to look there and nowhere else. It
dies with the daemon that started it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import types
from multiprocessing.connection import Connection
from pathlib import Path

PACKAGES = ("shared", "clients", "server")
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def confine(bundle: Path) -> None:
    """Make `shared`, `clients` and `server` those of the bundle, whatever else is installed."""
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(bundle / name)]
        sys.modules[name] = package


def serve(channel: Connection) -> None:
    """Answer requests until the other side closes."""
    from flwr.app import Context, Message, RecordDict
    from flwr.common.serde import message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Message as ProtoMessage
    from flwr.supercore.task_identity import TaskIdentity

    app = importlib.import_module("clients.app").app
    channel.send_bytes(b"ready")
    while True:
        told = json.loads(channel.recv_bytes())
        message = message_from_proto(ProtoMessage.FromString(channel.recv_bytes()))
        message.metadata.__dict__["_message_id"] = told["message"]
        TaskIdentity.run_id, TaskIdentity.node_id = told["run"], told["node"]
        TaskIdentity.task_id = 1
        context = Context(told["run"], told["node"], told["config"], RecordDict(), {})
        reply: Message = app(message, context)
        channel.send_bytes(message_to_proto(reply).SerializeToString())


def main() -> None:
    """Entry point."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be bound to this
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the daemon ends it
    confine(Path(sys.argv[1]))
    try:
        serve(Connection(int(sys.argv[2])))
    except EOFError:
        return


if __name__ == "__main__":
    main()
