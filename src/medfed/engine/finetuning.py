"""The last thing that a task with ``fine_tune`` does: every site trains a model of its own from the federated one."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.messages import Message, Vector, adds
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.engine.session import SiteSession


@dataclass(frozen=True, eq=False)
class Finished(Message, wire="finetuning.finished"):
    """The federated weights after the last round, shape (d,)."""

    weights: Vector


@dataclass(frozen=True)
class FineTuned(Message, wire="finetuning.fine_tuned"):
    """sites: 1, of a site that has its own model now."""

    sites: int = adds(bound=1)


@step(releases=Release.SUM)
def fine_tune(site: SiteContext, message: Finished) -> FineTuned:
    """Train the site's own model from the federated one; nothing of it leaves."""
    assert isinstance(site, SiteSession)  # noqa: S101 - the engine's own step, which only the engine runs
    site.fine_tune(message.weights)
    return FineTuned(1)


STEPS = (fine_tune,)
