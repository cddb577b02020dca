"""Health over HTTP, for systemd, containers and load balancers: numbers and words, nothing of rows.

GET /live     200 while the process answers
GET /ready    200 when it can do its work, else 503; what it is doing, as JSON
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from shared.channel import split
from shared.errors import AtollError, ConfigError

Fact = str | int | float | bool | None
PATIENCE = 5.0  # seconds that a caller may take to say what it wants


class Health:
    """What a daemon says of itself; set from any thread."""

    def __init__(self, **told: Fact) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Fact] = {"ready": False, **told}
        self._since = time.monotonic()

    def say(self, **told: Fact) -> None:
        """Change what is said; `ready` decides between 200 and 503."""
        with self._lock:
            self._told |= told

    def told(self) -> dict[str, Fact]:
        """What is said now."""
        with self._lock:
            return {**self._told, "seconds": round(time.monotonic() - self._since, 1)}


class _Server(ThreadingHTTPServer):
    """An HTTP server on an address of either family."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]
    ) -> None:
        host, port = address
        # As the system resolves the name; of several addresses the first.
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind the address, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


@contextmanager
def served(address: str, health: Health) -> Iterator[int]:
    """Answer on HOST:PORT until the body ends; yields the port. An empty address serves nobody.

    Raises:
        ConfigError: the address is none, or is taken.
    """
    if not address:
        yield 0
        return
    try:
        host, port = split(address, lowest=0)
        server = _Server((host, port), handler(health))
    except (OSError, AtollError) as fault:
        raise ConfigError(
            f"cannot serve health there ({fault})",
            where=address,
            todo='set health to another HOST:PORT, or to "" for none',
        ) from fault
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def handler(health: Health) -> type[BaseHTTPRequestHandler]:
    """What answers one request: for an HTTP server."""

    class Answer(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self) -> None:
            told = health.told()
            if self.path not in ("/live", "/ready"):
                self._answer(404, {"known": ["/live", "/ready"]})
            elif self.path == "/live":
                self._answer(200, {"live": True})
            else:
                self._answer(200 if told["ready"] else 503, told)

        def _answer(self, status: int, told: Mapping[str, object]) -> None:
            body = json.dumps(told, sort_keys=True).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A probe every few seconds is no news."""

    return Answer
