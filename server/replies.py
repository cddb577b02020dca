"""Replies on their way: what a platform may send for each request that it was asked, and no more.

    Grid ─asked(request, node, bytes)→ Replies ←announced, stored─ Fleet API ←─ SuperNode
    Grid ←taken(request): its objects, once they are whole; or the reason why it is spoilt

Flower keeps the objects of all nodes in one store and takes as many as are announced. There a
platform can fill the memory, and can announce an object that it expects in another platform's reply
with other children, so that this reply is never whole. So each request has a place of its own here.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Array, Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_id,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content

from shared.errors import ReplyError

MOST_OBJECTS = 4096  # of a reply; an Update has about two for each tensor
LEAST_BYTES = 2**20  # that any reply may have
TIMES = 4  # a reply may be so many times as large as its request; an Update is about as large
SAME_VERSION = "check that this platform runs the same version; evict it if this goes on"


@dataclass
class _Reply:
    """What has come for one request."""

    node: int
    limit: int
    number: str = ""  # of the reply; empty until it is announced
    missing: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    spoilt: str = ""

    def empty(self) -> None:
        self.missing, self.contents, self.size = set(), {}, 0


class Replies:
    """One place for each request that is out; several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, _Reply] = {}

    def asked(self, request: str, node: int, size: int) -> None:
        """A request was left for a node. Args: size: its bytes."""
        with self._lock:
            self._requests[request] = _Reply(node, LEAST_BYTES + TIMES * size)

    def forget(self, requests: set[str]) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            for request in requests:
                self._requests.pop(request, None)

    def announced(self, node: int, header: Message, tree: ObjectTree) -> list[str] | None:
        """A node begins a reply: the objects that it shall send, or None if nobody waits for it.

        Raises:
            ReplyError: it is another node's, too many objects, or not what its header says.
        """
        metadata = header.metadata
        with self._lock:
            reply = self._requests.get(metadata.reply_to_message_id)
            if reply is None:
                return None
            if reply.node != node:
                raise ReplyError("replied to another platform's request", todo=SAME_VERSION)
            if metadata.src_node_id != node:
                reply.spoilt = "replied under another platform's number"
            elif tree.object_id != metadata.message_id:
                reply.spoilt = "announced another reply than it sends"
            elif reply.number not in ("", metadata.message_id):
                reply.spoilt = "replied twice to one request"
            else:
                names = objects_of(tree)
                if len(names) > MOST_OBJECTS:
                    reply.spoilt = f"announced more than {MOST_OBJECTS:,} objects in a reply"
            if reply.spoilt:
                reply.empty()
                raise ReplyError(reply.spoilt, todo=SAME_VERSION)
            reply.number = metadata.message_id
            reply.missing = names - reply.contents.keys()
            return sorted(reply.missing)

    def stored(self, node: int, name: str, content: bytes) -> bool:
        """Take an object of a reply; False if nobody waits for it.

        Raises:
            ReplyError: the reply is too large, or the object is none.
        """
        with self._lock:
            waiting = (it for it in self._requests.values() if it.node == node)
            reply = next((it for it in waiting if name in it.missing), None)
            if reply is None:
                return False
            if reply.size + len(content) > reply.limit:
                reply.spoilt = f"sent a reply of more than {reply.limit:,} bytes"
            elif not well_formed(name, content):
                reply.spoilt = "sent an object that is not what it announced"
            if reply.spoilt:
                reply.empty()
                raise ReplyError(reply.spoilt, todo=SAME_VERSION)
            reply.missing.discard(name)
            reply.contents[name] = content
            reply.size += len(content)
            return True

    def spoil(self, node: int, why: str) -> None:
        """What a node is sending now is of no use."""
        with self._lock:
            for reply in self._requests.values():
                if reply.node == node and reply.missing:
                    reply.spoilt = why
                    reply.empty()

    def taken(self, request: str) -> dict[str, bytes] | None:
        """The objects of a reply by name, once all are there.

        Raises:
            ReplyError: it is spoilt, or grows beyond its limit when it is read.
        """
        with self._lock:
            reply = self._requests.get(request)
            if reply is None:
                return None
            if reply.spoilt:
                raise ReplyError(reply.spoilt, todo=SAME_VERSION)
            if reply.missing or not reply.contents:
                return None
            contents = dict(reply.contents)
        if unfolded(contents) > reply.limit:
            raise ReplyError(f"sent tensors of more than {reply.limit:,} bytes", todo=SAME_VERSION)
        return contents

    def __contains__(self, request: str) -> bool:
        """Whether somebody waits for the reply to it."""
        with self._lock:
            return request in self._requests

    def spoilt(self) -> list[str]:
        """The requests whose replies are of no use."""
        with self._lock:
            return [request for request, reply in self._requests.items() if reply.spoilt]

    def size(self) -> int:
        """Bytes of all objects that are here."""
        with self._lock:
            return sum(reply.size for reply in self._requests.values())


def objects_of(tree: ObjectTree) -> set[str]:
    """The names in a tree, no more than one beyond MOST_OBJECTS."""
    names: set[str] = set()
    for count, node in enumerate(iterate_object_tree(tree)):
        names.add(node.object_id)
        if count > MOST_OBJECTS:
            return names | {str(number) for number in range(MOST_OBJECTS + 1)}
    return names


def unfolded(contents: Mapping[str, bytes]) -> int:
    """Bytes of the tensors in these objects: one may name the same piece many times.

    Raises:
        ReplyError: an object is malformed.
    """
    total = 0
    try:
        for content in contents.values():
            kind, children, _length = get_object_head_values_from_object_content(content)
            if kind == Array.__qualname__:
                pieces = json.loads(get_object_body(content, Array))["arraychunk_ids"]
                for place, times in Counter(pieces).items():
                    total += times * len(contents[children[place]])
    except (ValueError, LookupError, TypeError, RecursionError) as fault:
        raise ReplyError("sent a tensor that cannot be read", todo=SAME_VERSION) from fault
    return total


def well_formed(name: str, content: bytes) -> bool:
    """Whether this is the content of this name, in Flower's form."""
    if get_object_id(content) != name:
        return False
    try:
        validate_object_content(content)
    except (UnexpectedObjectContentError, UnicodeError):
        return False
    return True
