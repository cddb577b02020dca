"""Trained at home, from the untrained state or from what a federation taught.

    local            every slot, from the untrained state: what sharing has to beat
    lora             every slot, from the federated state
    frozen layers    the encoder's slots stay federated, the output's are trained on
    feature reuse    the encoder's slots stay federated, the output's are begun anew

All slots are low-rank with A frozen (decision 6), so `lora` is what fine-tuning means here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from clients.kept import Kept, better
from clients.platform import Platform
from shared.adapter import Adapter
from shared.backbone import Backbone
from shared.training import Loss, of_task, train
from simulations.candidates import recipe_of
from simulations.strategies.meeting import Meeting, States
from simulations.strategies.rounds import federated

OUTPUT = ("adapter.weight", "gate.adapter")  # slots after the encoder: what is made of its states


def local(meeting: Meeting) -> States:
    """As many passes as the federation makes, from the untrained state."""
    return from_states(meeting, meeting.start, passes=all_passes(meeting))


def lora(meeting: Meeting) -> States:
    """A few passes from the federated state."""
    known = meeting.of("federated", federated)
    passes = meeting.scenario.personalise_epochs
    return from_states(meeting, known, passes=passes, more_seed=(1,))


def frozen_layers(meeting: Meeting) -> States:
    """The same, and only the output moves."""
    known = meeting.of("federated", federated)
    passes = meeting.scenario.personalise_epochs
    return from_states(meeting, known, passes=passes, more_seed=(1,), moves=is_output)


def feature_reuse(meeting: Meeting) -> States:
    """As many passes as the federation makes, on its encoder, of an output begun anew."""
    known = meeting.of("federated", federated)
    begin = {name: emptied(state.adapter) for name, state in known.items()}
    return from_states(
        meeting, meeting.start, passes=all_passes(meeting), moves=is_output, begin=begin
    )


def is_output(slot: str) -> bool:
    """Whether a slot stands after the encoder."""
    return slot in OUTPUT


def emptied(adapter: Adapter) -> Adapter:
    """The same with an output that adds nothing."""
    tensors = {name: it * np.float32(not is_output(name)) for name, it in adapter.tensors.items()}
    return replace(adapter, tensors=tensors)


def all_passes(meeting: Meeting) -> int:
    """Passes over a platform's rows in the whole federation."""
    return meeting.scenario.federation.rounds * meeting.scenario.federation.epochs


def from_states(
    meeting: Meeting,
    start: States,
    *,
    passes: int,
    more_seed: tuple[int, ...] = (),
    moves: Callable[[str], bool] | None = None,
    begin: dict[str, Adapter] | None = None,
    loss: Callable[[Platform], Loss] = lambda _platform: of_task,
) -> States:
    """Each platform trains at home and keeps its best epoch, or the state it has to beat.

    Args:
        meeting: who.
        start: by platform, the state to beat.
        passes: over its rows.
        more_seed: what the order of Histories depends on besides.
        moves: whether a slot of this name is trained; None trains all.
        begin: where training begins, if not at `start`.
        loss: what is made small on a platform.
    """

    def job(platform: Platform) -> Kept:
        name = platform.config.name
        best = start[name]

        def offer(epoch: int, adapter: Adapter) -> None:
            nonlocal best
            best = better(best, start[name].offered(platform, adapter, f"epoch {epoch}"))

        with moving(platform.copy().backbone, moves) as backbone:
            train(
                backbone,
                begin[name] if begin else start[name].adapter,
                [platform.training],
                recipe_of(meeting.scenario, epochs=passes),
                rng=np.random.default_rng([*meeting.seeds(name), *more_seed]),
                loss=loss(platform),
                progress=lambda what, done, total: meeting.progress(f"{name} {what}", done, total),
                after_epoch=offer,
            )
        return best

    return meeting.each(job)


@contextmanager
def moving(backbone: Backbone, moves: Callable[[str], bool] | None) -> Iterator[Backbone]:
    """The backbone with these of its slots trainable, and all of them again afterwards."""
    if moves is not None:
        for name, slot in backbone.named_parameters():
            slot.requires_grad_(slot.requires_grad and moves(name))
    try:
        yield backbone
    finally:
        backbone.freeze()
