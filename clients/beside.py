"""What a platform has beside an Adapter: its own memory, and what sums say of the others'.

train rows ─count→ Memory ─fitted on the validation part→ Recall
    with the sums of a federation, less one's own share of them ─fitted anew→ Recall
    with all rows in the Memory, once that is settled ─→ Recall to serve with
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from clients import settled
from clients.ledger import Asked, answered
from clients.memory import Memory
from clients.platform import Platform
from clients.recall import Recall
from clients.shared_memory import SharedMemory, others
from clients.signals import Signals
from clients.sums import unprotected
from clients.taught import Taught, sent
from shared import manifest
from shared.adapter import Adapter, Tensors, load_adapter
from shared.errors import AdapterError, IdentityError, LedgerError
from shared.tasks import co_visitation
from shared.update import from_bytes
from shared.words import Texts


def own(platform: Platform) -> Recall:
    """The untrained prior and the Memory of the platform's train rows, fitted."""
    return remembering(platform).fitted(platform.question("validation"))


def remembering(platform: Platform, *, texts: Texts | None = None) -> Recall:
    """The untrained prior and the Memory of the platform's train rows, as loud as by default.

    Args:
        platform: whose.
        texts: of its Catalogue, where they are at hand; None has the platform find them.
    """
    histories = platform.rows.histories.without_last(2)
    memory = Memory.of(histories, items=len(platform.rows.catalogue))
    return Recall(
        prior=platform.copy().scorer(platform.untrained),
        signals=Signals(memory, texts or platform.texts),
        scale=platform.backbone.spec.prior_scale,
    )


def with_sums(platform: Platform, alone: Recall, sums: Adapter, *, run: str | None) -> Recall:
    """Own memory, and what the others added to the sums of a federation, if it is listened to.

    Sums with noise are listened to as `clients.mixing.listened` has it. Exact ones are added to
    own memory, if weighing finds that better for shoppers that it was not fitted to.

    Args:
        platform: whose file names the list of pairs.
        alone: of this platform, fitted.
        sums: of all.
        run: name of the federation, if this platform's own are among them; None if they are not.

    Raises:
        PlanError: the file names no list of pairs.
        PairsError: the list cannot be read.
        LedgerError: the Ledger has let out nothing in this run, or something newer since.
    """
    return chosen(platform, alone, heard(platform, alone, sums, run=run))


def heard(platform: Platform, alone: Recall, sums: Adapter, *, run: str | None) -> Recall:
    """Own memory and what the others added, not fitted. Arguments and errors as of `with_sums`."""
    mine = None if run is None else let_out(platform, run)
    found = others(sums, platform.places, own=mine, weight=platform.config.weight)
    if isinstance(found, SharedMemory):
        return replace(alone, shared=found)
    joined = alone.with_memory(alone.memory.plus(found))
    total = sums.tensors[co_visitation.WEIGHING].astype(np.float64)
    policy = platform.config.policy
    assert policy is not None  # else there were no places
    flat = np.zeros_like(total) if run is None else sent(policy, run)
    if flat is None:  # its own part is not known, so neither is the others'
        return joined
    return replace(joined, taught=Taught(total, platform.config.weight * flat))


def chosen(platform: Platform, alone: Recall, joined: Recall) -> Recall:
    """Of a fitted Recall and the same with what the others added, the one to rank with, fitted.

    It is `alone` itself where own shoppers would have the others not heard at all.
    """
    asked = platform.question("validation")
    if joined.shared is not None:
        listening = replace(alone, shared=joined.shared).listening(asked)
        return listening if listening.weighing.hears else alone
    taught = joined.taught.others if joined.taught is not None else None
    found = joined.fitted(asked, others=taught)
    return found if found.held_out > alone.held_out else alone


def let_out(platform: Platform, run: str) -> Tensors:
    """What the platform itself added, from its Ledger, or counted again where it keeps none.

    Raises:
        LedgerError: the Ledger has let out nothing in this run, or something newer since.
    """
    policy, places = platform.config.policy, platform.places
    assert policy is not None  # else there were no places
    if policy.plan is None:
        return unprotected(platform.told, places, weight=platform.config.weight)
    start = co_visitation.untrained(places.pairs)
    payload = answered(policy, Asked("sums", run, 1, start.digest))
    if payload is None:
        raise LedgerError(
            f"does not hold what it let out for the sums of {run}",
            where=policy.ledger,
            todo="use the sums that were taken last",
        )
    return from_bytes(payload).delta


def known(platform: Platform, sums: Path | None) -> tuple[Recall, Recall]:
    """Own memory of train rows, and the same with what a file of sums says of the others'.

    Neither is fitted; without a file they are one. The manifest beside it says in which run the
    sums were taken, and who is among them.

    Raises:
        AdapterError: the file is no adapter, of another list of pairs, or of other sums.
        IdentityError: its manifest is missing, cannot be read, or is of other sums.
        AtollError: as of `with_sums`.
    """
    alone = remembering(platform)
    if sums is None:
        return alone, alone
    pairs = platform.places.pairs
    state = load_adapter(sums, backbone=pairs.digest, task=co_visitation.NAME)
    if state.shapes != co_visitation.untrained(pairs).shapes:
        raise AdapterError(
            "holds other sums than this release of Atoll takes",
            where=sums,
            todo="have them taken by platforms of this release",
        )
    told, _signature = manifest.read(manifest.beside(sums))
    if told.adapter != state.digest:
        raise IdentityError(
            "is of other sums than those beside it",
            where=manifest.beside(sums),
            todo="fetch both files anew from the coordinator",
        )
    run = told.run if platform.config.name in told.participants else None
    return alone, heard(platform, alone, state, run=run)


def weighed(platform: Platform, alone: Recall, joined: Recall) -> tuple[Recall, Recall]:
    """What is `known`, fitted: own memory, and the one to rank with, which may be the same."""
    fitted = alone.fitted(platform.question("validation"))
    return fitted, fitted if joined is alone else chosen(platform, fitted, joined)


def remembered(platform: Platform, sums: Path | None) -> tuple[Recall, bool]:
    """What a platform serves with: own memory, and the sums of a file, if there is one.

    How to weigh is found once and kept in the platform's cache (clients/settled.py).

    Returns:
        It, and whether own shoppers would have the sums heard.

    Raises:
        AtollError: as of `known`.
    """
    alone, joined = known(platform, sums)
    place = settled.place_of(platform.config)
    key = settled.key_of(platform, sums) if place else ""
    before = settled.kept(place, key) if place else None
    if before is not None:
        found = replace(joined if before.joined else alone, weighing=before.weighing)
        return to_serve(platform, found), before.joined
    first, found = weighed(platform, alone, joined)
    listens = found is not first
    if place:
        platform.check_erasures()
        kept = settled.Settled(found.weighing, listens)
        settled.keep(place, key, kept, spare=platform.config.cache is None)
    return to_serve(platform, found), listens


def dated(platform: Platform, found: Recall) -> Recall:
    """The same on the day of the test: with all own rows remembered but those that test."""
    before = platform.rows.histories.without_last(2)
    return found.with_memory(found.memory.updated(before, platform.told))


def to_serve(platform: Platform, found: Recall) -> Recall:
    """The same with every row remembered, those that validated among them."""
    histories = platform.rows.histories
    return found.with_memory(found.memory.updated(histories.without_last(2), histories))
