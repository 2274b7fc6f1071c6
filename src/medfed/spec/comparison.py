"""The tasks that ``medfed compare`` runs: one for each strategy, with what differs for it."""

from __future__ import annotations

from typing import Any

from medfed.spec.task import FederationSpec, Plugin, TaskSpec

_LENGTHS = {"epochs", "rounds", "local_epochs", "local_updates"}


def federation_for(spec: TaskSpec, strategy: Plugin) -> FederationSpec:
    """The task's federation under another strategy, with that strategy's overrides.

    ``epochs``, ``rounds``, ``local_epochs`` and ``local_updates`` say together how long is trained: an
    override of one replaces them all. Raises ValidationError for overrides that no loaded task has.
    """
    overrides = spec.compare.overrides.get(strategy.name, {})
    fields: dict[str, Any] = {name: getattr(spec.federation, name) for name in FederationSpec.model_fields}
    if overrides.keys() & _LENGTHS:
        fields |= dict.fromkeys(_LENGTHS)
    return FederationSpec.model_validate({**fields, "strategy": strategy, **overrides}, strict=True)
