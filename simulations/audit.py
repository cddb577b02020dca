"""The audit: claims of privacy against what an attacker can do, each check green or red.

    Plan for ε ─┬ one run    canaries by coin, every noised sum seen → ε is at least …
                ├ sampling   who was in which batch, against Poisson sampling
                ├ ledger     what left, accounted anew, against what the Ledger says
                ├ membership who was trained on, from the final Adapter
                └ inversion  a shopper's items, from the Update of one step

It trains with the real engine and the real Ledger, on the smallest platform of the embedded world,
under noise from a seed: an audit must be repeatable, and its shoppers are nobody.
"""

from __future__ import annotations

import json
import os
import platform as machine
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clients.ledger import Ledger
from clients.private import PrivateEngine
from clients.randomness import simulated
from shared.errors import ConfigError
from shared.files import made_folder, replacing
from shared.plan import Plan, plan
from shared.text import Progress, silent
from shared.training import Recipe, Speed, train
from simulations.audit_page import render_audit
from simulations.audits.attacks import shadow_runs
from simulations.audits.canaries import Tape, lower_bound, plant, scores, watching
from simulations.audits.checks import (
    inversion_check,
    ledger_check,
    membership_check,
    one_run_check,
    sampling_check,
)
from simulations.audits.ground import (
    MOST_EVENTS,
    Ground,
    Size,
    Unprotected,
    embedded_ground,
    inversions,
    unprotected,
)
from simulations.federations import one_core_each

EPSILONS = (1.0, 3.0)
DELTA = 1e-5
UPDATE_NORM = 100.0  # of no account here: Updates are not bounded in an audit
LIMITS = (
    "A lower bound can refute a claim. It never proves one: a better attack may find more.",
    "To refute epsilon 8 would take 8,932 guesses, all of them right: audit at 3 or less.",
    "The noise comes from a seed, so that an audit can be repeated. Real noise comes from the same "
    "generator under a secret key; that secrecy is not audited.",
    "Canaries, shoppers and items are made up, and the Backbone is not pretrained.",
    "Sampling is tested by how often records are drawn and how many at once, not by who is drawn "
    "with whom.",
    "Membership and inversion are one attack each. That they fail says nothing of others.",
)


def run_audit(
    out: Path,
    *,
    cache: Path,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    size: Size = Size(),  # noqa: B008  frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """Audit on the embedded world; writes audit.json and audit.html under `out`.

    Args:
        out: made if missing.
        cache: folder of item vectors, shared between runs.
        epsilons: claims to audit, at DELTA.
        seed: of everything.
        size: how much is tried.
        progress: told of each check.

    Returns:
        What audit.json holds.

    Raises:
        ConfigError: an ε that no number of right guesses here can refute, or a folder that cannot
            be written.
    """
    for epsilon in epsilons:
        check_reach(epsilon, size)
    made_folder(out)
    started, began = datetime.now(UTC), time.monotonic()
    ground = embedded_ground(out, cache=cache, seed=seed, progress=progress)
    with one_core_each():
        plain = unprotected(ground, seed=seed, size=size, progress=progress)
        audits = [
            audit(ground, epsilon=epsilon, seed=seed, size=size, plain=plain, progress=progress)
            for epsilon in epsilons
        ]
    result = {
        "format": 1,
        "audits": audits,
        "seed": seed,
        "atoll": version("atoll"),
        "versions": {name: version(name) for name in ("torch", "opacus", "dp-accounting")},
        "machine": f"{os.cpu_count()} cores, {machine.machine()}, {machine.system()}",
        "started": started.isoformat(timespec="seconds"),
        "seconds": time.monotonic() - began,
    }
    told = {
        "audit.json": json.dumps(result, indent=1, ensure_ascii=False) + "\n",
        "audit.html": render_audit(result),
    }
    for name, text in told.items():
        with replacing(out / name) as part:
            part.write_text(text, encoding="utf-8")
    return result


def passed(result: Mapping[str, Any]) -> bool:
    """Whether every check of every ε is green."""
    return all(check["passed"] for found in result["audits"] for check in found["checks"])


def summary(result: Mapping[str, Any]) -> list[str]:
    """One line a check, for a terminal."""
    return [
        f"{'green' if check['passed'] else 'RED'}  epsilon {found['claim']['epsilon']:g}, "
        f"{check['name']}: {check['told']}"
        for found in result["audits"]
        for check in found["checks"]
    ]


def check_reach(epsilon: float, size: Size) -> None:
    """Refuse a claim that an audit of this size could not refute.

    Raises:
        ConfigError: names the largest ε that it could.
    """
    most = lower_bound(
        canaries=size.canaries, guesses=size.guesses, right=size.guesses, delta=DELTA
    )
    if epsilon >= most:
        raise ConfigError(
            f"{size.guesses} guesses, all right, refute epsilon {most:.2f} at most, not "
            f"{epsilon:g}",
            todo="audit at 3 or less",
        )


def audit(
    ground: Ground,
    *,
    epsilon: float,
    seed: int,
    size: Size,
    plain: Unprotected,
    engine: Callable[..., PrivateEngine] = PrivateEngine,
    open_ledger: Callable[..., Ledger] = Ledger.open,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Every check of one ε, as audit.json holds it.

    Args:
        ground: where.
        epsilon: claimed, at DELTA.
        seed: of coins, sampling and noise.
        size: how much is tried.
        plain: what attacks find without a Plan.
        engine: what trains under a Plan.
        open_ledger: what counts releases.
        progress: told of each check.

    Raises:
        ConfigError: so many guesses cannot refute this ε, however right they are.
    """
    check_reach(epsilon, size)
    records = len(ground.rows.histories)
    planned = partial(
        plan,
        epsilon=epsilon,
        delta=DELTA,
        shoppers_at_least=records,
        sampling_rate=size.sampling_rate,
        clip=size.clip,
        update_norm=UPDATE_NORM,
    )

    def under(chosen: Plan, *stream: int | str) -> Callable[..., PrivateEngine]:
        randomness = simulated("audit", seed, f"{epsilon:g}", *stream)
        return partial(engine, plan=chosen, randomness=randomness, speed=Speed())

    def at(place: int, what: str) -> None:
        progress(f"epsilon {epsilon:g}, {what}", place, 4)

    at(0, "one run")
    rng = np.random.default_rng([seed, round(1000 * epsilon)])
    planted = plant(ground.rows, size.canaries, rng=rng)
    expected = size.sampling_rate * (records + size.canaries / 2)
    chosen = planned(steps=size.steps, rounds=1, expected_batch=expected)
    tape = Tape()
    engines = watching(under(chosen, "one run"), tape)
    train(ground.backbone, ground.start, [planted.rows], Recipe(), rng=rng, engine=engines)
    found = scores(tape, ground.backbone, planted.rows.table, planted.canaries, chosen)
    one_run, bound = one_run_check(found, planted.coins, guesses=size.guesses, plan=chosen)
    sampling, drawn = sampling_check(tape.drawn, records=len(planted.rows.histories), plan=chosen)

    at(1, "ledger")
    with tempfile.TemporaryDirectory() as folder:
        ledger, counted = ledger_check(
            ground,
            plan=planned(steps=size.round_steps, rounds=size.rounds),
            rounds=size.rounds,
            engine=lambda chosen, number: under(chosen, "ledger", number),
            open_ledger=open_ledger,
            folder=Path(folder),
        )

    at(2, "membership")
    half = replace(chosen, expected_batch=size.sampling_rate * records / 2)
    shadows = shadow_runs(
        ground.backbone,
        ground.start,
        ground.rows,
        Recipe(),
        engines=[under(half, "membership", number) for number in range(size.shadows)],
        rng=rng,
    )
    membership, rates = membership_check(plain.shadows, shadows, plan=half)

    at(3, "inversion")
    # Worse for a shopper than the Plan is: a step of their own that they are sure to be in.
    alone = replace(chosen, sampling_rate=1.0, steps=1, expected_batch=1.0)
    guesses = inversions(
        ground, plain.victims, [under(alone, "inversion", it) for it in plain.victims]
    )
    inversion, shares = inversion_check(
        [ground.rows.histories[it][-MOST_EVENTS:] for it in plain.victims],
        plain.guesses,
        guesses,
        titles=ground.titles,
    )
    at(4, "inversion")
    return {
        "claim": {"epsilon": epsilon, "delta": DELTA},
        "plan": chosen.public(),
        "checks": [one_run, sampling, ledger, membership, inversion],
        "lower_bound": bound,
        "sampling": drawn,
        "ledger": counted,
        "membership": rates,
        "inversion": shares,
        "limits": list(LIMITS),
        "noise": "simulated",
    }
