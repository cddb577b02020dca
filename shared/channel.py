"""One question to the coordinator over TLS, and its answer; whatever fails is one line.

    HOST[:PORT] ─address→ HOST:PORT        bytes ─ask→ bytes, or ConfigError (nobody there),
                                                        IdentityError (somebody else, or a refusal)

A proxy that the environment names is used as gRPC does (shared/proxy.py), and named where a call
fails. Only the CAs that are given are trusted, never the machine's own. A refusal crosses as gRPC
status with the coordinator's line; where a fault arose inside it, it says no more than that.
"""

from __future__ import annotations

import re

import grpc

from shared import proxy
from shared.errors import AtollError, ConfigError, IdentityError

PORT = 9092  # Flower's own for nodes
NAME = "check the name, and whether this machine can look names up"
REQUEST = "atoll-request-bin"  # of a call's headers: what is asked; no message is sent
SECONDS = 20.0  # that a question may take: each is a few kB and a few milliseconds


def address(text: str) -> str:
    """HOST:PORT of what somebody typed; a host alone has the default port.

    Raises:
        ConfigError: it is neither HOST nor HOST:PORT.
    """
    host, port = split(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(text: str, *, lowest: int = 1) -> tuple[str, int]:
    """Host, without brackets, and port of HOST:PORT, [IPv6]:PORT, HOST or IPv6.

    Args:
        text: what somebody typed.
        lowest: the smallest port; 0 where 0 stands for any free one.

    Raises:
        ConfigError: it is none of these.
    """
    plain = text.strip()
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", plain)
    if found:
        host, port = found[1] or found[2], int(found[3] or PORT)
    elif re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", plain):
        host, port = plain, PORT
    else:
        host, port = "", 0
    if not host or not lowest <= port <= 65_535:
        raise ConfigError(
            f"{text[:80]!r} is no address", todo="write HOST:PORT, without a scheme or a path"
        )
    return host, port


def with_port(text: str, key: str) -> None:
    """Refuse an address to listen on that is not HOST:PORT; the empty one is for none.

    Args:
        text: what somebody typed.
        key: the option or key that it is of, for the error.

    Raises:
        ConfigError: it has no port, or is no address.
    """
    if not text:
        return
    host, port = split(text, lowest=0)
    if text not in (f"{host}:{port}", f"[{host}]:{port}") or (":" in host and text[0] != "["):
        raise ConfigError(
            f"{key} {text!r} has no port", todo='write HOST:PORT, or "" where none is wanted'
        )


def ask(
    server: str, method: str, request: bytes, *, roots: bytes, seconds: float = SECONDS
) -> bytes:
    """Ask, on a connection of its own.

    Args:
        server: HOST:PORT.
        method: /service/Method.
        request: to send once the server has shown a certificate by `roots` for its host; a few kB.
            It travels in the call's headers, whose size gRPC bounds before it keeps them: a
            message it would keep whole, whoever sent it.
        roots: CAs in PEM.
        seconds: to wait for the answer.

    Raises:
        ConfigError: nobody answers there, or not in time.
        IdentityError: the certificate is not by `roots`, or the coordinator refuses.
    """
    trusted = grpc.ssl_channel_credentials(root_certificates=roots)
    # Each question a connection: a rotated certificate is met at once, and none is kept open.
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    options += proxy.options(split(server)[0])
    with grpc.secure_channel(server, trusted, options=options) as channel:
        try:
            call = channel.unary_unary(method)
            answer: bytes = call(b"", timeout=seconds, metadata=((REQUEST, request),))
        except grpc.RpcError as fault:
            raise told(fault, server) from None
    return answer


def told(fault: grpc.RpcError, server: str) -> AtollError:
    """A failed call as one line."""
    code, details = fault.code(), plain(fault.details() or "")
    way = str(proxy.route(split(server)[0]))
    by = f" {way}" if way else ""
    status = grpc.StatusCode
    low = details.lower()
    if code == status.UNAVAILABLE and "hostname verification" in low:
        return IdentityError(
            "the certificate there is for other hosts",
            where=server,
            todo="use the name or address that the coordinator made it for, or have it add this",
        )
    if code == status.UNAVAILABLE and "certificate_verify_failed" in low:
        return IdentityError(
            "the certificate there is not by the coordinator that is trusted here, or has expired",
            where=server,
            todo="send nothing; check the address, and ask the coordinator",
        )
    if code == status.UNAVAILABLE and "handshake failed" in low:
        return ConfigError(f"no TLS there{by}", where=server, todo="check the address and the port")
    if code == status.UNAVAILABLE and nameless(details):
        return ConfigError(f"no such host{by}", where=server, todo=NAME)
    if code == status.UNAVAILABLE:
        return ConfigError(
            f"nobody answers there{by}",
            where=server,
            todo="check the address, the network and whether the coordinator is up",
        )
    if code == status.DEADLINE_EXCEEDED:
        return ConfigError(f"no answer in time{by}", where=server, todo="try again in a minute")
    if code == status.UNIMPLEMENTED:
        return IdentityError(
            "no Atoll coordinator of this version",
            where=server,
            todo="check the address and both versions",
        )
    what, _, todo = details.rpartition("; ")
    return IdentityError(what or details or code.name, where=server, todo=todo or "ask it why")


def nameless(details: str) -> bool:
    """Whether a call failed because the server's host name has no address, by gRPC's words."""
    low = details.lower()
    return "errors resolving" in low or "dns resolution failed" in low


def plain(text: str, most: int = 400) -> str:
    """Somebody else's words as one line without control characters, not too long."""
    return "".join(it if it.isprintable() else " " for it in " ".join(text.split()))[:most]
