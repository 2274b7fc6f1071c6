"""What a party demands as evidence of its peers' builds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medfed.spec.task import Section

Measurement = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", description="a build's measurement of 64 characters, 0-9 and a-f")
]
Kind = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="`none`, or a kind of evidence such as `software`")
]


class Attestation(Section):
    """The kind of evidence that is demanded (``none``: none), and the builds that are allowed."""

    demand: Kind = "none"
    measurements: tuple[Measurement, ...] = ()

    @model_validator(mode="after")
    def _something_allowed(self) -> Attestation:
        if self.demand != "none" and not self.measurements:
            raise PydanticCustomError(
                "explained",
                "demands evidence and allows no build",
                {"remedy": "list in `measurements` what `medfed doctor` prints at the other party"},
            )
        return self
