"""Rounds of a federation without the wire: the platforms' own training, the server's own average.

    Adapter t ─train→ by platform the Adapter it has then ─average of moves, step→ Adapter t+1

With nothing else said this is the deployed federation without faults, sums and Plans, to the last
bit; a strategy may train otherwise, or have a platform keep something to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clients.app import shuffle
from clients.kept import Kept, better
from clients.platform import Platform
from server.aggregate import algorithm
from shared.adapter import Adapter
from shared.drift import plain
from shared.training import Engine, Loss, Stretch, of_task, train
from shared.update import Update
from simulations.candidates import recipe_of
from simulations.strategies.meeting import Meeting, States


@dataclass(frozen=True)
class Sent:
    """What a platform is sent in a round.

    Attributes:
        adapter: of all.
        round: from 1.
        rounds: in all.
    """

    adapter: Adapter
    round: int
    rounds: int

    @property
    def stretch(self) -> Stretch:
        """Which part of the schedule this round is."""
        return Stretch((self.round - 1) / self.rounds, self.round / self.rounds)


Work = Callable[[Platform, Sent], Adapter]  # what a platform has after training
Own = Callable[[str, Adapter], Adapter]  # what a platform of this name makes of everyone's Adapter


def federated(meeting: Meeting) -> States:
    """FedAvg (arXiv 1602.05629), or what else the scenario has the server do."""
    return rounds(meeting, lambda platform, sent: trained(meeting, platform, sent))


def trained(
    meeting: Meeting,
    platform: Platform,
    sent: Sent,
    *,
    begin: Adapter | None = None,
    engine: Callable[..., Engine] | None = None,
    loss: Loss = of_task,
) -> Adapter:
    """What the deployed client makes of an Adapter without a Plan, unless told otherwise.

    Args:
        meeting: the recipe and the seed are its scenario's.
        platform: its slots are overwritten.
        sent: this round's.
        begin: where training begins, if not at what was sent.
        engine: how losses become a step, if not as the scenario says.
        loss: what is made small.
    """
    federation = meeting.scenario.federation
    return train(
        platform.backbone,
        begin or sent.adapter,
        [platform.training],
        recipe_of(meeting.scenario, epochs=federation.epochs),
        rng=shuffle(meeting.seed, sent.round, platform.config.name),
        engine=engine or plain(sent.adapter, strength=federation.proximal),
        loss=loss,
        stretch=sent.stretch,
    )


def rounds(meeting: Meeting, work: Work, *, own: Own = lambda _name, shared: shared) -> States:
    """All rounds; each platform keeps the one that is best on its validation part.

    Args:
        meeting: who, and for how many rounds.
        work: a platform's part of a round; only how far the Adapter moved is shared.
        own: what a platform uses of the shared Adapter.
    """
    federation = meeting.scenario.federation
    server = algorithm(federation.algorithm, federation.server_learning_rate)
    state = server.init(meeting.platforms[0].untrained)
    best = dict(meeting.start)
    for round_ in range(1, federation.rounds + 1):
        meeting.progress("rounds", round_ - 1, federation.rounds)
        sent = Sent(state.adapter, round_, federation.rounds)

        def part(platform: Platform, sent: Sent = sent) -> Update:
            after = work(platform, sent)
            return Update(
                after.minus(sent.adapter), base=sent.adapter.digest, weight=platform.config.weight
            )

        updates = meeting.each(part)
        state = server.step(state, server.combine([updates[it] for it in sorted(updates)]), round_)

        def offered(platform: Platform, shared: Adapter = state.adapter) -> Kept:
            name = platform.config.name
            return meeting.start[name].offered(
                platform, own(name, shared), f"round {shared.version}"
            )

        for name, kept in meeting.each(offered).items():
            best[name] = better(best[name], kept)
    meeting.progress("rounds", federation.rounds, federation.rounds)
    return best
