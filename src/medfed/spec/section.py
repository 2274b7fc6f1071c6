"""What every section of a task file is made of: strict models, bounded numbers, names, plugins."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NAME_IN_WORDS = "a name of at most 64 letters, digits, spaces, `_`, `.` or `-` that begins with a letter or digit"
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\W_][\w .-]*$", description=NAME_IN_WORDS)]
"""A name that is also safe as a file name: letters of any script, digits, ``_ . -`` and inner spaces."""


def named(value: Any) -> Any:
    """Accept ``fedavg`` for ``{name: fedavg}``."""
    return {"name": value} if isinstance(value, str) else value


class Section(BaseModel):
    """Base of every section: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plugin(BaseModel):
    """A plugin's name and its own options, which are checked against the plugin when the run is built."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the task says to the plugin beside its name."""
        return dict(self.__pydantic_extra__ or {})
