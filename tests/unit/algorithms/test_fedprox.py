"""FedProx: its proximal term by hand, and none of it at mu = 0."""

import numpy as np
from logistic_sites import gradient, task, trained, unequal_sites
from quadratic_sites import QuadraticSite, federation_of, float32, run_rounds

from medfed.algorithms.fedprox import FedProx
from medfed.core.rng import generator


def test_without_a_proximal_term_it_is_fedavg_to_the_bit() -> None:
    sites = unequal_sites(a=41, b=60, c=50)
    federation = {"rounds": 5, "local_epochs": 2, "batch_size": 8, "lr": 0.2, "momentum": 0.5}
    _, fedavg = trained(task("fedavg", **federation), sites)
    _, fedprox = trained(task({"name": "fedprox", "mu": 0.0}, **federation), sites)
    assert fedprox.tobytes() == fedavg.tobytes()


def test_a_round_by_hand() -> None:
    """Two local steps on batches of 8 of 16 and of 24 rows, in the order that seed, site and epoch give."""
    sites = unequal_sites(a=16, b=24)
    strategy = {"name": "fedprox", "mu": 1.0}
    before, after = trained(task(strategy, rounds=1, local_updates=2, batch_size=8, lr=0.3), sites)

    total = np.zeros(5)
    for name, (x, y) in sites.items():
        order = generator(5, name, "shuffle", 0).permutation(len(y))
        w = before.astype(np.float64)
        for batch in (order[:8], order[8:16]):
            w = w - 0.3 * (gradient(w, x[batch], y[batch]) + 1.0 * (w - before))
        total += len(y) * (w - before)
    np.testing.assert_allclose(after, before + total / 40, rtol=0, atol=1e-6)


def test_the_closed_form_on_a_quadratic() -> None:
    """Steps on ½a(y − b)² + (μ/2)(y − x)² contract by 1 − η(a + μ) about its minimum (ab + μx)/(a + μ)."""
    a, b, mu, lr, x, updates = 2.0, 3.0, 0.7, 0.1, -1.0, 6
    fed = federation_of(QuadraticSite("a", [a], [b], rows=9, lr=lr, updates=updates))
    (_, state) = run_rounds(FedProx(float32(x), rounds=1, mu=mu), fed, 1)
    minimum = (a * b + mu * x) / (a + mu)
    expected = minimum + (1 - lr * (a + mu)) ** updates * (x - minimum)
    np.testing.assert_allclose(state.weights, [expected], rtol=1e-6)
