from __future__ import annotations

import copy
import math
import subprocess
import sys
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medfed.core.errors import DataError
from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models import training
from medfed.models.batches import Position, batches
from medfed.models.catalogue import build_network
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.training import Session, learning_rate, one_thread, predict, predict_many, train
from medfed.spec.task import FederationSpec, ModelSpec

RNG = np.random.default_rng(5)
ROWS, FEATURES = 23, 4
X = RNG.normal(size=(ROWS, FEATURES)).astype(np.float32)
BINARY = Examples(X, (X[:, 0] + RNG.normal(size=ROWS) > 0).astype(np.int64))
THREE = Examples(X, RNG.integers(0, 3, ROWS))
VALUES = Examples(X, (X @ np.arange(4.0) + 1).astype(np.float32))


def federation(**settings: object) -> FederationSpec:
    return FederationSpec.model_validate({"strategy": "fedavg", "batch_size": 5, "lr": 0.1, **settings})


def order(epoch: int) -> np.random.Generator:
    return generator(0, "site", "shuffle", epoch)


def run(
    network, examples, spec, *, round_number=1, position=None, optimizer=None, transform=None, classes=2
) -> Session:
    task_type = "classification" if classes else "regression"
    return train(
        network,
        examples,
        local_loss(task_type, spec, examples, classes),
        spec,
        round_number=round_number,
        position=position or Position(),
        optimizer=optimizer,
        generator=order,
        transform=transform,
    )


def network(name: str = "logistic", outputs: int = 1, **options: object) -> Network:
    return build_network(ModelSpec.model_validate({"name": name, **options}), (FEATURES,), outputs, seed=11)


# ------------------------------------------------------------------------------------------ schedules


def test_the_learning_rate_by_closed_form():
    constant = federation(lr=0.2, rounds=5)
    steps = federation(lr=0.2, rounds=9, schedule={"name": "step", "step": 3, "gamma": 0.5})
    cosine = federation(lr=0.2, rounds=5, schedule={"name": "cosine", "floor": 0.1})
    assert [learning_rate(constant, r) for r in range(1, 6)] == [0.2] * 5
    found = [learning_rate(steps, r) for r in range(1, 10)]
    assert found == pytest.approx([0.2] * 3 + [0.1] * 3 + [0.05] * 3)
    found = [learning_rate(cosine, r) for r in range(1, 6)]
    half = math.sqrt(0.5)
    shares = [1, (1 + half) / 2, 0.5, (1 - half) / 2, 0]
    assert found == pytest.approx([0.2 * (0.1 + 0.9 * share) for share in shares])
    assert learning_rate(federation(lr=0.2, rounds=1, schedule="cosine"), 1) == 0.2


@given(st.integers(2, 60), st.floats(0, 1))
def test_the_cosine_falls_from_lr_to_its_floor(rounds, floor):
    spec = federation(lr=0.3, rounds=rounds, schedule={"name": "cosine", "floor": floor})
    rates = [learning_rate(spec, r) for r in range(1, rounds + 1)]
    assert rates[0] == pytest.approx(0.3)
    assert rates[-1] == pytest.approx(0.3 * floor, abs=1e-15)
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(rates))


# ------------------------------------------------------------------------------------------ against a plain loop


def plain_loop(module, examples, spec, updates, criterion) -> np.ndarray:
    """The textbook loop over the same batches, with the library's modules, optimizer and clipping."""
    options = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    if spec.optimizer == "adam":
        optimizer = torch.optim.Adam(module.parameters(), **options)
    else:
        optimizer = torch.optim.SGD(module.parameters(), momentum=spec.momentum, **options)
    size = len(examples) if spec.batch_size == "full" else spec.batch_size
    for index, _ in islice(batches(len(examples), size, Position(), order), updates):
        optimizer.zero_grad()
        criterion(
            module(torch.from_numpy(examples.features[index])), torch.from_numpy(examples.targets[index])
        ).backward()
        if spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), spec.clip_norm)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()


def binary_loss(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.BCEWithLogitsLoss()(out[:, 0], targets.float())


CASES = [
    ("logistic", {}, BINARY, 2, 1, binary_loss),
    ("mlp", {"hidden": [6, 3]}, BINARY, 2, 1, binary_loss),
    ("mlp", {"hidden": [6]}, THREE, 3, 3, nn.CrossEntropyLoss()),
    ("linear", {}, VALUES, 0, 1, lambda out, targets: nn.MSELoss()(out[:, 0], targets)),
]
SETTINGS = [
    {"local_epochs": 3},
    {"local_updates": 7, "momentum": 0.9, "weight_decay": 0.05},
    {"local_epochs": 2, "optimizer": "adam", "lr": 0.01},
    {"local_updates": 4, "batch_size": "full"},
    {"local_epochs": 2, "clip_norm": 0.05},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[4]}")
def test_training_is_the_textbook_loop_over_the_same_batches(case, settings):
    name, options, examples, classes, outputs, criterion = case
    spec, ours = federation(**settings), network(name, outputs, **options)
    plain = copy.deepcopy(ours.module)
    for parameter in plain.parameters():
        parameter.data, parameter.grad = parameter.data.clone(), None
    session = run(ours, examples, spec, classes=classes)
    expected = plain_loop(plain, examples, spec, session.trained.updates, criterion)
    np.testing.assert_allclose(session.trained.weights, expected, rtol=1e-4, atol=2e-6)


def test_rounds_joined_by_position_and_optimizer_state_are_one_long_training():
    spec = federation(local_updates=3, momentum=0.9)
    rounds = network()
    position = optimizer = None
    for number in (1, 2, 3):
        session = run(rounds, BINARY, spec, round_number=number, position=position, optimizer=optimizer)
        position, optimizer = session.position, session.optimizer
    long = run(network(), BINARY, federation(local_updates=9, momentum=0.9))
    assert session.trained.weights.tobytes() == long.trained.weights.tobytes()
    assert session.position == long.position


def test_the_same_training_gives_the_same_bits():
    spec = federation(local_epochs=2, optimizer="adam")
    first, second = (run(network("mlp", hidden=[8]), BINARY, spec) for _ in range(2))
    assert first.trained.weights.tobytes() == second.trained.weights.tobytes()


# ------------------------------------------------------------------------------------------ counts, clipping, transform


@pytest.mark.parametrize(
    ("settings", "updates", "position"),
    [
        ({}, 5, Position(1, 0)),
        ({"local_epochs": 2}, 10, Position(2, 0)),
        ({"local_updates": 3}, 3, Position(0, 15)),
        ({"local_updates": 7}, 7, Position(1, 10)),
        ({"local_epochs": 4, "batch_size": "full"}, 4, Position(4, 0)),
        ({"local_epochs": 4, "batch_size": 1000}, 4, Position(4, 0)),
        ({"local_epochs": 1, "batch_size": 1}, 23, Position(1, 0)),
    ],
    ids=str,
)
def test_local_epochs_and_updates_count_batches(settings, updates, position):
    session = run(network(), BINARY, federation(**settings))
    assert (session.trained.updates, session.trained.rows, session.position) == (updates, ROWS, position)
    assert session.optimizer.steps == updates


def test_the_rate_used_is_the_rounds():
    spec = federation(lr=0.2, rounds=3, schedule={"name": "step", "step": 1, "gamma": 0.5})
    assert [run(network(), BINARY, spec, round_number=r).trained.lr for r in (1, 2, 3)] == [0.2, 0.1, 0.05]


def gradients_seen(settings: dict[str, object], scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(the step that was taken divided by -lr, the gradient before clipping), of one full batch."""
    seen = []

    def transform(gradient: torch.Tensor, weights: torch.Tensor) -> None:
        gradient.mul_(scale)
        seen.append(gradient.clone().numpy())

    net = network()
    before = net.vector()
    after = run(net, BINARY, federation(local_updates=1, batch_size="full", **settings), transform=transform)
    return (before - after.trained.weights) / 0.1, seen[0]


def test_clipping_shortens_a_long_gradient_to_the_norm_and_leaves_a_short_one():
    step, gradient = gradients_seen({"clip_norm": 0.01})
    assert np.linalg.norm(step) == pytest.approx(0.01, rel=1e-4)
    np.testing.assert_allclose(step, gradient * 0.01 / np.linalg.norm(gradient), rtol=1e-3, atol=1e-6)
    step, gradient = gradients_seen({"clip_norm": 100.0})
    np.testing.assert_allclose(step, gradient, rtol=1e-4, atol=1e-6)
    step, gradient = gradients_seen({"clip_norm": 1.0}, scale=0.0)
    assert not step.any()


def test_the_transform_changes_the_gradient_before_clipping_and_sees_the_weights():
    net, seen = network(), []
    start = net.vector()

    def anchor(gradient: torch.Tensor, weights: torch.Tensor) -> None:
        seen.append(weights.clone().numpy())
        gradient.copy_(torch.arange(5.0))

    session = run(net, BINARY, federation(local_updates=1, clip_norm=1.0), transform=anchor)
    np.testing.assert_array_equal(seen[0], start)
    expected = start - 0.1 * np.arange(5.0) / np.sqrt(30.0)
    np.testing.assert_allclose(session.trained.weights, expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------ what goes wrong


def test_divergence_is_explained():
    huge = Examples(VALUES.features * 1e6, VALUES.targets)
    with pytest.raises(DataError, match="training diverged") as caught:
        run(network("linear"), huge, federation(lr=1e6, local_epochs=20), classes=0)
    assert caught.value.remedy == "lower federation.lr"


def test_no_rows_are_explained():
    empty = Examples(np.empty((0, FEATURES), np.float32), np.empty(0, np.int64))
    with pytest.raises(DataError, match="no training rows"):
        run(network(), empty, federation())


def test_threads_are_one_while_training_and_restored_after_it_even_where_it_fails():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inside = []
        run(network(), BINARY, federation(), transform=lambda g, w: inside.append(torch.get_num_threads()))
        assert set(inside) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_scores_are_computed_to_their_end_with_one_thread(monkeypatch):
    """A softmax over two threads leaves one of them spinning, on the core where another process works."""
    before, inside, of = torch.get_num_threads(), [], training._scores_of

    def watched(outputs, task_type):
        inside.append(torch.get_num_threads())
        return of(outputs, task_type)

    monkeypatch.setattr(training, "_scores_of", watched)
    torch.set_num_threads(2)
    try:
        predict(network(), BINARY, "classification")
        predict_many(network(), [BINARY, BINARY], "classification")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert inside == [1, 1]


# ------------------------------------------------------------------------------------------ convolutions, precision

IMAGES = Examples(RNG.normal(size=(40, 1, 12, 10)).astype(np.float32), np.arange(40) % 2)
IMAGES.features[1::2, :, :6] += 1.0


def cnn() -> Network:
    return build_network(ModelSpec(name="cnn"), (1, 12, 10), 1, seed=3)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_convolutions_train_as_in_the_textbook_loop(settings):
    spec, ours = federation(**settings), cnn()
    plain = copy.deepcopy(ours.module)
    session = run(ours, IMAGES, spec)
    expected = plain_loop(plain, IMAGES, spec, session.trained.updates, binary_loss)
    np.testing.assert_allclose(session.trained.weights, expected, rtol=1e-3, atol=2e-5)


def mean_loss(net: Network, examples: Examples) -> float:
    p = predict(net, examples, "classification").scores
    return float(-np.log(np.where(examples.targets == 1, p, 1 - p)).mean())


@pytest.mark.parametrize(
    ("build", "examples"), [(cnn, IMAGES), (lambda: network("mlp", hidden=[16]), BINARY)], ids=["cnn", "mlp"]
)
def test_bfloat16_trains_nearly_as_float32_does(build, examples):
    """Its eight bits of mantissa give the way to go to a few per cent; weights and their sums remain float32."""
    nets = {"start": build(), "float32": build(), "bfloat16": build()}
    for precision in ("float32", "bfloat16"):
        run(nets[precision], examples, federation(local_epochs=8, lr=0.02, precision=precision))
    losses = {name: mean_loss(net, examples) for name, net in nets.items()}
    assert losses["float32"] < 0.8 * losses["start"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.02 * (losses["start"] - losses["float32"]))
    start, exact, rounded = (net.vector() for net in nets.values())
    assert 0 < np.linalg.norm(rounded - exact) < 0.1 * np.linalg.norm(exact - start)
    assert rounded.dtype == np.float32
    assert federation().precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_forward_passes_alone_are_in_the_tasks_precision(precision):
    net, seen = network("mlp"), []
    net.module[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run(
        net,
        BINARY,
        federation(precision=precision, local_updates=2),
        transform=lambda g, w: seen.extend([g.dtype, w.dtype]),
    )
    predict(net, BINARY, "classification")
    assert seen == [getattr(torch, precision), torch.float32, torch.float32] * 2 + [torch.float32]


THREE_MODELS = """
import resource, sys
import numpy as np, torch
from torch import nn
from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.loss import squared_error
from medfed.models.network import Network
from medfed.models.training import train
from medfed.spec.task import FederationSpec

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def session(network):
    return train(network, examples, squared_error, federation, round_number=1, position=Position(), optimizer=None,
                 generator=lambda epoch: generator(0, epoch))

federation = FederationSpec(strategy={"name": "fedavg"}, local_updates=2, lr=1e-6)
examples = Examples(np.ones((4, 1000), np.float32), np.zeros(4, np.float32))
session(Network(nn.Linear(1000, 1)))
network = Network(nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(16)), nn.Linear(1000, 1)))
network.load(network.vector())
before = peak()
session(network)
print((peak() - before) / (4 * network.size))
"""


def test_a_site_holds_three_models_what_came_its_own_and_the_gradient_or_the_outcome():
    """Two models are the peak before: the network's own, and what it loads. Of the latter's room, which is free again,
    first the gradient takes its share, then the outcome; more is needed for the gradient of a layer alone."""
    done = subprocess.run([sys.executable, "-c", THREE_MODELS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.6


# ------------------------------------------------------------------------------------------ predictions


class Fixed(nn.Module):
    """Outputs that are the first columns of the input."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, : len(self.scale)] * self.scale


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("rows", [0, 1, ROWS])
@pytest.mark.parametrize(
    ("outputs", "task_type", "expected"),
    [
        (1, "classification", lambda x: 1 / (1 + np.exp(-x[:, 0]))),
        (2, "classification", lambda x: softmax(x[:, :2])[:, 1]),
        (3, "classification", lambda x: softmax(x[:, :3])),
        (1, "regression", lambda x: x[:, 0]),
    ],
)
def test_scores_by_outputs_and_task(rows, outputs, task_type, expected):
    examples = Examples(X[:rows], BINARY.targets[:rows])
    found = predict(Network(Fixed(outputs)), examples, task_type)
    wanted = expected(X[:rows].astype(np.float64))
    assert found.scores.dtype == np.float64
    assert found.scores.shape == wanted.shape == ((rows, 3) if outputs == 3 else (rows,))
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-12)
    assert found.targets is examples.targets


def test_predicting_does_not_train():
    module = nn.Sequential(nn.Linear(FEATURES, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
    net = Network(module)
    before = net.vector()
    first, second = (predict(net, BINARY, "classification").scores for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(net.vector(), before)
    assert not net.gradient.any()


def test_many_rows_are_scored_in_parts_to_the_same_numbers():
    x = RNG.normal(size=(10_000, FEATURES)).astype(np.float32)
    found = predict(network("linear"), Examples(x, np.zeros(10_000, np.float32)), "regression").scores
    weights = network("linear").vector().astype(float)
    np.testing.assert_allclose(found, x @ weights[:FEATURES] + weights[FEATURES], rtol=1e-4, atol=1e-5)


class Recorded(nn.Module):
    """One weight, and the number of rows of each batch that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return x.flatten(1).mean(1, keepdim=True) * self.weight


@pytest.mark.parametrize(
    ("shape", "batches"),
    [
        ((5000, 3), [4096, 904]),
        ((3000, 1, 28, 28), [1337, 1337, 326]),
        ((13, 3, 300, 300), [3, 3, 3, 3, 1]),
        ((2, 3, 1000, 1000), [1, 1]),
        ((0, 3), [1]),
    ],
    ids=str,
)
def test_rows_are_scored_in_batches_of_bounded_size(shape, batches):
    network, x = Network(Recorded()), RNG.random(shape, np.float32)
    found = predict(network, Examples(x, np.zeros(len(x), np.float32)), "regression").scores
    assert network.module.rows == batches
    np.testing.assert_allclose(found, x.reshape(len(x), math.prod(shape[1:])).mean(1), rtol=1e-4)


@given(st.lists(st.integers(0, 30), max_size=6), st.sampled_from([(1, 2), (2, 2), (3, 3), (1, 0)]))
def test_several_sites_scored_together_are_scored_alike(sizes, outputs_and_classes):
    outputs, classes = outputs_and_classes
    task_type = "classification" if classes else "regression"
    net, rng = network("mlp", outputs, hidden=[5]), np.random.default_rng(sum(sizes))
    sites = [Examples(rng.normal(size=(n, FEATURES)).astype(np.float32), rng.integers(0, 2, n)) for n in sizes]
    together = predict_many(net, sites, task_type)
    assert len(together) == len(sites)
    for found, examples in zip(together, sites, strict=True):
        alone = predict(net, examples, task_type)
        assert found.scores.shape == alone.scores.shape
        np.testing.assert_allclose(found.scores, alone.scores, rtol=0, atol=1e-6)
        assert found.targets is examples.targets


def test_a_network_with_batch_norm_trains_and_its_statistics_travel_with_the_weights():
    net = Network(nn.Sequential(nn.Linear(FEATURES, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    session = run(net, BINARY, federation(local_epochs=2, batch_size=6))
    scores = predict(net, BINARY, "classification").scores
    other = Network(nn.Sequential(nn.Linear(FEATURES, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    other.load(session.trained.weights)
    np.testing.assert_array_equal(predict(other, BINARY, "classification").scores, scores)


def test_no_rows_are_scored_by_a_network_that_flattens_by_view():
    class Flattening(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, inputs):
            return self.linear(inputs.view(inputs.size(0), -1))

    none = Examples(np.empty((0, 1, 2, 2), np.float32), np.empty(0, np.int64))
    assert predict(Network(Flattening()), none, "classification").scores.shape == (0, 3)
