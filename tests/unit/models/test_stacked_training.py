"""A stack of sites against the same sites one after the other, through rounds of federated averaging."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medfed.algorithms.fedprox import Anchor, proximal
from medfed.algorithms.scaffold import correction
from medfed.core.errors import CodecError, DataError
from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models.batches import Position
from medfed.models.loss import local_loss
from medfed.models.network import Network
from medfed.models.optimizers import OptimizerState
from medfed.models.stacked import Member, StackTrainer
from medfed.models.training import train
from medfed.spec.task import FederationSpec

ROUNDS = 20


@dataclass(frozen=True)
class Case:
    """A federation to train: its network, its task, the rows of its sites, and how they train."""

    module: nn.Module
    shape: tuple[int, ...]
    task_type: str
    classes: int
    rows: tuple[int, ...]
    federation: FederationSpec
    transform: str = "none"


def federation(**fields: object) -> FederationSpec:
    return FederationSpec.model_validate({"strategy": "fedavg", "rounds": ROUNDS, "lr": 0.02, **fields})


def sites(case: Case) -> list[Examples]:
    draw = np.random.default_rng(len(case.rows))
    found = []
    for n in case.rows:
        features = draw.normal(size=(n, *case.shape)).astype(np.float32)
        targets = draw.integers(0, case.classes, n) if case.classes else draw.normal(size=n).astype(np.float32)
        found.append(Examples(features, targets))
    return found


def transform_of(case: Case, weights: np.ndarray, site: int | None):
    """The transform of one site, or of all where ``site`` is None."""
    if case.transform == "proximal":
        return proximal(Anchor(weights, mu=0.5))
    if case.transform == "correction":
        differences = 0.1 * np.random.default_rng(7).normal(size=(len(case.rows), len(weights))).astype(np.float32)
        return correction(differences if site is None else differences[site])
    return None


def order_of(site: int):
    return lambda epoch: generator(3, f"site {site}", epoch)


def one_after_the_other(case: Case, network: Network, weights: np.ndarray, positions: list[Position], number: int):
    for k, (examples, position) in enumerate(zip(sites(case), positions, strict=True)):
        network.load(weights)
        yield train(
            network,
            examples,
            local_loss(case.task_type, case.federation, examples, case.classes),
            case.federation,
            round_number=number,
            position=position,
            optimizer=None,
            generator=order_of(k),
            transform=transform_of(case, weights, k),
        )


def together(case: Case, trainer: StackTrainer, weights: np.ndarray, positions: list[Position], number: int):
    members = [Member(e, p, order_of(k)) for k, (e, p) in enumerate(zip(sites(case), positions, strict=True))]
    return trainer.train(weights, members, round_number=number, transform=transform_of(case, weights, None))


def average(sessions) -> np.ndarray:
    rows = np.array([s.trained.rows for s in sessions], np.float32)
    return np.average([s.trained.weights for s in sessions], axis=0, weights=rows).astype(np.float32)


def assert_a_stack_trains_as_its_sites_alone(case: Case, rounds: int = ROUNDS) -> None:
    network = Network(case.module)
    trainer = StackTrainer(network, case.task_type, case.federation, case.classes)
    stacked = alone = network.vector()
    stacked_at = alone_at = [Position()] * len(case.rows)
    for number in range(1, rounds + 1):
        ones = list(one_after_the_other(case, network, alone, alone_at, number))
        many = together(case, trainer, stacked, stacked_at, number)
        alone, stacked = average(ones), average(many)
        alone_at, stacked_at = [s.position for s in ones], [s.position for s in many]
        assert stacked_at == alone_at
    np.testing.assert_allclose(stacked, alone, rtol=0, atol=1e-6)
    for a, b in zip(many, ones, strict=True):
        np.testing.assert_allclose(a.trained.weights, b.trained.weights, rtol=0, atol=1e-6)
        assert (a.trained.updates, a.trained.rows, a.trained.lr) == (b.trained.updates, b.trained.rows, b.trained.lr)
        assert a.optimizer.steps == b.optimizer.steps
        for moment, expected in zip(a.optimizer.moments, b.optimizer.moments, strict=True):
            np.testing.assert_allclose(moment, expected, rtol=0, atol=1e-5)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    task_type, classes = draw(st.sampled_from([("regression", 0), ("classification", 2), ("classification", 3)]))
    shape = draw(st.sampled_from([(1,), (5,), (2, 3)]))
    outputs = classes if classes > 2 else 1
    widths = [int(np.prod(shape)), *draw(st.lists(st.integers(1, 8), max_size=2)), outputs]
    torch.manual_seed(draw(st.integers(0, 99)))
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    for i, o in pairwise(widths[:-1]):
        layers += [nn.Linear(i, o), nn.ReLU()]
    weights: object = "none"
    if classes:
        weights = draw(st.sampled_from(["none", "balanced", tuple(0.5 + c for c in range(classes))]))
    optimizer = draw(
        st.sampled_from(
            [{}, {}, {"momentum": 0.9, "lr": 0.005}, {"weight_decay": 0.1}, {"optimizer": "adam", "lr": 1e-3}]
        )
    )
    length = draw(
        st.sampled_from([{"local_epochs": 1}, {"local_epochs": 2}, {"local_updates": 1}, {"local_updates": 7}])
    )
    return Case(
        module=nn.Sequential(*layers, nn.Linear(widths[-2], outputs)),
        shape=shape,
        task_type=task_type,
        classes=classes,
        rows=tuple(draw(st.lists(st.integers(1, 14), min_size=1, max_size=4))),
        federation=federation(
            batch_size=draw(st.sampled_from([1, 3, 4, 10, "full"])),
            class_weights=weights,
            clip_norm=draw(st.sampled_from([None, None, 0.3])),
            schedule=draw(st.sampled_from(["constant", "cosine"])),
            **(optimizer | length),
        ),
        transform=draw(st.sampled_from(["none", "none", "proximal", "correction"])),
    )


@settings(max_examples=30, derandomize=True)  # Adam makes a full step of a gradient that is rounding alone
@given(cases())
def test_linear_and_relu_networks_train_in_a_stack_as_alone(case):
    assert_a_stack_trains_as_its_sites_alone(case)


@pytest.mark.parametrize("transform", ["none", "correction"])
def test_a_stack_much_longer_than_its_chunks_trains_as_alone(monkeypatch, transform):
    monkeypatch.setattr("medfed.models.stacked.padding._CHUNK", 64)
    case = Case(
        nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)),
        (4,),
        "classification",
        2,
        (3, 40, 17),
        federation(batch_size=2, optimizer="adam", lr=1e-3),
        transform,
    )
    assert_a_stack_trains_as_its_sites_alone(case, rounds=3)


class Branches(nn.Module):
    """Two branches over parts of the input, one of them a table of embeddings, joined and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3)
        self.branch = nn.Linear(3, 4, bias=False)
        self.norm = nn.LayerNorm(7)
        self.head = nn.Linear(7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x[:, 0].abs().clamp(max=3).long()
        joined = torch.cat([self.table(level), torch.tanh(self.branch(x[:, 1:]))], dim=1)
        return self.head(self.norm(joined))


def captured_cases(rows: tuple[int, ...] = (9, 4, 12)) -> list[Case]:
    def tanh(outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs))

    plain = federation(batch_size=4)
    adam = federation(batch_size="full", local_updates=3, optimizer="adam", lr=1e-3)
    return [
        Case(tanh(1), (2, 3), "regression", 0, rows, plain),
        Case(tanh(3), (2, 3), "classification", 3, rows, federation(batch_size=4, class_weights="balanced")),
        Case(Branches(), (4,), "classification", 2, rows, plain),
        Case(Branches(), (4,), "classification", 2, rows, adam, "correction"),
        Case(tanh(1), (6,), "classification", 2, rows, federation(batch_size=5, momentum=0.9, clip_norm=0.5)),
    ]


@pytest.mark.parametrize("case", captured_cases(), ids=range(5))
def test_any_other_network_trains_in_a_stack_as_alone(case):
    assert_a_stack_trains_as_its_sites_alone(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", captured_cases(), ids=range(5))
def test_a_compiled_network_trains_in_a_stack_as_alone(case, monkeypatch):
    monkeypatch.setattr("medfed.models.stacked.choice._REPAYS", 0)
    assert_a_stack_trains_as_its_sites_alone(case)


def test_where_compiling_fails_the_captured_graph_is_replayed(monkeypatch):
    def no_compiler(*_args: object, **_options: object) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr("medfed.models.stacked.choice._REPAYS", 0)
    monkeypatch.setattr(torch, "compile", no_compiler)
    assert_a_stack_trains_as_its_sites_alone(captured_cases()[0], rounds=2)


def logistic_stack(rows: list[int], lr: float = 0.1, **fields: object):
    network = Network(nn.Linear(3, 1))
    case = Case(network.module, (3,), "classification", 2, tuple(rows), federation(lr=lr, **fields))
    trainer = StackTrainer(network, "classification", case.federation, 2)
    return network, [Member(e, Position(), order_of(k)) for k, e in enumerate(sites(case))], trainer


def test_a_member_without_rows_is_a_data_error():
    network, members, trainer = logistic_stack([4, 0])
    with pytest.raises(DataError, match="no training rows"):
        trainer.train(network.vector(), members, round_number=1)


def test_divergence_of_one_member_is_a_data_error():
    network, members, trainer = logistic_stack([6, 6], lr=1e30, local_updates=40)
    members[1].examples.features[:] *= 1e30
    with pytest.raises(DataError, match="diverged"):
        trainer.train(network.vector(), members, round_number=1)
    assert len(trainer.train(network.vector() * 0, members[:1], round_number=1)) == 1


def test_weights_of_another_model_are_refused():
    _, members, trainer = logistic_stack([4])
    with pytest.raises(CodecError):
        trainer.train(np.zeros(3, np.float32), members, round_number=1)


def test_training_leaves_what_it_is_given_unchanged():
    network, members, trainer = logistic_stack([5, 8])
    weights = network.vector()
    weights.flags.writeable = False
    before = [member.examples.features.copy() for member in members]
    trainer.train(weights, members, round_number=1)
    for member, features in zip(members, before, strict=True):
        np.testing.assert_array_equal(member.examples.features, features)


def test_the_same_stack_gives_the_same_bits_again():
    network, members, trainer = logistic_stack([5, 8, 3])
    first, second = (trainer.train(network.vector() * 0, members, round_number=1) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.trained.weights, b.trained.weights)
        assert isinstance(a.optimizer, OptimizerState)
