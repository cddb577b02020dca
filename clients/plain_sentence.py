"""ε and δ in one plain sentence, for a reader who is no mathematician, and exactly right.

    ε, δ ─plain_sentence→ "whatever anyone outside concludes …", and a test for one shopper

Numbers are rounded up, so that the sentence never promises more than was proved.
"""

from __future__ import annotations

import math

ACCUSED = 0.01  # the false alarms in the example: one shopper in a hundred


def plain_sentence(epsilon: float, delta: float) -> str:
    """What ε and δ promise, in one sentence, and an example of it.

    The sentence is the definition of (ε, δ)-differential privacy (Dwork & Roth, The Algorithmic
    Foundations of Differential Privacy, 2014, Definition 2.4) for one conclusion S from all that
    was released: P[S | with] ≤ e^ε · P[S | without] + δ, and with the two exchanged. The example
    reads it as a test: at a rate α of false alarms, at most `detected` true ones (Kairouz, Oh &
    Viswanath, The Composition Theorem for Differential Privacy, 2015, Theorem 2.1).

    Args:
        epsilon: of all releases together.
        delta: of the same.
    """
    factor = _up(math.exp(epsilon)) if epsilon < 700 else "more than 10^300"
    caught = _up(100 * detected(ACCUSED, epsilon, delta))
    return (
        "Whatever anyone outside concludes about a shopper from everything that has left this"
        " platform, the probability of reaching that conclusion with the shopper's data in it is"
        f" at most e^ε = {factor} times what it would be without that data, plus at most"
        f" δ = {delta:.3g}, and the same holds with the two exchanged. For example: a test that"
        f' wrongly says "was in the data" of {100 * ACCUSED:g} in 100 shoppers who were not can'
        f" say it of at most {caught} in 100 who were."
    )


def detected(false_alarms: float, epsilon: float, delta: float) -> float:
    """The largest power of a test for one shopper's data, at a rate of false alarms.

    The smaller of e^ε·α + δ and 1 - e^-ε·(1 - α - δ), within [α, 1].
    """
    first = math.exp(min(epsilon, 700.0)) * false_alarms + delta
    second = 1 - math.exp(-epsilon) * (1 - false_alarms - delta)
    return max(false_alarms, min(first, second, 1.0))


def _up(value: float) -> str:
    """Three significant digits, rounded up: never told below what it is."""
    if value <= 0:
        return "0"
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step - 1e-9) * step:.3g}"
