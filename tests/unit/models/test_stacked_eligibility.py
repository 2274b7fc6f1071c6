from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from medfed.models.network import Network
from medfed.models.stacked import can_stack
from medfed.spec.task import TaskSpec


def task(task_type: str = "classification", **federation: object) -> TaskSpec:
    return TaskSpec.model_validate(
        {"task_type": task_type, "model": "any", "federation": {"strategy": "fedavg", **federation}}
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))


class Forward(nn.Module):
    """A linear layer and a function of the batch and of its outputs."""

    def __init__(self, function) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.linear(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1])


@pytest.mark.parametrize("task_type", ["classification", "regression"])
def test_networks_of_linear_layers_stack(task_type):
    for module in (nn.Linear(4, 1), mlp()):
        assert can_stack(Network(module), task(task_type), (4,))
    assert can_stack(Network(nn.Sequential(nn.Flatten(), nn.Linear(6, 1))), task(task_type), (2, 3))


def test_several_classes_and_optimizers_stack():
    for federation in ({"optimizer": "adam"}, {"momentum": 0.9}, {"clip_norm": 1.0}, {"class_weights": "balanced"}):
        assert can_stack(Network(nn.Linear(4, 3)), task(**federation), (4,))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Dropout(0.0), nn.Linear(5, 1)), (4,)),
        (nn.Linear(4, 1, bias=False), (4,)),
        (Forward(lambda x, z: z * torch.log1p(x.square().sum(1, keepdim=True))), (4,)),
        (Attention(), (5, 4)),
    ],
    ids=["layer norm", "no bias", "own forward", "attention"],
)
def test_other_networks_stack(module, shape):
    assert can_stack(Network(module), task(), shape)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1)), (1, 4, 4)),
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)), (4,)),
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 1)), (4,)),
        (Forward(lambda x, z: nn.functional.dropout(z, 0.5)), (4,)),
        (Forward(lambda x, z: z if x.sum() > 0 else -z), (4,)),
        (Forward(lambda x, z: z - z.mean(0)), (4,)),
        (Forward(lambda x, z: z[:, 0].nonzero().float()), (4,)),
        (Recurrent(), (5, 3)),
    ],
    ids=["convolution", "batch norm", "dropout", "random", "control flow", "across rows", "shape by data", "recurrent"],
)
def test_what_a_stack_would_train_otherwise_or_slower_is_refused(module, shape):
    assert not can_stack(Network(module), task(), shape)


def test_a_frozen_layer_is_refused():
    module = mlp()
    module[0].weight.requires_grad = False
    assert not can_stack(Network(module), task(), (4,))


def test_a_functional_convolution_is_refused():
    kernel = torch.ones(1, 1, 2)
    module = Forward(lambda x, z: z + nn.functional.conv1d(x.unsqueeze(1), kernel).mean(2))
    assert not can_stack(Network(module), task(), (4,))


@pytest.mark.parametrize(
    "federation",
    [{"precision": "bfloat16"}, {"optimizer_state": "kept"}, {"strategy": "pooled"}],
    ids=["precision", "kept state", "a baseline"],
)
def test_tasks_that_a_stack_cannot_follow_are_refused(federation):
    assert not can_stack(Network(mlp()), task(**federation), (4,))


def test_asking_answers_and_leaves_the_network_as_it_was():
    network = Network(mlp())
    before, random = network.vector(), torch.get_rng_state()
    assert can_stack(network, task(), (4,))
    assert (network.vector() == before).all()
    assert torch.equal(torch.get_rng_state(), random)


def test_asking_imports_no_compiler():
    """Which takes a second; in a process of its own, since other tests may have imported it."""
    program = """
import sys, torch
from torch import nn
from medfed.models.network import Network
from medfed.models.stacked import can_stack
from medfed.spec.task import TaskSpec
task = TaskSpec.model_validate({"task_type": "regression", "model": "any", "federation": {"strategy": "fedavg"}})
assert can_stack(Network(nn.Linear(4, 1)), task, (4,))
assert can_stack(Network(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))), task, (4,))
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
