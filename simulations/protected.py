"""The same federation under Plans: one run for each ε, beside the one without.

    OUT/private/epsilon-3/platforms/NAME.toml   the platform's file, with its Plan
                          ledgers/NAME.ledger   what it spent
                          rounds/               as of every run

Noise comes from the scenario's seed, so that a figure can be repeated: it protects nobody, and
Updates, ledgers and reports say so. The number of shoppers is taken as public here and nowhere
else.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clients.ledger import balance
from clients.platform import Platform
from server.config import Federation
from server.registry import Registry
from shared.accounting import Charge, scale_for
from shared.errors import ConfigError
from shared.files import made_folder
from shared.plan import Plan, default_delta, plan
from shared.tables.config import PlatformConfig, load_platform
from shared.tables.dump import write_platform
from shared.tables.policy import Policy
from simulations.scenario import Scenario


@dataclass(frozen=True)
class Protected:
    """One federation under Plans, before it runs.

    Attributes:
        epsilon: every platform's budget, spent whole by the last round.
        federation: how its rounds go.
        out: its folder.
        configs: of the platforms, in the order of their names.
    """

    epsilon: float
    federation: Federation
    out: Path
    configs: tuple[PlatformConfig, ...]

    @property
    def run(self) -> Path:
        """Folder of the whole run, that of the federation without Plans."""
        return self.out.parents[1]

    @property
    def files(self) -> dict[str, Path]:
        """Each platform's TOML file, by name."""
        place = self.out / "platforms"
        return {config.name: place / f"{config.name}.toml" for config in self.configs}


def unprotected(config: PlatformConfig, out: Path, *, pairs: Path | None = None) -> PlatformConfig:
    """A platform of public or made-up rows, which lets everything out at once.

    Args:
        config: of the platform.
        out: folder of the run.
        pairs: list of pairs over which its sums may leave, if they may.
    """
    place = out.resolve() / "ledgers"
    return replace(
        config,
        share_metrics=True,
        policy=Policy(
            plan=None,
            dataset=config.name,
            ledger=place / f"{config.name}.ledger",
            head=place / f"{config.name}.head",
            key=place / f"{config.name}.key",
            answer_seconds=0.0,
            pairs=pairs,
        ),
    )


def protected(
    scenario: Scenario,
    platforms: tuple[Platform, ...],
    out: Path,
    *,
    epsilon: float,
    pairs: Path | None = None,
) -> Protected:
    """What one ε makes of the platforms and their federation; nothing is written yet.

    Args:
        scenario: how rounds go.
        platforms: opened.
        out: folder of the run.
        epsilon: of every platform.
        pairs: list of pairs over which sums are taken, if they are.

    Raises:
        PlanError: a platform has too few shoppers for any Plan.
    """
    settings = scenario.privacy
    federation = replace(
        scenario.federation,
        learning_rate=settings.learning_rate or scenario.federation.learning_rate,
        server_learning_rate=(
            settings.server_learning_rate or scenario.federation.server_learning_rate
        ),
    )
    place = out.resolve() / "private" / f"epsilon-{epsilon:g}"
    configs = []
    for platform in platforms:
        open_ = unprotected(platform.config, place)
        assert open_.policy is not None
        count = len(platform.rows.histories)
        noise = None if pairs is None else sums_noise(scenario, epsilon=epsilon)
        made = plan_of(scenario, count, epsilon=epsilon, sums_noise=noise)
        policy = replace(open_.policy, plan=made, pairs=pairs, sums_noise=noise)
        configs.append(replace(open_, share_metrics=False, policy=policy))
    return Protected(epsilon, federation, place, tuple(configs))


def write(it: Protected, *, resume: bool) -> None:
    """Write the platforms' files; unless it is resumed, forget what ran here before.

    Raises:
        ConfigError: the rounds to be resumed were run under other Plans.
    """
    if resume:
        for config in it.configs:
            file = it.files[config.name]
            before = load_platform(file) if file.is_file() else None
            # Which cache there was changes no figure.
            if before is None or replace(before, cache=config.cache) != config:
                raise ConfigError(
                    "the rounds recorded are of another Plan",
                    where=file,
                    todo="set rounds and [privacy] to what they were, or leave --resume out",
                )
        return
    shutil.rmtree(it.out, ignore_errors=True)
    made_folder(it.out / "platforms")
    made_folder(it.out / "ledgers")
    for config in it.configs:
        write_platform(config, it.files[config.name], within=it.run)


def sums_noise(scenario: Scenario, *, epsilon: float) -> float | None:
    """b of the one release of sums; None where none are taken."""
    return None if scenario.sums is None else scale_for(scenario.sums.share * epsilon)


def plan_of(
    scenario: Scenario, shoppers: int, *, epsilon: float, sums_noise: float | None = None
) -> Plan:
    """The Plan of a platform with so many shoppers, that spends ε at 1/N^1.1 over all rounds.

    Args:
        scenario: how many rounds.
        shoppers: N.
        epsilon: ε.
        sums_noise: of sums that are released besides.
    """
    settings, federation = scenario.privacy, scenario.federation
    rate = min(1.0, settings.batch / shoppers)
    return plan(
        epsilon=epsilon,
        shoppers_at_least=shoppers,
        sampling_rate=rate,
        steps=settings.steps or math.ceil(federation.epochs / rate),
        clip=settings.clip,
        update_norm=settings.update_norm,
        rounds=federation.rounds,
        delta=default_delta(shoppers),
        beside=[] if sums_noise is None else [Charge(sums_noise, mechanism="laplace")],
    )


def spent(it: Protected) -> dict[str, dict[str, Any]]:
    """By platform, its Plan and what its Ledger says was spent."""
    found: dict[str, dict[str, Any]] = {}
    for config in it.configs:
        assert config.policy is not None
        assert config.policy.plan is not None
        told = balance(config.policy)
        found[config.name] = {
            **config.policy.plan.public(),
            "sums_noise": config.policy.sums_noise,
            **{name: asdict(told)[name] for name in ("spent", "releases")},
        }
    return found


def told(runs: Mapping[float, tuple[Protected, Registry, object]]) -> list[dict[str, Any]]:
    """The entry "privacy" of metrics.json: each ε with its Plans and what was spent."""
    return [
        {
            "epsilon": epsilon,
            "scorer": scorer_name(epsilon),
            "noise": "simulated",
            "rounds": max(registry.rounds(), default=0),
            "platforms": spent(it),
        }
        for epsilon, (it, registry, _sums) in runs.items()
    ]


def scorer_name(epsilon: float) -> str:
    """What the federation under this ε is called among the scorers."""
    return f"federated ε={epsilon:g}"
