"""History ─train(Adapter, Plan)→ Update ─bound→ BoundedUpdate, and what it costs.

answered before? → the same again, at no cost
reserve → train → bound → release: only then may it leave
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clients.egress import metrics_bytes, metrics_of, noised_metrics
from clients.ledger import Asked, Ledger
from clients.pieces import pieces
from clients.platform import Platform
from clients.private import PrivateEngine
from clients.randomness import Randomness
from shared import asking, metrics, wire
from shared.accounting import Charge
from shared.adapter import Adapter
from shared.drift import plain, proximal
from shared.errors import AdapterError, DataError, PlanError
from shared.events import Question
from shared.ranking import rank
from shared.tables.policy import Policy
from shared.tasks import co_visitation
from shared.training import Recipe, Stretch, train
from shared.update import (
    MAX_NORM,
    BoundedUpdate,
    Noise,
    Receipt,
    Update,
    bound,
    from_bytes,
    to_bytes,
)

LARGEST = 1e3  # of an Adapter's values; those of the shipped scenarios are of the order of 1
FAILED = b""  # the payload of a request that failed after rows were touched


def policy_of(platform: Platform) -> Policy:
    """What may leave.

    Raises:
        PlanError: the platform's file does not say.
    """
    if platform.config.policy is None:
        raise PlanError(
            "has no Plan, so it trains for nobody",
            where=platform.config.name,
            todo="write a [privacy] section into its file",
        )
    return platform.config.policy


def update(
    platform: Platform,
    start: Adapter,
    asked: asking.Training,
    standing: asking.Standing,
    *,
    recipe: Recipe,
    stretch: Stretch,
    rng: np.random.Generator,
    randomness: Randomness,
) -> tuple[BoundedUpdate, Receipt | None]:
    """Train from the Adapter that came, as the platform's Policy allows.

    Args:
        platform: whose rows.
        start: the Adapter.
        asked: of the server; it can only ask for less than the Plan, and a round is charged whole.
        standing: what the server remembers.
        recipe: rates, and where no Plan forbids it the batch.
        stretch: which part of the schedule this round is.
        rng: the order of Histories where there is no Plan.
        randomness: samples and noise where there is one.

    Raises:
        PlanError: no Plan, or the server asks for a looser one.
        BudgetError: it would cost more than is left.
        LedgerError: the Ledger cannot be used.
    """
    policy = policy_of(platform)
    check_adapter(start, platform)
    weight = platform.config.weight

    def moved(after: Adapter) -> Update:
        return Update(after.minus(start), base=start.digest, weight=weight)

    if policy.plan is None:
        after = train(
            platform.backbone,
            start,
            [platform.training],
            recipe,
            rng=rng,
            engine=plain(start, strength=asked.proximal),
            stretch=stretch,
        )
        platform.check_erasures()
        return bound(moved(after), MAX_NORM, noise="none"), None
    check_neighbours(platform, randomness.noise)
    plan = policy.plan.tightened(
        clip=asked.clip or None,
        noise_multiplier=asked.noise_multiplier or None,
        steps=asked.steps or None,
    )

    def work() -> bytes:
        engine = partial(
            PrivateEngine,
            plan=plan,
            randomness=randomness,
            speed=platform.config.speed,
            pull=proximal(start, asked.proximal) if asked.proximal > 0 else None,
        )
        after = train(
            platform.backbone,
            start,
            [platform.training],
            replace(recipe, epochs=1),
            rng=rng,
            engine=engine,
            stretch=stretch,
        )
        return to_bytes(bound(moved(after), plan.update_norm, noise=randomness.noise))

    # A whole round of the Plan, whatever the server asked for less of: clients/allowance.py.
    payload, receipt = charged(
        policy,
        request_of(start, asked, standing),
        policy.plan.charge,
        work,
        noise=randomness.noise,
        receipt=standing.receipts.get(platform.config.name),
        check=platform.check_erasures,
    )
    return from_bytes(payload), receipt


def check_neighbours(platform: Platform, noise: Noise) -> None:
    """Refuse rows in which one shopper more is another one less.

    Raises:
        PlanError: the platform keeps only so many shoppers. A simulation may: its rows are public.
    """
    if platform.config.events.limit is not None and noise == "secure":
        raise PlanError(
            "keeps a limit of shoppers, so that one who comes pushes another out",
            where=platform.config.name,
            todo="leave limit out of [events] under a Plan",
        )


def validation(
    platform: Platform, adapter: Adapter, standing: asking.Standing, *, randomness: Randomness
) -> dict[str, float]:
    """Validation metrics as the platform's file lets them leave: withheld, noised, or as they are.

    Raises:
        BudgetError: they would cost more than is left.
        LedgerError: the Ledger cannot be used.
    """
    if not platform.config.share_metrics:
        return {}
    policy = policy_of(platform)
    check_adapter(adapter, platform)
    if policy.plan is None:
        ranks = platform.rank(adapter, "validation").ranks
        platform.check_erasures()
        return {
            wire.NDCG: float(metrics.ndcg(ranks).mean()),
            wire.HIT_RATE: float(metrics.hit_rate(ranks).mean()),
        }
    check_neighbours(platform, randomness.noise)
    multiplier = policy.metrics_noise
    if multiplier is None:
        raise PlanError(
            "shares metrics without a noise_multiplier",
            where=platform.config.name,
            todo="set one under [evaluation]",
        )

    def work() -> bytes:
        ranks = ranks_alone(platform, adapter)
        told = noised_metrics(ranks, noise_multiplier=multiplier, randomness=randomness, number=0)
        return metrics_bytes(told)

    payload, _receipt = charged(
        policy,
        request_of(adapter, None, standing),
        Charge(multiplier),
        work,
        noise=randomness.noise,
        receipt=standing.receipts.get(platform.config.name),
        check=platform.check_erasures,
    )
    return metrics_of(payload)


def request_of(adapter: Adapter, asked: asking.Training | None, standing: asking.Standing) -> Asked:
    """A request as a Ledger knows it: to train or count, or without a Training to evaluate."""
    if asked is not None and adapter.task == co_visitation.NAME:
        return Asked("sums", standing.run, asked.round, adapter.digest)
    if asked is None:
        return Asked("metrics", standing.run, adapter.version, adapter.digest)
    return Asked("update", standing.run, asked.round, adapter.digest)


def ranks_alone(platform: Platform, adapter: Adapter) -> NDArray[np.float32]:
    """[S] validation ranks, each from arithmetic that nobody else's rows have a part in."""
    asked = platform.question("validation")
    lengths = np.minimum(asked.contexts.lengths, platform.backbone.spec.max_length)
    scorer, ranks = platform.scorer(adapter), np.empty(len(lengths), np.float32)
    everyone = np.arange(len(lengths))
    for part, count in pieces(lengths, everyone, microbatch=platform.config.speed.microbatch):
        question = Question(asked.contexts.take(part), asked.targets[part])
        found = rank(scorer, question, items=len(platform.rows.catalogue)).ranks
        ranks[part[:count]] = found[:count]
    return ranks


def paid(platform: Platform, request: Asked, *, noise: Noise) -> tuple[bytes, Receipt] | None:
    """What the Ledger holds as released for this request, and its Receipt; for the egress door."""
    policy = platform.config.policy
    if policy is None or policy.plan is None:
        return None
    if request.purpose == "metrics" and not platform.config.share_metrics:
        return None
    with Ledger.open(policy, noise=noise) as ledger:
        payload = ledger.answered(request)
        return None if payload is None else (payload, ledger.receipt)


def check_adapter(adapter: Adapter, platform: Platform) -> None:
    """Refuse an Adapter that no honest federation comes to, before a row is touched.

    Beyond it a loss could overflow for one shopper and not for another, and fail for that reason.

    Raises:
        AdapterError: other names or shapes than the slots, or a value beyond LARGEST.
    """
    if adapter.shapes != platform.untrained.shapes:
        raise AdapterError(
            "tensors do not fit this backbone", todo="use the backbone it was trained with"
        )
    # Written so that NaN is refused too.
    if not all(bool((np.abs(it) <= LARGEST).all()) for it in adapter.tensors.values()):
        raise AdapterError(
            f"a value is beyond {LARGEST:g}, or not finite",
            todo="have the coordinator lower its learning rate",
        )


def charged(
    policy: Policy,
    asked: Asked,
    charge: Charge,
    work: Callable[[], bytes],
    *,
    noise: Noise,
    receipt: Receipt | None,
    check: Callable[[], None] = lambda: None,
) -> tuple[bytes, Receipt]:
    """What `work` makes, paid for once, however often it is asked for.

    Guarantee: whatever is returned stands in the Ledger as released, on the disk. A process that
    dies before that has returned nothing, and nothing stays charged. `work` that fails has touched
    rows: its charge stays, and the same request fails again without another.

    `check` is called while the ledger is locked, before anything is reserved: what it raises costs
    nothing. `atoll-client erase` holds the same lock while it changes what is read.

    Raises:
        DataError: `work` failed for this request before.
    """
    with Ledger.open(policy, noise=noise, receipt=receipt) as ledger:
        payload = ledger.answered(asked)
        if payload is None:
            check()
            number = ledger.reserve(asked, charge)
            try:
                payload = work()
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise  # the process ends, and tells nobody
            except BaseException:  # Polars raises one; that it failed is told, so it is paid for
                ledger.release(number, FAILED)
                raise
            ledger.release(number, payload)
        if payload == FAILED:
            raise DataError(
                "this very request failed before", todo="see the log, mend it, await the next round"
            )
        return payload, ledger.receipt
