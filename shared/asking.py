"""What the server asks of a platform: an Adapter, for training how, and what it remembers.

    Adapter, Training, Standing, signature ─request→ body ─read_*→ the same, on the platform

Whatever does not parse is a ReplyError that says what was wrong with it (shared/records.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from flwr.app import ConfigRecord, RecordDict

from shared.adapter import Adapter
from shared.errors import ReplyError
from shared.records import (
    MAX_NAME,
    REQUEST,
    SAME_VERSION,
    Content,
    choice,
    config,
    number,
    pack,
    text,
    unpack,
    whole,
)
from shared.training import SCHEDULES, Schedule
from shared.update import Receipt
from shared.wire import receipt_of

ADAPTER = "adapter"
RECEIPTS = "receipts"


@dataclass(frozen=True)
class Training:
    """How the server asks a platform to train in one round.

    Attributes:
        round: from 1.
        rounds: in the whole federation, for the schedule.
        epochs: passes over the Histories.
        batch: Histories a step.
        learning_rate: Adam's, at its highest.
        schedule: how it falls over all rounds.
        seed: makes the order of Histories repeatable, where no Plan forbids it.
        clip: a smaller clip than the Plan's, if not 0.
        noise_multiplier: a larger one than the Plan's, if not 0.
        steps: fewer than the Plan's, if not 0.
        cohort: how many platforms are asked in this round, if not 0.
        proximal: how hard steps are pulled back to the Adapter sent: FedProx's µ, if not 0.
    """

    round: int
    rounds: int
    epochs: int
    batch: int
    learning_rate: float
    schedule: Schedule
    seed: int
    clip: float = 0.0
    noise_multiplier: float = 0.0
    steps: int = 0
    cohort: int = 0
    proximal: float = 0.0


@dataclass(frozen=True)
class Standing:
    """What the server remembers beside the Adapter.

    Attributes:
        run: names this federation, over all its restarts.
        receipts: of the platforms' Ledgers, by platform.
    """

    run: str = "-"
    receipts: Mapping[str, Receipt] = field(default_factory=dict)


def request(
    adapter: Adapter,
    training: Training | None = None,
    *,
    standing: Standing | None = None,
    signature: str = "",
) -> Content:
    """What the server sends: an Adapter, for training how, and what it remembers.

    `signature` is the coordinator's, of shared/manifest.py's statement on both.
    """
    standing = standing or Standing()
    fields: dict[str, str | int | float] = {
        "backbone": adapter.backbone,
        "task": adapter.task,
        "version": adapter.version,
        "digest": adapter.digest,
        "run": standing.run,
        "signature": signature,
    }
    if training is not None:
        fields |= asdict(training)
    receipts = {name: f"{it.count} {it.head}" for name, it in standing.receipts.items()}
    return RecordDict(
        {
            ADAPTER: pack(adapter.tensors),
            REQUEST: ConfigRecord(dict(fields)),
            RECEIPTS: ConfigRecord(dict(receipts)),
        }
    )


def read_request(content: Content) -> tuple[Adapter, Training | None]:
    """What the platform received, checked against the digest it came with.

    Raises:
        ReplyError: a field is missing or of another type, or the digest is of other tensors.
    """
    fields = config(content)
    adapter = Adapter(
        tensors=unpack(content, ADAPTER),
        backbone=text(fields, "backbone"),
        task=text(fields, "task"),
        version=whole(fields, "version"),
    )
    if adapter.digest != text(fields, "digest"):
        raise ReplyError("the adapter is not that of its digest", todo="send it again")
    if "round" not in fields:
        return adapter, None
    training = Training(
        round=whole(fields, "round"),
        rounds=whole(fields, "rounds"),
        epochs=whole(fields, "epochs"),
        batch=whole(fields, "batch"),
        learning_rate=number(fields, "learning_rate"),
        schedule=choice(fields, "schedule", SCHEDULES),
        seed=whole(fields, "seed"),
        clip=number(fields, "clip"),
        noise_multiplier=number(fields, "noise_multiplier"),
        steps=whole(fields, "steps"),
        cohort=whole(fields, "cohort"),
        proximal=number(fields, "proximal"),
    )
    return adapter, training


def read_standing(content: Content) -> Standing:
    """What the server says that it remembers.

    Raises:
        ReplyError: a field is missing or of another type.
    """
    receipts = {}
    for name, value in (content.config_records.get(RECEIPTS) or ConfigRecord()).items():
        if isinstance(value, str) and (read := receipt_of(value)) is not None:
            receipts[name] = read
        else:
            raise ReplyError(f"the receipt of {name[:MAX_NAME]!r} is none", todo=SAME_VERSION)
    return Standing(text(config(content), "run"), receipts)


def read_signature(content: Content) -> str:
    """The coordinator's signature as it came, "" if it has none.

    Raises:
        ReplyError: it is of another type.
    """
    signature = config(content).get("signature", "")
    if not isinstance(signature, str):
        raise ReplyError("field 'signature' is not a text", todo=SAME_VERSION)
    return signature
