"""From the task's strategy to lanes: who trains together, by which algorithm, and at which sites the model serves.

A federated algorithm is one lane over all sites. The baselines are federations too: ``local`` is one lane per
site, ``pooled`` one lane over a simulated site that holds all rows and serves every hospital. Under
``standardize: site`` that site standardises by its own rows, and each hospital by its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from medfed.algorithms import ALGORITHMS
from medfed.core.errors import MissingExtra, TaskError, UserError
from medfed.core.messages import Message, Vector
from medfed.core.protocols import Algorithm
from medfed.core.steps import Release, Step
from medfed.data import prepare
from medfed.engine import adaptive, distilling, finetuning, partial
from medfed.engine.adaptive import AdaptivelyClipped
from medfed.engine.federation import share
from medfed.engine.personalchecks import check_personal
from medfed.engine.release import declares_sensitivity
from medfed.engine.wholesite import plan_of
from medfed.evaluate import appraisal, evaluation, explanation
from medfed.privacy.release import undeclared
from medfed.spec.loading import TaskFile
from medfed.spec.task import BASELINES, SitePrivacy, TaskSpec

POOLED = "pooled"
"""The simulated site that holds every row, for the baseline of that name."""

RUN_STEPS: tuple[Step[Any, Any], ...] = (*prepare.STEPS, *evaluation.STEPS, *appraisal.STEPS)
"""The steps that every run may call, whatever its algorithm."""


@dataclass(frozen=True)
class Lane:
    """One training within a run. name: the site it belongs to, or empty where there is only one."""

    name: str
    trainers: tuple[str, ...]
    serves: tuple[str, ...]


@dataclass(frozen=True)
class Strategy:
    """A task's algorithm class with its hyperparameters, and its lanes.

    totals_only: whether no site releases figures of its own. noisy: whether sums get noise, and none leaves without it
    that does not declare its sensitivity. adaptive: the task's privacy of whole sites, where the clipping norm follows
    their updates. further: the steps that this task needs beside those of every run and of its algorithm.
    """

    kind: type[Algorithm[Any]]
    options: dict[str, Any]
    lanes: tuple[Lane, ...]
    totals_only: bool = False
    noisy: bool = False
    adaptive: SitePrivacy | None = None
    further: tuple[Step[Any, Any], ...] = ()

    def algorithm(self, initial: Vector, rounds: int, tolerance: float) -> Algorithm[Message]:
        """The algorithm that starts from these weights."""
        given: dict[str, Any] = {"initial": initial, "rounds": rounds, "tolerance": tolerance}
        algorithm: Algorithm[Message] = self.kind(**given, **self.options)
        if self.adaptive is None:
            return algorithm
        return cast(Algorithm[Message], AdaptivelyClipped(algorithm, self.adaptive))

    @property
    def steps(self) -> frozenset[str]:
        """Names of all steps that sites admit in this run."""
        known = (*RUN_STEPS, *self.kind.STEPS, *self.further)
        return frozenset(step.name for step in known if self._leaves(step))

    @property
    def measuring(self) -> frozenset[str]:
        """Names of the steps that sites admit where a finished model is measured, and nothing trained."""
        return self.steps - {step.name for step in self.kind.STEPS}

    def _leaves(self, step: Step[Any, Any]) -> bool:
        if step.releases is Release.SITE:
            return not self.totals_only
        bare = step.releases is Release.SUM and step not in self.kind.STEPS and not declares_sensitivity(step)
        return not (self.noisy and bare)


def apart(sites: Sequence[str], holdout: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the sites that train, those that are held out), each sorted."""
    return tuple(sorted({*sites} - {*holdout})), tuple(sorted({*sites} & {*holdout}))


def resolve_strategy(task: TaskFile, sites: Sequence[str]) -> Strategy:
    """The task's strategy over these sites, without those that it holds out.

    Raises TaskError, located in the file, for an unknown name or option, or a value the algorithm refuses.
    """
    plugin, (names, _) = task.spec.federation.strategy, apart(sites, task.spec.evaluation.holdout)
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
    _check_whole_site(task, kind, len(names))
    _check_release(task, kind)
    check_personal(task, kind)
    privacy = task.spec.privacy
    follows = privacy.site if privacy.site is not None and privacy.site.adaptive is not None else None
    lanes, noisy = _lanes(plugin.name, names), privacy.release is not None
    further = _further_steps(task.spec)
    strategy = Strategy(kind, plugin.options, lanes, privacy.totals_only, noisy, follows, further)
    _try_options(task, strategy)
    return strategy


def _further_steps(task: TaskSpec) -> tuple[Step[Any, Any], ...]:
    site = task.privacy.site
    wanted = (
        (adaptive.STEPS, site is not None and site.adaptive is not None),
        (finetuning.STEPS, task.federation.fine_tunes),
        (partial.STEPS, bool(task.model.freeze) or task.federation.pruning is not None),
        (distilling.STEPS, task.federation.distillation is not None),
        (explanation.STEPS, task.evaluation.explanations),
    )
    return tuple(step for steps, needed in wanted if needed for step in steps)


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
    from medfed.privacy.graph import FEWEST
    from medfed.privacy.he.ckks import MOST_SITES

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
    if sites and asked < FEWEST:  # with none named yet, it is checked when they are known
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


def _check_release(task: TaskFile, kind: type[Algorithm[Any]]) -> None:
    """Refuse noisy sums where the algorithm's own get none: they declare no sensitivity, and no private training."""
    privacy = task.spec.privacy
    if privacy.release is None or (privacy.record is not None and getattr(kind, "POST_PROCESSES", False)):
        return
    for step in kind.STEPS:
        if step.releases is Release.SUM and (fields := undeclared(step.reply)):
            raise task.error(
                "privacy",
                "release",
                cause=f"the sum {step.name} does not declare how much one patient moves {', '.join(fields)}, so that "
                "no noise can be chosen for it",
                remedy="train with privacy.record as well, whose noise covers it; or leave out privacy.release",
            )


def _check_whole_site(task: TaskFile, kind: type[Algorithm[Any]], sites: int) -> None:
    """Refuse differential privacy of whole sites where they cannot share its noise."""
    if task.spec.privacy.site is None:
        return
    name, at = task.spec.federation.strategy.name, ("privacy", "site")
    if name in BASELINES:
        cause = f"the baseline {name!r} adds nothing up over hospitals, so that no total carries the noise of a site"
        raise task.error(*at, cause=cause, remedy="choose a federated strategy, or protect rows by privacy.record")
    if not getattr(kind, "SHARES_NOISE", False):
        raise task.error(
            *at,
            cause=f"{name!r} does not declare that sites may share the noise of their updates: it releases more of "
            "each than the update",
            remedy="choose fedavg, fedprox or fedadam, or protect rows by privacy.record",
        )
    try:
        plan_of(task.spec, sites)
    except UserError as error:
        if isinstance(error, MissingExtra):
            raise
        raise task.error(*at, cause=error.cause, remedy=error.remedy) from error


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
