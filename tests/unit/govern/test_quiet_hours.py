"""Quiet hours against a clock that is watched minute by minute, and at the gate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medfed.core.errors import RefusalReason, Refused
from medfed.core.messages import Message
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.core.wire import Request
from medfed.govern.gate import Facts, admit
from medfed.spec.policy import DAYS, Policy, QuietHours

DIGEST = "ab" * 32
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, eq=False)
class Knock(Message, wire="test.quiet.knock"):
    text: str


@step(releases=Release.SITE)
def answer(site: SiteContext, message: Knock) -> Knock:
    raise AssertionError


REQUEST = Request(
    run="run", task=DIGEST, site="north", round=1, call=1, base=0, settled=0, step=answer.name, message=Knock("please")
)


def quiet(begin: str, end: str, zone: str = "UTC", days: tuple[str, ...] = DAYS) -> QuietHours:
    return QuietHours.model_validate({"from": begin, "to": end, "days": days, "time_zone": zone})


def facts(now: datetime) -> Facts:
    return Facts(DIGEST, "classification", "fedavg", frozenset({answer.name}), 50, 10, 0, 0, now)


def asked(now: datetime, *hours: QuietHours) -> None:
    admit(Policy.permissive().model_copy(update={"quiet_hours": hours}), REQUEST, answer, facts(now))


# ---------------------------------------------------------------------------------------------------- minute by minute


def watched(begin: str, end: str, days: tuple[str, ...], first: date, last: date) -> set[datetime]:
    """The readings of a wall clock that are quiet: from each day's ``begin`` on until the clock shows ``end``."""
    found = set()
    for offset in range((last - first).days + 1):
        day = first + timedelta(offset)
        if day.strftime("%a").lower() not in days:
            continue
        reading = datetime.fromisoformat(f"{day}T{begin}")
        while True:
            found.add(reading)
            reading += MINUTE
            if reading.strftime("%H:%M") == ("00:00" if end == "24:00" else end):
                break
    return found


TIMES = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 59]))
CHANGES = [
    ("Europe/Berlin", date(2027, 3, 28)),
    ("Europe/Berlin", date(2027, 10, 31)),
    ("America/New_York", date(2027, 11, 7)),
    ("America/Sao_Paulo", date(2018, 11, 4)),  # 00:00 is left out
    ("Australia/Lord_Howe", date(2027, 4, 4)),  # by half an hour
    ("Pacific/Apia", date(2011, 12, 30)),  # a day that never was
    ("Asia/Kathmandu", date(2027, 1, 1)),
    ("UTC", date(2027, 2, 28)),
]


@settings(max_examples=60)
@given(
    st.sampled_from(CHANGES),
    TIMES,
    TIMES | st.just("24:00"),
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
)
@example(("Europe/Berlin", date(2027, 10, 31)), "22:00", "02:30", ("sat",))
@example(("Europe/Berlin", date(2027, 3, 28)), "02:15", "02:45", ("sun",))
@example(("America/Sao_Paulo", date(2018, 11, 4)), "23:30", "00:30", ("sat",))
def test_what_is_quiet_is_what_a_watched_clock_says(
    change: tuple[str, date], begin: str, end: str, days: tuple[str, ...]
) -> None:
    zone, day = change
    if begin == end:
        end = "24:00" if begin == "00:00" else "00:00"
    hours = quiet(begin, end, zone, days)
    readings = watched(begin, end, days, day - timedelta(5), day + timedelta(5))
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    for minutes in range(-2 * 1440, 2 * 1440):
        moment = noon + minutes * MINUTE
        reading = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        assert hours.hold_at(moment) == (reading in readings), moment


def test_over_midnight_the_day_is_that_of_the_evening() -> None:
    hours = quiet("22:00", "06:00", days=("fri",))  # 2027-01-01 is a Friday
    held = {
        (1, 5, 59): False,
        (1, 21, 59): False,
        (1, 22, 0): True,
        (2, 0, 0): True,
        (2, 5, 59): True,
        (2, 6, 0): False,
        (2, 22, 0): False,
    }
    for (day, hour, minute), expected in held.items():
        assert hours.hold_at(datetime(2027, 1, day, hour, minute, 59, tzinfo=UTC)) is expected


def test_a_whole_day() -> None:
    hours = quiet("00:00", "24:00", days=("sun",))
    start = datetime(2027, 1, 3, tzinfo=UTC)
    held = [hours.hold_at(start + timedelta(hours=h)) for h in range(-24, 48)]
    assert held == [False] * 24 + [True] * 24 + [False] * 24


def test_an_hour_that_comes_twice_is_quiet_twice() -> None:
    hours = quiet("02:00", "02:30", "Europe/Berlin")
    # On 2027-10-31 Berlin's clocks go back from 03:00 to 02:00 at 01:00 UTC.
    held = [hours.hold_at(datetime(2027, 10, 31, 0, 0, tzinfo=UTC) + k * 15 * MINUTE) for k in range(8)]
    assert held == [True, True, False, False, True, True, False, False]


@given(st.integers(0, 7 * 24 * 60), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_the_same_in_any_zone_it_is_told_in(minute: int, offset: int) -> None:
    hours = quiet("22:00", "06:00", "Europe/Berlin", ("mon", "wed"))
    moment = datetime(2027, 1, 4, tzinfo=UTC) + minute * MINUTE
    told = moment.astimezone(timezone(timedelta(minutes=offset)))
    assert hours.hold_at(told) == hours.hold_at(moment)


# -------------------------------------------------------------------------------------------------------- at the gate


def test_a_request_in_quiet_hours_is_refused_with_its_reason() -> None:
    with pytest.raises(Refused) as caught:
        asked(datetime(2027, 1, 1, 23, tzinfo=UTC), quiet("22:00", "06:00", days=("fri",)))
    assert caught.value.reason is RefusalReason.QUIET_HOURS
    assert caught.value.reason == "policy.quiet_hours"
    assert "from 22:00 to 06:00 UTC on fri (quiet_hours)" in caught.value.cause
    assert caught.value.remedy


def test_each_of_several_hours_holds() -> None:
    several = (quiet("22:00", "06:00"), quiet("12:00", "13:00", "Europe/Berlin"))
    asked(datetime(2027, 1, 1, 12, 30, tzinfo=UTC), *several)
    for hour in (23, 11):
        with pytest.raises(Refused):
            asked(datetime(2027, 1, 1, hour, tzinfo=UTC), *several)


@pytest.mark.parametrize("hour", range(24))
def test_without_quiet_hours_every_hour_is_open(hour: int) -> None:
    asked(datetime(2027, 1, 1, hour, tzinfo=UTC))


def test_a_task_that_is_not_allowed_is_refused_for_that_and_not_for_the_hour() -> None:
    policy: dict[str, Any] = {"quiet_hours": (quiet("00:00", "24:00"),), "tasks": ()}
    with pytest.raises(Refused) as caught:
        admit(Policy.permissive().model_copy(update=policy), REQUEST, answer, facts(datetime(2027, 1, 1, tzinfo=UTC)))
    assert caught.value.reason is RefusalReason.TASKS
