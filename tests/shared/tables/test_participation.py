from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ConfigError
from shared.tables import participation as module
from shared.tables.config import PlatformConfig, load_platform, platform_from
from shared.tables.dump import dump_platform
from shared.tables.participation import (
    DAY,
    DAYS,
    Day,
    Hours,
    Participation,
    ParticipationSection,
    hours_of,
)

SHOP = """
[platform]
name = "kiosk"
[events]
path = "e.parquet"
columns = { shopper = "user", item = "item", time = "ts" }
[items]
path = "i.csv"
columns = { item = "item", text = "text" }
[participation]
"""
MONDAY = datetime(2026, 6, 1)  # and neither here nor in the week after does a clock change
NIGHT = 'hours = ["22:00-06:00"]\ntimezone = "UTC"\n'

minutes = st.integers(0, DAY - 1)
ranges = st.builds(Hours, minutes, st.integers(1, DAY)).filter(lambda it: it.begin != it.end)
some_days = st.sets(st.sampled_from(DAYS), min_size=1)


def read(more: str) -> PlatformConfig:
    return platform_from(tomllib.loads(SHOP + more), where="p.toml", base=Path("/shop"))


def participation(more: str) -> Participation:
    return read(more).participation


def at(text: str) -> datetime:
    """A moment of the clock in London, whose clocks change; with "fold" the second of two."""
    day, _, fold = text.partition(" fold")
    moment = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/London"))
    return moment.replace(fold=1) if fold == "!" else moment


def test_a_file_that_says_nothing_trains_at_any_time_for_all_that_is_known() -> None:
    found = participation("")
    assert found == Participation()
    assert (found.tasks, found.minimum_cohort, found.gpu) == (module.KNOWN, 1, "auto")
    assert all(found.open_at(datetime(2026, 1, 1, hour, tzinfo=UTC)) for hour in range(24))


def test_the_example_of_the_documentation_loads_and_names_every_key() -> None:
    text = (module.__doc__ or "").split("[participation]", 2)[2].split("\n\n", 1)[0]
    found = participation(text)
    assert found.hours == (Hours(22 * 60, 6 * 60), Hours(12 * 60 + 30, 13 * 60 + 30))
    assert (found.timezone, found.days) == ("Asia/Shanghai", DAYS[:5])
    assert found.minimum_cohort == 3
    missing = [it for it in ParticipationSection.model_fields if not re.search(rf"\b{it} =", text)]
    assert missing == []
    assert set(ParticipationSection.model_fields) == {it.name for it in fields(Participation)}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('tasks = ["next-itme"]', "task 'next-itme' is none of next-item"),
        ("tasks = []", "'participation.tasks' is []"),
        ('tasks = "next-item"', "'participation.tasks' is \"next-item\""),
        ('hours = ["22-6"]', "hours '22-6' are not as 22:00-06:00"),
        ('hours = ["24:00-06:00"]', "hours '24:00-06:00' are not as 22:00-06:00"),
        ('hours = ["09:60-10:00"]', "are not as 22:00-06:00"),
        ('hours = ["06:00-06:00\\n"]', "are not as 22:00-06:00"),
        ('hours = ["06:00-06:00"]', "are none; write 00:00-24:00 for a whole day"),
        ('hours = "22:00-06:00"', "'participation.hours' is"),
        ('timezone = "Mars/Olympus"', "no time zone 'Mars/Olympus' here"),
        ('timezone = "../../etc/passwd"', "no time zone"),
        ('timezone = "Europe"', "no time zone 'Europe' here"),
        ('timezone = ""', "no time zone '' here"),
        ('days = ["monday"]', "'participation.days.0' is \"monday\""),
        ("days = []", "'participation.days' is []"),
        ("minimum_cohort = 0", "'participation.minimum_cohort' is 0"),
        ("max_epochs = 101", "'participation.max_epochs' is 101"),
        ("max_batch = 0", "'participation.max_batch' is 0"),
        ('gpu = "yes"', "'participation.gpu' is \"yes\""),
        ('hour = ["22:00-06:00"]', "the nearest known key is 'participation.hours'"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_right(more: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(more)
    said = str(caught.value)
    assert said.startswith("p.toml: ")
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "more",
    [
        "",
        'hours = ["22:00-06:00", "12:30-13:30", "00:00-24:00"]\n',
        NIGHT + 'days = ["sun", "mon"]\ntasks = ["next-item"]\nminimum_cohort = 3\n',
        'gpu = "never"\nmax_epochs = 3\nmax_batch = 9\ntimezone = "Asia/Shanghai"\n',
    ],
)
def test_participation_survives_a_dump(more: str, tmp_path: Path) -> None:
    config = read(more)
    path = tmp_path / "elsewhere.toml"
    path.write_text(dump_platform(config))
    assert load_platform(path) == config


def test_a_dump_has_no_section_where_nothing_was_chosen() -> None:
    assert "participation" not in dump_platform(read(""))


@given(ranges)
def test_hours_are_read_as_they_are_written(hours: Hours) -> None:
    assert hours_of(str(hours)) == hours


@given(
    hours=st.lists(ranges, min_size=1, max_size=3),
    days=some_days,
    minute=st.integers(0, 7 * DAY - 1),
)
@example(hours=[Hours(22 * 60, 6 * 60)], days={"sun"}, minute=6 * 60 - 1)
@example(hours=[Hours(22 * 60, 6 * 60)], days={"mon"}, minute=6 * 60 - 1)
@example(hours=[Hours(0, DAY)], days={"sun"}, minute=0)
def test_every_minute_of_a_week_is_within_its_hours_or_not(
    hours: list[Hours], days: set[Day], minute: int
) -> None:
    # The stretches written out over two weeks, the second of which is looked at.
    stretches = [
        (day * DAY + it.begin, day * DAY + it.end + (DAY if it.end < it.begin else 0))
        for day in range(14)
        if DAYS[day % 7] in days
        for it in hours
    ]
    expected = any(begin <= 7 * DAY + minute < end for begin, end in stretches)
    ours = Participation(hours=tuple(hours), days=tuple(days), timezone="UTC")
    assert ours.open_at(MONDAY.replace(tzinfo=UTC) + timedelta(minutes=minute)) == expected


@given(minute=st.integers(0, 7 * DAY - 1), days=some_days)
def test_without_hours_the_day_decides(minute: int, days: set[Day]) -> None:
    ours = Participation(days=tuple(days), timezone="UTC")
    found = ours.open_at(MONDAY.replace(tzinfo=UTC) + timedelta(minutes=minute))
    assert found == (DAYS[minute // DAY] in days)


@given(
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["Asia/Shanghai", "Europe/London", "America/Caracas", "Pacific/Apia"]),
)
def test_hours_are_those_of_the_named_time_zone_s_clock_and_not_of_whoever_asks(
    moment: datetime, zone: str
) -> None:
    night = replace(participation(NIGHT), timezone=zone)
    local = moment.astimezone(ZoneInfo(zone))
    assert night.open_at(moment) == (local.hour >= 22 or local.hour < 6)
    elsewhere = moment.astimezone(ZoneInfo("America/St_Johns"))
    assert night.open_at(elsewhere) == night.open_at(moment)


def test_without_a_time_zone_hours_are_the_machine_s() -> None:
    local = datetime.now().astimezone()
    minute = 60 * local.hour + local.minute
    around = Participation(hours=(Hours(minute, minute + 1),))
    assert around.open_at(local.astimezone(UTC))
    assert not around.open_at(local.astimezone(UTC) + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        # 2026-03-29: London's clocks go from 01:00 to 02:00, so no minute of these hours is met.
        ("2026-03-29T00:59", False),
        ("2026-03-29T02:00", False),
        # 2026-10-25: they go from 02:00 back to 01:00, so each minute of them is met twice.
        ("2026-10-25T00:59", False),
        ("2026-10-25T01:00", True),
        ("2026-10-25T01:59", True),
        ("2026-10-25T01:00 fold!", True),
        ("2026-10-25T01:59 fold!", True),
        ("2026-10-25T02:00", False),
    ],
)
def test_an_hour_that_a_clock_repeats_counts_twice_and_one_it_skips_never(
    moment: str, is_open: bool
) -> None:
    ours = participation('hours = ["01:00-02:00"]\ntimezone = "Europe/London"\n')
    assert ours.open_at(at(moment).astimezone(UTC)) is is_open


@pytest.mark.parametrize(
    ("change", "hours"), [("2026-03-28T12:00", 7), ("2026-06-10T12:00", 8), ("2026-10-24T12:00", 9)]
)
def test_a_night_in_which_a_clock_changes_is_an_hour_shorter_or_longer(
    change: str, hours: int
) -> None:
    night = participation('hours = ["22:00-06:00"]\ntimezone = "Europe/London"\n')
    noon = at(change).astimezone(UTC)
    found = sum(night.open_at(noon + timedelta(minutes=minute)) for minute in range(DAY))
    assert found == hours * 60
