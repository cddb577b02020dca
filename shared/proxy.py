"""The proxy through which gRPC goes, by the environment: so that each way to a server is the same.

    grpc_proxy, else https_proxy, else http_proxy ─not in no_grpc_proxy, else no_proxy→ CONNECT

gRPC reads these names in lower case alone, takes http:// proxies alone, and an entry of no_proxy
for the end of a host's name or for a range of addresses (gRPC, doc/environment_variables.md, and
its http_proxy_mapper). A connection through it is an end-to-end TLS tunnel: the proxy sees host,
port and how much is sent.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import unquote, urlsplit

from shared.errors import ConfigError

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
EXEMPTIONS = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True)
class Route:
    """How a server is reached.

    Attributes:
        host: of the proxy; empty where there is none.
        port: of the proxy.
        variable: the environment variable that names it, or that is not used; empty if none is set.
        why: why the variable is not used; empty where it is.
        credentials: NAME:PASSWORD for the proxy; in no message.
    """

    host: str = ""
    port: int = 0
    variable: str = ""
    why: str = ""
    credentials: str = ""

    def __str__(self) -> str:
        """In words, without credentials; empty where the environment names no proxy."""
        if self.host:
            return f"by the proxy {self.host}:{self.port} of {self.variable}"
        return f"directly ({self.variable} is not used: {self.why})" if self.variable else ""

    def __repr__(self) -> str:
        return f"Route({self})"


def route(host: str, environment: Mapping[str, str] | None = None) -> Route:
    """How gRPC reaches a server from here.

    Args:
        host: of the server, without brackets.
        environment: variables; None is this process's.
    """
    known = os.environ if environment is None else environment
    variable = next((name for name in PROXIES if name in known), "")
    if not variable or not known[variable]:  # an empty one stands for none
        return Route()
    exempt = next((name for name in EXEMPTIONS if name in known), "")
    if exempt and exempted(host, known[exempt]):
        return Route(variable=variable, why=f"{exempt} names this host")
    try:
        found = urlsplit(known[variable])
        host, port = found.hostname or "", found.port or 80
    except ValueError:
        return Route(variable=variable, why="it is no URL")
    if found.scheme != "http" or not host:
        return Route(variable=variable, why="only http://HOST:PORT is")
    name, password = unquote(found.username or ""), unquote(found.password or "")
    credentials = f"{name}:{password}" if found.username else ""
    return Route(host, port, variable, credentials=credentials)


def exempted(host: str, entries: str) -> bool:
    """Whether a list of exemptions names a host, by its end or by a range of addresses."""
    for entry in (it.strip() for it in entries.split(",")):
        if not entry:
            continue
        if host.lower().endswith(entry.lower()):
            return True
        try:
            if "/" in entry and ipaddress.ip_address(host) in ipaddress.ip_network(
                entry, strict=False
            ):
                return True
        except ValueError:
            continue
    return False


def options(host: str) -> list[tuple[str, int]]:
    """Options of a gRPC channel, so that it takes the way that `route` tells."""
    return [("grpc.enable_http_proxy", 1 if route(host).host else 0)]


def connected(host: str, port: int, *, timeout: float) -> socket.socket:
    """A TCP connection to a server, by the way that gRPC takes.

    Args:
        host: of the server, without brackets.
        port: of the server.
        timeout: seconds for each step.

    Raises:
        OSError: nobody answers, or no such host.
        ConfigError: the proxy does not connect to it.
    """
    way = route(host)
    if not way.host:
        return socket.create_connection((host, port), timeout=timeout)
    tunnel = HTTPConnection(way.host, way.port, timeout=timeout)
    headers = {}
    if way.credentials:
        token = base64.b64encode(way.credentials.encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {token}"
    tunnel.set_tunnel(f"[{host}]" if ":" in host else host, port, headers)
    try:
        tunnel.connect()
    except (OSError, HTTPException) as fault:
        # http.client closes it; its words are "Tunnel connection failed: 403 Forbidden", or the
        # system's own.
        words = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
        raise ConfigError(
            f"{way} there is no way to {host}:{port} ({words})",
            todo=f"ask who runs the proxy, or name the host in {EXEMPTIONS[1]}",
        ) from None
    return tunnel.sock
