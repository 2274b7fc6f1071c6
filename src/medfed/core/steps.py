"""Steps: the only code that a request can name.

A step is a function of the installed package, ``(site, message) -> reply``, registered under
``<file>.<function>``. What it releases decides which rules of the site's gate apply to its reply.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from medfed.core.errors import CodecError
from medfed.core.examples import Split
from medfed.core.messages import Message, additive_fields

if typing.TYPE_CHECKING:
    from medfed.core.protocols import SiteContext, SiteStack

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class Release(enum.StrEnum):
    """What leaves a site with a step's reply."""

    SUM = "sum"
    """A contribution to a total; the caller sees the total over sites."""
    SITE = "site"
    """One site's own reply: its metrics, its curves, its data sheet."""
    LEVELS = "levels"
    """Names of categories that enough patients share; the others become ``other``."""


@dataclass(frozen=True)
class Step(Generic[M, R]):
    """A registered step: its name, both message types, what it releases, and whose rows it reads."""

    name: str
    run: Callable[[SiteContext, M], R]
    message: type[M]
    reply: type[R]
    releases: Release
    reads: Split | None

    @property
    def run_many(self) -> Callable[[SiteStack, M], Sequence[R]] | None:
        """Its batched twin, or None (see :func:`twin`)."""
        return _TWINS.get(self.name)

    def split(self, message: Message) -> Split | None:
        """The split whose patients the step reads for this message; ``None`` where it reads every row.

        A message with a field ``split`` chooses for itself.
        """
        chosen = getattr(message, "split", self.reads)
        return chosen if isinstance(chosen, Split) else None


_STEPS: dict[str, Step[Any, Any]] = {}
_TWINS: dict[str, Callable[[SiteStack, Any], Sequence[Any]]] = {}


def step(
    *, releases: Release, reads: Split | None = Split.TRAIN
) -> Callable[[Callable[[SiteContext, M], R]], Step[M, R]]:
    """Register a function as a step: ``@step(releases=Release.SUM)``.

    Raises TypeError at import where a summed reply has fields that do not declare how they add.
    """

    def register(function: Callable[[SiteContext, M], R]) -> Step[M, R]:
        hints = typing.get_type_hints(function, localns={"SiteContext": Any})
        reply = hints.pop("return")
        *_site, message = hints.values()
        if releases is Release.SUM:
            additive_fields(reply)
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        if name in _STEPS and _STEPS[name].run.__module__ != function.__module__:
            raise TypeError(f"two steps share the name {name!r}")
        registered: Step[M, R] = Step(name, function, message, reply, releases, reads)
        _STEPS[name] = registered
        return registered

    return register


def twin(
    original: Step[M, R],
) -> Callable[[Callable[[SiteStack, M], Sequence[R]]], Callable[[SiteStack, M], Sequence[R]]]:
    """Register the batched twin of a step, ``@twin(train_locally)``, which only a simulation uses.

    It gives the replies of several sites to one message, in their order, equal to 1e-6 to what the step gives at each.
    """

    def register(function: Callable[[SiteStack, M], Sequence[R]]) -> Callable[[SiteStack, M], Sequence[R]]:
        _TWINS[original.name] = function
        return function

    return register


def installed_step(name: str) -> Step[Any, Any]:
    """The step of that name. Raises CodecError where no installed code registers it."""
    try:
        return _STEPS[name]
    except KeyError:
        raise CodecError(f"no installed step is called {name!r}") from None
