"""`atoll.Enrolment` on the server's port: Join, Checkpoint and Hello.

    headers ─unpacked→ request ─Enrolment, audit log→ reply ─packed→ bytes
                         └ a fault: a gRPC status with one line, and no word of this machine

Whoever reaches the port may call: Join asks for a token, Checkpoint for an admitted platform's
signature. A request is in the call's headers, which gRPC bounds; a message is never read, however
large it is. Joins without a valid token are counted, and beyond a number of them in a minute the
next is refused unread and unlogged; a valid token is accepted at any time. The same refusal is told
once an hour, so that nobody can fill a disk.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.enrolment import Enrolment
from server.refusals import Refusals, host_of
from server.restored import Guard
from shared.audit_log import AuditLog
from shared.channel import REQUEST, plain
from shared.checkpoints import Checkpoint
from shared.enrolment import (
    CLOCK,
    SERVICE,
    CheckpointReply,
    CheckpointRequest,
    HelloReply,
    JoinReply,
    JoinRequest,
    checkpoint_body,
    packed,
    unpacked,
)
from shared.errors import AtollError, AuditError, IdentityError
from shared.evictions import MOST, Eviction
from shared.signing import check, public_of, sign

log = logging.getLogger("atoll.server")

FAILURES = 20  # joins that may fail in a minute from one address, and are told why
ALL_FAILURES = 200  # and from all together
MINUTE = 60.0
BACK = "the coordinator was put back from a backup, and is not confirmed yet"
WAIT = "wait until its operator has confirmed who takes part"
FAILED = "the coordinator cannot answer; ask it to look into its log"

Keep = Callable[[str, Checkpoint, str], None]


class Attempts:
    """Failed joins of this minute, by address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minute, self._failed = 0, Counter[str]()

    def check(self, peer: str) -> None:
        """Raises: IdentityError if too many failed."""
        with self._lock:
            self._turn()
            if self._failed[peer] < FAILURES and self._failed.total() < ALL_FAILURES:
                return
        raise IdentityError("too many joins failed", todo="try again in a minute")

    def failed(self, peer: str) -> None:
        """Count one."""
        with self._lock:
            self._turn()
            self._failed[peer] += 1

    def _turn(self) -> None:
        minute = int(self._clock() // MINUTE)
        if minute != self._minute:
            self._minute, self._failed = minute, Counter()


def handlers(
    enrolment: Enrolment,
    *,
    key: Ed25519PrivateKey,
    checkpoint: Callable[[], Checkpoint],
    keep: Keep,
    ca_bundle: Callable[[], bytes],
    audit: AuditLog,
    clock: Callable[[], float] = time.time,
    guard: Guard | None = None,
) -> grpc.GenericRpcHandler:
    """The service, for a gRPC server.

    Args:
        enrolment: who may take part.
        key: the coordinator's signing key.
        checkpoint: of the coordinator's audit log, as it stands.
        keep: writes down a platform's: name, Checkpoint, the platform's public key.
        ca_bundle: CAs that platforms must trust from now on, PEM.
        audit: is told who joined and who was refused.
        clock: seconds since 1970.
        guard: weighs what platforms hold of this coordinator; while it finds that this one was put
            back from a backup, nobody joins.
    """
    attempts, refusals = Attempts(clock), Refusals(clock=clock)

    def bundle() -> dict[str, str]:
        content = ca_bundle()
        return {"ca": content.decode(), "ca_signature": sign(key, "ca", content)}

    def evicted() -> list[dict[str, float | str]]:
        gone = [(it.evicted, it) for it in enrolment.platforms() if it.evicted is not None]
        newest = sorted(gone, key=lambda pair: pair[0])[-MOST:]
        return [
            Eviction(member.name, member.signing_key, moment).signed(key).as_dict()
            for moment, member in newest
        ]

    def join(content: bytes, peer: str) -> bytes:
        if guard is not None and guard.missing() is not None:
            raise IdentityError(BACK, todo=WAIT)
        try:
            request = asked_to_join(content)
            reply = JoinReply(coordinator=public_of(key), server=version("atoll"), **bundle())
            enrolment.admit(request)
        except IdentityError as fault:
            if _own(fault):
                raise
            attempts.check(peer)
            attempts.failed(peer)
            if (more := refusals.told(peer, fault.what)) is not None:
                log.warning("a join from %s was refused: %s%s", peer, fault.what, more)
                audit.add("join refused", why=fault.what + more, peer=peer)
            raise
        try:
            audit.add("joined", platform=request.name, signing_key=request.signing_key)
        except BaseException:
            enrolment.evict(request.name)  # nobody is in of whom the audit log does not tell
            raise
        log.info("%s joined", request.name)
        return packed(reply)

    def asked_to_join(content: bytes) -> JoinRequest:
        request = unpacked(content, JoinRequest, "join")
        enrolment.check_token(bytes.fromhex(request.token))  # before any proof: it costs least
        return request

    def exchange(content: bytes, _peer: str) -> bytes:
        request = unpacked(content, CheckpointRequest, "checkpoint")
        if guard is not None:
            # Before anything is known of who asks: the signature on it is this coordinator's own,
            # and who joined after a backup is unknown to what was restored.
            guard.show(request.held, request.evictions)
        member = enrolment.named(request.platform)
        if member is None:
            if enrolment.suspended(request.platform):
                raise IdentityError(
                    "the coordinator was put back from a backup, and this platform is suspended",
                    todo="ask the coordinator to confirm it",
                )
            raise IdentityError(
                f"no platform {request.platform!r} is enrolled here, or it was evicted",
                todo="ask the coordinator for a token and join",
            )
        check(member.signing_key, "exchange", checkpoint_body(request), request.proof)
        if guard is not None:
            guard.shown.add(member.name)
        now = clock()
        check_clock(request.sent, now)
        if request.checkpoint is not None:
            told = Checkpoint.from_dict(request.checkpoint)
            keep(member.records, told, member.signing_key)
        enrolment.seen(member.name, ca=request.ca)
        own = None if request.checkpoint is None else checkpoint().as_dict()
        reply = CheckpointReply(
            checkpoint=own,
            now=now,
            server=version("atoll"),
            evictions=evicted(),
            **bundle(),
        )
        return packed(reply)

    def hello(_content: bytes, _peer: str) -> bytes:
        return packed(HelloReply(now=clock()))

    methods = {"Join": join, "Checkpoint": exchange, "Hello": hello}
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.stream_unary_rpc_method_handler(_in_one_line(method))
            for name, method in methods.items()
        },
    )


def check_clock(sent: float, now: float) -> None:
    """Raises: IdentityError if a platform's clock is too far from this one."""
    off = sent - now
    if abs(off) <= CLOCK:
        return
    way = "ahead of" if off > 0 else "behind"
    by = f"{abs(off):.0f} s" if math.isfinite(off) else "far"
    raise IdentityError(
        f"the platform's clock is {by} {way} the coordinator's, more than {CLOCK:.0f} s",
        todo="set both by a time server",
    )


def _in_one_line(method: Callable[[bytes, str], bytes]) -> Callable[[Any, Any], bytes]:
    """The method for gRPC: whatever goes wrong ends the call with a code and one line.

    For gRPC it takes a stream of messages, so that none is read before it is asked for.
    """

    def call(_messages: object, context: Any) -> bytes:
        status = grpc.StatusCode
        content = dict(context.invocation_metadata()).get(REQUEST, b"")
        try:
            return method(content, host_of(context.peer()))
        except AtollError as fault:
            if isinstance(fault, IdentityError | AuditError) and not _own(fault):
                # Without `where`: paths of this machine are nobody else's business.
                code, line = status.PERMISSION_DENIED, f"{fault.what}; {fault.todo}"
            else:
                log.error("a call failed: %s", fault)
                code, line = status.INTERNAL, FAILED
        except Exception:
            log.exception("a call failed")
            code, line = status.INTERNAL, FAILED
        context.abort(code, plain(line))
        raise AssertionError("abort returned")

    return call


def _own(fault: AtollError) -> bool:
    """Whether a file of this machine is at fault, and not the caller."""
    return isinstance(fault, IdentityError) and isinstance(fault.where, Path)
