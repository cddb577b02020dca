"""The Fleet API of platforms: questions held until there is an answer, replies that are bounded.

    call ─Calls→ enrolled now? signature? ─→ Fleet ─→ LinkState, Replies

A node that asks for work is answered when there is some, or after HOLD seconds: nobody polls. What
waits is a coroutine and holds no thread, and each node has one question out: a newer one ends it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

import grpc
from flwr.app import Message
from flwr.common.constant import NOOP_FLWR_AID, Status
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.utils import check_abort
from flwr.supercore.error import ApiErrorCode, FlowerError

from server.calls import NOT_ENROLLED, Call, NameOf
from server.grid import Counter, flowers_own
from server.listener import event_loop
from server.refusals import Refusals
from server.replies import SAME_VERSION
from shared.errors import ReplyError

log = logging.getLogger("atoll.server")

HOLD = 20.0  # seconds that a question for work is held open; proxies cut at 60 and more
LOOK = 0.5  # seconds between two looks at whether a held node is still admitted
ONLINE = "online"  # of Flower's node states
TOO_LARGE = "sent no message, or one that is too large"
HEADS = 2**20  # bytes of a reply without its objects


class Fleet(FleetServicer):
    """Flower's Fleet API: it rings when something comes, and holds questions until it does."""

    def __init__(self, states: LinkStateFactory, name_of: NameOf, counter: Counter) -> None:
        super().__init__(states, states.objectstore_factory, enable_supernode_auth=True)
        self.name_of, self.counter = name_of, counter
        self.known = threading.Lock()
        self.begun = defaultdict[int, int](int)  # how often each node began
        self.refusals = Refusals()
        # Of the event loop alone: the question of each node key that is out, and what wakes it.
        self.newest = defaultdict[bytes, int](int)
        self.waiting: dict[bytes, asyncio.Event] = {}
        self.closing = False
        counter.asked.listen(self._wake)

    def close(self) -> None:
        """End all questions that are held."""
        self.closing = True
        self._wake()

    def ActivateNode(  # noqa: N802 (Flower's name)
        self, request: ActivateNodeRequest, context: Call
    ) -> ActivateNodeResponse:
        """A node begins; the first time, Flower gets to know it."""
        state = self.state_factory.state()
        if request.public_key != context.key:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "another node's key")
        with self.known:
            if state.get_node_id_by_public_key(request.public_key) is None:
                name = self.name_of(request.public_key) or ""
                state.create_node(NOOP_FLWR_AID, name, request.public_key, 0, name=name)
        node = state.get_node_id_by_public_key(request.public_key)
        found = state.get_node_info(node_ids=[node]) if node is not None else []
        if found and found[0].status == ONLINE:  # it was killed; Flower begins only who went
            state.acknowledge_node_heartbeat(found[0].node_id, request.heartbeat_interval)
            response = ActivateNodeResponse(node_id=found[0].node_id)
        else:
            response = super().ActivateNode(request, context)
        # One moment: what was left for the node by then it is asked again, and what is left from
        # then on no question of before may take.
        with self.known:
            self.begun[response.node_id] += 1
            began = time.monotonic()
        self._wake()
        self.counter.returned.put((response.node_id, began))
        self.counter.answered.ring()
        return response

    def PullMessages(  # noqa: N802 (Flower's name)
        self, request: PullMessagesRequest, context: Call
    ) -> PullMessagesResponse:
        """A Message for this node if there is one now."""
        return super().PullMessages(request, context)

    async def pull(
        self,
        request: PullMessagesRequest,
        call: Call,
        look: Callable[[], Awaitable[PullMessagesResponse]],
    ) -> PullMessagesResponse:
        """A Message for this node as soon as there is one; none after HOLD seconds.

        A node that was cut off and has come back asks anew, while its old question may be held yet:
        that one must not take what is meant for the new.

        Args:
            request: whose number is the caller's once `look` has returned.
            call: by which it came.
            look: what there is for the node now.

        Raises:
            Ended: a newer question took its place, or the platform is admitted no more.
        """
        key, node, until = call.key, request.node.node_id, time.monotonic() + HOLD
        self.newest[key] += 1
        mine, begun, event = self.newest[key], self.begun.get(node, 0), asyncio.Event()
        if (before := self.waiting.get(key)) is not None:
            before.set()
        self.waiting[key] = event
        try:
            while not self._over(key, mine, call):
                event.clear()
                if self.begun.get(node, 0) != begun:
                    return PullMessagesResponse()
                response = await look()
                if response.messages_list:
                    if self.begun.get(node, 0) == begun and self.newest[key] == mine:
                        return response
                    self.counter.returned.put((node, time.monotonic()))  # it is asked again
                    self.counter.answered.ring()
                    return PullMessagesResponse()
                if not await self._woken(event, until, call):
                    return response
            return PullMessagesResponse()
        finally:
            if self.waiting.get(key) is event:
                del self.waiting[key]

    def _over(self, key: bytes, mine: int, call: Call) -> bool:
        """Whether the port closes. Raises: Ended if this question is not the node's newest."""
        if self.newest[key] != mine:
            call.abort(grpc.StatusCode.ABORTED, "a newer question of this node took its place")
        return self.closing

    async def _woken(self, event: asyncio.Event, until: float, call: Call) -> bool:
        """Wait until something came for anybody; False if nothing did in time."""
        while (left := until - time.monotonic()) > 0 and not self.closing:
            if self.name_of(call.key) is None:
                call.abort(grpc.StatusCode.UNAUTHENTICATED, NOT_ENROLLED)
            try:
                await asyncio.wait_for(event.wait(), min(left, LOOK))
            except TimeoutError:
                continue
            return True
        return False

    def _wake(self) -> None:
        """Have all held questions look again; from any thread."""
        event_loop().call_soon_threadsafe(self._set)

    def _set(self) -> None:
        for event in self.waiting.values():
            event.set()

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: Call
    ) -> PushMessagesResponse:
        """A reply's head: what is stored of it is bounded, and in nobody else's way."""
        node = request.node.node_id
        try:
            missing = self._announced(node, context.key, request)
        except ReplyError as fault:
            self._refuse(node, fault, context)
        self.counter.answered.ring()
        return PushMessagesResponse(objects_to_push=missing)

    def _announced(self, node: int, key: bytes, request: PushMessagesRequest) -> list[str]:
        """The objects that a node shall send of its reply; none if nobody waits for it.

        Raises:
            ReplyError: it is malformed, too large, or another's.
        """
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise ReplyError("sent other than one reply in a call", todo=SAME_VERSION)
        if request.ByteSize() > HEADS:
            self.counter.replies.spoil(node, "sent a head that is too large")
            raise ReplyError(f"sent a head of more than {HEADS:,} bytes", todo=SAME_VERSION)
        header = message_from_proto(request.messages_list[0])
        self._check_run(header)
        if flowers_own(header):
            raise ReplyError("sent an error that only the server makes", todo=SAME_VERSION)
        replies, state = self.counter.replies, self.state_factory.state()
        missing = replies.announced(node, header, request.message_object_trees[0])
        if missing is None:
            self._tell(key, "replied to a request that is over, or that it was not asked")
            return []
        return missing if state.store_message_res(header) is not None else []

    def _check_run(self, header: Message) -> None:
        """Raises: FlowerError if the run is not running."""
        ended = [Status.PENDING, Status.STARTING, Status.FINISHED]
        why = check_abort(header.metadata.run_id, ended, self.state_factory.state())
        if why is not None:
            raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, why)

    def PushObject(  # noqa: N802
        self, request: PushObjectRequest, context: Call
    ) -> PushObjectResponse:
        """A piece of a reply. One that nobody waits for any more is dropped, and told as stored."""
        node = request.node.node_id
        try:
            if not self.counter.replies.stored(node, request.object_id, request.object_content):
                self._tell(context.key, "sent an object that nobody waits for")
        except ReplyError as fault:
            self._refuse(node, fault, context)
        self.counter.answered.ring()
        return PushObjectResponse(stored=True)

    def too_large(self, call: Call) -> None:
        """A node sent a message beyond what the port takes."""
        node = self.state_factory.state().get_node_id_by_public_key(call.key)
        if node is not None:
            self.counter.replies.spoil(node, TOO_LARGE)
        self._tell(call.key, TOO_LARGE)
        self.counter.answered.ring()

    def _refuse(self, node: int, fault: ReplyError, call: Call) -> None:
        self._tell(call.key, fault.what)
        self.counter.answered.ring()
        call.abort(grpc.StatusCode.INVALID_ARGUMENT, fault.what)

    def _tell(self, key: bytes, what: str) -> None:
        """A line in the log for each platform and fault, once an hour."""
        name = self.name_of(key) or ""
        if (more := self.refusals.told(name, what)) is not None:
            log.warning("%s %s; %s%s", name, what, SAME_VERSION, more)

    def ConfirmMessageReceived(  # noqa: N802
        self, request: ConfirmMessageReceivedRequest, context: Call
    ) -> ConfirmMessageReceivedResponse:
        """Nothing is dropped yet: a node that is killed now is asked the same again."""
        return ConfirmMessageReceivedResponse()
