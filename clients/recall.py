"""The prior beside what a platform remembers and what others let it know, added up.

    prior + scale · Σ over the last items h of (own pairs + shared pairs + words)[h, i]
          + scale · (popularity[i] + how popular i was lately)  → scores [B, N]
    validation part ─fitted→ Weighing: how loudly each speaks, mixed at home with what was learnt
                                       elsewhere

A platform of 600 shoppers remembers little, and should listen to itself less than one of 20,000. So
the Weighing is the platform's own choice, on its own rows. Under a Plan it leaves with nothing;
without one it goes with exact sums (clients/taught.py).

    B  Histories      S  shoppers      N  items      C  candidates      L  LAST
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clients.memory import LAST, Memory, Weights, latest, recency_weights
from clients.mixing import listened, mixed
from clients.pretrained_weighing import PRETRAINED
from clients.shared_memory import SharedMemory
from clients.signals import Signals, at, indicator
from clients.taught import Taught
from clients.weighing import FEATURES, KINDS, Field, Shares, Weighing, spread
from shared.events import Histories, Question
from shared.ranking import BLOCK, Scorer
from shared.words import Words

SHOPPERS = 8000  # whose validation chooses the Weighing, at most
DEEP = 20  # best items by each signal alone that are candidates while it is chosen


def _by_hand() -> Weighing:
    return spread(Shares())


@dataclass(frozen=True)
class Recall:
    """A `shared.ranking.Scorer` of everything that a platform has.

    Attributes:
        prior: scores `scale` times a cosine.
        signals: of own rows and texts.
        scale: the prior's.
        weighing: of the signals in units of the cosine.
        shared: what is believed of the others' rows, if anything is.
        held_out: mean NDCG@10 of shoppers that its way of weighing was not fitted to, among their
            candidates; 0 where nothing was fitted.
        own: what its shoppers say by themselves, with nothing mixed in; by hand where nobody was
            asked.
        taught: how others weigh, where they let that out.
    """

    prior: Scorer
    signals: Signals
    scale: float
    weighing: Weighing = field(default_factory=_by_hand)
    shared: SharedMemory | None = None
    held_out: float = 0.0
    own: Weighing = field(default_factory=_by_hand)
    taught: Taught | None = None

    @property
    def memory(self) -> Memory:
        """Of own rows."""
        return self.signals.memory

    def with_memory(self, memory: Memory) -> Recall:
        """The same with another Memory."""
        return replace(self, signals=replace(self.signals, memory=memory))

    def scores(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N]."""
        items = len(self.memory.rows)
        owner, item, age = latest(contexts, LAST)
        speaks, place = np.unique(item, return_inverse=True)  # [U] items; each event's among them

        def aged(weights: NDArray[np.float64]) -> Weights:
            values = weights[age].astype(np.float32)
            return sparse.csr_array((values, (owner, place)), shape=(len(contexts), len(speaks)))

        known = sparse.csr_array((len(contexts), items), dtype=np.float32)
        for kind, pairs in self._kinds:
            said = pairs[speaks]
            if self.weighing.loud[kind].any():
                known = known + aged(self.weighing.loud[kind]) @ said
            if self.weighing.met[kind].any():
                known = known + aged(self.weighing.met[kind]) @ indicator(said)
        if self.weighing.words.any():
            words = self.signals.texts.words
            known = known + (aged(self.weighing.words) @ words[speaks]) @ words.T
        told = known.toarray() + self.liked(contexts)
        return np.asarray(self.prior.scores(contexts) + self.scale * told, np.float32)

    @cached_property
    def _kinds(self) -> tuple[tuple[int, Weights], ...]:
        """(place in KINDS, pairs) of each kind that there is."""
        pairs = dict(self.signals.pairs)
        if self.shared is not None:
            pairs["shared"] = self.shared.together
        return tuple((KINDS.index(name), it) for name, it in pairs.items())

    def liked(self, contexts: Histories) -> NDArray[np.float32]:
        """[B, N] what an item has for being popular; [1, N] where it is the same for all."""
        ever, lately, others = self.weighing.liked
        found = ever * self.memory.popularity[None]
        if lately:
            found = found + lately * self.memory.lately(contexts)
        if self.shared is not None:
            found = found + others * self.shared.popularity
        return np.asarray(found, np.float32)

    def said(
        self, recent: NDArray[np.int32], best: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[H, C] what each of the last items adds to these, by who took both and by words.

        Args:
            recent: [H] items in time order; only the last L speak.
            best: [C] items.
        """
        rows = np.broadcast_to(recent.astype(np.int64)[:, None], (len(recent), len(best)))
        columns = np.broadcast_to(best[None], rows.shape)
        pairs = np.zeros(rows.shape)
        ages = np.arange(len(recent) - 1, -1, -1)
        age, speaks = np.minimum(ages, LAST - 1), ages < LAST
        for place, kind in self._kinds:
            values = at(kind, rows, columns)
            pairs += self.weighing.loud[place][age][:, None] * values
            pairs += self.weighing.met[place][age][:, None] * (values > 0)
        texts = self.signals.texts.words
        alike = (texts[recent] @ texts[best].T).toarray()
        words = self.weighing.words[age][:, None] * alike
        scaled = self.scale * speaks[:, None]
        return np.asarray(scaled * pairs, np.float32), np.asarray(scaled * words, np.float32)

    def fitted(self, asked: Question, *, others: Weighing | None = None) -> Recall:
        """The same with the Weighing that is best for these shoppers.

        Args:
            asked: of the validation part; of more than SHOPPERS evenly spaced ones count. Where
                nobody is asked, or nobody's target is among the candidates, it is the Shares that
                were found by hand.
            others: how others weigh, of which, or of what was learnt on a public table, as much is
                taken as serves best; None has nobody but the latter.
        """
        if not len(asked.contexts):
            return self
        alone = replace(self, shared=None)
        field = alone.field(asked.spaced(SHOPPERS))
        it = mixed(field, _elsewhere(others))
        found = replace(self, weighing=it.weighing, held_out=it.held_out, own=it.own)
        return found if self.shared is None else found.listening(asked)

    def listening(self, asked: Question) -> Recall:
        """The same, its own signals weighed before, listening to what is shared.

        Args:
            asked: of the validation part, as for `fitted`; where nobody is asked it listens.
        """
        if not len(asked.contexts):
            return replace(self, weighing=self.weighing.hearing())
        weighing = listened(self.field(asked.spaced(SHOPPERS)), self.weighing, _elsewhere(None))
        return replace(self, weighing=weighing)

    def field(self, asked: Question) -> Field:
        """The items that are best by one signal alone, for those whose target is among them."""
        blocks = [self._block(asked.take(part)) for part in _blocks(len(asked.contexts))]
        features, valid, target = (np.concatenate(it) for it in zip(*blocks, strict=True))
        return Field(features, valid, target, len(asked.contexts))

    def _block(
        self, asked: Question
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
        prior = np.array(self.prior.scores(asked.contexts), np.float32)
        items = self._candidates(asked.contexts, prior)  # [B, C]
        valid = np.ones(items.shape, bool)
        valid[:, 1:] = items[:, 1:] != items[:, :-1]
        hit = (items == asked.targets[:, None]) & valid
        some = np.flatnonzero(hit.any(axis=1))
        items, valid = items[some].astype(np.int64), valid[some]
        contexts = asked.contexts.take(some)
        owner = np.repeat(np.arange(len(some)), contexts.lengths)
        seen = np.zeros((len(some), prior.shape[1]), bool)
        seen[owner, contexts.items] = True
        valid &= ~np.take_along_axis(seen, items, axis=1)
        cosines = np.take_along_axis(prior[some], items, axis=1) / self.scale
        return self._features(contexts, items, cosines), valid, hit[some].argmax(axis=1)

    def _candidates(self, contexts: Histories, prior: NDArray[np.float32]) -> NDArray[np.int64]:
        """[B, C] in rising order, some twice; what a signal says nothing of is not for it."""
        items = prior.shape[1]
        aged = recency_weights(contexts, items=items)
        count = min(DEEP, items)
        owner = np.repeat(np.arange(len(contexts)), contexts.lengths)
        ahead = prior.copy()
        ahead[owner, contexts.items] = -np.inf
        found: list[NDArray[np.int64]] = [_best(ahead, count)]
        for _kind, pairs in self._kinds:
            signal = (aged @ pairs).toarray()
            signal[owner, contexts.items] = -np.inf
            best = _best(signal, count)
            known = np.take_along_axis(signal, best, axis=1) > 0
            found.append(np.where(known, best, found[0][:, :1]))
        return np.sort(np.concatenate(found, axis=1), axis=1)

    def _features(
        self,
        contexts: Histories,
        items: NDArray[np.int64],
        cosines: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """[B, C, F] in the order of `Weighing.flat`."""
        last, there = _last(contexts)
        shape = (len(contexts), LAST, items.shape[1])
        rows = np.broadcast_to(last[:, :, None], shape)
        columns = np.broadcast_to(items[:, None, :], shape)
        size = len(KINDS) * LAST
        found = np.zeros((*items.shape, FEATURES), np.float32)
        found[:, :, 0] = cosines
        for place, pairs in self._kinds:
            values = at(pairs, rows, columns) * there[:, :, None]  # [B, L, C]
            first = 1 + place * LAST
            found[:, :, first : first + LAST] = values.swapaxes(1, 2)
            found[:, :, size + first : size + first + LAST] = (values > 0).swapaxes(1, 2)
        words = self.signals.texts.words
        values = _alike(words, rows, columns) * there[:, :, None]
        found[:, :, 1 + 2 * size : 1 + 2 * size + LAST] = values.swapaxes(1, 2)
        found[:, :, -3] = self.memory.popularity[items]
        if self.memory.daily.nnz:
            found[:, :, -2] = np.take_along_axis(self.memory.lately(contexts), items, axis=1)
        if self.shared is not None:
            found[:, :, -1] = self.shared.popularity[items]
        return found


def _elsewhere(others: Weighing | None) -> list[Weighing]:
    return [PRETRAINED] if others is None else [PRETRAINED, others]


def _best(signal: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[B, count] the places of each row's highest values, in no order."""
    return np.asarray(np.argpartition(-signal, count - 1, axis=1)[:, :count], np.int64)


def _alike(
    words: Words, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Products of the words of two items, at places of one shape."""
    found: NDArray[np.float32] = words[rows.ravel()].multiply(words[columns.ravel()]).sum(axis=1)
    return np.asarray(found, np.float32).reshape(rows.shape)


def _last(contexts: Histories) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """[B, L] the item k events before the end, and whether there is one."""
    owner, item, age = latest(contexts, LAST)
    found = np.zeros((len(contexts), LAST), np.int64)
    there = np.zeros((len(contexts), LAST), bool)
    found[owner, age], there[owner, age] = item, True
    return found, there


def _blocks(count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))
