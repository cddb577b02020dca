"""Histories in pieces of one shape, so that nobody's arithmetic depends on who else is there.

Single precision rounds by the shape of what it multiplies. Were a shopper's gradient computed in a
batch as long as its longest History, one shopper more would change the last bits of all the others;
a hostile Adapter can make last bits decide (docs/decisions/0012). So a piece holds Histories of one
length, and its number of rows follows from that length alone; a row that is left is filled with a
repeated one, which then counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EVENTS = 64  # of a piece, about: more waste on repeated rows, fewer on the calls of many pieces


def rows_of(length: int, microbatch: int) -> int:
    """Rows of every piece of this length."""
    return max(1, min(microbatch, EVENTS // length))


def pieces(
    lengths: NDArray[np.int64], chosen: NDArray[np.int64], *, microbatch: int
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Cut the chosen Histories into pieces of one shape each.

    Args:
        lengths: [S] of all Histories, as they are read.
        chosen: positions of some.
        microbatch: rows of a piece at most.

    Yields:
        [rows] positions, and how many of them, from the first, count.
    """
    for length in np.unique(lengths[chosen]):
        same = chosen[lengths[chosen] == length]
        rows = rows_of(int(length), microbatch)
        for at in range(0, len(same), rows):
            part = same[at : at + rows]
            yield np.resize(part, rows), len(part)
