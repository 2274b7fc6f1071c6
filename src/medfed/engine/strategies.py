"""From the task's strategy to lanes: who trains together, by which algorithm, and at which sites the model serves.

A federated algorithm is one lane over all sites. The baselines are federations too: ``local`` is one lane per
site, ``pooled`` one lane over a simulated site that holds all rows and serves every hospital. Under
``standardize: site`` that site standardises by its own rows, and each hospital by its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medfed.algorithms import ALGORITHMS
from medfed.core.errors import TaskError, UserError
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Algorithm
from medfed.core.steps import Release, Step
from medfed.data import prepare
from medfed.engine.federation import share
from medfed.evaluate import evaluation
from medfed.privacy.graph import FEWEST
from medfed.privacy.he.ckks import MOST_SITES
from medfed.spec.loading import TaskFile
from medfed.spec.task import BASELINES

POOLED = "pooled"
"""The simulated site that holds every row, for the baseline of that name."""

RUN_STEPS: tuple[Step[Any, Any], ...] = (*prepare.STEPS, *evaluation.STEPS)
"""The steps that every run may call, whatever its algorithm."""


@dataclass(frozen=True)
class Lane:
    """One training within a run. name: the site it belongs to, or empty where there is only one."""

    name: str
    trainers: tuple[str, ...]
    serves: tuple[str, ...]


@dataclass(frozen=True)
class Strategy:
    """A task's algorithm class with its hyperparameters, and its lanes. hidden: whether only totals leave the sites."""

    kind: type[Algorithm[Any]]
    options: dict[str, Any]
    lanes: tuple[Lane, ...]
    hidden: bool = False

    def algorithm(self, initial: Vector, rounds: int, tolerance: float) -> Algorithm[Message]:
        """The algorithm that starts from these weights."""
        return self.kind(initial=initial, rounds=rounds, tolerance=tolerance, **self.options)  # type: ignore[call-arg]

    @property
    def steps(self) -> frozenset[str]:
        """Names of all steps that sites admit in this run."""
        known = (*RUN_STEPS, *self.kind.STEPS)
        return frozenset(step.name for step in known if not (self.hidden and step.releases is Release.SITE))


def resolve_strategy(task: TaskFile, sites: Sequence[str]) -> Strategy:
    """The task's strategy over these sites.

    Raises TaskError, located in the file, for an unknown name or option, or a value the algorithm refuses.
    """
    plugin, names = task.spec.federation.strategy, tuple(sorted(sites))
    if plugin.name in BASELINES:
        kind: type[Algorithm[Any]] = ALGORITHMS.get("fedavg")
        known: list[str] = []
    else:
        try:
            kind = ALGORITHMS.get(plugin.name)
        except UserError as error:
            remedy = f"{error.remedy}; baselines: {', '.join(BASELINES)}"
            raise task.error("federation", "strategy", cause=error.cause, remedy=remedy) from error
        known = [name for name in inspect.signature(kind).parameters if name not in _GIVEN]
    for option in plugin.options:
        if option not in known:
            raise task.error(
                "federation",
                "strategy",
                option,
                cause=f"the strategy {plugin.name!r} has no option {option!r}",
                remedy=f"options of {plugin.name}: {', '.join(known) or 'none'}",
            )
    _check_local_training(task, kind)
    _check_aggregation(task, kind, len(names))
    strategy = Strategy(kind, plugin.options, _lanes(plugin.name, names), task.spec.privacy.hides_parts)
    _try_options(task, strategy)
    return strategy


_GIVEN = ("initial", "rounds", "tolerance")


def _lanes(name: str, sites: tuple[str, ...]) -> tuple[Lane, ...]:
    if name == "local":
        return tuple(Lane(site, (site,), (site,)) for site in sites)
    return (Lane("", (POOLED,) if name == POOLED else sites, sites),)


def _check_local_training(task: TaskFile, kind: type[Algorithm[Any]]) -> None:
    """Refuse local optimizers under which an algorithm's formulas would be wrong without a word."""
    federation = task.spec.federation
    settings = {"optimizer": federation.optimizer != "sgd", "momentum": federation.momentum > 0}
    settings["clip_norm"] = federation.clip_norm is not None
    for setting in (name for name, changed in settings.items() if changed and kind.PLAIN_SGD):
        raise task.error(
            "federation",
            setting,
            cause=f"{federation.strategy.name} is right for plain SGD at the sites alone, and `{setting}` changes that",
            remedy=f"leave out federation.{setting}, or choose another strategy",
        )
    if task.spec.privacy.record is not None and not getattr(kind, "POST_PROCESSES", False):
        raise task.error(
            "privacy",
            "record",
            cause=f"{federation.strategy.name} does not declare that it releases nothing of a row but its training",
            remedy="choose another strategy, or declare POST_PROCESSES in the algorithm if that is so",
        )


def _check_aggregation(task: TaskFile, kind: type[Algorithm[Any]], sites: int) -> None:
    """Refuse to hide parts of totals where single replies are asked for, or the sites are too few, or too many."""
    federation = task.spec.federation
    if not task.spec.privacy.hides_parts:
        return
    encrypted, name = task.spec.privacy.aggregation == "encrypted", federation.strategy.name
    if name in BASELINES:
        cause = f"the baseline {name!r} adds nothing up over hospitals, so that there is nothing to hide in a total"
        raise task.error("federation", "strategy", cause=cause, remedy="run it with privacy.aggregation: clear")
    if kind.ASKS:
        raise task.error(
            "privacy",
            "aggregation",
            cause=f"{name!r} asks for each site's own reply, which "
            + ("totals under encryption do not show" if encrypted else "secure aggregation does not show"),
            remedy="choose another strategy, or privacy.aggregation: clear",
        )
    asked = share(federation.cohort, sites)
    if asked < FEWEST:
        raise task.error(
            "privacy",
            "aggregation",
            cause=f"a round asks {asked} of the sites, and a total of fewer than {FEWEST} tells each the other's part",
            remedy=f"take {FEWEST} sites or more (more than two thirds of them have to answer)",
        )
    if encrypted and asked > MOST_SITES:
        raise task.error(
            "privacy",
            "aggregation",
            cause=f"a round asks {asked} sites, and a ciphertext holds the sum of {MOST_SITES} of them",
            remedy="write aggregation: secure, or ask fewer by federation.cohort",
        )


def _try_options(task: TaskFile, strategy: Strategy) -> None:
    """Build the algorithm once over one weight, so that a bad value is told before anything runs."""
    import numpy as np

    for name, default in ((p.name, p.default) for p in inspect.signature(strategy.kind).parameters.values()):
        value = strategy.options.get(name)
        if isinstance(default, float) and value is not None and (isinstance(value, bool) or not _is_number(value)):
            raise _bad_option(task, f"{name} takes a number", name)
    try:
        strategy.algorithm(np.zeros(1, np.float32), 1, 0.0)
    except (TypeError, ValueError) as error:
        raise _bad_option(task, str(error)) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _bad_option(task: TaskFile, cause: str, *keys: str) -> TaskError:
    return task.error("federation", "strategy", *keys, cause=cause, remedy="see: medfed check --help")
