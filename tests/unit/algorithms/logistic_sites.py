"""Synthetic hospitals of unequal size, whole runs over them, and logistic regression in NumPy's float64."""

from __future__ import annotations

from typing import Any

import numpy as np

import medfed


def unequal_sites(**rows: int) -> dict[str, tuple[Any, Any]]:
    """Site → (features (n, 4), labels (n,)); each hospital's patients are shifted in their own way."""
    sites = {}
    for number, (name, n) in enumerate(sorted(rows.items())):
        rng = np.random.default_rng([7, number])
        x = rng.normal(0.4 * number, 1.0, size=(n, 4)).astype(np.float32)
        chance = 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.5, 0.0] + 0.3)))
        sites[name] = x, (rng.random(n) < chance).astype(np.int64)
    return sites


def task(strategy: Any, **federation: Any) -> dict[str, Any]:
    """Logistic regression on the features as they are, all rows of which train."""
    return {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": strategy, **federation},
        "data": {
            "standardize": "none",
            "label": {"column": "y", "classes": [0, 1]},
            "split": {"train": 1, "validation": 0, "test": 0},
        },
        "evaluation": {"every": 1000},
        "seed": 5,
    }


def trained(task: dict[str, Any], sites: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    """The weights before and after the whole run: the four coefficients, then the intercept."""
    process = medfed.build(task, sites)
    state = process.initialize()
    before = process.weights(state)[""]
    while not process.done(state):
        state, _ = process.next(state)
    return before, process.weights(state)[""]


def gradient(weights: Any, x: Any, y: Any) -> Any:
    """The gradient of the mean cross-entropy at (coefficients, intercept)."""
    error = 1 / (1 + np.exp(-(x.astype(np.float64) @ weights[:-1] + weights[-1]))) - y
    return np.append(error @ x, error.sum()) / len(y)
