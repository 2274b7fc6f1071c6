"""Proposals and keys that the tests of approvals share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medfed.algorithms.fedavg import train_locally
from medfed.core.steps import Step
from medfed.data import prepare
from medfed.evaluate import appraisal, evaluation
from medfed.govern.keys import SigningKey
from medfed.govern.proposals import Proposal
from medfed.spec.loading import task_of
from medfed.spec.task import TaskSpec

COORDINATOR = SigningKey.generate()
SITE = SigningKey.generate()
COHORT = "c0" * 32
STEPS: tuple[Step[Any, Any], ...] = (train_locally, *prepare.STEPS, *evaluation.STEPS, *appraisal.STEPS)

TASK: dict[str, Any] = {
    "name": "heart disease",
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "fedavg", "rounds": 20, "local_epochs": 2},
    "sites": {"north": "default", "south": "default", "west": "default"},
    "data": {"id": "id", "label": {"column": "diagnosis", "classes": [0, 1]}, "columns": {"age": "continuous"}},
}


def spec_of(**changes: Any) -> TaskSpec:
    """The task with some of its sections replaced."""
    return task_of(TASK | changes).spec


def proposed(spec: TaskSpec | None = None, key: SigningKey = COORDINATOR, **said: str) -> Proposal:
    """A signed proposal of the task."""
    words = {
        "purpose": "predict heart disease from routine findings",
        "legal_basis": "consent, GDPR Art. 9(2)(a)",
        "ethics_id": "EK 2026/117",
        "ethics_expires": "2999-12-31",
    }
    return Proposal.sign(key, spec or spec_of(), STEPS, **(words | said))


def resigned(proposal: Proposal, key: SigningKey = COORDINATOR, **changes: Any) -> Proposal:
    """The proposal with changed fields, under a valid signature of the key."""
    draft = replace(proposal, **changes, signature="")
    return replace(draft, signature=key.sign(draft._signed).hex())
