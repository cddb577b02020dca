"""The Fleet API of platforms: each call admitted anew, and questions held until there is an answer.

    call ─Admission→ enrolled now? ─→ Flower's node authentication ─→ Fleet ─→ LinkState

A node that asks for work is answered when there is some, or after HOLD seconds: nobody polls.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc
from flwr.common.constant import NOOP_FLWR_AID
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

from server.grid import Counter
from server.refusals import host_of

HOLD = 20.0  # seconds that a question for work is held open; proxies cut at 60 and more
LOOK = 0.5  # seconds between two looks at whether a held node is still admitted
ONLINE = "online"  # of Flower's node states
PUBLIC_KEY = "flwr-public-key-bin"  # of Flower's node authentication

NameOf = Callable[[bytes], str | None]  # node key → its platform, while it is admitted
Refused = Callable[[str, str, bytes], None]  # method, address of who called, its node key


class Admission(grpc.ServerInterceptor):  # type: ignore[misc]
    """Turns away whoever is not enrolled, or no longer, at every single call."""

    def __init__(self, name_of: NameOf, refused: Refused) -> None:
        self.name_of, self.refused = name_of, refused

    def intercept_service(
        self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Pass the call on, or end it."""
        if not details.method.startswith("/flwr.proto.Fleet/"):
            return continuation(details)
        key = dict(details.invocation_metadata).get(PUBLIC_KEY, b"")
        if self.name_of(bytes(key)) is not None:
            return continuation(details)
        method = details.method.rpartition("/")[2]

        def refuse(_request: Any, context: grpc.ServicerContext) -> None:
            self.refused(method, host_of(context.peer()), bytes(key))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not enrolled here, or evicted")

        return grpc.unary_unary_rpc_method_handler(refuse)


class Fleet(FleetServicer):
    """Flower's Fleet API: it rings when something comes, and holds questions until it does."""

    def __init__(self, states: LinkStateFactory, name_of: NameOf, counter: Counter) -> None:
        super().__init__(states, states.objectstore_factory, enable_supernode_auth=True)
        self.name_of, self.counter = name_of, counter
        self.known = threading.Lock()
        self.begun = defaultdict[int, int](int)  # how often each node began

    def ActivateNode(  # noqa: N802 (Flower's name)
        self, request: ActivateNodeRequest, context: grpc.ServicerContext
    ) -> ActivateNodeResponse:
        """A node begins; the first time, Flower gets to know it."""
        state = self.state_factory.state()
        if request.public_key != key_of(context):
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
        self.counter.returned.put((response.node_id, began))
        self.counter.answered.ring()
        return response

    def PullMessages(  # noqa: N802
        self, request: PullMessagesRequest, context: grpc.ServicerContext
    ) -> PullMessagesResponse:
        """A Message for this node as soon as there is one; none after HOLD seconds.

        A node that was cut off and has come back asks anew, while its old question may be held yet:
        that one must not take what is meant for the new.
        """
        node, until = request.node.node_id, time.monotonic() + HOLD
        begun = self.begun[node]
        while True:
            rung = self.counter.asked.count()
            if self.begun[node] != begun or not context.is_active():
                return PullMessagesResponse()
            response = super().PullMessages(request, context)
            if response.messages_list:
                if self.begun[node] == begun:
                    return response
                self.counter.returned.put((node, time.monotonic()))  # it is asked again
                self.counter.answered.ring()
                return PullMessagesResponse()
            while (left := until - time.monotonic()) > 0 and context.is_active():
                if self.name_of(key_of(context)) is None:
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "not enrolled here, or evicted")
                if self.counter.asked.wait(rung, min(left, LOOK)) > rung:
                    break
            else:
                return response

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        """A reply's head."""
        with self.counter.objects:
            response = super().PushMessages(request, context)
        self.counter.answered.ring()
        return response

    def PushObject(  # noqa: N802
        self, request: PushObjectRequest, context: grpc.ServicerContext
    ) -> PushObjectResponse:
        """A piece of a reply.

        One that is no longer wanted is taken for stored: another platform has sent its equal, an
        empty record of metrics for one, and the reply was whole and read before this came.
        """
        with self.counter.objects:
            if self.state_factory.state().object_store.get(request.object_id) is None:
                return PushObjectResponse(stored=True)
            response = super().PushObject(request, context)
        self.counter.answered.ring()
        return response

    def ConfirmMessageReceived(  # noqa: N802
        self, request: ConfirmMessageReceivedRequest, context: grpc.ServicerContext
    ) -> ConfirmMessageReceivedResponse:
        """Nothing is dropped yet: a node that is killed now is asked the same again."""
        return ConfirmMessageReceivedResponse()


def key_of(context: grpc.ServicerContext) -> bytes:
    """The public key whose signature Flower has checked for this call."""
    return bytes(dict(context.invocation_metadata()).get(PUBLIC_KEY, b""))
