"""A site's policy file: who may run what here. What it does not allow, it denies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medfed.spec.task import Section

Everything = Literal["*"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


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
    """

    tasks: tuple[Digest, ...] | Everything = ()
    task_types: tuple[Literal["classification", "regression"], ...] | Everything = ()
    algorithms: tuple[str, ...] | Everything = ()
    steps: tuple[str, ...] | Everything = ()
    releases: tuple[Literal["sum", "site", "levels"], ...] | Everything = ()
    minimum_patients: Count = 10
    minimum_count: Count = 5
    limits: Limits = Limits()

    @classmethod
    def permissive(cls) -> Policy:
        """The policy of a simulated site: nothing is refused but small counts."""
        return cls(tasks="*", task_types="*", algorithms="*", steps="*", releases="*", minimum_patients=1)
