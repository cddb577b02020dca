"""Sums as an Update: what the Policy says of them, and what they cost.

answered before? → the same again, at no cost
reserve → count → noise → release: only then may it leave
"""

from __future__ import annotations

import numpy as np

from clients.allowance import sums_charge
from clients.beside import own
from clients.platform import Platform
from clients.randomness import Randomness
from clients.sums import released, unprotected
from clients.taught import keep_sent
from clients.train import charged, check_neighbours, policy_of, request_of
from shared import asking
from shared.adapter import Adapter, Tensors
from shared.errors import AdapterError, PlanError
from shared.records import SAME_VERSION
from shared.tasks import co_visitation
from shared.update import (
    MAX_NORM,
    BoundedUpdate,
    Protection,
    Receipt,
    Update,
    bound,
    from_bytes,
    to_bytes,
)

MOST_NOISE = 300.0  # what it adds then still fits into the bound of an Update


def counted(
    platform: Platform,
    start: Adapter,
    asked: asking.Training,
    standing: asking.Standing,
    *,
    randomness: Randomness,
) -> tuple[BoundedUpdate, Receipt | None]:
    """What a platform adds to the sums, as its Policy allows.

    Args:
        platform: whose rows.
        start: the state that came: nothing known.
        asked: of the server; it can only ask for more noise.
        standing: what the server remembers.
        randomness: of the noise, where there is a Plan.

    Raises:
        PlanError: the Policy does not allow it, or less noise is asked for.
        AdapterError: another state came.
        BudgetError: it would cost more than is left.
        LedgerError: the Ledger cannot be used.
    """
    policy, places = policy_of(platform), platform.places
    check_start(start, platform, asked)
    weight, histories = platform.config.weight, platform.told

    def moved(sums: Tensors, noise: Protection) -> BoundedUpdate:
        return bound(Update(sums, base=start.digest, weight=weight), MAX_NORM, noise=noise)

    if policy.plan is None:
        flat = None
        if places.pairs.directed:  # fitted to rows without a Plan: it goes with exact counts alone
            flat = own(platform).own.flat.astype(np.float32)
            platform.check_erasures()  # else what an erasure deletes would be written again
            keep_sent(policy, standing.run, flat)
        sums = unprotected(histories, places, weight=weight, weighing=flat)
        platform.check_erasures()
        return moved(sums, "none"), None
    if places.pairs.directed:
        raise PlanError(
            "is asked for exact counts, its shoppers are protected",
            where=platform.config.name,
            todo="use a list of pairs that was made from texts",
        )
    check_neighbours(platform, randomness.noise)
    multiplier, set_aside = noise_of(platform, asked), sums_charge(policy)
    assert set_aside is not None

    def work() -> bytes:
        sums = released(
            histories, places, weight=weight, noise_multiplier=multiplier, randomness=randomness
        )
        return to_bytes(moved(sums, randomness.noise))

    payload, receipt = charged(
        policy,
        request_of(start, asked, standing),
        set_aside,  # whatever more noise the server asked for: clients/allowance.py
        work,
        noise=randomness.noise,
        receipt=standing.receipts.get(platform.config.name),
        check=platform.check_erasures,
    )
    return from_bytes(payload), receipt


def noise_of(platform: Platform, asked: asking.Training) -> float:
    """b of the release: the Policy's, or more if the server asks for it.

    Raises:
        PlanError: the server asks for less.
    """
    policy = policy_of(platform)
    ours = policy.sums_noise
    assert ours is not None  # under a Plan a [sums] section has one
    if asked.noise_multiplier and asked.noise_multiplier < ours:
        raise PlanError(
            f"the server asks for noise_multiplier {asked.noise_multiplier:g}, [sums] has {ours:g}",
            where=platform.config.name,
            todo="have the coordinator ask for less, or change the platform's file",
        )
    found = max(ours, asked.noise_multiplier)
    if found > MOST_NOISE:
        raise PlanError(
            f"noise_multiplier {found:g} is beyond {MOST_NOISE:g}: nothing would be told",
            where=platform.config.name,
            todo="ask for less, or leave [sums] out",
        )
    return found


def check_start(start: Adapter, platform: Platform, asked: asking.Training) -> None:
    """Refuse all but the one question that this task has, before a row is touched.

    Raises:
        AdapterError: the state is not the one where nothing is known, or there is a second round.
    """
    if start.digest != co_visitation.untrained(platform.places.pairs).digest or asked.rounds != 1:
        raise AdapterError("sums are taken once, from nothing", todo=SAME_VERSION)
