"""The SuperNode of a platform: it asks the server for work, and lets approved code do it.

    receive ─→ which bundle? ─approved→ worker answers ─→ send
                   └ unknown: into the queue of approvals, a refusal by number, no line of it runs

A server that cannot be reached is tried again, with pauses that grow; one that turns this node away
too, because an eviction may be a mistake. Everything that comes and goes is in the audit log.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from flwr.app import Error, Message
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from clients.approvals import Approvals
from clients.link import Link
from clients.workers import Config, Stopped, Worker
from shared import records, wire
from shared.audit_log import AuditLog
from shared.channel import NAME, nameless
from shared.errors import AtollError
from shared.health import Health

log = logging.getLogger("atoll.client")

FIRST, LONGEST = 0.5, 60.0  # seconds of the pauses between two attempts to connect
# What a connection may end with: the wire's, the server's nonsense, a full disk here.
FAULTS = (grpc.RpcError, ObjectPullError, ObjectPushError, AtollError, OSError, ValueError)


@dataclass
class SuperNode:
    """A platform's node.

    Attributes:
        connect: makes a Link, as often as it is needed.
        approvals: of bundles.
        scratch: folder where bundles are unpacked to run.
        config: Flower's node configuration; nothing the server sends can change it.
        audit: the platform's log.
        health: what the daemon says of itself.
        stop: set to end.
        renew: set to connect anew, with other certificates.
        begun: set when a connection has begun.
        way: the proxy by which the server is reached, in words; empty for none.
        erased: file of the erasure list; when it changes, a warm worker ends with the rows it has
            in memory.
    """

    connect: Callable[[], AbstractContextManager[Link]]
    approvals: Approvals
    scratch: Path
    config: Config
    audit: AuditLog
    health: Health
    stop: threading.Event = field(default_factory=threading.Event)
    renew: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    way: str = ""
    erased: Path | None = None
    _listed: tuple[int, int] | None = None
    _worker: Worker | None = None
    _bundles: dict[int, str] = field(default_factory=dict)

    def serve(self) -> None:
        """Work until told to stop."""
        pause = FIRST
        while not self.stop.is_set():
            began = time.monotonic()
            self._forget_erased()
            try:
                self._connected()
            except FAULTS as fault:
                if time.monotonic() - began > LONGEST:
                    pause = FIRST  # it went well for a while
                said = why(fault, self.way)
                self.health.say(ready=False, state=said)
                log.warning("no connection: %s; again in %.1f s", said, pause)
                self.stop.wait(pause)
                pause = min(2 * pause, LONGEST)
            except Stopped:
                break
        self.health.say(ready=False, state="stopping")
        if self._worker is not None:
            self._worker.stop(grace=0.2)

    def _connected(self) -> None:
        with self.connect() as link:
            self.renew.clear()
            self.health.say(ready=True, state="connected")
            log.info("connected")
            self.audit.add("connected")
            self.begun.set()
            while not (self.stop.is_set() or self.renew.is_set()):
                message = link.receive(over=self.stop.is_set)
                self._forget_erased()
                if message is None:
                    continue
                try:
                    self._answer(link, message)
                except grpc.RpcError as fault:
                    if fault.code() != grpc.StatusCode.PERMISSION_DENIED:
                        raise
                    log.info("the run that asked is over")  # its server was restarted

    def _forget_erased(self) -> None:
        """End a worker that read rows before a shopper was erased; looked at every few seconds."""
        try:
            found = None if self.erased is None else self.erased.stat()
        except OSError:
            found = None
        listed = None if found is None else (found.st_ino, found.st_mtime_ns)
        changed, self._listed = listed != self._listed, listed
        if changed and self._worker is not None:
            self._worker.stop()
            self._worker = None
            log.info("the erasure list changed: rows are read again for the next request")

    def _answer(self, link: Link, message: Message) -> None:
        began = time.monotonic()
        metadata = message.metadata
        TaskIdentity.run_id, TaskIdentity.node_id = metadata.run_id, metadata.dst_node_id
        TaskIdentity.task_id = 1
        digest = self._bundle_of(link, metadata.run_id)
        asked = {"kind": metadata.message_type, "round": metadata.group_id, "bundle": digest}
        self.audit.add("asked", **asked)
        self.health.say(state=f"answering {metadata.message_type}")
        reply = self._reply(digest, message)
        if not self.approvals.permits(digest):
            log.warning("bundle %s may not run any more; its answer stays here", digest[:12])
            reply = refusal(wire.Refusal.UNAPPROVED, message)
        elif reply.has_error():  # its words are the bundle's: what leaves is one of our numbers
            code = int(reply.error.code)
            known = wire.Refusal(code) if code in wire.REFUSALS else wire.Refusal.FAILED
            reply = refusal(known, message)
        if reply.has_error():
            told: dict[str, str | int] = {"refused": int(reply.error.code)}
        else:
            told = {
                "sha256": hashlib.sha256(message_to_proto(reply).SerializeToString()).hexdigest(),
                "tensor_bytes": records.size(reply.content),
            }
        # Before it leaves: a reply that is in the log and never left is the lesser evil.
        self.audit.add("answered", **asked, **told)
        link.send(reply)
        state = "connected"
        if reply.has_error():
            state = f"connected; refused {metadata.message_type}: {words(reply.error.code)}"
        self.health.say(ready=True, state=state, answered=metadata.message_type)
        log.info(
            "answered %s",
            metadata.message_type,
            extra={**asked, **told, "seconds": round(time.monotonic() - began, 2)},
        )

    def _bundle_of(self, link: Link, run: int) -> str:
        """The digest of a run's bundle; one that was never seen is fetched for the queue."""
        if run not in self._bundles:
            self._bundles = {run: link.run(run).fab_hash}
        digest = self._bundles[run]
        if not self.approvals.permits(digest):
            try:
                if self.approvals.standing(digest) != "unknown":
                    return digest
                self.approvals.offered(link.bundle(digest, run), claimed=digest)
                self.audit.add("bundle arrived", bundle=digest)
                log.warning("bundle %s waits: atoll-client approvals show %s", digest, digest[:12])
            except AtollError as fault:
                log.warning("a bundle was refused: %s", fault)
        return digest

    def _reply(self, digest: str, message: Message) -> Message:
        """The approved code's answer, or a refusal by number."""
        if not self.approvals.permits(digest):
            return refusal(wire.Refusal.UNAPPROVED, message)
        try:
            if self._worker is None or self._worker.digest != digest or not self._worker.alive:
                if self._worker is not None:
                    self._worker.stop()
                    self._worker = None
                self._worker = Worker(
                    self.approvals,
                    digest,
                    scratch=self.scratch,
                    revoked=partial(self._ended, digest),
                )
                log.info("running bundle %s", digest[:12])
                self.audit.add("running", bundle=digest)
            reply = self._worker.answer(message, self.config, stop=self.stop)
        except AtollError as fault:
            log.error("%s", fault)
            may = self.approvals.permits(digest)
            return refusal(wire.Refusal.FAILED if may else wire.Refusal.UNAPPROVED, message)
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            log.error("the bundle answered another request than it was asked")
            return refusal(wire.Refusal.FAILED, message)
        return reply

    def _ended(self, digest: str) -> None:
        """Tell that a worker was killed, because nobody lets its bundle run any more."""
        log.warning("bundle %s may not run any more; its worker was ended", digest[:12])
        with suppress(AtollError):  # it has ended whether this disk is full or not
            self.audit.add("worker ended", bundle=digest, why="not approved any more")


def words(code: int) -> str:
    """What a refusal's number means."""
    return wire.refused(code).what


def refusal(code: wire.Refusal, message: Message) -> Message:
    """A reply that is a number."""
    return Message(Error(int(code), wire.REFUSALS[code]), reply_to=message)


def why(fault: Exception, way: str = "") -> str:
    """A failed connection in words that say what to look at.

    Args:
        fault: that ended it.
        way: the proxy by which the server is reached, in words; empty for none.
    """
    if not isinstance(fault, grpc.RpcError):
        return str(fault) if isinstance(fault, AtollError) else f"{type(fault).__name__}: {fault}"
    code, details = fault.code(), str(fault.details() or "")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return f"the server turned this platform away ({details}); ask its coordinator"
    if "handshake failed" in details.lower() or "certificate" in details.lower():
        return "the server's certificate is not of the authority this platform joined"
    if code == grpc.StatusCode.UNAVAILABLE and nameless(details):
        return f"no such host as client.toml names for the server; {NAME}"
    if code == grpc.StatusCode.UNAVAILABLE:
        return "the server cannot be reached" + (f" {way}" if way else "")
    return f"{code.name}: {details}"
