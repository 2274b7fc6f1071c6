"""FedAdam against Reddi et al. 2021, Algorithm 2, worked in scalars."""

import math

import numpy as np
import pytest
from quadratic_sites import QuadraticSite, federation_of, float32, run_rounds

from medfed.algorithms.fedadam import FedAdam


def local_change(x: float, a: float, b: float, lr: float, updates: int) -> float:
    y = x
    for _ in range(updates):
        y -= lr * a * (y - b)
    return y - x


@pytest.mark.parametrize("tau", [1e-3, 1e-8, 0.5])
def test_rounds_by_hand(tau: float) -> None:
    eta, beta1, beta2 = 0.1, 0.9, 0.99
    a, b = {"north": 1.0, "south": 3.0}, {"north": 2.0, "south": -1.0}
    rows, updates = {"north": 30, "south": 12}, {"north": 2, "south": 3}
    fed = federation_of(*(QuadraticSite(k, [a[k]], [b[k]], rows[k], 0.05, updates[k]) for k in a))
    states = run_rounds(FedAdam(float32(1.5), rounds=8, lr=eta, beta1=beta1, beta2=beta2, tau=tau), fed, 8)

    x, m, v = 1.5, 0.0, tau**2
    assert (states[0].m.tolist(), states[0].v.tolist()) == ([0.0], [pytest.approx(tau**2, rel=1e-6)])
    for state in states[1:]:
        delta = sum(rows[k] * local_change(x, a[k], b[k], 0.05, updates[k]) for k in a) / 42
        m = beta1 * m + (1 - beta1) * delta
        v = beta2 * v + (1 - beta2) * delta**2
        x = x + eta * m / (math.sqrt(v) + tau)
        np.testing.assert_allclose([state.weights[0], state.m[0], state.v[0]], [x, m, v], rtol=1e-5, atol=1e-6)


def test_the_first_step_has_no_bias_correction() -> None:
    """From v = τ² ≈ 0, the first step is η (1 − β₁) / √(1 − β₂) along the sign of Δ: 0.1 η at the paper's β."""
    fed = federation_of(QuadraticSite("a", [1.0, 1.0], [9.0, -9.0], rows=5, lr=0.1, updates=1))
    algorithm = FedAdam(float32(0.0, 0.0), rounds=1, lr=0.01, beta1=0.9, beta2=0.99, tau=1e-8)
    (_, state) = run_rounds(algorithm, fed, 1)
    np.testing.assert_allclose(state.weights, [0.01, -0.01], rtol=1e-5)
