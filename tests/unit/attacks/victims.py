"""Tasks under attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from medfed.attacks.victim import Update, Victim
from medfed.core.examples import Examples
from medfed.models.catalogue import build_network
from medfed.spec.loading import task_of

RECORD = {"epsilon": 3.0, "delta": 1e-5}


def victim(
    model: dict[str, Any],
    shape: tuple[int, ...],
    outputs: int = 1,
    *,
    noise: float | None = None,
    task_type: str = "classification",
    **settings: Any,
) -> Victim:
    described = {
        "task_type": task_type,
        "model": model,
        "federation": {"strategy": "fedavg", "lr": 0.05} | settings,
        "privacy": {"record": RECORD} if noise is not None else {},
    }
    spec = task_of(described).spec
    network = build_network(spec.model, shape, outputs, 0)
    classes = 0 if task_type == "regression" else max(outputs, 2)
    return Victim(spec, network, network.vector(), classes, noise)


def records(rows: int, shape: tuple[int, ...], classes: int = 2) -> Examples:
    random = np.random.default_rng(5)
    return Examples(random.standard_normal((rows, *shape), np.float32), random.integers(0, classes, rows))


def alone(attacked: Victim, some: Examples) -> list[Update]:
    return [attacked.alone(Examples(some.features[[i]], some.targets[[i]])) for i in range(len(some))]


def together(attacked: Victim, some: Examples) -> Update:
    """The update of one step on all of them: the mean of those alone, as SGD is linear in the gradient."""
    change = np.mean([update.change for update in alone(attacked, some)], axis=0)
    return Update(attacked.weights, change, some, some, 1, attacked.task.federation.lr)
