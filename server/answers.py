"""One question to several platforms, and what came back of it.

content ─ask→ nodes ─reply→ read → Answers: read, refused, missing, by platform name
                   └ with a quorum there and `grace` seconds over, nobody is waited for
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from shared import records
from shared.errors import ReplyError
from shared.records import Content
from shared.wire import Member

log = logging.getLogger("atoll.server")
Members = Mapping[int, Member]  # by node
Read = TypeVar("Read")


class Nodes(Protocol):
    """The platforms' nodes, wherever they are."""

    def present(self) -> Sequence[int]:
        """Nodes that can be asked now."""
        ...

    def called(self, node: int) -> str | None:
        """What a log calls the platform that enrolled with a node's key; None if none did."""
        ...

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterable[tuple[int, Content | ReplyError] | None]:
        """Send one content to several nodes; yields what came back in time, by node, as it comes.

        None, yielded now and then, says that nothing came: whoever asked may close the iterator
        then, and what comes later is dropped.
        """
        ...


@dataclass(frozen=True)
class Answers(Generic[Read]):
    """What came back from one question to several platforms, by platform name.

    Attributes:
        read: what was read of a reply.
        refused: why a reply cannot be used, or what the platform refused.
        missing: who did not answer in time.
        spoilt: of those refused, who did answer, with what cannot be used.
    """

    read: dict[str, Read] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    bytes_down: int = 0
    bytes_up: int = 0
    spoilt: frozenset[str] = frozenset()


def ask(
    nodes: Nodes,
    kind: str,
    content: Content,
    members: Members,
    *,
    read: Callable[[Content, Member], Read],
    round_: int,
    timeout: float,
    quorum: int = 0,
    grace: float = 0.0,
) -> Answers[Read]:
    """Send one content to several platforms and read what comes back in time.

    Args:
        nodes: where they are.
        kind: of the message.
        content: the same for all.
        members: who is asked, by node.
        read: what a reply says; its ReplyError refuses it.
        round_: for whoever looks at messages.
        timeout: seconds that a platform has to answer.
        quorum: so many good replies are enough.
        grace: seconds to wait for the others from there on; 0 waits to the deadline.
    """
    order = sorted(members, key=lambda node: members[node].platform)
    answers: dict[str, Read] = {}
    refused: dict[str, str] = {}
    spoilt: set[str] = set()
    bytes_up, until = 0, math.inf
    replies = nodes.ask(kind, content, order, round_=round_, timeout=timeout)
    for answer in replies:
        if answer is not None:
            node, reply = answer
            name = members[node].platform if node in members else None
            if name is None or name in answers or name in refused:
                log.warning("a reply nobody was asked for is left unread")
                continue
            try:
                body = content_of(reply)
                bytes_up += records.size(body)
                answers[name] = read(body, members[node])
            except ReplyError as fault:
                refused[name] = str(fault)
                if not isinstance(reply, ReplyError):
                    spoilt.add(name)
                log.warning("%s: %s", name, fault)
        if grace and until == math.inf and len(answers) >= quorum:
            until = time.monotonic() + grace
        if time.monotonic() >= until:
            break
    if isinstance(replies, Generator):
        replies.close()
    heard = answers.keys() | refused.keys()
    missing = tuple(sorted({member.platform for member in members.values()} - heard))
    down = records.size(content) * len(order)
    return Answers(answers, refused, missing, down, bytes_up, frozenset(spoilt))


def content_of(reply: Content | ReplyError) -> Content:
    """A reply's body.

    Raises:
        ReplyError: it is a refusal.
    """
    if isinstance(reply, ReplyError):
        raise reply
    return reply
