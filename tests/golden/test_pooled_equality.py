"""What is fitted over divided rows equals what scikit-learn and NumPy fit over all of them in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import medfed

FULL_BATCH = {"strategy": "fedavg", "batch_size": "full", "local_updates": 1}


def divided_rows() -> tuple[Any, Any]:
    """Features of unlike scale, shape (240, 4), and each row's hospital: by the first feature, and unequal."""
    rng = np.random.default_rng(20)
    x = rng.normal(size=(240, 4)) @ np.array([[1, 0.4, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    hospital = np.digitize(x[:, 0], [-0.8, 0.9])
    return x * [1.0, 30.0, 0.02, 5.0] + [120.0, -4.0, 0.5, 1000.0], hospital


def fitted(task: dict[str, Any], x: Any, y: Any, hospital: Any) -> tuple[Any, Any]:
    """The encoding and the weights (coefficients, then the intercept) after the whole run over the hospitals."""
    sites = {f"hospital-{k}": (x[hospital == k], y[hospital == k]) for k in np.unique(hospital)}
    process = medfed.build(
        task
        | {
            "data": task.get("data", {})
            | {"standardize": "federated", "split": {"train": 1, "validation": 0, "test": 0}},
            "evaluation": {"every": 10_000},
        },
        sites,
    )
    state = process.initialize()
    while not process.done(state):
        state, _ = process.next(state)
    return state.lanes[0].encoding, process.weights(state)[""]


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    return divided_rows()


def test_federated_standardisation_is_that_of_all_rows(rows: tuple[Any, Any]) -> None:
    x, hospital = rows
    task = {"task_type": "regression", "model": "linear", "federation": {**FULL_BATCH, "rounds": 1}}
    encoding, _ = fitted(task, x, x[:, 0], hospital)
    scaler = StandardScaler().fit(x)
    np.testing.assert_allclose(encoding.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(encoding.scale, scaler.scale_ * np.sqrt(240 / 239), rtol=1e-12)


def test_logistic_regression(rows: tuple[Any, Any]) -> None:
    """Weight decay λ on the mean loss, intercept included, is scikit-learn's C = 1/(λn) over a column of ones."""
    x, hospital = rows
    decay = 0.02
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    noise = np.random.default_rng(21).logistic(size=240)
    y = (z @ [1.5, -1.0, 0.5, 0.0] + 0.4 + noise > 0).astype(np.int64)
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {**FULL_BATCH, "rounds": 400, "lr": 1.0, "weight_decay": decay},
        "data": {"label": {"column": "y", "classes": [0, 1]}},
    }
    _, weights = fitted(task, x, y, hospital)

    oracle = LogisticRegression(C=1 / (decay * 240), fit_intercept=False, tol=1e-10, max_iter=1000)
    oracle.fit(np.column_stack([z, np.ones(240)]), y)
    assert np.abs(oracle.coef_).max() > 0.5
    np.testing.assert_allclose(weights, oracle.coef_[0], rtol=0, atol=1e-3)


def test_linear_regression(rows: tuple[Any, Any]) -> None:
    x, hospital = rows
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    y = z @ [2.0, -1.0, 0.0, 0.7] + 3.0 + np.random.default_rng(22).normal(0.0, 0.5, 240)
    federation = {**FULL_BATCH, "rounds": 200, "lr": 0.3}
    _, weights = fitted({"task_type": "regression", "model": "linear", "federation": federation}, x, y, hospital)
    oracle, *_ = np.linalg.lstsq(np.column_stack([z, np.ones(240)]), y, rcond=None)
    np.testing.assert_allclose(weights, oracle, rtol=0, atol=1e-4)
