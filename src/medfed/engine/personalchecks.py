"""What a task may not ask for together with layers or models that sites keep for themselves."""

from __future__ import annotations

from typing import Any

from medfed.core.protocols import Algorithm
from medfed.spec.loading import TaskFile


def check_personal(task: TaskFile, kind: type[Algorithm[Any]]) -> None:
    """Raise TaskError, located in the file, where the strategy or other keys do not go with what sites keep."""
    own_models = bool(getattr(kind, "OWN_MODELS", False))
    _check_together(task, own_models=own_models)
    _check_protected(task, own_models=own_models)


def _check_together(task: TaskFile, *, own_models: bool) -> None:
    federation = task.spec.federation
    chosen = [("local_layers", federation.keeps_layers), ("fine_tune", federation.fine_tunes)]
    for key in (key for key, given in chosen if given and own_models):
        raise task.error(
            "federation",
            key,
            cause=f"{federation.strategy.name} keeps a whole model at every site already",
            remedy=f"leave out federation.{key}, or choose another strategy",
        )
    if own_models and federation.keeps_optimizer_state:
        raise task.error(
            "federation",
            "optimizer_state",
            cause=f"{federation.strategy.name} trains two models at every site, and an optimizer's state is of one",
            remedy="leave out optimizer_state",
        )
    if federation.keeps_layers and task.spec.evaluation.holdout:
        raise task.error(
            "evaluation",
            "holdout",
            cause="a site that never trains has none of the layers that stay at each site (federation.local_layers)",
            remedy="leave out one of the two",
        )
    if federation.pruning is not None and (own_models or federation.keeps_layers):
        raise task.error(
            "federation",
            "pruning",
            cause="what sites keep for themselves is of the network as it was before units are removed",
            remedy="leave out federation.pruning, or choose fine_tune, which comes after it",
        )


def _check_protected(task: TaskFile, *, own_models: bool) -> None:
    """What a site trains for itself has no noise, and its metrics are released."""
    federation, privacy = task.spec.federation, task.spec.privacy
    unprotected = "is trained without noise, and its metrics are released: privacy.{} would not cover them"
    if privacy.record is not None and own_models:
        cause = f"a model of a site's own {unprotected.format('record')}"
        raise task.error("federation", "strategy", cause=cause, remedy="choose another strategy")
    for protected in (name for name in ("record", "site") if getattr(privacy, name) is not None):
        if federation.fine_tunes:
            cause = f"a model of a site's own {unprotected.format(protected)}"
            remedy = f"leave out federation.fine_tune, or privacy.{protected}"
            raise task.error("federation", "fine_tune", cause=cause, remedy=remedy)
    if privacy.site is not None and federation.keeps_layers:
        cause = f"a layer that stays at a site {unprotected.format('site')}"
        remedy = "leave out federation.local_layers, or privacy.site"
        raise task.error("federation", "local_layers", cause=cause, remedy=remedy)
