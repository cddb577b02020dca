"""Every strategy by name, in the order of the table, with what leaves a platform for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shared.errors import ConfigError
from simulations.strategies import (
    adversarial,
    against_drift,
    at_home,
    distillation,
    fusion,
    multitask,
    personal,
    pooled,
    rounds,
)
from simulations.strategies.meeting import Strategy

Leaves = Literal["nothing", "Adapters", "rows"]
MEMORY, LOCAL, FEDERATED = "memory", "local", "federated"


@dataclass(frozen=True)
class Listed:
    """A strategy and what people are told of it.

    Attributes:
        run: the strategy.
        leaves: what a platform lets out; "rows" makes it a yardstick that nobody can have.
        told: what it does, in a line.
    """

    run: Strategy
    leaves: Leaves
    told: str


STRATEGIES: dict[str, Listed] = {
    MEMORY: Listed(
        lambda meeting: meeting.start, "nothing", "the prior and own memory; nothing is trained"
    ),
    LOCAL: Listed(at_home.local, "nothing", "an Adapter trained on the platform's rows alone"),
    FEDERATED: Listed(
        rounds.federated, "Adapters", "rounds: the average of all moves, as the scenario says"
    ),
    "fedprox": Listed(
        against_drift.fedprox, "Adapters", "rounds whose steps are pulled back to what was sent"
    ),
    "scaffold": Listed(
        against_drift.scaffold,
        "Adapters",
        "rounds whose steps are corrected by the others' gradients, which are sent too",
    ),
    "personal layers": Listed(
        personal.personalised_layers,
        "Adapters",
        "rounds for the encoder's slots; the output's slots stay at home",
    ),
    "multi-task": Listed(
        multitask.multitask, "Adapters", "rounds that also learn which kind of item comes next"
    ),
    "lora": Listed(
        at_home.lora, "Adapters", "the federated Adapter, every slot trained on at home"
    ),
    "frozen layers": Listed(
        at_home.frozen_layers, "Adapters", "the federated Adapter, its output trained on at home"
    ),
    "feature reuse": Listed(
        at_home.feature_reuse,
        "Adapters",
        "the federated encoder, a new output trained on it at home",
    ),
    "distilled": Listed(
        distillation.from_federated,
        "Adapters",
        "trained at home on own rows and on the federated Adapter's scores of them",
    ),
    "fusion uniform": Listed(
        fusion.uniform, "Adapters", "the local Adapters added up once, all alike"
    ),
    "fusion by size": Listed(
        fusion.by_size, "Adapters", "the local Adapters added up once, by public weight"
    ),
    "fusion by validation": Listed(
        fusion.by_validation,
        "Adapters",
        "the local Adapters added up once, by what each is worth on own validation",
    ),
    "distilled from pooled": Listed(
        distillation.from_pooled, "rows", "the same with the pooled Adapter for a teacher"
    ),
    "adversarial": Listed(
        adversarial.adversarial,
        "rows",
        "one Adapter of everyone's rows, from whose states no judge can tell the platform",
    ),
    "pooled": Listed(pooled.pooled, "rows", "one Adapter of everyone's rows"),
}


def chosen(names: Iterable[str]) -> list[str]:
    """The strategies of these names in the order of the table; all where none is named.

    `local` is always among them: the others are compared with it.

    Raises:
        ConfigError: there is none of that name.
    """
    asked = set(names) or set(STRATEGIES)
    for name in sorted(asked - set(STRATEGIES)):
        raise ConfigError(
            f"no such strategy: {name!r}",
            todo=f"name one of {', '.join(STRATEGIES)}",
        )
    return [name for name in STRATEGIES if name in asked | {LOCAL}]
