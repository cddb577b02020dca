"""Who takes part: the platforms that said hello, and those asked in one round.

Whoever failed in several rounds in a row is left alone for 1, 2, 4, then 8 rounds. That follows
from the recorded reports alone, so that a run which is resumed asks whom it would have asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from server.registry import RoundReport
from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.wire import Member

LONGEST = 8  # rounds that a platform is left alone


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


def pause(failures: int) -> int:
    """Rounds that a platform is left alone after so many failures in a row."""
    return 0 if failures < 2 else min(2 ** (min(failures, 62) - 2), LONGEST)


def resting(reports: Iterable[RoundReport], round_: int) -> frozenset[str]:
    """The platforms that are left alone in a round.

    Args:
        reports: of the rounds before it, in order. A platform failed in those in which it was asked
            and no Update of it was averaged: it was refused, refused itself, or did not answer.
        round_: the round to come.
    """
    failures: dict[str, tuple[int, int]] = {}  # in a row, and the round of the last
    for report in reports:
        for name in report.asked:
            if name in report.replied:
                failures.pop(name, None)
            else:
                failures[name] = failures.get(name, (0, 0))[0] + 1, report.round
    return frozenset(name for name, (n, last) in failures.items() if round_ - last <= pause(n))


def choose(
    members: Mapping[int, Member],
    fraction: float,
    *,
    seed: int,
    round_: int,
    resting: frozenset[str] = frozenset(),
    quorum: int = 1,
) -> list[int]:
    """The nodes asked in a round: at least one, drawn anew each time, in the order of names.

    Args:
        members: that can be asked, at least one.
        fraction: of them that is asked.
        seed: of the federation.
        round_: the round.
        resting: platforms that are asked only if the others are fewer than the quorum.
        quorum: no fewer are asked, if there are as many.
    """
    ordered = sorted(members, key=lambda node: members[node].platform)
    count = max(cohort_size(len(ordered), fraction), min(quorum, len(ordered)))
    awake = [node for node in ordered if members[node].platform not in resting]
    rng = np.random.default_rng([seed, round_])

    def drawn(among: list[int], size: int) -> list[int]:
        return [among[place] for place in rng.choice(len(among), size=size, replace=False)]

    if len(awake) >= min(quorum, len(ordered)):
        chosen = drawn(awake, min(count, len(awake)))
    else:
        tired = [node for node in ordered if members[node].platform in resting]
        chosen = awake + drawn(tired, count - len(awake))
    return sorted(chosen, key=ordered.index)
