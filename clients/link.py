"""The wire of a SuperNode: Flower's Fleet API over TLS, each call signed with the node's own key.

    activate → (receive → … → send)* → deactivate      and signs of life in between

Flower's own connection ends the process when the server turns it away, tries for ever when it does
not answer, and sleeps 3 s between two questions. A platform's daemon has to say what is wrong, come
back by itself and be quick, so it makes the same calls by Flower's own stubs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import cast

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import fab_from_proto, message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.run import Run
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from shared import proxy
from shared.channel import split
from shared.enrolment import node_public
from shared.errors import ReplyError
from shared.message_objects import MOST, whole_message
from shared.records import SAME_VERSION

COMPONENT = "SuperNode"  # Flower's name of what this is a part of
HEARTBEAT = 15.0  # seconds between two signs of life
INTERVAL = 30.0  # what is promised; after two of them without one the server asks others
CALL = 30.0  # seconds that a call may take; the server holds a question for work for 20
LEAVING = 1.0  # seconds that a sign of life, or a good-bye, may take at the end
LOOK = 0.2  # seconds between two looks at whether to give up a question that is held
LARGEST = 64 * 2**20  # bytes of one message


@dataclass(frozen=True)
class Link:
    """An activated node. Its methods raise grpc.RpcError.

    Attributes:
        stub: for calls that are answered at once.
        held: for calls that the server may hold, and this side may give up.
        node: its number.
    """

    stub: FleetStub
    held: FleetStub
    node: Node

    def receive(self, over: Callable[[], bool] = lambda: False) -> Message | None:
        """The next request for this node, or None when there was none for a while.

        Args:
            over: whether to end, and so to give the question up; looked at every LOOK seconds
                while the server holds it. A request that had come by then is returned. One that
                was on its way is as little lost as if this process was killed: the server asks a
                node that comes back the same again.
        """
        asking = self.held.PullMessages.future(
            PullMessagesRequest(node=self.node), timeout=CALL, metadata=versions()
        )
        response = answer_to(asking, over)
        if response is None or not response.messages_list:
            return None
        run, tree = announced(response)
        names = [it.object_id for it in iterate_object_tree(tree)]
        call = partial(self.stub.PullObject, timeout=CALL)
        contents = pull_objects(names, make_pull_object_fn_protobuf(call, self.node, run))
        make_confirm_message_received_fn_protobuf(self.stub.ConfirmMessageReceived, self.node, run)(
            tree.object_id
        )
        message = whole_message(tree.object_id, contents)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def run(self, number: int) -> Run:
        """What the server says of a run: above all, which bundle it is of."""
        request = GetRunRequest(node=self.node, run_id=number)
        return run_from_proto(self.stub.GetRun(request, timeout=CALL).run)

    def bundle(self, digest: str, run: int) -> bytes:
        """The bundle that the server sends for a digest; not checked here."""
        request = GetFabRequest(node=self.node, hash_str=digest, run_id=run)
        return bytes(fab_from_proto(self.stub.GetFab(request, timeout=CALL).fab).content)

    def send(self, reply: Message) -> None:
        """A reply, head and tensors. How long it took is nobody else's business: 0 is told.

        Raises:
            ObjectPushError: the server has given it up.
        """
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            request = PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            response = self.stub.PushMessages(request, timeout=CALL)
            push_objects(
                get_all_nested_objects(reply),
                make_push_object_fn_protobuf(
                    partial(self.stub.PushObject, timeout=CALL),
                    self.node,
                    reply.metadata.run_id,
                    response.session_id,
                ),
                object_ids_to_push=set(response.objects_to_push),
            )


def versions() -> tuple[tuple[str, str | bytes], ...]:
    """What Flower's interceptor tells of this side's versions with each call."""
    return RuntimeVersionMetadata.from_local_component(COMPONENT).append_to_grpc_metadata(())


def announced(response: PullMessagesResponse) -> tuple[int, ObjectTree]:
    """The run of the first message that the server announces, and the objects it is made of.

    Raises:
        ReplyError: it announces none that could be fetched.
    """
    try:
        run = message_from_proto(response.messages_list[0]).metadata.run_id
        tree = response.message_object_trees[0]
    # Flower raises many kinds for what it cannot read.
    except Exception as fault:
        raise ReplyError(
            f"the server's request is none ({type(fault).__name__})", todo=SAME_VERSION
        ) from fault
    if sum(1 for _ in islice(iterate_object_tree(tree), MOST + 1)) > MOST:
        raise ReplyError(f"the server's request has more than {MOST:,} objects", todo=SAME_VERSION)
    return run, tree


def answer_to(asking: grpc.Future, over: Callable[[], bool]) -> PullMessagesResponse | None:
    """What the server answers, as soon as it does; None if it was over before.

    Raises:
        grpc.RpcError: the call failed.
    """
    there = threading.Event()
    asking.add_done_callback(lambda _asking: there.set())
    while not there.wait(LOOK):
        if over():
            asking.cancel()  # in vain if the answer has just come, which then counts
            break
    try:
        return cast(PullMessagesResponse, asking.result())
    except grpc.FutureCancelledError:
        return None


@contextmanager
def linked(
    server: str,
    *,
    roots: bytes,
    key: ec.EllipticCurvePrivateKey,
    lost: Callable[[], None] = lambda: None,
) -> Iterator[Link]:
    """An activated node at this server; deactivated and closed at the end.

    Args:
        server: HOST:PORT.
        roots: PEM of the certificates that a server's may be signed by.
        key: the node's.
        lost: called when the server no longer takes its signs of life.

    Raises:
        grpc.RpcError: the server cannot be reached, is another, or turns this node away.
    """
    public = node_public(key.public_key())
    options = [
        ("grpc.max_send_message_length", LARGEST),
        ("grpc.max_receive_message_length", LARGEST),
        ("grpc.keepalive_time_ms", 30_000),  # a cable that was pulled is found out
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.use_local_subchannel_pool", 1),  # a new link is a new handshake
        *proxy.options(split(server)[0]),
    ]
    secrets = grpc.ssl_channel_credentials(roots)
    with grpc.secure_channel(server, secrets, options=options) as raw:
        signed = grpc.intercept_channel(raw, NodeAuthClientInterceptor(key, key.public_key()))
        # It waits for the end of each call, to look whether the versions fit: a call that may be
        # given up says them by itself. Whether they fit, ActivateNode has shown by then.
        channel = grpc.intercept_channel(
            signed, RuntimeVersionClientInterceptor(component_name=COMPONENT)
        )
        stub = FleetStub(channel)
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=INTERVAL)
        node = Node(node_id=stub.ActivateNode(request, timeout=CALL).node_id)
        ended = threading.Event()
        pulse = threading.Thread(target=_beat, args=(stub, node, ended, lost), daemon=True)
        pulse.start()
        try:
            yield Link(stub, FleetStub(signed), node)
        finally:
            ended.set()
            pulse.join(LEAVING)
            with suppress(grpc.RpcError):  # else it is missed after two intervals
                stub.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id), timeout=LEAVING)


def _beat(stub: FleetStub, node: Node, ended: threading.Event, lost: Callable[[], None]) -> None:
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=INTERVAL)
    while not ended.wait(HEARTBEAT):
        try:
            stub.SendNodeHeartbeat(request, timeout=5.0)
        except grpc.RpcError as fault:
            # Unreachable for a while is for the one who asks for work to find out.
            if fault.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                lost()
