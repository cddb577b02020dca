"""Many light platforms in one process: real links, real protocol, answers that take no time.

Started by `load.py`: standins.py ADDRESS CA KEYS, with one PEM of a node key after another in KEYS.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.link import Link, linked
from shared import wire
from simulations.benchmarks.noop_client import BACKBONE, TASK, update

END = b"-----END PRIVATE KEY-----\n"


def main() -> None:
    """Serve with every key, until the server goes."""
    address, ca, keys = sys.argv[1:]
    pems = [part + END for part in Path(keys).read_bytes().split(END) if part.strip()]
    threads = [
        threading.Thread(target=serve, args=(address, Path(ca).read_bytes(), number, pem))
        for number, pem in enumerate(pems)
    ]
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(address: str, roots: bytes, number: int, pem: bytes) -> None:
    """One platform."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    try:
        with linked(address, roots=roots, key=key) as link:
            while True:
                message = link.receive()
                if message is not None:
                    answer(link, message, f"p{number}")
    except grpc.RpcError:
        return


def answer(link: Link, message: Message, name: str) -> None:
    """What a no-op platform answers."""
    kind = message.metadata.message_type
    content: RecordDict
    if kind == wire.HELLO:
        content = wire.hello_reply(wire.Member(name, 1.0, backbone=BACKBONE, task=TASK))
    else:
        content = update(message) if kind == wire.TRAIN else wire.metrics_reply({})
    link.send(Message(content, reply_to=message))


if __name__ == "__main__":
    main()
