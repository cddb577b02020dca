"""Honest light platforms in one process: real links, real protocol, Updates of zeros.

Started by `target.py`: platforms.py ADDRESS CA KEYS BACKBONE NAME…, with one PEM of a node key
after another in KEYS, in the order of the names. One whose link ends connects again.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.link import Link, linked
from shared import wire
from shared.asking import read_request
from shared.tasks import next_item
from shared.update import MAX_NORM, BoundedUpdate

END = b"-----END PRIVATE KEY-----\n"
AGAIN = 0.5  # seconds before another attempt to connect


def main() -> None:
    """Serve with every key, until killed."""
    address, ca, keys, backbone, *names = sys.argv[1:]
    pems = [part + END for part in Path(keys).read_bytes().split(END) if part.strip()]
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    roots = Path(ca).read_bytes()
    threads = [
        threading.Thread(target=serve, args=(address, roots, name, backbone, pem))
        for name, pem in zip(names, pems, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(address: str, roots: bytes, name: str, backbone: str, pem: bytes) -> None:
    """One platform."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    while True:
        try:
            with linked(address, roots=roots, key=key) as link:
                while True:
                    if (message := link.receive()) is not None:
                        answer(link, message, name, backbone)
        except (grpc.RpcError, ValueError):
            time.sleep(AGAIN)


def answer(link: Link, message: Message, name: str, backbone: str) -> None:
    """What a platform answers that learns nothing."""
    kind = message.metadata.message_type
    content: RecordDict
    if kind == wire.HELLO:
        content = wire.hello_reply(wire.Member(name, 1.0, backbone=backbone, task=next_item.NAME))
    elif kind == wire.TRAIN:
        adapter, _training = read_request(message.content)
        zeros = {name: np.zeros_like(tensor) for name, tensor in adapter.tensors.items()}
        content = wire.update_reply(
            BoundedUpdate(zeros, base=adapter.digest, weight=1.0, bound=MAX_NORM, noise="none")
        )
    else:
        content = wire.metrics_reply({})
    link.send(Message(content, reply_to=message))


if __name__ == "__main__":
    main()
