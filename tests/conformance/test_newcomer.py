"""A newcomer adds an algorithm as one file in a package of their own: it runs, and the tests here test it unasked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from conformance_runs import hospitals
from safetensors.numpy import load_file

import medfed

FEDAVGM = '''
"""FedAvgM: Hsu et al. 2019, server momentum v ← βv + Δ_t, w ← w + v over federated averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medfed.core.messages import Message, Vector, adds
from medfed.core.protocols import Federation, Law, ModelWeights, SiteContext
from medfed.core.steps import Release, step


@dataclass(frozen=True, eq=False)
class Start(Message, wire="fedavgm.start"):
    weights: Vector


@dataclass(frozen=True, eq=False)
class Change(Message, wire="fedavgm.change"):
    delta: Vector = adds(bound=2.0**40, resolution=2.0**-16)
    rows: int = adds(bound=2.0**31)


@step(releases=Release.SUM)
def train_from(site: SiteContext, message: Start) -> Change:
    trained = site.train(message.weights)
    return Change(np.float32(trained.rows) * (trained.weights - message.weights), trained.rows)


@dataclass(frozen=True, eq=False)
class FedAvgMState(Message, wire="fedavgm.state"):
    round: int
    weights: Vector
    velocity: Vector


@dataclass(frozen=True, eq=False)
class FedAvgM:
    """Federated averaging with server momentum. momentum: β."""

    REQUIRES: ClassVar = ()
    LAWS: ClassVar = frozenset({Law.SITE_ORDER, Law.RESUME})
    STEPS: ClassVar = (train_from,)
    ASKS: ClassVar = False
    PLAIN_SGD: ClassVar = False
    AVERAGES: ClassVar = False

    initial: Vector
    rounds: int
    tolerance: float = 0.0
    momentum: float = 0.9

    def initialize(self, fed: Federation) -> FedAvgMState:
        return FedAvgMState(0, self.initial, np.zeros_like(self.initial))

    def round(self, fed: Federation, state: FedAvgMState) -> FedAvgMState:
        total = fed.sum(train_from, Start(state.weights), sites=fed.cohort())
        velocity = np.float32(self.momentum) * state.velocity + total.delta / np.float32(total.rows)
        return FedAvgMState(state.round + 1, state.weights + velocity, velocity)

    def done(self, state: FedAvgMState) -> bool:
        return state.round >= self.rounds

    def result(self, state: FedAvgMState) -> ModelWeights:
        return ModelWeights(state.weights)


ALGORITHM = FedAvgM
'''

TASK = """
task_type: classification
model: logistic
federation: {strategy: {name: fedavgm, momentum: 0.5}, rounds: 2, batch_size: full, lr: 0.1}
sites: {ashford: ashford.csv, birch: birch.csv}
data:
  label: {column: sick, classes: [0, 1]}
  columns: {x0: continuous, x1: continuous, x2: continuous}
  split: {train: 0.8, validation: 0, test: 0.2}
"""


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A folder as pip leaves one behind: the one file, and the entry point that names it."""
    folder = tmp_path / "site-packages"
    about = folder / "newcomer-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "fedavgm.py").write_text(FEDAVGM)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[medfed.algorithms]\nfedavgm = fedavgm:ALGORITHM\n")
    return folder


def python(*arguments: str, newcomer: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(newcomer)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_runs_by_its_name(newcomer: Path, tmp_path: Path) -> None:
    """After two rounds w = w₁ + βΔ₁ + Δ₂: what two rounds of FedAvg give, and βΔ₁ besides."""
    for site, (features, labels) in hospitals(ashford=57, birch=42).items():
        frame = pandas.DataFrame(features, columns=["x0", "x1", "x2"]).assign(sick=labels)
        frame.to_csv(tmp_path / f"{site}.csv", index=False)
    task = tmp_path / "task.yaml"
    task.write_text(TASK)
    done = python("-m", "medfed", "run", "task.yaml", "--output", "run", newcomer=newcomer, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()

    fedavg = medfed.build(task, overrides=["federation.strategy=fedavg"])
    state = fedavg.initialize()
    weights = [fedavg.weights(state)[""]]
    for _ in range(2):
        state, _ = fedavg.next(state)
        weights.append(fedavg.weights(state)[""])
    found = load_file(tmp_path / "run" / "model.safetensors")
    np.testing.assert_allclose(
        np.concatenate([found["weight"].ravel(), found["bias"]]),
        weights[2] + 0.5 * (weights[1] - weights[0]),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.slow
def test_it_is_tested_unasked(newcomer: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).with_name("test_algorithms_conform.py"))
    done = python(
        "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-k", "fedavgm", tests, newcomer=newcomer, folder=tmp_path
    )
    assert done.returncode == 0, done.stdout
    results = re.findall(r"::(\w+)\[\S*fedavgm\S*\] (\w+)", done.stdout)
    passed = {test for test, result in results if result == "PASSED"}
    assert {"test_the_order_of_sites_does_not_matter", "test_engines_agree_to_the_bit"} <= passed
    assert [test for test, result in results if result != "PASSED"] == ["test_one_site_is_local_training"]


def test_it_is_suggested_for_a_slip(newcomer: Path, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(TASK.replace("fedavgm", "fedavgmm"))
    done = python("-m", "medfed", "check", "task.yaml", newcomer=newcomer, folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'fedavgm'?" in done.stderr
