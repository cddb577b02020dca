"""Whether a request may be worked on at all: asked before a table is opened or a charge reserved.

    request ─permitted→ rows, Ledger, training …
                 └ another task, not at this hour, too few platforms, too long, no GPU → refused

Everything that decides here is public: the platform's [participation], the request and the clock.
So that it was refused, and with which number, tells nothing of rows.
"""

from __future__ import annotations

from datetime import datetime

from shared import wire
from shared.asking import Training
from shared.device import pick_device
from shared.errors import HoursError, PlanError
from shared.tables.config import PlatformConfig
from shared.tables.participation import KNOWN


def permitted(
    config: PlatformConfig, kind: str, training: Training | None, *, task: str, now: datetime
) -> None:
    """Refuse what the platform's file keeps it from working on.

    Guarantee: it depends on the arguments, and where the file wants a GPU on whether there is one.

    | request | is |
    | --- | --- |
    | hello | always permitted: who we are is public |
    | to evaluate, where metrics are withheld | permitted: nothing is worked on |
    | for a task this version does not know | permitted: whoever opens the Adapter refuses it |
    | cohort 0, so the server does not say | refused, if more than one platform is wanted |
    | in mid-training when hours end | not stopped: when it ended would tell how long it took |

    Args:
        config: of the platform.
        kind: of the message: hello, train or evaluate.
        training: how it is asked to train, if it is.
        task: of the Adapter that came.
        now: the moment, with its time zone.

    Raises:
        HoursError: it does not train at this hour.
        PlanError: any other rule forbids it.
    """
    if kind == wire.HELLO or (kind == wire.EVALUATE and not config.share_metrics):
        return
    ours = config.participation
    if task in KNOWN and task not in ours.tasks:
        raise PlanError(
            f"is asked for task {task!r}, its file names {', '.join(ours.tasks)}",
            where=config.name,
            todo="add it to tasks of [participation], or leave them out",
        )
    if not ours.open_at(now):
        raise HoursError(
            f"is asked at {now:%H:%M %Z}, outside its hours",
            where=config.name,
            todo="wait, or change hours and days of [participation]",
        )
    if kind != wire.TRAIN or training is None:
        return
    if max(training.cohort, 1) < ours.minimum_cohort:
        raise PlanError(
            f"is one of {training.cohort} asked in the round, its file wants {ours.minimum_cohort}",
            where=config.name,
            todo="bring more platforms, or lower minimum_cohort",
        )
    if config.policy is not None and config.policy.plan is None:
        limits = (
            ("epochs", training.epochs, ours.max_epochs),
            ("batch", training.batch, ours.max_batch),
        )
        for name, asked, most in limits:
            if asked > most:
                raise PlanError(
                    f"is asked for {name} {asked}, its file admits {most}",
                    where=config.name,
                    todo=f"have the coordinator ask for less, or raise max_{name}",
                )
    if ours.gpu == "always" and pick_device(ours.gpu).type == "cpu":
        raise PlanError(
            "is to train on a GPU only, and there is none",
            where=config.name,
            todo="look at its driver, or set gpu of [participation]",
        )
