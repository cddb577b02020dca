"""What a platform must have before it can answer anybody, and what is wrong with it.

    usable_parts    encoder, backbone, pairs and cache, and `comparable` the Histories: `check`
    able            tables open; backbone, policy and pairs fit: before `up` starts, in seconds
    privacy_line    the policy against the rows that were read: `check` and `doctor`

A platform that lacks one of these is refused at its start: it would only look ready.
"""

from __future__ import annotations

import os
from pathlib import Path

from clients.platform import frozen_parts
from shared.errors import ConfigError, DataError, PlanError
from shared.events import Part, question, training_part
from shared.pairs import Pairs, load_pairs
from shared.tables.config import EventTable, ItemTable, PlatformConfig
from shared.tables.policy import Policy
from shared.tables.sources import files_of
from shared.tables.table import PlatformRows
from shared.text import EncoderSpec, find_encoder

MUCH_UNKNOWN = 0.1  # of the tokens: an encoder that knows fewer places most items by chance


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
    for table in (config.events, config.items):
        can_open(table)
    frozen_parts(config)
    if policy.pairs is not None:
        pairs_for(policy)


def usable_parts(config: PlatformConfig) -> EncoderSpec:
    """The text encoder, once all that a platform names beside its tables is known to be usable.

    The backbone may be missing from the file still: tables may be checked before there is one.

    Raises:
        AtollError: the encoder, the backbone, the list of pairs or the cache folder cannot be used.
    """
    encoder = find_encoder(config.encoder) if config.backbone is None else frozen_parts(config)[1]
    if config.policy is not None and config.policy.pairs is not None:
        pairs_for(config.policy)
    if config.cache is not None:
        there = next(it for it in (config.cache, *config.cache.parents) if it.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise ConfigError(
                "cannot be written to, so no item vectors can be kept",
                where=config.cache,
                todo="make it writable, or name another folder as cache under [backbone]",
            )
    return encoder


def comparable(config: PlatformConfig, rows: PlatformRows) -> None:
    """Refuse Histories that nothing can be learnt from or tested on.

    Raises:
        DataError: all are too short to train on, or end with items met before.
    """
    if not len(training_part(rows.histories)):
        raise DataError(
            "no History has the 4 events that training needs",
            where=config.events.path,
            todo="give longer Histories",
        )
    parts: tuple[Part, ...] = ("validation", "test")
    if not all(len(question(rows.histories, part).contexts) for part in parts):
        raise DataError(
            "no shopper's last items are new to them, so nothing is left to validate or test on",
            where=config.events.path,
            todo="give longer Histories, or drop repeated events",
        )


def encoder_lines(name: str, unknown: float) -> list[str]:
    """How much of the catalogue's text the encoder knows, and a warning if it is too little.

    Args:
        name: of the encoder.
        unknown: share of the tokens that are unknown to it.
    """
    lines = [f"encoder {name}: {unknown:.1%} of the catalogue's tokens are unknown to it"]
    if unknown > MUCH_UNKNOWN:
        lines.append(
            "warning: the encoder cannot read these texts, so most items will look alike; name a"
            " multilingual encoder as encoder under [backbone], and a backbone made for it"
        )
    return lines


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


def can_open(table: EventTable | ItemTable) -> None:
    """Refuse a table that is not there or may not be read.

    Raises:
        ConfigError: naming it.
        DataError: it is a folder without part files of its format.
    """
    try:
        if table.path.is_dir():
            files_of(table)
        else:
            table.path.open("rb").close()
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(
            f"the table cannot be read ({why})",
            where=table.path,
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
