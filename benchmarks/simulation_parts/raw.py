"""The raw loop: what one writes in PyTorch by hand, and against which all is measured. It is fixed.

One thread; ``torch.optim.SGD(foreach=True)``, built anew for each site and round; tensor indexing; autograd; the mean
of the sites' states by their training rows. It draws its own permutations and cohorts, and uses nothing of MedFed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.simulation_parts.workloads import SEED, Part, Workload

Order = Callable[[int, int, int], torch.Tensor]
"""(site, epoch, rows) → the order in which the epoch visits the rows."""

State = dict[str, torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]
Visits = list[Iterator[Batch]]


def raw(work: Workload) -> list[float]:
    """The clock at the end of each round of training and averaging."""
    return [end for end, _ in rounds(work)]


def raw_evaluates(work: Workload) -> list[float]:
    """The same, with loss and accuracy of each site that took part, on its test rows, after each round."""
    return [end for end, _ in rounds(work, evaluates=True)]


def own_order(site: int, epoch: int, rows: int) -> torch.Tensor:
    """A fresh permutation."""
    return torch.randperm(rows)


def rounds(work: Workload, *, evaluates: bool = False, order: Order = own_order) -> Iterator[tuple[float, State]]:
    """After each round: the clock, and the model's state."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = network(work)
    sites = [work.site(index) for index in range(work.sites)]
    visits = [batches(work, index, tensors(site.train), order) for index, site in enumerate(sites)]
    tests = [tensors(site.test) for site in sites]
    sizes = [len(site.train) for site in sites]
    train = {"fedavg": averaged, "fedprox": proximal, "scaffold": Scaffold(model, work).train}[work.strategy["name"]]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = np.random.default_rng(SEED)
    for _ in range(work.rounds):
        if work.taking_part == work.sites:
            cohort = list(range(work.sites))
        else:
            cohort = sorted(generator.choice(work.sites, work.taking_part, replace=False).tolist())
        state = train(work, model, state, cohort, visits, sizes)
        if evaluates:
            model.load_state_dict(state)
            evaluate(model, [tests[index] for index in cohort])
        yield time.monotonic(), state


def network(work: Workload) -> nn.Module:
    """The workload's network, its layers in the order of the task's model, so that a seed gives the same weights."""
    outputs = work.classes if work.classes > 2 else 1
    if work.model["name"] == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(3136, 64),
            nn.ReLU(),
            nn.Linear(64, outputs),
        )
    (width,) = work.shape
    layers: list[nn.Module] = []
    for hidden in work.model.get("hidden", ()):
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy on one logit, cross-entropy on several."""
    if outputs.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())
    return functional.cross_entropy(outputs, targets)


def tensors(part: Part) -> Batch:
    """A part's rows as tensors."""
    return torch.from_numpy(part.features), torch.from_numpy(part.targets)


def batches(work: Workload, site: int, data: Batch, order: Order) -> Iterator[Batch]:
    """A site's batches without end; a round goes on where the last one stopped."""
    features, targets = data
    epoch = 0
    while True:
        for index in torch.split(order(site, epoch, len(targets)), work.batch):
            yield features[index], targets[index]
        epoch += 1


def averaged(
    work: Workload, model: nn.Module, state: State, cohort: Sequence[int], visits: Visits, sizes: Sequence[int]
) -> State:
    """A round of federated averaging."""
    total = {name: torch.zeros_like(value) for name, value in state.items()}
    for site in cohort:
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, foreach=True)
        for features, targets in islice(visits[site], work.updates(sizes[site])):
            optimizer.zero_grad()
            loss_of(model(features), targets).backward()
            optimizer.step()
        accumulate(total, model, sizes[site])
    return mean(total, cohort, sizes)


def proximal(
    work: Workload, model: nn.Module, state: State, cohort: Sequence[int], visits: Visits, sizes: Sequence[int]
) -> State:
    """A round of FedProx: each step's gradient has μ (w − w_t) added."""
    total = {name: torch.zeros_like(value) for name, value in state.items()}
    anchor, parameters = list(state.values()), list(model.parameters())
    for site in cohort:
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(parameters, lr=work.lr, foreach=True)
        for features, targets in islice(visits[site], work.updates(sizes[site])):
            optimizer.zero_grad()
            loss_of(model(features), targets).backward()
            with torch.no_grad():
                drift = torch._foreach_sub(parameters, anchor)
                torch._foreach_add_([p.grad for p in parameters], drift, alpha=work.strategy["mu"])
            optimizer.step()
        accumulate(total, model, sizes[site])
    return mean(total, cohort, sizes)


class Scaffold:
    """SCAFFOLD with option II and a server step of 1; sites count by their rows."""

    def __init__(self, model: nn.Module, work: Workload) -> None:
        self.central = [torch.zeros_like(p) for p in model.parameters()]
        self.own = [[torch.zeros_like(p) for p in model.parameters()] for _ in range(work.sites)]

    @torch.no_grad()
    def train(
        self,
        work: Workload,
        model: nn.Module,
        state: State,
        cohort: Sequence[int],
        visits: Visits,
        sizes: Sequence[int],
    ) -> State:
        """A round: each step's gradient has c − c_i added."""
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        change = [torch.zeros_like(c) for c in self.central]
        start, parameters = list(state.values()), list(model.parameters())
        for site in cohort:
            model.load_state_dict(state)
            optimizer = torch.optim.SGD(parameters, lr=work.lr, foreach=True)
            correction = torch._foreach_sub(self.central, self.own[site])
            updates = work.updates(sizes[site])
            for features, targets in islice(visits[site], updates):
                optimizer.zero_grad()
                with torch.enable_grad():
                    loss = loss_of(model(features), targets)
                loss.backward()
                torch._foreach_add_([p.grad for p in parameters], correction)
                optimizer.step()
            moved = torch._foreach_sub(start, parameters)
            torch._foreach_mul_(moved, 1 / (updates * work.lr))
            torch._foreach_sub_(moved, self.central)
            torch._foreach_add_(self.own[site], moved)
            torch._foreach_add_(change, moved, alpha=sizes[site])
            accumulate(total, model, sizes[site])
        share = len(cohort) / work.sites / sum(sizes[site] for site in cohort)
        torch._foreach_add_(self.central, change, alpha=share)
        return mean(total, cohort, sizes)


def accumulate(total: State, model: nn.Module, rows: int) -> None:
    """Add a site's state, weighted by its training rows."""
    for name, value in model.state_dict().items():
        total[name].add_(value, alpha=rows)


def mean(total: State, cohort: Sequence[int], sizes: Sequence[int]) -> State:
    """The weighted mean of the sites' states."""
    rows = sum(sizes[site] for site in cohort)
    return {name: value / rows for name, value in total.items()}


@torch.no_grad()
def evaluate(model: nn.Module, tests: Sequence[Batch]) -> list[tuple[float, float]]:
    """Loss and accuracy on each site's test rows."""
    found = []
    for features, targets in tests:
        outputs = model(features)
        predicted = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
        found.append((loss_of(outputs, targets).item(), (predicted == targets).float().mean().item()))
    return found
