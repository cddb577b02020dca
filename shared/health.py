"""Health over HTTP, for systemd, containers and load balancers: numbers and words, nothing of rows.

GET /live     200 while the process answers
GET /ready    200 when it can do its work, else 503; what it is doing, as JSON
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shared.errors import ConfigError

PATIENCE = 5.0  # seconds that a caller may take to say what it wants


class Health:
    """What a daemon says of itself; set from any thread."""

    def __init__(self, **told: str | int | float | bool) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, str | int | float | bool] = {"ready": False, **told}
        self._since = time.monotonic()

    def say(self, **told: str | int | float | bool) -> None:
        """Change what is said; `ready` decides between 200 and 503."""
        with self._lock:
            self._told |= told

    def told(self) -> dict[str, str | int | float | bool]:
        """What is said now."""
        with self._lock:
            return {**self._told, "seconds": round(time.monotonic() - self._since, 1)}


@contextmanager
def served(address: str, health: Health) -> Iterator[int]:
    """Answer on HOST:PORT until the body ends; yields the port. An empty address serves nobody.

    Raises:
        ConfigError: the address is none, or is taken.
    """
    if not address:
        yield 0
        return
    host, _, port = address.rpartition(":")
    try:
        server = _Server((host.strip("[]"), int(port)), handler(health))
    except (OSError, ValueError, OverflowError) as fault:
        raise ConfigError(
            f"cannot serve health there ({fault})",
            where=address,
            todo='set health to another HOST:PORT, or to "" for none',
        ) from fault
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who closes a connection too early is no news; the standard library prints a traceback."""


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
