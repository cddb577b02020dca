"""When and for whom a platform trains: the [participation] section of its file.

[participation]                # optional, as are its keys; nobody else can loosen one
tasks = ["next-item"]          # what it trains for; left out, all that this version knows
hours = ["22:00-06:00", "12:30-13:30"]  # when training may begin; left out, always
timezone = "Asia/Shanghai"     # of these hours; left out, the machine's
days = ["mon", "tue", "wed", "thu", "fri"]  # on which they begin; left out, every day
minimum_cohort = 3             # platforms asked in a round, by the server's word; fewer is refused
max_epochs = 100               # of a round, where no Plan says how long a round is
max_batch = 65536              # Histories a step, where no Plan does
gpu = "auto"                   # "never": the CPU even beside a GPU; "always": no training without.
                               # Under a Plan a GPU reads item texts alone

Hours are those of the clock on the wall. A range may pass midnight, and then belongs to the day on
which it began. An hour that a clock repeats counts twice, one that it skips not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from shared.config import Section
from shared.device import Use
from shared.tasks import co_visitation, next_item

KNOWN = (next_item.NAME, co_visitation.NAME)  # tasks of this version
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60  # minutes


@dataclass(frozen=True)
class Hours:
    """A stretch of every day, in minutes from midnight; with its end before its begin, past it."""

    begin: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))


@dataclass(frozen=True)
class Participation:
    """When and for whom a platform trains.

    Attributes:
        tasks: which it trains for.
        hours: when a training may begin; none is always.
        timezone: of the hours, by its IANA name; None is the machine's.
        days: on which hours begin.
        minimum_cohort: platforms that have to be asked in a round.
        max_epochs: of a round, where there is no Plan.
        max_batch: Histories a step, where there is no Plan.
        gpu: whether to train on one.
    """

    tasks: tuple[str, ...] = KNOWN
    hours: tuple[Hours, ...] = ()
    timezone: str | None = None
    days: tuple[Day, ...] = DAYS
    minimum_cohort: int = 1
    max_epochs: int = 100
    max_batch: int = 65_536
    gpu: Use = "auto"

    def open_at(self, moment: datetime) -> bool:
        """Whether a training may begin at this moment, which names its own time zone."""
        local = moment.astimezone(None if self.timezone is None else ZoneInfo(self.timezone))
        minute = 60 * local.hour + local.minute
        today = DAYS[local.weekday()] in self.days
        yesterday = DAYS[local.weekday() - 1] in self.days
        return any(
            today and it.begin <= minute < it.end
            if it.begin < it.end
            else (today and minute >= it.begin) or (yesterday and minute < it.end)
            for it in self.hours or (Hours(0, DAY),)
        )


class ParticipationSection(Section):
    """The keys of [participation]."""

    tasks: tuple[str, ...] = Field(default=KNOWN, min_length=1)
    hours: tuple[str, ...] = ()
    timezone: str | None = None
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    minimum_cohort: int = Field(default=1, ge=1)
    max_epochs: int = Field(default=100, ge=1, le=100)
    max_batch: int = Field(default=65_536, ge=1, le=65_536)
    gpu: Use = "auto"

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in KNOWN:
                raise ValueError(f"task {name!r} is none of {', '.join(KNOWN)}")
        return value

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            hours_of(text)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # not there, no name, a folder
            raise ValueError(f"no time zone {value!r} here; write one as Asia/Shanghai") from None
        return value


def hours_of(text: str) -> Hours:
    """Hours as a file writes them, "22:00-06:00".

    Raises:
        ValueError: not two times, or the same twice.
    """
    clock = r"([01][0-9]|2[0-3]):([0-5][0-9])"
    found = re.fullmatch(rf"{clock}-(?:{clock}|24:00)", text)
    if found is None:
        raise ValueError(f"hours {text!r} are not as 22:00-06:00")
    begin = 60 * int(found[1]) + int(found[2])
    end = DAY if found[3] is None else 60 * int(found[3]) + int(found[4])
    if begin == end:
        raise ValueError(f"hours {text!r} are none; write 00:00-24:00 for a whole day")
    return Hours(begin, end)


def participation_of(section: ParticipationSection) -> Participation:
    """The checked section as a frozen value."""
    values = section.model_dump()
    return Participation(**values | {"hours": tuple(map(hours_of, section.hours))})


def written(participation: Participation) -> dict[str, object]:
    """The keys of a section that reads back as an equal value; those at their defaults left out."""
    default = Participation()
    found = {name: getattr(participation, name) for name in Participation.__dataclass_fields__}
    changed = {name: it for name, it in found.items() if it != getattr(default, name)}
    if participation.hours:
        changed["hours"] = tuple(map(str, participation.hours))
    return changed
