"""The tasks that ``medfed compare`` runs: one for each strategy, with what differs for it."""

from __future__ import annotations

from typing import Any

from medfed.spec.task import FederationSpec, ModelSpec, Plugin, TaskSpec

MODEL = "model"
"""The key among a strategy's overrides below which keys of the task's ``model`` stand; all others are of
``federation``."""

_LENGTHS = {"epochs", "rounds", "local_epochs", "local_updates"}


def federation_for(spec: TaskSpec, strategy: Plugin) -> FederationSpec:
    """The task's federation under another strategy, with that strategy's overrides.

    ``epochs``, ``rounds``, ``local_epochs`` and ``local_updates`` say together how long is trained: an
    override of one replaces them all. An override of ``strategy`` makes the name a mere label, under which a
    strategy is compared with itself. Raises ValidationError for overrides that no loaded task has.
    """
    overrides = {k: v for k, v in spec.compare.overrides.get(strategy.name, {}).items() if k != MODEL}
    fields: dict[str, Any] = {name: getattr(spec.federation, name) for name in FederationSpec.model_fields}
    if overrides.keys() & _LENGTHS:
        fields |= dict.fromkeys(_LENGTHS)
    return FederationSpec.model_validate({**fields, "strategy": strategy, **overrides}, strict=True)


def model_for(spec: TaskSpec, strategy: Plugin) -> ModelSpec:
    """The task's model under a strategy, with the overrides below its key ``model``. Raises ValidationError."""
    overrides = spec.compare.overrides.get(strategy.name, {}).get(MODEL, {})
    if not overrides:
        return spec.model
    fields = {name: getattr(spec.model, name) for name in ModelSpec.model_fields} | spec.model.options
    return ModelSpec.model_validate({**fields, **overrides}, strict=True)
