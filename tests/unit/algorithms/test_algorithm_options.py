"""When algorithms stop, and the hyperparameters they refuse."""

import itertools
import math

import numpy as np
import pytest
from logistic_sites import task, unequal_sites
from quadratic_sites import QuadraticSite, federation_of, float32

import medfed
from medfed.algorithms.fedadam import FedAdam
from medfed.algorithms.fedavg import FedAvg
from medfed.algorithms.fedprox import FedProx
from medfed.algorithms.scaffold import Scaffold
from medfed.core.errors import TaskError

KINDS = (FedAvg, FedProx, FedAdam, Scaffold)


def run_until_done(algorithm):
    """The weights after every round."""
    fed = federation_of(
        QuadraticSite("a", [1.0, 2.0], [3.0, 1.0], rows=30, lr=0.1, updates=2),
        QuadraticSite("b", [2.0, 1.0], [5.0, 2.0], rows=20, lr=0.1, updates=2),
    )
    state = algorithm.initialize(fed)
    weights = [algorithm.result(state).weights]
    while not algorithm.done(state):
        fed.round += 1
        state = algorithm.round(fed, state)
        weights.append(algorithm.result(state).weights)
    return weights


@pytest.mark.parametrize("kind", KINDS)
def test_done_after_the_last_round(kind: type) -> None:
    assert len(run_until_done(kind(initial=float32(1.0, 1.0), rounds=4))) == 1 + 4


@pytest.mark.parametrize("kind", KINDS)
def test_done_when_the_weights_hardly_change(kind: type) -> None:
    tolerance = 1e-3
    weights = run_until_done(kind(initial=float32(1.0, 1.0), rounds=5000, tolerance=tolerance))
    changes = [np.linalg.norm(w - v) / np.linalg.norm(v) for v, w in itertools.pairwise(weights)]
    assert 2 < len(weights) < 5000
    assert changes[-1] <= tolerance < min(changes[:-1])


def test_a_run_says_that_its_weights_no_longer_change() -> None:
    described = task("fedavg", rounds=500, batch_size="full", lr=0.5) | {"stop": {"tolerance": 0.02}}
    process = medfed.build(described, unequal_sites(a=40, b=50))
    state = process.initialize()
    while not process.done(state):
        state, _ = process.next(state)
    assert 1 < state.round < 500
    assert state.stopped == "the model's weights no longer change"


BAD = [
    *((FedProx, "mu", value) for value in (-0.1, math.nan, math.inf)),
    *((FedAdam, name, value) for name in ("lr", "tau") for value in (0.0, -1.0, math.nan, math.inf)),
    *((FedAdam, name, value) for name in ("beta1", "beta2") for value in (-0.1, 1.0, math.nan)),
    *((Scaffold, "lr", value) for value in (0.0, -1.0, math.nan, math.inf)),
    (Scaffold, "weighting", "patients"),
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_impossible_hyperparameters_are_refused(kind: type, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        kind(initial=float32(0.0), rounds=1, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_they_are_told_before_anything_runs(kind: type, name: str, value: object) -> None:
    with pytest.raises(TaskError, match=name):
        medfed.build(task({"name": kind.__name__.lower(), name: value}), unequal_sites(a=20, b=20))
