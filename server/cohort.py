"""Who takes part: the platforms that said hello, and those asked in one round."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.wire import Member


def admit(member: Member, adapter: Adapter, known: Mapping[int, Member]) -> None:
    """Refuse a platform that cannot take part in this federation.

    Raises:
        ReplyError: another backbone or task, or a name that is already taken.
    """
    if member.backbone != adapter.backbone:
        raise ReplyError(
            f"has backbone {member.backbone[:12]}…, this federation's is {adapter.backbone[:12]}…",
            todo="give the platform this federation's backbone file",
        )
    if member.task != adapter.task:
        raise ReplyError(
            f"has task {member.task!r}, this federation's is {adapter.task!r}",
            todo="have it run the same version",
        )
    if any(other.platform == member.platform for other in known.values()):
        raise ReplyError("a platform of this name is already here", todo="name each differently")


def cohort_size(members: int, fraction: float) -> int:
    """How many of the members a round asks."""
    # Rounded first: .07 · 100 is 7.000000000000001.
    return max(1, math.ceil(round(fraction * members, 9)))


def choose(members: Mapping[int, Member], fraction: float, *, seed: int, round_: int) -> list[int]:
    """The nodes asked in a round: at least one, drawn anew each time, in the order of names."""
    ordered = sorted(members, key=lambda node: members[node].platform)
    count = cohort_size(len(ordered), fraction)
    rng = np.random.default_rng([seed, round_])
    chosen = rng.choice(len(ordered), size=count, replace=False)
    return [ordered[place] for place in sorted(chosen)]
