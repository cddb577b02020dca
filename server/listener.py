"""The TLS port: one gRPC server on one event loop, and its certificate, which may change.

    credentials ─read each WATCH seconds→ other than before? → a second server on the same port
                                                               the first ends when its calls have

gRPC can read the certificate at each handshake (`dynamic_ssl_server_credentials`), but in grpcio
1.85 a handshake that times out then frees it twice, and idle connections end the process
(grpc/grpc#36693). So a server here keeps the certificate that it began with, and a rotation begins
another server. Both share the port by SO_REUSEPORT, which must not let in a second process: the
port is first bound without it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import grpc

from shared.channel import split
from shared.errors import AtollError, ConfigError

log = logging.getLogger("atoll.server")

WATCH = 1.0  # seconds between two looks at the certificate
LEAVING = 60.0  # seconds that calls have to end on a server that is replaced; questions hold 20
HANDSHAKE = 10.0  # seconds for TLS; whoever connects and says nothing is dropped then
IDLE = 120.0  # seconds without a call before a connection is closed; nodes call every 15
STREAMS = 32  # calls at a time on a connection; a node has about 6
WINDOW = 65_535  # bytes of a call that are kept unread, as HTTP/2 begins; 640 kB/s at 100 ms away
RECEIVED = 8 * 2**20  # bytes of a message that comes; Flower cuts tensors into pieces of 5 MiB
SENT = 64 * 2**20  # bytes of a message that goes: a bundle
METADATA = 16 * 1024  # bytes of a call's headers; a request to join is about 2 kB
DESCRIPTORS = 65_536  # connections and files that the process may hold open, if the system lets it

T = TypeVar("T")
Credentials = Callable[[], tuple[bytes, bytes]]  # key and certificate chain, PEM


class Listener:
    """A port with TLS.

    Attributes:
        port: on which it listens.
    """

    def __init__(
        self, address: str, credentials: Credentials, handler: grpc.GenericRpcHandler
    ) -> None:
        """Bind the port; nothing is answered yet.

        Args:
            address: HOST:PORT, port 0 for any that is free.
            credentials: the server's, read again and again.
            handler: of all calls; its methods are coroutines.

        Raises:
            ConfigError: the port is in use, or the address is not this machine's.
        """
        host, port = split(address, lowest=0)
        self._host = f"[{host}]" if ":" in host else host
        self._credentials, self._handler = credentials, handler
        self._shown = credentials()
        self._watch: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        try:
            check_free(host, port)
            self._server, self.port = in_loop(self._bound(port))
        except (OSError, RuntimeError) as fault:
            raise ConfigError(
                "cannot listen there (in use, or not this machine's)",
                where=address,
                todo="stop what listens there, or set listen in server.toml",
            ) from fault

    def start(self) -> None:
        """Answer calls."""
        more_descriptors()
        in_loop(self._start())

    def stop(self, grace: float) -> None:
        """Close the port; calls under way have so many seconds."""
        in_loop(self._stop(grace))

    async def _bound(self, port: int) -> tuple[grpc.aio.Server, int]:
        """A server with the certificate as it is now."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_send_message_length", SENT),
                ("grpc.max_receive_message_length", RECEIVED),
                ("grpc.max_metadata_size", METADATA),
                ("grpc.absolute_max_metadata_size", 2 * METADATA),
                ("grpc.max_concurrent_streams", STREAMS),
                # Else the window of a connection grows to megabytes that are kept for each call.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", WINDOW),
                ("grpc.max_connection_idle_ms", int(1000 * IDLE)),
                ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE)),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.so_reuseport", 1),
            ]
        )
        server.add_generic_rpc_handlers((self._handler,))
        secrets = grpc.ssl_server_credentials([self._shown])
        return server, server.add_secure_port(f"{self._host}:{port}", secrets)

    async def _start(self) -> None:
        await self._server.start()
        self._watch = asyncio.create_task(self._watching())

    async def _watching(self) -> None:
        """Replace the server when the certificate is another one."""
        said = ""
        while True:
            await asyncio.sleep(WATCH)
            try:
                now = await asyncio.to_thread(self._credentials)
                if now != self._shown:
                    await self._replace(now)
                said = ""
            except (AtollError, RuntimeError) as fault:
                if str(fault) != said:
                    said = str(fault)
                    log.error("the certificate cannot be renewed: %s", said)

    async def _replace(self, shown: tuple[bytes, bytes]) -> None:
        before, self._shown = self._shown, shown
        try:
            new, _port = await self._bound(self.port)
            await new.start()
        except RuntimeError:
            self._shown = before
            raise
        old, self._server = self._server, new
        task = asyncio.create_task(old.stop(LEAVING))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        log.info("the port shows a new certificate")

    async def _stop(self, grace: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        for task in self._leaving:
            task.cancel()
        await self._server.stop(grace)


def check_free(host: str, port: int) -> None:
    """Whether nobody listens on a port, not even one who would share it.

    Raises:
        OSError: somebody does, or the host is not this machine's.
    """
    for family, kind, protocol, _name, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not what has ended
            probe.bind(address)


def more_descriptors() -> None:
    """Let this process hold more connections open, as far as its hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop of all listeners of this process, in a thread of its own; gRPC serves one best."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="listener", daemon=True).start()
    return loop


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run this in the loop, from another thread, and wait for what it returns."""
    return asyncio.run_coroutine_threadsafe(work, event_loop()).result()
