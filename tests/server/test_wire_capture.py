"""What somebody on the wire sees: a capture of every byte between a platform and the server."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from shared import records
from shared.enrolment import node_public
from simulations.lagoon import BUNDLE, Lagoon, ask, echo, here


class Tap(threading.Thread):
    """A wire on loopback that keeps every byte that passes, in both directions."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.far = ("127.0.0.1", port)
        self.near = socket.create_server(("127.0.0.1", 0))
        self.bytes = bytearray()
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.near.getsockname()[1]}"

    def run(self) -> None:
        with self.near, suppress(OSError):
            while True:
                one = self.near.accept()[0]
                other = socket.create_connection(self.far)
                for source, sink in ((one, other), (other, one)):
                    threading.Thread(target=self.pass_on, args=(source, sink), daemon=True).start()

    def pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source:
            while data := source.recv(65_536):
                self.bytes += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.near.shutdown(socket.SHUT_RDWR)
        self.join(5.0)


def test_no_byte_of_a_request_or_a_reply_is_on_the_wire_in_clear(lagoon: Lagoon) -> None:
    tap = Tap(lagoon.link.port)
    mark = os.urandom(4096)
    tensors = {"secret-slot": np.frombuffer(mark, np.float32)}
    what = RecordDict(
        {"adapter": records.pack(tensors), "request": ConfigRecord({"k": "in-clear"})}
    )
    lagoon.node("a", echo, address=tap.address)
    here(lagoon, "a")
    with lagoon.link.run(BUNDLE, {}) as (grid, _number):
        (reply,) = ask(grid, what=what)
    tap.close()
    assert records.unpack(reply.content, "adapter")["secret-slot"].tobytes() == mark
    assert len(tap.bytes) > 2 * len(mark)  # it did go this way, and back
    key = node_public(lagoon.keys["a"].public_key())
    for told in (mark[:16], mark[-16:], b"secret-slot", b"in-clear", b"flwr", b"Fleet", key[-40:]):
        assert told not in tap.bytes
    assert tap.bytes[0] == 0x16  # a TLS handshake is the first that is said
