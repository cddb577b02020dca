"""What a platform must have before it can answer anybody, and what is wrong with it.

    able            tables open; backbone, policy and pairs fit: before `up` starts, in seconds
    privacy_line    the policy against the rows that were read: `check` and `doctor`

A platform that lacks one of these is refused at its start: it would only look ready.
"""

from __future__ import annotations

from pathlib import Path

from clients.platform import frozen_parts
from shared.errors import ConfigError, PlanError
from shared.pairs import Pairs, load_pairs
from shared.tables.config import PlatformConfig
from shared.tables.policy import Policy


def able(config: PlatformConfig, path: Path) -> None:
    """Refuse a platform that will certainly be unable to answer; no row is read for it.

    Args:
        config: of the platform.
        path: its TOML file, for errors.

    Raises:
        AtollError: it has no policy, a table cannot be opened, or the backbone or the list of pairs
            cannot be used.
    """
    policy = policy_of(config, path)
    for table in (config.events.path, config.items.path):
        can_open(table)
    frozen_parts(config)
    if policy.pairs is not None:
        pairs_for(policy)


def pairs_for(policy: Policy) -> Pairs:
    """The list of pairs that a [sums] section names.

    Raises:
        PairsError: it cannot be read.
        PlanError: it is of exact counts, and the shoppers are protected.
    """
    assert policy.pairs is not None
    found = load_pairs(policy.pairs)
    if found.directed and policy.plan is not None:
        raise PlanError(
            "is a list for exact counts, its shoppers are protected",
            where=policy.pairs,
            todo="name the list that the coordinator made from texts",
        )
    return found


def can_open(table: Path) -> None:
    """Refuse a table that is not there or may not be read.

    Raises:
        ConfigError: naming it.
    """
    try:
        table.open("rb").close()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(
            f"the table cannot be read ({why})",
            where=table,
            todo="put it there, or mend its path in the platform's file",
        ) from None


def policy_of(config: PlatformConfig, path: Path) -> Policy:
    """What may leave the platform.

    Raises:
        PlanError: its file does not say.
    """
    if config.policy is None:
        raise PlanError(
            "has no [privacy] section, so it trains for nobody",
            where=path,
            todo="write one, or for public rows one of unprotected = true",
        )
    return config.policy


def privacy_line(policy: Policy | None, shoppers: int) -> str:
    """What the platform's file says of privacy.

    Args:
        policy: of its file.
        shoppers: that its tables hold.

    Raises:
        PlanError: the public lower bound is above the number of shoppers, so no bound.
    """
    if policy is None:
        return "no [privacy] section: trains for nobody"
    plan = policy.plan
    if plan is None:
        return "unprotected: whatever it trains leaves as it is"
    if plan.shoppers_at_least > shoppers:
        raise PlanError(
            f"shoppers_at_least {plan.shoppers_at_least} is more than there are",
            where="[privacy]",
            todo="set a public lower bound that holds",
        )
    return f"a Plan of epsilon {plan.epsilon:g} at delta {plan.delta:.3g}, one record a {plan.unit}"
