"""One Adapter of everyone's rows, as if rows could meet: a yardstick, and a teacher."""

from __future__ import annotations

from clients.kept import trained
from simulations.candidates import recipe_of
from simulations.strategies.at_home import all_passes
from simulations.strategies.meeting import Meeting, States


def pooled(meeting: Meeting) -> States:
    """As many passes as the federation makes; each platform keeps its best epoch."""
    return trained(
        [platform.copy() for platform in meeting.platforms],
        meeting.start,
        recipe_of(meeting.scenario, epochs=all_passes(meeting)),
        seed=(meeting.seed, 0),
        progress=meeting.progress,
    )
