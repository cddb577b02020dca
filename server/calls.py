"""From the wire to methods: who calls is known before a byte of the message is read.

    call ─metadata→ enrolled now? ─→ signature ─→ message ─→ Fleet ─→ reply
                        └ no: refused, the message is not read        ┐ a coroutine each:
    call to another service ─metadata→ its method; no message is read ┘ waiting holds no thread

Signatures are checked on the event loop, a millisecond each. The rest runs in two small pools of
threads, and a platform has a few places in them: one that calls as fast as it can delays itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, NoReturn

import grpc
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import (
    NodeAuthServerInterceptor,
)
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.error import rpc_error_translator

from server.refusals import host_of

log = logging.getLogger("atoll.server")

FLEET = "/flwr.proto.Fleet/"
PUBLIC_KEY = "flwr-public-key-bin"  # of Flower's node authentication
READ = 60.0  # seconds that the message of a call may take to come
LARGE = ("PushMessages", "PushObject")  # methods whose messages may be large
SMALL = 64 * 1024  # bytes of the messages of all others
READING = 2  # large messages of one platform that are read at a time: Flower sends two
PACE = 1 / 400  # seconds between two calls of one platform at one address, in the long run
PULL_PACE = 1 / 25  # and for each question for work
BEHIND = 5.0  # seconds by which calls may be early; they wait for so long
REST = 20.0  # seconds after which one that would have to wait for longer is refused
WORKING = 4  # calls of one platform that hold a thread at a time
MANY = 1000  # paces that are kept
THREADS = 32  # of platforms
DOOR = 8  # threads that serve enrolment and log who was refused
NOT_ENROLLED = "not enrolled here, or evicted"

NameOf = Callable[[bytes], str | None]  # node key → its platform, while it is admitted
Refused = Callable[[str, str, bytes], None]  # method, address of who called, its node key
Method = Callable[[Any, "Call"], Any]
Metadata = Sequence[tuple[str, str | bytes]]


class Ended(Exception):  # noqa: N818 (also an answer)
    """A call ends with a status and a line."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.status, self.details = code, details


@dataclass(frozen=True)
class Call:
    """What a method sees of its call, in the form of gRPC's ServicerContext."""

    method: str
    metadata: Metadata
    peer_address: str

    @property
    def key(self) -> bytes:
        """The node key; its signature is checked before a Fleet method runs."""
        return bytes(dict(self.metadata).get(PUBLIC_KEY, b""))  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The method's name without its service."""
        return self.method.rpartition("/")[2]

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call."""
        raise Ended(code, details)

    def invocation_metadata(self) -> Metadata:
        """What came with the call."""
        return self.metadata

    def peer(self) -> str:
        """Address and port, in gRPC's words."""
        return self.peer_address


class Details(NamedTuple):
    """A call in the form in which gRPC's interceptors take it."""

    method: str
    invocation_metadata: Metadata


Pull = Callable[[Any, Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Collected:
    """Takes the place of a gRPC server where a servicer is added: it keeps the methods."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """The same methods in another form."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Keep these."""
        self.handlers |= {f"/{service}/{name}": it for name, it in handlers.items()}


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All calls of a port: the Fleet API for enrolled platforms, and services that anybody may use.

    Args:
        methods: of the Fleet API, by /service/Method.
        held: of them, those that wait: a coroutine that is given the request, the call and a way
            to run the method once.
        states: Flower's, which knows the number of each key.
        name_of: the platform of a node key, while it is admitted.
        refused: is told of each call to the Fleet API that is turned away.
        too_large: is told of a platform's call whose message is too large.
        services: others; their methods take no message (`stream_unary`).
    """

    def __init__(
        self,
        methods: Mapping[str, grpc.RpcMethodHandler],
        held: Mapping[str, Pull],
        *,
        states: LinkStateFactory,
        name_of: NameOf,
        refused: Refused,
        too_large: Callable[[Call], None],
        services: Sequence[grpc.GenericRpcHandler],
    ) -> None:
        self.methods, self.held, self.services = methods, held, services
        self.name_of, self.refused, self.too_large = name_of, refused, too_large
        self.authentication = NodeAuthServerInterceptor(states)
        self.door = ThreadPoolExecutor(DOOR, "door")
        self.pool = ThreadPoolExecutor(THREADS, "fleet")
        self.due = dict[tuple[bytes, str], float]()  # when a platform's next call is in time
        # By node key, which is a platform's that is or was enrolled.
        self.large = defaultdict[bytes, asyncio.Semaphore](lambda: asyncio.Semaphore(READING))
        self.small = defaultdict[bytes, asyncio.Semaphore](lambda: asyncio.Semaphore(WORKING))
        self.working = defaultdict[bytes, asyncio.Semaphore](lambda: asyncio.Semaphore(WORKING))

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The coroutine that answers a call; None for a method that is not here."""
        method, metadata = details.method, tuple(details.invocation_metadata)
        if method.startswith(FLEET):
            answer = partial(self._fleet, method, metadata)
        else:
            handlers = [it for one in self.services if (it := one.service(details)) is not None]
            if not handlers:
                return None
            answer = partial(self._open, method, metadata, handlers[0])
        return grpc.stream_unary_rpc_method_handler(partial(_answered, answer))

    def close(self) -> None:
        """Let the threads go."""
        self.door.shutdown(wait=False, cancel_futures=True)
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def _open(
        self,
        method: str,
        metadata: Metadata,
        handler: grpc.RpcMethodHandler,
        _requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext,
    ) -> bytes:
        call = Call(method, metadata, context.peer())
        loop = asyncio.get_running_loop()
        answer: bytes = await loop.run_in_executor(self.door, handler.stream_unary, (), call)
        return answer

    async def _fleet(
        self,
        method: str,
        metadata: Metadata,
        requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext,
    ) -> bytes:
        call, loop = Call(method, metadata, context.peer()), asyncio.get_running_loop()
        # Strangers are refused at once: a call that waits keeps its buffers, and they have many.
        if self.name_of(call.key) is None:
            host = host_of(call.peer())
            await loop.run_in_executor(self.door, self.refused, call.name, host, call.key)
            call.abort(grpc.StatusCode.UNAUTHENTICATED, NOT_ENROLLED)
        await self._pace(call)
        if (handler := self.methods.get(method)) is None:
            call.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        signed = self._signed(handler, call)  # a millisecond; a thread's turn may take longer
        request = None

        async def once() -> Any:
            async with self.working[call.key]:
                return await loop.run_in_executor(self.pool, _run, signed, request, call)

        places = self.large if call.name in LARGE else self.small
        async with places[call.key]:
            request = await self._request(handler, requests, call)
            if call.name in LARGE:  # it is in memory until it is done
                return self._packed(handler, await once())
        held = self.held.get(method)
        return self._packed(handler, await (once() if held is None else held(request, call, once)))

    async def _pace(self, call: Call) -> None:
        """Hold up a platform that calls faster than any does, before its signature is checked.

        By address too, so that nobody elsewhere can hold up a platform whose public key it knows.

        Raises:
            Ended: it has called too often; after a while, so that it does not ask again at once.
        """
        now, who = asyncio.get_running_loop().time(), (call.key, host_of(call.peer()))
        if len(self.due) > MANY:
            self.due = {it: due for it, due in self.due.items() if due > now}
        due = max(self.due.get(who, 0.0), now - BEHIND)
        if due > now + BEHIND:
            await asyncio.sleep(REST)
            call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls")
        self.due[who] = due + (PULL_PACE if call.method in self.held else PACE)
        if due > now:
            await asyncio.sleep(due - now)

    def _packed(self, handler: grpc.RpcMethodHandler, response: Any) -> bytes:
        content: bytes = handler.response_serializer(response)
        return content

    async def _request(
        self, handler: grpc.RpcMethodHandler, requests: AsyncIterator[bytes], call: Call
    ) -> Any:
        """The message of a call.

        Raises:
            Ended: there is none, it is too large, or it takes too long.
        """
        try:
            content = await asyncio.wait_for(anext(aiter(requests)), READ)
            if len(content) > SMALL and call.name not in LARGE:
                raise StopAsyncIteration
        except StopAsyncIteration:
            if call.name in LARGE:  # others may have been given up
                await asyncio.get_running_loop().run_in_executor(self.pool, self.too_large, call)
            call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the message is too large, or none")
        except TimeoutError:
            call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
        try:
            return handler.request_deserializer(content)
        except Exception:  # protobuf's DecodeError
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, "no message of this method")

    def _signed(self, handler: grpc.RpcMethodHandler, call: Call) -> Method:
        """The method, if the caller has the node key, and for the node of this key alone.

        Raises:
            Ended: it has not.
        """
        passed: list[grpc.RpcMethodHandler] = []

        def proceed(_details: Details) -> grpc.RpcMethodHandler:
            passed.append(handler)
            return handler

        try:
            found = self.authentication.intercept_service(
                proceed, Details(call.method, call.metadata)
            )
        except (ValueError, TypeError, UnicodeError):
            call.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid signature")
        method: Method = found.unary_unary
        if not passed:
            _run(method, None, call)  # ends the call
            call.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid signature")
        return method


def _run(method: Method, request: Any, call: Call) -> Any:
    """Run a method of Flower's; what it raises ends the call with one line."""
    with rpc_error_translator(call, call.method):
        try:
            return method(request, call)
        except Ended as found:  # past Flower's translator: it is no fault
            end = found
    raise end


async def _answered(
    answer: Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext], Awaitable[bytes]],
    requests: AsyncIterator[bytes],
    context: grpc.aio.ServicerContext,
) -> bytes:
    """The answer to a call, or its end with a code and one line."""
    try:
        return await answer(requests, context)
    except Ended as end:
        code, details = end.status, end.details
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a call failed")
        code, details = grpc.StatusCode.INTERNAL, "the coordinator cannot answer"
    await context.abort(code, details)
    raise AssertionError("abort returned")
