"""What a plan's figures say, in words: for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shared.metrics import CONFIDENCE
from shared.pairs import A_SHOPPER, NEAREST
from simulations.findings import percent
from simulations.planning.joining import ASKING, MOST, Asked, Point, divided

NO_NOISE = "no noise"


def lines(asked: Asked) -> tuple[float | None, ...]:
    """What each line of the drawing is for: no noise, then each ε."""
    return (None, *asked.epsilons)


def label(epsilon: float | None) -> str:
    """What a line is called."""
    return NO_NOISE if epsilon is None else f"ε = {epsilon:g}"


def kinds(points: Sequence[Point]) -> tuple[str, ...]:
    """The kinds of platform that ask, in order."""
    return tuple(dict.fromkeys(it.case.kind for it in points))


def line(points: Iterable[Point], kind: str, epsilon: float | None) -> list[Point]:
    """The points of one line, by the federation's size."""
    found = [it for it in points if it.case.kind == kind and it.epsilon == epsilon]
    return sorted(found, key=lambda it: it.case.everyone)


def starts(line: Sequence[Point]) -> Point | None:
    """Where it starts to pay: the first point from which every interval is above 0."""
    first = None
    for point in reversed(line):
        if point.low <= 0:
            break
        first = point
    return first


def told(points: Sequence[Point], asked: Asked) -> list[str]:
    """For each ε, and last without noise, where it starts to pay; of one case, whether it does."""
    order = (*asked.epsilons, None)
    if len(asked.cases) == 1:
        return [verdict(it) for it in sorted(points, key=lambda it: order.index(it.epsilon))]
    return [sentence(points, epsilon) for epsilon in order]


def sentence(points: Sequence[Point], epsilon: float | None) -> str:
    """Where joining starts to pay each kind of platform on one budget."""
    parts: list[str] = []
    for kind in kinds(points):
        every = line(points, kind, epsilon)
        first = starts(every)
        if first is None:
            where = "in no federation asked"
        elif first is every[0]:
            where = f"in every federation asked ({percent(first.gain)} in {first.case.everyone:,})"
        else:
            where = f"from a federation of {first.case.everyone:,} on ({percent(first.gain)})"
        parts.append(f"{'one' if parts else 'a platform'} of {kind} {where}")
    head = "Without noise" if epsilon is None else f"Under {label(epsilon)}"
    return f"{head} joining clearly pays {'; '.join(parts)}."


def verdict(point: Point) -> str:
    """Whether joining one federation pays on one budget."""
    case = point.case
    head = "without noise" if point.epsilon is None else f"under {label(point.epsilon)}"
    says = "it pays" if point.low > 0 else "it costs" if point.high < 0 else "no clear difference"
    interval = f"{100 * CONFIDENCE:.0f} % interval {percent(point.low)} to {percent(point.high)}"
    return (
        f"{case.mine:,} of {case.everyone:,} shoppers, {head}: joining changes NDCG@10 by "
        f"{percent(point.gain)} ({interval}): {says}."
    )


def table(points: Sequence[Point], asked: Asked) -> list[str]:
    """One line a federation, for a terminal."""
    heads = "".join(f"{label(it):>18}" for it in lines(asked))
    found = [f"{'yours':>8}{'everyone':>10}{'alone':>9}{heads}"]
    for row in by_case(points):
        first = row[0]
        cells = "".join(f"{percent(it.gain) + f' ± {100 * it.half:.1f}':>18}" for it in row)
        case = first.case
        found.append(f"{case.mine:>8,}{case.everyone:>10,}{first.alone:>9.4f}{cells}")
    return found


def by_case(points: Sequence[Point]) -> list[list[Point]]:
    """The points of each federation together."""
    found: dict[object, list[Point]] = {}
    for point in points:
        found.setdefault(point.case, []).append(point)
    return list(found.values())


def numbers(pairs: Mapping[int, int]) -> str:
    """How many pairs lists have, in words."""
    few, many = min(pairs.values()), max(pairs.values())
    return f"{few:,}" if few == many else f"{few:,} (in the smallest federation) to {many:,}"


def assumptions(
    asked: Asked, *, ground: str, shoppers: int, nearest: int | None, pairs: Mapping[int, int]
) -> list[str]:
    """What the figures hold under; `pairs` are those of the list, by shoppers of the federation."""
    rule = f"{NEAREST} of each item or about {A_SHOPPER} pairs a shopper"
    largest = max(asked.cases, key=lambda it: it.everyone)
    others = [
        size for name, size in divided(largest, others=asked.others).items() if name != ASKING
    ]
    of = f"{asked.others} others" if asked.others > 1 else "one other"
    return [
        f"All platforms sell one catalogue, and their shoppers are alike: those of {ground}, dealt "
        "out at random. Shops whose shoppers or items differ may gain less.",
        f"Beside the platform that asks there are {of}, of even size: of {largest.everyone:,} "
        f"shoppers {max(others):,} each. The same shoppers on more platforms bring more noise.",
        "Every platform, the asking one too, releases its sums once, its whole budget of ε for "
        "them, with Laplace noise, at any δ. A budget shared with rounds buys less.",
        f"Sums are taken over {numbers(pairs)} pairs near by text, "
        f"{f'{nearest} of each item' if nearest else rule}. Without noise it is exact "
        "counts of every pair that occurs, which only one owner's channels may tell each other.",
        "Nothing is trained: text, own memory, and the others' sums. The gain is over text and own "
        "memory alone, on the same shoppers.",
        f"At most {MOST:,} shoppers of the asking platform are asked, for the last item but one, "
        "half of them by shares that the other half fitted; the very last is never read.",
        f"Shoppers are divided {asked.draws} times out of {shoppers:,}. Intervals are over these "
        "draws, so they tell of who is where and of the noise, and not of another world.",
    ]
