"""Ditto: both halves by closed forms, and its limits λ = 0 and λ → ∞."""

import numpy as np
import pytest
from logistic_sites import task, trained, unequal_sites
from quadratic_sites import QuadraticSite, federation_of, float32, run_rounds

import medfed
from medfed.algorithms.ditto import Ditto
from medfed.core.errors import TaskError
from medfed.core.protocols import OwnModel


def test_its_federated_model_is_that_of_fedavg_to_the_bit() -> None:
    sites = unequal_sites(a=41, b=60, c=50)
    federation = {"rounds": 4, "local_epochs": 2, "batch_size": 8, "lr": 0.2, "data_position": "fresh"}
    alone = {"engine": {"batched": "off"}}
    _, fedavg = trained(task("fedavg", **federation) | alone, sites)
    _, ditto = trained(task({"name": "ditto", "lam": 0.5}, **federation) | alone, sites)
    assert ditto.tobytes() == fedavg.tobytes()


def test_the_own_models_by_their_closed_form_on_quadratics() -> None:
    """K steps on ½a(v − b)² + (λ/2)(v − w_t)² contract by 1 − η(a + λ) about (ab + λw_t)/(a + λ); w as in FedAvg."""
    a, b, lam, lr, updates, rounds = (2.0, 0.5), (3.0, -1.0), 0.7, 0.1, 3, 4
    nodes = [QuadraticSite(n, [a[k]], [b[k]], rows=5, lr=lr, updates=updates) for k, n in enumerate("pq")]
    fed = federation_of(*nodes)
    *_, state = run_rounds(Ditto(float32(-1.0), rounds=rounds, lam=lam), fed, rounds)
    w, v = -1.0, [-1.0, -1.0]
    for _ in range(rounds):
        for k in range(2):
            minimum = (a[k] * b[k] + lam * w) / (a[k] + lam)
            v[k] = minimum + (1 - lr * (a[k] + lam)) ** updates * (v[k] - minimum)
        w = sum(b[k] + (1 - lr * a[k]) ** updates * (w - b[k]) for k in range(2)) / 2
    np.testing.assert_allclose(state.weights, [w], rtol=1e-5)
    for k, node in enumerate(nodes):
        np.testing.assert_allclose(node.memory[OwnModel].weights, [v[k]], rtol=1e-5)


def test_without_regularisation_each_site_measures_what_it_would_have_learnt_alone() -> None:
    """Both train on full batches, so that the order of rows plays no part."""
    sites = unequal_sites(a=80, b=90)
    shared = {"rounds": 6, "local_updates": 3, "batch_size": "full", "lr": 0.3}
    split = {"split": {"train": 0.7, "validation": 0, "test": 0.3}}
    measured = []
    for strategy in ({"name": "ditto", "lam": 0.0}, "local", "fedavg"):
        described = task(strategy, **shared)
        described["data"] = described["data"] | split
        process = medfed.build(described, sites)
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        measured.append([process.measure(state, "test").value("loss", site) for site in sites])
    ditto, local, fedavg = measured
    np.testing.assert_allclose(ditto, local, rtol=1e-5)
    assert not np.allclose(ditto, fedavg, rtol=1e-2)


@pytest.mark.parametrize("key", ["local_layers", "fine_tune"])
def test_it_takes_no_second_way_to_be_personal(key: str) -> None:
    described = task("ditto", rounds=1) | {"model": {"name": "mlp", "hidden": [4]}}
    described["federation"][key] = "head" if key == "local_layers" else {"layers": "head"}
    with pytest.raises(TaskError, match="keeps a whole model at every site already"):
        medfed.build(described, unequal_sites(a=20, b=20))
