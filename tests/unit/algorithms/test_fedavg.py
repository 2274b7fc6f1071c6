"""Federated averaging against pooled gradient descent and against local training."""

import numpy as np
import pytest
from logistic_sites import gradient, task, trained, unequal_sites
from quadratic_sites import QuadraticSite, federation_of, float32, run_rounds

from medfed.algorithms.fedavg import FedAvg, WeightedDelta, moved, relative_change
from medfed.core.examples import Examples
from medfed.core.halves import LARGE
from medfed.core.messages import out_of_bounds
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.catalogue import build_network
from medfed.models.loss import cross_entropy
from medfed.models.training import train
from medfed.spec.loading import task_of


def test_fedsgd_equals_pooled_gradient_descent() -> None:
    sites = unequal_sites(a=13, b=140, c=47)
    federation = {"batch_size": "full", "local_updates": 1, "rounds": 30, "lr": 0.5}
    before, after = trained(task("fedavg", **federation), sites)

    x, y = (np.concatenate([data[part] for data in sites.values()]) for part in (0, 1))
    pooled = before.astype(np.float64)
    for _ in range(30):
        pooled -= 0.5 * gradient(pooled, x, y)

    assert np.abs(pooled - before).max() > 0.1
    np.testing.assert_allclose(after, pooled, rtol=0, atol=1e-6)


def test_mean_is_weighted_by_rows() -> None:
    fed = federation_of(
        QuadraticSite("a", [1.0], [4.0], rows=30, lr=0.5, updates=1),
        QuadraticSite("b", [2.0], [-1.0], rows=10, lr=0.25, updates=2),
    )
    (_, state) = run_rounds(FedAvg(float32(2.0), rounds=1), fed, 1)
    y_a = 2.0 - 0.5 * (2.0 - 4.0)
    y_b = 2.0 - 0.25 * 2.0 * (2.0 + 1.0)
    y_b -= 0.25 * 2.0 * (y_b + 1.0)
    assert state.weights.tolist() == [(30 * y_a + 10 * y_b) / 40]
    assert state.change == pytest.approx(abs(state.weights[0] - 2.0) / 2.0)


@pytest.mark.parametrize("size", [0, 5, 2**16, 200_001, LARGE + 3])
def test_weights_move_by_the_total_and_their_change_is_that_of_the_weights(size: int) -> None:
    weights, total = np.random.default_rng(size).standard_normal((2, size), np.float32)
    kept, expected = weights.copy(), weights + np.float32(0.25) * total
    after, change = moved(weights, total, 0.25)
    assert after is total
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(weights, kept)
    norms = (np.linalg.norm(each.astype(np.float64)) for each in (expected - weights, weights))
    assert change == relative_change(weights, expected) == pytest.approx(next(norms) / max(next(norms), 1e-12), 1e-5)


def test_weights_that_rounding_keeps_have_not_changed() -> None:
    """Half of an ulp and less moves no float32: a run with tolerance 0 ends there."""
    assert moved(float32(1.0, -2.0), float32(1e-9, 1e-9), 1.0)[1] == 0


@pytest.mark.parametrize("longer", [1, 2**16])
def test_a_total_of_another_length_is_an_error(longer: int) -> None:
    weights = np.zeros(2**16, np.float32)
    with pytest.raises(ValueError, match="cannot become one of"):
        moved(weights, np.zeros(weights.size + longer, np.float32), 1.0)


def test_only_the_cohort_counts() -> None:
    fed = federation_of(
        QuadraticSite("a", [1.0], [4.0], rows=30, lr=0.5, updates=1),
        QuadraticSite("b", [1.0], [-1.0], rows=10, lr=0.5, updates=1),
        cohorts=(("b",), ("a",)),
    )
    states = run_rounds(FedAvg(float32(2.0), rounds=2), fed, 2)
    assert [state.weights.tolist() for state in states] == [[2.0], [0.5], [2.25]]


@pytest.mark.parametrize("data_position", ["kept", "fresh"])
def test_one_site_equals_local_training(data_position: str) -> None:
    """Within float32's rounding of w + (w_k − w), since the site sends its change and not its weights."""
    sites = unequal_sites(alone=53)
    described = task("fedavg", rounds=4, local_updates=5, batch_size=8, lr=0.1, data_position=data_position)
    _, after = trained(described, sites)

    spec = task_of(described).spec
    network, position = build_network(spec.model, (4,), 1, spec.seed), Position()
    for number in range(1, 5):
        shuffle = ("alone", "shuffle") if data_position == "kept" else ("alone", number, "shuffle")
        session = train(
            network,
            Examples(*sites["alone"]),
            cross_entropy(None),
            spec.federation,
            round_number=number,
            position=position if data_position == "kept" else Position(),
            optimizer=None,
            generator=lambda epoch, shuffle=shuffle: generator(spec.seed, *shuffle, epoch),
        )
        position = session.position
    np.testing.assert_allclose(after, network.vector(), rtol=0, atol=5e-7)


@pytest.mark.parametrize("delta", [np.nan, np.inf, 2.0**41])
def test_contributions_beyond_their_bound_are_found(delta: float) -> None:
    assert out_of_bounds(WeightedDelta(float32(0.0, delta), 3)) == "delta"
