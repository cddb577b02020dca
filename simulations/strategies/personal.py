"""Personalised layers: the encoder is everyone's, the output is each platform's own.

    sent: encoder's slots of all ┐                       ┌ encoder's slots: their move is shared
                                 ├─train on own rows→ both ┤
    kept: output's slots, own    ┘                       └ output's slots: stay, never sent

As FedPer (arXiv 1912.00818): each platform reads Histories alike and answers in its own way.
"""

from __future__ import annotations

from dataclasses import replace

from clients.platform import Platform
from shared.adapter import Adapter
from simulations.strategies.at_home import is_output
from simulations.strategies.meeting import Meeting, States
from simulations.strategies.rounds import Sent, rounds, trained


def personalised_layers(meeting: Meeting) -> States:
    """Rounds in which the output's slots never leave."""
    layers = Layers(meeting)
    return rounds(meeting, layers.work, own=layers.own)


class Layers:
    """What each platform has trained so far; its output stays here from round to round."""

    def __init__(self, meeting: Meeting) -> None:
        """Begin with the untrained states."""
        self.meeting = meeting
        self.mine = {name: state.adapter for name, state in meeting.start.items()}

    def own(self, name: str, shared: Adapter) -> Adapter:
        """Everyone's encoder with the platform's own output."""
        return joined(shared, self.mine[name])

    def work(self, platform: Platform, sent: Sent) -> Adapter:
        """Train both; give back the encoder, and the output as it was sent."""
        name = platform.config.name
        begin = self.own(name, sent.adapter)
        self.mine[name] = trained(self.meeting, platform, sent, begin=begin)
        return joined(self.mine[name], sent.adapter)


def joined(encoder: Adapter, output: Adapter) -> Adapter:
    """The encoder's slots of one Adapter and the output's of another."""
    tensors = {
        name: output.tensors[name] if is_output(name) else it
        for name, it in encoder.tensors.items()
    }
    return replace(encoder, tensors=tensors)
