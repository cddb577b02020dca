"""Platforms side by side in a terminal: how wide their columns are, and how many fit.

    names, width of the terminal ─fit→ Columns ─bands→ names of one band after another

A name is at most 64 characters long. Where not all fit in full, they are folded over lines, after a
dash or underscore where there is one; what still does not fit stands in a band below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil
from typing import TypeVar

GAP = 2  # characters between two columns
LEAST = 10  # of a column: a figure, and "difference"
SIDE_BY_SIDE = 5  # platforms that are worth a fold of their names
LINES = 4  # of a folded name: 64 characters in columns of 16 or more
BREAKS = "-_. "

T = TypeVar("T")


@dataclass(frozen=True)
class Columns:
    """How platforms are laid out.

    Attributes:
        width: of a column.
        side_by_side: columns of a band.
    """

    width: int
    side_by_side: int

    def bands(self, platforms: Sequence[T]) -> Iterator[Sequence[T]]:
        """So many at a time."""
        for start in range(0, len(platforms), self.side_by_side):
            yield platforms[start : start + self.side_by_side]

    def folded(self, name: str) -> str:
        """A name in lines that fit the column."""
        return "\n".join(folded(name, self.width))


def fit(names: Sequence[str], *, available: int) -> Columns:
    """The columns for these platforms.

    Args:
        names: of the platforms.
        available: characters that are left for them, a GAP before each column.
    """
    wanted = min(len(names), SIDE_BY_SIDE)
    width, beside = LEAST, 1
    for lines in range(1, LINES + 1):
        width = _narrowest(names, lines)
        beside = max(1, available // (width + GAP))
        if beside >= wanted:
            break
    bands = max(1, ceil(len(names) / beside))
    return Columns(min(width, max(available - GAP, 1)), max(1, ceil(len(names) / bands)))


def folded(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` characters, which joined are the name."""
    lines, rest = [], name
    while len(rest) > width:
        ends = [place + 1 for place in range(width) if rest[place] in BREAKS]
        # A break that would leave most of the line empty is none.
        cut = ends[-1] if ends and 2 * ends[-1] >= width else width
        lines.append(rest[:cut])
        rest = rest[cut:]
    return [*lines, rest]


def _narrowest(names: Sequence[str], lines: int) -> int:
    """The narrowest column in which every name has at most so many lines."""
    return next(
        width for width in count(LEAST) if all(len(folded(name, width)) <= lines for name in names)
    )
