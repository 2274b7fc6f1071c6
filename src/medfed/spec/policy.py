"""A site's policy file: who may run what here, when, and with how much. What it does not allow, it denies."""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from medfed.spec.task import NonNegative, Section, TaskType

Everything = Literal["*"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="a task's digest of 64 characters, 0-9 and a-f")]
Count = Annotated[int, Field(ge=0)]

_UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"([0-9]{{1,6}}) ?({'|'.join(_UNITS)})")


def _bytes(size: Any) -> int:
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None or int(match[1]) == 0:
        raise PydanticCustomError(
            "explained",
            "is not an amount of memory",
            {"remedy": "write a whole number of MiB, GiB or TiB: 512 MiB, 4 GiB"},
        )
    return int(match[1]) * _UNITS[match[2]]


def _with_unit(size: int) -> str:
    unit = next(name for name in reversed(_UNITS) if size % _UNITS[name] == 0)
    return f"{size // _UNITS[unit]} {unit}"


Memory = Annotated[
    int,
    BeforeValidator(_bytes),
    PlainSerializer(_with_unit, return_type=str),
    WithJsonSchema({"type": "string", "description": "an amount of memory, such as 4 GiB"}),
]
"""Bytes, which files write as ``512 MiB`` or ``4 GiB``."""


def _time_zone(name: str) -> str:
    try:
        if name != "localtime":  # a link of this machine, no zone that others know
            return ZoneInfo(name).key
    except (LookupError, ValueError, OSError):
        pass
    close = difflib.get_close_matches(name, sorted(available_timezones()), n=1)
    raise PydanticCustomError(
        "explained",
        "is not a time zone of the IANA database",
        {"remedy": f"did you mean `{close[0]}`?" if close else "write, for example: Europe/Berlin, or UTC"},
    )


TimeZone = Annotated[str, AfterValidator(_time_zone), Field(description="a time zone such as Europe/Berlin")]
"""The name of an IANA time zone that this machine knows."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_BEGIN_IN_WORDS = "a time of day from 00:00 to 23:59, such as 08:30"
_END_IN_WORDS = "a time of day from 00:00 to 24:00, such as 17:00"
Begin = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description=_BEGIN_IN_WORDS)]
End = Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", description=_END_IN_WORDS)]


class QuietHours(Section):
    """Hours in which a site answers no request, by the clock on the wall in ``time_zone``.

    begin, end: ``HH:MM``, called ``from`` and ``to`` in files; where ``to`` is not after ``from`` it is of the next
    day. ``from`` belongs to the hours and ``to`` does not. days: those on which the hours begin.
    """

    begin: Begin = Field(alias="from")
    end: End = Field(alias="to")
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = DAYS
    time_zone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _some_time(self) -> QuietHours:
        if self.begin == self.end:
            raise PydanticCustomError(
                "explained",
                "begins and ends at the same time of day",
                {"remedy": "for a whole day write from: 00:00 and to: 24:00"},
            )
        return self

    def hold_at(self, moment: datetime) -> bool:
        """Whether an aware moment lies within: what the wall clock shows then decides.

        So an hour that comes twice, when clocks go back, is quiet twice; one that is left out is not at all.
        """
        local = moment.astimezone(ZoneInfo(self.time_zone))
        now, begin, end = local.hour * 60 + local.minute, _minutes(self.begin), _minutes(self.end)
        today, yesterday = (DAYS[(local.weekday() - days) % 7] in self.days for days in (0, 1))
        if begin < end:
            return today and begin <= now < end
        return (today and now >= begin) or (yesterday and now < end)

    def __str__(self) -> str:
        days = "" if set(self.days) == set(DAYS) else f" on {', '.join(self.days)}"
        return f"from {self.begin} to {self.end} {self.time_zone}{days}"


def _minutes(time: str) -> int:
    hours, _, minutes = time.partition(":")
    return int(hours) * 60 + int(minutes)


class Limits(Section):
    """Ceilings of one run; ``None`` sets none."""

    rounds: Count | None = None
    requests: Count | None = None
    request_bytes: Count | None = None
    released_bytes: Count | None = None


class Policy(Section):
    """What a site allows. Each list names what is allowed, or is ``*``; an empty list allows nothing.

    tasks: SHA-256 digests of approved tasks. minimum_patients: fewest patients a step may read.
    minimum_count: smallest non-zero count of persons that a data sheet, a metric or a level may rest on.
    explanations: what may leave of what a model's answers rest on: nothing, or averages over patients in a total.
    quiet_hours: when no request is answered. cpus, memory: processors and bytes that a deployed site's process may
    use; ``None`` sets no limit. epsilon, delta: the privacy budget of each dataset over all runs; ``None`` sets none.
    """

    tasks: tuple[Digest, ...] | Everything = ()
    task_types: tuple[TaskType, ...] | Everything = ()
    algorithms: tuple[str, ...] | Everything = ()
    steps: tuple[str, ...] | Everything = ()
    releases: tuple[Literal["sum", "site", "levels"], ...] | Everything = ()
    minimum_patients: Count = 10
    minimum_count: Count = 5
    explanations: Literal["local", "averages"] = "local"
    limits: Limits = Limits()
    quiet_hours: tuple[QuietHours, ...] = ()
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Memory | None = None
    epsilon: NonNegative | None = None
    delta: Annotated[float, Field(ge=1e-12, lt=1)] = 1e-5

    @classmethod
    def permissive(cls) -> Policy:
        """The policy of a simulated site: nothing is refused but small counts."""
        everything = dict.fromkeys(("tasks", "task_types", "algorithms", "steps", "releases"), "*")
        return cls.model_validate({**everything, "minimum_patients": 1, "explanations": "averages"})
