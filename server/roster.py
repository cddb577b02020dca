"""Who is a member: platforms are met at the start, and later whoever comes, comes back or changed.

node present, no member ─hello→ admitted                    a node that fails is asked less often
member gone             ─→ stays, is not asked; under a new node it takes its old place
member sent nonsense    ─hello→ admitted anew               its file may have changed
budget used up          ─hello→ asked no more               unless its operator raised it
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from server.answers import Members, Nodes, content_of
from server.cohort import admit, cohort_size, pause
from server.config import Federation
from shared import wire
from shared.adapter import Adapter
from shared.errors import ReplyError, RoundError

log = logging.getLogger("atoll.server")

NEWCOMER = 60.0  # seconds a round waits for a newcomer's hello; opening its tables may take longer
LOOK = 0.5  # seconds between two looks at who is there


@dataclass(frozen=True)
class Roster:
    """Members and those who may become one.

    Attributes:
        members: by node, whether it is present or not.
        failed: by node, how often in a row its hello failed, and in which round it did last.
        doubted: nodes of members who are asked anew who they are.
        why: why nodes that are no members cannot take part, in words that name the platform.
    """

    members: Members = field(default_factory=dict)
    failed: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    doubted: frozenset[int] = frozenset()
    why: Mapping[int, str] = field(default_factory=dict)

    def here(self, present: Iterable[int]) -> dict[int, wire.Member]:
        """The members that can be asked now."""
        return {node: self.members[node] for node in present if node in self.members}

    def doubting(self, names: Iterable[str]) -> Roster:
        """The same, with these members to be asked anew who they are."""
        named = set(names)
        nodes = {node for node, member in self.members.items() if member.platform in named}
        return replace(self, doubted=self.doubted | nodes)

    def after_round(self, replied: Iterable[str], refused: Mapping[str, str]) -> Roster:
        """The same with one round less for who replied; asked hello anew if none is left.

        Args:
            replied: names of those whose Update came.
            refused: why others did not answer, by name.
        """
        names = set(replied)
        members = {
            node: replace(it, rounds_left=it.rounds_left - 1)
            if it.platform in names and it.rounds_left > 0
            else it
            for node, it in self.members.items()
        }
        said = wire.REFUSALS[wire.Refusal.EXHAUSTED]
        spent = {name for name, why in refused.items() if said in why}
        spent |= {it.platform for it in members.values() if it.rounds_left == 0}
        return replace(self, members=members).doubting(spent)

    def unknown(self, present: Iterable[int], round_: int) -> list[int]:
        """Nodes to be asked hello in this round."""
        return [
            node
            for node in sorted(present)
            if (node not in self.members or node in self.doubted)
            and (node not in self.failed or round_ - self.failed[node][1] > self.pause(node))
        ]

    def pause(self, node: int) -> int:
        """Rounds that a node which failed is left alone."""
        return pause(self.failed[node][0])


def with_budget(members: Members) -> dict[int, wire.Member]:
    """Those whose budget holds one more round, or who have none."""
    return {node: it for node, it in members.items() if it.rounds_left != 0}


def rounds_in_all(members: Members, quorum: int) -> int | None:
    """How many more rounds the budgets of a quorum last for; None if they do not end.

    A lower bound where a round asks only some of the members.
    """
    left = (it.rounds_left for it in members.values())
    lasting = sorted((math.inf if it == wire.UNBOUNDED else it for it in left), reverse=True)
    least = lasting[quorum - 1] if len(lasting) >= quorum else 0
    return None if least == math.inf else int(least)


def meet(nodes: Nodes, adapter: Adapter, federation: Federation) -> Roster:
    """Ask every node who it is; keep those that can take part.

    Raises:
        RoundError: fewer than the quorum can, or a round would ask fewer.
    """
    present = sorted(nodes.present())
    roster = greeted(Roster(), nodes, adapter, present, round_=0, timeout=federation.timeout)
    count = len(roster.members)
    asked = cohort_size(count, federation.fraction)
    if count and asked < federation.quorum <= count:
        raise RoundError(
            f"fraction {federation.fraction} of {count} asks {asked},"
            f" quorum is {federation.quorum}",
            todo="raise fraction or lower quorum",
        )
    if count < federation.quorum:
        why = "; ".join(roster.why[node] for node in sorted(roster.why))
        raise RoundError(
            f"{count} of {len(present)} can take part, quorum is {federation.quorum}"
            + (f" ({why})" if why else ""),
            todo="see what the log says of each, bring more platforms or lower quorum",
        )
    return roster


def gathered(
    roster: Roster, nodes: Nodes, adapter: Adapter, federation: Federation, *, round_: int
) -> tuple[Roster, dict[int, wire.Member]]:
    """The members who are there when a round begins; waits for a quorum as long as for a round."""
    until = time.monotonic() + federation.timeout
    waited = False
    while True:
        present = nodes.present()
        limit = min(federation.timeout, NEWCOMER)
        roster = greeted(roster, nodes, adapter, present, round_=round_, timeout=limit)
        here = roster.here(present)
        left = until - time.monotonic()
        able = len(with_budget(here))
        # Who is here but has no budget left is not waited for, unless others are away who have.
        hopeless = len(with_budget(roster.members)) < federation.quorum <= len(here)
        if able >= federation.quorum or hopeless or left <= 0:
            if waited and left > 0:
                state = f"running: {able} platforms are here"
                log.info("round %d goes on: %s", round_, state, extra={"state": state})
            return roster, here
        if not waited:
            log.warning(
                "round %d waits: %d of %d platforms are here, quorum is %d",
                round_,
                able,
                len(roster.members),
                federation.quorum,
                extra={"state": f"waiting for platforms: {able} of {federation.quorum}"},
            )
            waited = True
        time.sleep(min(LOOK, left))


def greeted(
    roster: Roster,
    nodes: Nodes,
    adapter: Adapter,
    present: Sequence[int],
    *,
    round_: int,
    timeout: float,
) -> Roster:
    """Ask hello of whoever is present and not known, or doubted; admit those that can take part.

    Args:
        roster: as it was.
        nodes: where platforms are.
        adapter: whose backbone and task they must have.
        present: nodes.
        round_: 0 before the first; each node is asked once a round at most.
        timeout: seconds that they have to answer.
    """
    due = roster.unknown(present, round_)
    if not due:
        return roster
    members = {node: it for node, it in roster.members.items() if node not in due}
    failed = {node: it for node, it in roster.failed.items() if node not in due}
    replies = nodes.ask(wire.HELLO, wire.hello(adapter.task), due, round_=round_, timeout=timeout)
    # In the order of nodes, so that of two platforms of one name always the same one is here.
    heard = sorted((it for it in replies if it is not None), key=lambda answer: answer[0])
    why = {node: words for node, words in roster.why.items() if node not in due}
    for node, reply in heard:
        if node not in due or node in members:
            continue
        member = None
        try:
            member = wire.read_member(content_of(reply))
            # Its node of before, if that is gone, does not stand in its way.
            others = {
                other: it
                for other, it in members.items()
                if other in present or it.platform != member.platform
            }
            admit(member, adapter, others)
        except ReplyError as fault:
            whose = named(nodes, node, member)
            log.warning("%s cannot take part: %s", whose, fault)
            why[node] = f"{whose}: {fault.what}"
            continue
        members = {**others, node: member}
        if round_ > 0:
            log.info("%s takes part from round %d on", member.platform, round_)
    for node in sorted(set(due) - {node for node, _ in heard}):
        log.warning("%s did not say who it is", named(nodes, node))
        why[node] = f"{named(nodes, node)}: no answer in time"
    for node in set(due) - members.keys():
        failed[node] = (roster.failed.get(node, (0, 0))[0] + 1, round_)
    return Roster(members, failed, roster.doubted & members.keys() - set(due), why)


def named(nodes: Nodes, node: int, member: wire.Member | None = None) -> str:
    """A node as a log names it: by whom it enrolled as, else by what it says it is."""
    name = nodes.called(node) or (member.platform if member is not None else None)
    return f"node {node}" if name is None else f"{name} (node {node})"
