"""The deployed Grid: the ServerApp's Messages in Flower's LinkState, without polling and processes.

    ServerApp ─Message→ LinkGrid ─→ LinkState ←─ Fleet API ←─ SuperNode
                          ↑ Counter: a reply came, a node came back

Flower's own way is an HTTP API, a process for the ServerApp and a question every 3 s. Here the
ServerApp runs in the process that serves the Fleet API, so it is told. A node that comes back while
an answer of it is outstanding is sent the same content again: what it was doing died with it, and
a platform answers the same request with the same bytes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from flwr.app import Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.server.superlink.linkstate import LinkState
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from server.replies import SAME_VERSION, Replies
from shared import records, wire
from shared.errors import ReplyError
from shared.message_objects import whole_message

log = logging.getLogger("atoll.server")

SLACK = 60.0  # seconds a request outlives its deadline: Flower answers for expired ones
RETURN = 30.0  # seconds that a platform which went has to come back and be asked again
HEADER = ("run_id", "src_node_id", "dst_node_id", "reply_to_message_id", "message_type")
LONGEST = 1.0  # seconds between two looks: nodes also fall silent, and nobody rings for that


class Bell:
    """Wakes whoever waits for something to come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Have this called whenever it rings; it must not wait."""
        self._listeners.append(listener)

    def count(self) -> int:
        """How often it rang so far."""
        with self._changed:
            return self._count

    def ring(self) -> None:
        """Something came."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def wait(self, after: int, seconds: float) -> int:
        """Wait until it rang more often than `after`, or for that long; how often it rang."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > after, seconds)
            return self._count


class Counter:
    """Where the Grid and the Fleet API meet.

    Attributes:
        asked: rings when requests were left for nodes.
        answered: rings when something of a reply came, or a node began anew.
        objects: held while a request's objects are registered, stored or dropped: Flower's store
            counts references in several steps, and all platforms are sent the same tensors.
        replies: what came of replies so far.
        returned: nodes that began anew, each with when, until the Grid has taken them.
    """

    def __init__(self) -> None:
        self.asked, self.answered = Bell(), Bell()
        self.objects = threading.Lock()
        self.replies = Replies()
        self.returned: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()

    def taken(self) -> dict[int, float]:
        """Nodes that began anew since this was asked last, and when last by `time.monotonic`."""
        nodes = dict[int, float]()
        with suppress(queue.Empty):
            while True:
                node, began = self.returned.get_nowait()
                nodes[node] = max(began, nodes.get(node, began))
        return nodes


class LinkGrid(Grid):
    """A Grid on a LinkState of the same process, for one run."""

    def __init__(
        self,
        state: LinkState,
        run_id: int,
        counter: Counter,
        *,
        name_of: Callable[[int], str | None] = lambda _node: None,
        called: Callable[[int], str | None] = lambda _node: None,
    ) -> None:
        """For a run whose requests lie in a state.

        Args:
            state: Flower's.
            run_id: of the run.
            counter: shared with the Fleet API.
            name_of: the enrolled platform behind a node; None where nobody enrolled it.
            called: what a log calls it, also if it is evicted.
        """
        self.state, self.run_id, self.counter = state, run_id, counter
        self.name_of, self.called = name_of, called
        # Raises while nobody may be asked anything.
        self.check: Callable[[], None] = lambda: None

    def set_run(self, run: object) -> None:
        """There is one run."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """Not kept: the ServerApp does not ask."""
        raise NotImplementedError("the ServerApp's run is in its Context")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A Message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are enrolled and online."""
        self.check()
        return sorted(n for n in self.state.get_nodes(self.run_id) if self.name_of(n) is not None)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Leave requests for their nodes; the identifiers of those that could be left."""
        found = [self._push(message) for message in messages]
        self.counter.asked.ring()
        return [number for number in found if number]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to these that are there as a whole."""
        return [reply for _number, reply in self._pull(set(message_ids), {}) if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Replies as they come, and None now and then; who stops listening early drops the rest.

        A platform that says hello under another name than it enrolled with is not heard.
        """
        until = time.monotonic() + (timeout if timeout is not None else float("inf"))
        self.counter.taken()  # of old; whoever begins anew from here on is asked again
        asked_at = time.monotonic()
        waiting = {number: message for message in messages if (number := self._push(message))}
        left_at = dict.fromkeys(waiting, asked_at)
        arriving: dict[str, Message] = {}
        gone: dict[str, float] = {}  # when a request's node was found to be away
        rung = -1
        self.counter.asked.ring()
        try:
            while self._hopeful(waiting, gone) and (left := until - time.monotonic()) > 0:
                rung = self.counter.answered.wait(rung, min(left, LONGEST))
                self.check()
                for node, began in self.counter.taken().items():
                    self._again(node, began, waiting, left_at, left)
                for number, reply in self._pull(waiting.keys() - gone.keys(), arriving):
                    if reply is not None and flowers_own(reply):
                        gone.setdefault(number, time.monotonic())
                    elif (message := waiting.pop(number, None)) is None:
                        continue
                    elif reply is None or not self._of_its_kind(reply, message):
                        yield failed(message)
                    elif self._own_name(reply):
                        yield reply
                yield None  # type: ignore[misc]
        finally:
            self._forget(set(waiting))

    def _hopeful(self, waiting: Mapping[str, Message], gone: Mapping[str, float]) -> bool:
        """Whether an answer may still come: a node is at it, or has gone a moment ago."""
        now = time.monotonic()
        return any(
            self.name_of(message.metadata.dst_node_id) is not None
            and now - gone.get(number, now) < RETURN
            for number, message in waiting.items()
        )

    def _of_its_kind(self, reply: Message, message: Message) -> bool:
        """Whether a reply is of the kind of its request."""
        if reply.metadata.message_type == message.metadata.message_type:
            return True
        self._warn(message.metadata.dst_node_id, "answered with another kind of message")
        return False

    def _warn(self, node: int, what: str) -> None:
        log.warning("%s: %s; %s", self.called(node) or f"node {node}", what, SAME_VERSION)

    def _own_name(self, reply: Message) -> bool:
        if reply.has_error() or reply.metadata.message_type != wire.HELLO:
            return True
        name = self.name_of(reply.metadata.src_node_id)
        with suppress(ReplyError):
            if wire.read_member(reply.content).platform == name:
                return True
        log.warning("%s said hello under another name and is left out", name)
        return False

    def _push(self, message: Message) -> str:
        self.check()
        message.metadata.ttl += SLACK
        number = message.object_id
        message.metadata.__dict__["_message_id"] = number
        session = self.state.start_session(self.run_id)
        size = records.size(message.content) if message.has_content() else 0
        with no_object_id_recompute(), self.counter.objects:
            self.counter.replies.asked(number, message.metadata.dst_node_id, size)
            stored, missing = self.state.store_message_and_object_tree(
                remove_content_from_message(message), get_object_tree(message), session
            )
            if not stored:  # the node is gone
                self.counter.replies.forget({number})
                return ""
            objects = get_all_nested_objects(message)
            for name in missing:
                self.state.store_object(self.run_id, session, name, objects[name].deflate())
        return str(number)

    def _again(
        self,
        node: int,
        began: float,
        waiting: dict[str, Message],
        left_at: dict[str, float],
        left: float,
    ) -> None:
        """Ask a node again what it was asked before it began anew, and nothing that came later.

        A node is online a moment before the Grid hears that it began: what was left for it in that
        moment it may be fetching now.
        """
        for number, message in list(waiting.items()):
            if message.metadata.dst_node_id != node or left_at[number] > began:
                continue
            self._forget({number})
            del waiting[number]
            fresh = Message(
                message.content,
                node,
                message.metadata.message_type,
                ttl=left,
                group_id=message.metadata.group_id,
            )
            asked_at = time.monotonic()
            if sent := self._push(fresh):
                waiting[sent], left_at[sent] = fresh, asked_at
                self.counter.asked.ring()

    def _pull(
        self, numbers: set[str], arriving: dict[str, Message]
    ) -> Iterator[tuple[str, Message | None]]:
        """Replies that are whole, each with the number of its request; None if it is spoilt.

        Those whose tensors are still on their way stay in `arriving`, by request.
        """
        replies = self.counter.replies
        away: dict[str, Message] = {}
        for header in self.state.get_message_res(message_ids=numbers, run_id=self.run_id):
            number = header.metadata.reply_to_message_id
            (away if flowers_own(header) else arriving)[number] = header
        for number in numbers.intersection(replies.spoilt()) - arriving.keys():
            self._forget({number})
            yield number, None  # who sent it was told, and the log
        for number, header in list(arriving.items()):
            try:
                if (contents := replies.taken(number)) is None:
                    if number not in replies:  # nobody waits for it any more
                        del arriving[number]
                    continue
                reply: Message | None = read_reply(header, contents)
            except ReplyError as fault:
                self._warn(header.metadata.src_node_id, fault.what)
                reply = None
            del arriving[number]
            self._forget({number})
            yield number, reply
        # Last: a node may have gone after all of its reply was here.
        for number, header in away.items():
            with self.counter.objects:
                self.state.object_store.delete(header.metadata.message_id)
            if number in replies:
                arriving.pop(number, None)
                self._forget({number})
                yield number, header

    def _forget(self, numbers: set[str]) -> None:
        self.state.delete_messages(numbers)
        self.counter.replies.forget(numbers)
        with self.counter.objects:
            for number in numbers:
                self.state.object_store.delete(number)


def read_reply(header: Message, contents: dict[str, bytes]) -> Message:
    """A reply from its objects.

    Flower has checked the header that was sent before them, and not the one in them.

    Raises:
        ReplyError: it cannot be read, or says other things of itself than its header.
    """
    name = header.metadata.message_id
    try:
        reply = whole_message(name, contents)
    except ReplyError as fault:
        raise ReplyError(f"sent a reply that {fault.what}", todo=fault.todo) from fault
    reply.metadata.__dict__["_message_id"] = name
    if any(getattr(reply.metadata, it) != getattr(header.metadata, it) for it in HEADER):
        raise ReplyError("sent a reply under another header", todo=SAME_VERSION)
    return reply


def failed(message: Message) -> Message:
    """In place of a reply that cannot be used: the platform is not waited for."""
    code = wire.Refusal.FAILED
    return Message(Error(int(code), wire.REFUSALS[code]), reply_to=message)


def flowers_own(reply: Message) -> bool:
    """Whether Flower made it up for a node that fell silent: no platform said anything."""
    return reply.has_error() and reply.error.code in (
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    )
