"""A federation, on one screen.

members = whoever answers hello with this backbone and this task
for each round:
    ask the cohort to train from the Adapter
    refuse, by name, every reply that is not an Update of this Adapter
    with a quorum: average → step → next Adapter
    ask the members to evaluate it
    record the round; a run that is cut short goes on from the last one recorded
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from server.aggregate import Algorithm, ServerState, average
from server.cohort import admit, choose, cohort_size
from server.config import Federation
from server.registry import Registry, RoundReport
from shared import records, wire
from shared.errors import ReplyError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate, Receipt, check_update

log = logging.getLogger("atoll.server")
Members = Mapping[int, wire.Member]
Read = TypeVar("Read")


class Nodes(Protocol):
    """The platforms' nodes, wherever they are."""

    def present(self) -> Sequence[int]:
        """Nodes that can be asked now."""
        ...

    def ask(
        self, kind: str, content: Content, nodes: Sequence[int], *, round_: int, timeout: float
    ) -> Iterable[tuple[int, Content | ReplyError]]:
        """Send one content to several nodes; yields what came back in time, by node."""
        ...


def federate(
    nodes: Nodes,
    state: ServerState,
    federation: Federation,
    algorithm: Algorithm,
    registry: Registry,
) -> ServerState:
    """Run the rounds after the last one recorded, to `federation.rounds`, from `state`.

    Raises:
        RoundError: no platform can take part, or `patience` rounds in a row missed the quorum.
    """
    members = meet(nodes, state, federation)
    standing = registry.standing()
    if not registry.rounds():
        scores = evaluate(nodes, state, members, federation, standing)
        registry.record(state, RoundReport(0, validation=scores.read))
    without_quorum = 0
    for round_ in range(registry.rounds()[-1] + 1, federation.rounds + 1):
        began = time.monotonic()
        cohort = choose(members, federation.fraction, seed=federation.seed, round_=round_)
        asked = {node: members[node] for node in cohort}
        trained = train(nodes, state, asked, federation, round_, standing)
        standing = trusted(standing, trained.read)
        registry.remember(standing)
        updates = {name: trained.read[name].update for name in sorted(trained.read)}
        moved = len(updates) >= federation.quorum
        if moved:
            state = algorithm.step(state, average(list(updates.values())), round_)
        scores = evaluate(nodes, state, members, federation, standing)
        report = RoundReport(
            round=round_,
            seconds=time.monotonic() - began,
            bytes_down=trained.bytes_down + scores.bytes_down,
            bytes_up=trained.bytes_up,
            replied=tuple(updates),
            refused={**scores.refused, **trained.refused},
            missing=trained.missing,
            validation=scores.read,
            moved=moved,
            noise={name: update.noise for name, update in updates.items()},
        )
        registry.record(state, report)
        tell(report, federation)
        without_quorum = 0 if moved else without_quorum + 1
        if without_quorum == federation.patience:
            raise RoundError(
                f"{without_quorum} rounds in a row had fewer than {federation.quorum} updates",
                where=f"round {round_}",
                todo="bring platforms back or lower quorum, then use --resume",
            )
    return state


def meet(nodes: Nodes, state: ServerState, federation: Federation) -> Members:
    """Ask every node who it is; keep those that can take part."""
    present = sorted(nodes.present())
    members: dict[int, wire.Member] = {}
    replies = nodes.ask(wire.HELLO, wire.nothing(), present, round_=0, timeout=federation.timeout)
    # In the order of nodes, so that of two platforms of one name always the same one is here.
    for node, reply in sorted(replies, key=lambda answer: answer[0]):
        if node not in present:
            continue
        try:
            member = wire.read_member(_content(reply))
            admit(member, state.adapter, members)
            members[node] = member
        except ReplyError as fault:
            log.warning("node %d cannot take part: %s", node, fault)
    asked = cohort_size(len(members), federation.fraction)
    if members and asked < federation.quorum <= len(members):
        raise RoundError(
            f"fraction {federation.fraction} of {len(members)} asks {asked},"
            f" quorum is {federation.quorum}",
            todo="raise fraction or lower quorum",
        )
    if len(members) < federation.quorum:
        raise RoundError(
            f"{len(members)} of {len(present)} can take part, quorum is {federation.quorum}",
            todo="see the warnings above, bring more platforms or lower quorum",
        )
    return members


@dataclass(frozen=True)
class Trained:
    """A platform's answer to train."""

    update: BoundedUpdate
    receipt: Receipt | None


def train(
    nodes: Nodes,
    state: ServerState,
    cohort: Members,
    federation: Federation,
    round_: int,
    standing: wire.Standing,
) -> Answers[Trained]:
    """Updates of this round by platform; whatever is not one is refused."""
    training = wire.Training(
        round=round_,
        rounds=federation.rounds,
        epochs=federation.epochs,
        batch=federation.batch,
        learning_rate=federation.learning_rate,
        schedule=federation.schedule,
        seed=federation.seed,
        clip=federation.clip,
        noise_multiplier=federation.noise_multiplier,
        steps=federation.steps,
    )

    def read(content: Content, member: wire.Member) -> Trained:
        update = wire.read_update(content)
        check_update(update, state.adapter)
        if update.weight != member.weight:
            raise ReplyError(
                f"weight {update.weight:g} is not the {member.weight:g} it came with",
                todo="restart the run to change a weight",
            )
        return Trained(update, wire.read_receipt(content))

    content = wire.request(state.adapter, training, standing=standing)
    return ask(nodes, wire.TRAIN, content, cohort, read=read, federation=federation, round_=round_)


def trusted(standing: wire.Standing, answers: Mapping[str, Trained]) -> wire.Standing:
    """The Standing with the Ledgers' new receipts: a Ledger set back is then refused at home."""
    known = dict(standing.receipts)
    for name, answer in answers.items():
        if answer.receipt is not None:
            known[name] = answer.receipt
    return wire.Standing(standing.run, known)


def evaluate(
    nodes: Nodes,
    state: ServerState,
    members: Members,
    federation: Federation,
    standing: wire.Standing,
) -> Answers[dict[str, float]]:
    """Validation metrics by platform, of those that share them."""
    content = wire.request(state.adapter, standing=standing)
    return ask(
        nodes,
        wire.EVALUATE,
        content,
        members,
        read=lambda content, _member: wire.read_metrics(content),
        federation=federation,
        round_=state.adapter.version,
    )


@dataclass(frozen=True)
class Answers(Generic[Read]):
    """What came back from one question to several platforms, by platform name."""

    read: dict[str, Read] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    bytes_down: int = 0
    bytes_up: int = 0


def ask(
    nodes: Nodes,
    kind: str,
    content: Content,
    members: Members,
    *,
    read: Callable[[Content, wire.Member], Read],
    federation: Federation,
    round_: int,
) -> Answers[Read]:
    """Send one content to several platforms and read what comes back in time."""
    order = sorted(members, key=lambda node: members[node].platform)
    answers: dict[str, Read] = {}
    refused: dict[str, str] = {}
    bytes_up = 0
    for node, reply in nodes.ask(kind, content, order, round_=round_, timeout=federation.timeout):
        name = members[node].platform if node in members else None
        if name is None or name in answers or name in refused:
            log.warning("a reply nobody was asked for is left unread")
            continue
        try:
            body = _content(reply)
            bytes_up += records.size(body)
            answers[name] = read(body, members[node])
        except ReplyError as fault:
            refused[name] = str(fault)
            log.warning("%s: %s", name, fault)
    heard = answers.keys() | refused.keys()
    missing = tuple(sorted({member.platform for member in members.values()} - heard))
    return Answers(answers, refused, missing, records.size(content) * len(order), bytes_up)


def tell(report: RoundReport, federation: Federation) -> None:
    """One line a round for whoever watches."""
    log.info(
        "round %d of %d: %d updates, %d refused, %d missing, %.1f s%s",
        report.round,
        federation.rounds,
        len(report.replied),
        len(report.refused),
        len(report.missing),
        report.seconds,
        "" if report.moved else "; no quorum, the adapter stays",
    )


def _content(reply: Content | ReplyError) -> Content:
    if isinstance(reply, ReplyError):
        raise reply
    return reply
