"""A federation, on one screen.

members = whoever answers hello with this backbone and this task
for each round:
    meet whoever came since, and wait for a quorum to be there
    ask the cohort to train from the Adapter, without whom failed too often of late
    refuse, by name, every reply that is not an Update of this Adapter
    with a quorum: average, or add → step → next Adapter
    ask the members to evaluate it
    record the round; a run that is cut short goes on from the last one recorded
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.aggregate import Algorithm, ServerState
from server.answers import Answers, Members, Nodes, ask
from server.cohort import choose, resting
from server.config import Federation
from server.registry import Registry, RoundReport
from server.roster import gathered, meet, rounds_in_all, with_budget
from shared import asking, wire
from shared.errors import ReplyError, RoundError
from shared.records import Content
from shared.update import BoundedUpdate, Receipt, check_update

log = logging.getLogger("atoll.server")


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
    roster = meet(nodes, state.adapter, federation)
    note_state(f"running: {len(roster.members)} platforms take part")
    say_budgets(roster.members, federation, federation.rounds - max(registry.rounds(), default=0))
    standing = registry.standing()
    reports = recorded(registry, standing.run)
    # The round in which a server went down may have been answered: to answer again costs nothing.
    repeated = registry.rounds()[-1] + 1 if registry.rounds() else None
    if not registry.rounds():
        signature = registry.signature(state.adapter)
        scores = evaluate(nodes, state, roster.members, federation, standing, signature)
        registry.record(state, RoundReport(0, validation=scores.read))
    without_quorum = 0
    for round_ in range(registry.rounds()[-1] + 1, federation.rounds + 1):
        roster, here = gathered(roster, nodes, state.adapter, federation, round_=round_)
        able = here if round_ == repeated else with_budget(here)
        exhausted = check_budgets(here, able, federation, round_)
        began = time.monotonic()
        tired = resting(reports, round_)
        asked = invited(able, federation, round_, tired)
        signature = registry.signature(state.adapter)
        trained = train(nodes, state, asked, federation, round_, standing, signature)
        standing = trusted(standing, trained.read)
        registry.remember(standing)
        updates = {name: trained.read[name].update for name in sorted(trained.read)}
        roster = roster.doubting(trained.spoilt).after_round(updates, trained.refused)
        moved = len(updates) >= federation.quorum
        if moved:
            state = algorithm.step(state, algorithm.combine(list(updates.values())), round_)
        signature = registry.signature(state.adapter)
        busy = frozenset(trained.missing) if federation.grace else frozenset[str]()
        skipped = (tired - {it.platform for it in asked.values()}) | busy
        here = roster.here(nodes.present())
        listening = {node: it for node, it in here.items() if it.platform not in skipped}
        scores = evaluate(nodes, state, listening, federation, standing, signature)
        report = RoundReport(
            round=round_,
            seconds=time.monotonic() - began,
            bytes_down=trained.bytes_down + scores.bytes_down,
            bytes_up=trained.bytes_up,
            replied=tuple(updates),
            refused={**exhausted, **scores.refused, **trained.refused},
            missing=trained.missing,
            validation=scores.read,
            moved=moved,
            noise={name: update.noise for name, update in updates.items()},
            asked=tuple(member.platform for member in asked.values()),
        )
        registry.record(state, report)
        reports.append(report)
        tell(report, federation, rounds_in_all(roster.members, federation.quorum))
        without_quorum = 0 if moved else without_quorum + 1
        if without_quorum == federation.patience:
            raise RoundError(
                f"{without_quorum} rounds in a row had fewer than {federation.quorum} updates"
                + reasons(report.refused, report.missing),
                where=f"round {round_}",
                todo="bring platforms back or lower quorum, then use --resume",
            )
    return state


def say_budgets(members: Members, federation: Federation, wanted: int) -> None:
    """Say for how many of the rounds to come the budgets of a quorum last, if they end."""
    left = rounds_in_all(members, federation.quorum)
    if left is None:
        return
    each = ", ".join(
        f"{it.platform} {it.rounds_left}"
        for it in sorted(members.values(), key=lambda it: it.platform)
        if it.rounds_left != wire.UNBOUNDED
    )
    level = logging.WARNING if left < wanted else logging.INFO
    log.log(
        level,
        "privacy budgets last for %d rounds of a quorum, %d are to come (rounds left: %s)",
        left,
        wanted,
        each,
    )


def recorded(registry: Registry, run: str) -> list[RoundReport]:
    """The reports of a run's rounds, in order; of a round that was recorded twice the later."""
    versions = [it for it in registry.versions() if it.present and it.manifest.run == run]
    last = {it.manifest.round: it for it in versions}
    return [registry.report(last[round_]) for round_ in sorted(last)]


def invited(
    here: Members, federation: Federation, round_: int, tired: frozenset[str]
) -> dict[int, wire.Member]:
    """Who is asked to train: nobody, and no budget is spent, if they are fewer than the quorum."""
    if len(here) < federation.quorum:
        return {}
    cohort = choose(
        here,
        federation.fraction,
        seed=federation.seed,
        round_=round_,
        resting=tired,
        quorum=federation.quorum,
    )
    return {node: here[node] for node in cohort}


def check_budgets(
    here: Members, able: Members, federation: Federation, round_: int
) -> dict[str, str]:
    """Why those here who have no budget left are not asked, by name.

    Args:
        here: who could be asked but for that.
        able: those of them who are asked.
        federation: its quorum.
        round_: the round to come.

    Raises:
        RoundError: with them there would be a quorum, without them there is none.
    """
    if len(able) < federation.quorum <= len(here):
        raise RoundError(
            f"{len(able)} of {len(here)} platforms have rounds left in their privacy budgets,"
            f" quorum is {federation.quorum}",
            where=f"round {round_}",
            todo="bring platforms with a budget or lower quorum, then use --resume",
        )
    said = wire.REFUSALS[wire.Refusal.EXHAUSTED]
    return {it.platform: said for node, it in here.items() if node not in able}


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
    standing: asking.Standing,
    signature: str,
) -> Answers[Trained]:
    """Updates of this round by platform; whatever is not one is refused."""
    training = asking.Training(
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
        cohort=len(cohort),
        proximal=federation.proximal,
    )

    def read(content: Content, member: wire.Member) -> Trained:
        update = wire.read_update(content)
        check_update(update, state.adapter)
        if update.weight != member.weight:
            raise ReplyError(
                f"weight {update.weight:g} is not the {member.weight:g} it came with",
                todo="it is asked anew who it is before the next round",
            )
        return Trained(update, wire.read_receipt(content))

    content = asking.request(state.adapter, training, standing=standing, signature=signature)
    return ask(
        nodes,
        wire.TRAIN,
        content,
        cohort,
        read=read,
        round_=round_,
        timeout=federation.timeout,
        quorum=federation.quorum,
        grace=federation.grace,
    )


def trusted(standing: asking.Standing, answers: Mapping[str, Trained]) -> asking.Standing:
    """The Standing with the Ledgers' new receipts: a Ledger set back is then refused at home."""
    known = dict(standing.receipts)
    for name, answer in answers.items():
        if answer.receipt is not None:
            known[name] = answer.receipt
    return asking.Standing(standing.run, known)


def evaluate(
    nodes: Nodes,
    state: ServerState,
    members: Members,
    federation: Federation,
    standing: asking.Standing,
    signature: str,
) -> Answers[dict[str, float]]:
    """Validation metrics by platform, of those that share them."""
    content = asking.request(state.adapter, standing=standing, signature=signature)
    return ask(
        nodes,
        wire.EVALUATE,
        content,
        members,
        read=lambda content, _member: wire.read_metrics(content),
        round_=state.adapter.version,
        timeout=federation.timeout,
    )


def tell(report: RoundReport, federation: Federation, left: int | None) -> None:
    """One line a round for whoever watches, and who was too late.

    Args:
        report: of the round.
        federation: how many there are to be.
        left: how many more rounds the budgets of a quorum last for; None if they do not end.
    """
    if report.missing:
        log.warning("round %d: no answer in time from %s", report.round, ", ".join(report.missing))
    log.info(
        "round %d of %d: %d updates, %d refused, %d missing, %.1f s%s%s",
        report.round,
        federation.rounds,
        len(report.replied),
        len(report.refused),
        len(report.missing),
        report.seconds,
        "" if report.moved else "; no quorum, the adapter stays",
        "" if left is None else f"; budgets last for {left} more",
        extra={
            "round": report.round,
            "state": state_after(report, federation),
            "goes_on": report.moved,
        },
    )


def note_state(state: str, *, goes_on: bool = True) -> None:
    """Log where the run is; `server.commands.up` takes it from there for `/ready`."""
    log.info("%s", state, extra={"state": state, "goes_on": goes_on})


def state_after(report: RoundReport, federation: Federation) -> str:
    """Where the run is after a round, in words."""
    if report.moved:
        return f"running: round {report.round} of {federation.rounds} is recorded"
    few = f"{len(report.replied)} of {federation.quorum} updates in round {report.round}"
    nobody = not report.replied and report.refused and not report.missing
    return (
        ("nobody can take part: " if nobody else "no quorum: ")
        + few
        + reasons(report.refused, report.missing)
    )


def reasons(refused: Mapping[str, str], missing: Sequence[str]) -> str:
    """Why platforms have no Update in a round, each reason once."""
    whose = dict[str, list[str]]()
    for name, why in sorted(refused.items()):
        whose.setdefault(why.partition(";")[0], []).append(name)
    if missing:
        whose["no answer in time"] = sorted(missing)
    if not whose:
        return ""
    return " (" + "; ".join(f"{', '.join(names)}: {why}" for why, names in whose.items()) + ")"
