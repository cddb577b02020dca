"""One training run, many canaries: what an auditor who sees every noised sum can guess of them.

    canaries ─fair coins→ Histories ─train, watched→ noised sums ─score→ guesses ─→ ε at least

The more guesses are right, the larger the ε that can be refuted, by the main theorem of "Privacy
Auditing with One (1) Training Run" (Steinke, Nasr and Jagielski, arXiv 2305.08846). A canary is two
items that nobody else touches: its gradient is longer than the clip and nearly at right angles to
all others, which is as bad for a shopper as a History of real length can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from clients.private import PrivateEngine
from shared.backbone import Backbone
from shared.events import Histories, from_lists
from shared.plan import Plan
from shared.training import Piece, Rows
from simulations.audits.attacks import gradients, slots

CONFIDENCE = 0.95
RIDGE = 0.1  # on squared gradients of length one; steadies least squares
LARGEST = 40.0  # ε; no lower bound is searched for beyond it


@dataclass(frozen=True)
class Planted:
    """Rows with canaries among them.

    Attributes:
        rows: to train on: all real Histories, and the canaries whose coin said so.
        canaries: [m] all of them.
        coins: [m] whether each is in the rows.
    """

    rows: Rows
    canaries: Histories
    coins: NDArray[np.bool_]


def plant(rows: Rows, count: int, *, rng: np.random.Generator) -> Planted:
    """Put canaries in by fair coins: canary i goes from made-up item i to made-up item i+1."""
    items, width = rows.table.shape
    vectors = rng.standard_normal((count, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = torch.cat([rows.table, torch.from_numpy(vectors).to(rows.table.device)])
    pairs = [np.array([items + i, items + (i + 1) % count], np.int32) for i in range(count)]
    coins = rng.random(count) < 0.5
    real = [rows.histories[i] for i in range(len(rows.histories))]
    every = real + [pair for pair, chosen in zip(pairs, coins, strict=True) if chosen]
    return Planted(Rows(nameless(every), table), nameless(pairs), coins)


def nameless(rows: list[NDArray[np.int32]]) -> Histories:
    """Histories of shoppers who need no name."""
    return from_lists(rows, ("",) * len(rows))


@dataclass
class Tape:
    """What was seen of one run.

    Attributes:
        drawn: of each step, the positions of the Histories in its batch.
        sums: of each step, [d] the noised sum that the guarantee covers.
        states: of each step, the adapter slots that its gradients were taken at.
    """

    drawn: list[NDArray[np.int64]] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    states: list[list[Tensor]] = field(default_factory=list)


class Watched:
    """An Engine as it is, with a Tape running."""

    def __init__(self, engine: PrivateEngine, tape: Tape, *, slots: list[torch.nn.Parameter]):
        self.engine, self.tape, self.slots = engine, tape, slots
        self.steps = engine.steps
        engine.optimizer.attach_step_hook(self._see)

    def _see(self, optimizer: torch.optim.Optimizer) -> None:
        """Opacus calls this with the noised sum over the expected batch, before the step."""
        found = [value.grad for value in self.slots if value.grad is not None]
        flat = torch.cat([part.flatten() for part in found])
        self.tape.sums.append(flat.detach().cpu() * self.engine.plan.expected_batch)
        self.tape.states.append([value.detach().clone() for value in self.slots])

    def batches(self) -> Iterator[Iterable[Piece]]:
        """As the engine draws them."""
        for pieces in self.engine.batches():
            seen = list(pieces)
            # A piece may be filled with rows that are there twice and count once.
            places = [np.unique(place) for _which, place in seen]
            self.tape.drawn.append(np.concatenate([np.zeros(0, np.int64), *places]))
            yield seen

    def take(self, losses: Tensor) -> None:
        """As the engine does."""
        self.engine.take(losses)

    def step(self, *, rate: float) -> None:
        """As the engine does."""
        self.engine.step(rate=rate)

    def close(self) -> None:
        """As the engine does."""
        self.engine.close()


def watching(make: Callable[..., PrivateEngine], tape: Tape) -> Callable[..., Watched]:
    """The same engines, watched."""

    def made(backbone: Backbone, *given: object, **named: object) -> Watched:
        return Watched(make(backbone, *given, **named), tape, slots=slots(backbone))

    return made


def scores(
    tape: Tape, backbone: Backbone, table: Tensor, canaries: Histories, plan: Plan
) -> NDArray[np.float64]:
    """[m] how likely each canary is in, against out: a log-likelihood ratio over all sums.

    In each step least squares tell how many times each canary's clipped gradient is in the noised
    sum: x has mean 1 in a step that the canary is in and 0 in another. A canary that is in has
    chance q to be in a step.
    """
    q, noise = plan.sampling_rate, plan.noise_multiplier
    stays = math.log1p(-q) if q < 1 else -math.inf
    total = np.zeros(len(canaries))
    for state, noised in zip(tape.states, tape.sums, strict=True):
        with torch.no_grad():
            for slot, value in zip(slots(backbone), state, strict=True):
                slot.copy_(value)
        each = torch.cat(list(gradients(backbone, table, canaries)))
        each = torch.nn.functional.normalize(each, dim=1)  # [m, d]
        gram = (each @ each.T).double()
        inverse = torch.linalg.inv(gram + RIDGE * torch.eye(len(gram), dtype=torch.float64))
        x = inverse @ (each @ noised).double() / plan.clip
        variance = noise**2 * (inverse @ gram @ inverse).diagonal()
        # log(1-q + q·N(x; 1, σ²)/N(x; 0, σ²)); at q = 1 the first is nothing.
        ratio = ((x - 0.5) / variance).numpy()
        total += np.logaddexp(stays, math.log(q) + ratio)
    return total


def right_guesses(scores: NDArray[np.float64], coins: NDArray[np.bool_], guesses: int) -> int:
    """How many of so many guesses are right: the highest half say in, the lowest half out.

    `guesses` must be settled before the scores are seen; of all other canaries nothing is said.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int((~coins[order[:half]]).sum() + coins[order[len(order) - (guesses - half) :]].sum())


def p_value(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The chance of so many right guesses or more, at most, if (ε, δ) were true.

    The main theorem of arXiv 2305.08846, for (ε, δ): β + 2·m·δ·α with
    β = P[B ≥ v] and α = max over i of P[v > B ≥ v - i]/i, for B binomial of r and e^ε/(1 + e^ε).

    Args:
        canaries: m, each in with chance ½.
        guesses: r ≤ m; the rest abstain.
        right: v ≤ r.
        epsilon: claimed.
        delta: claimed.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError("right guesses are some of the guesses, these some of the canaries")
    chance = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(right - 1, guesses, chance))
    below = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))
    alpha = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def lower_bound(
    *, canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """The largest ε that so many right guesses refute at this confidence; 0 if they refute none."""

    def refuted(epsilon: float) -> bool:
        found = p_value(
            canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta
        )
        return found < 1 - confidence

    low, high = 0.0, LARGEST
    if not refuted(low):
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
