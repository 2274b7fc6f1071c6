"""MedFed's own deployed rounds: a coordinator and sites as separate processes, by the commands that hospitals use."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distributed_parts.session import Failed, Processes, free_ports, tree_memory
from medfed.engine.flare.provisioning import make_consortium
from medfed.spec.canonical import task_digest
from medfed.spec.loading import load_task

_START_SECONDS, _RUN_SECONDS = 120.0, 300.0
"""What starting and what a whole run may take."""

_FEATURES = [f"f{number:02}" for number in range(30)]
_WHY = {"purpose": "a benchmark", "legal-basis": "none", "ethics-id": "none", "ethics-expires": "2099-12-31"}


@dataclass(frozen=True)
class Network:
    """What is trained: an MLP of 30 features and two classes by its hidden layers.

    rows: of a site, for training; a quarter as many more are for testing. every: the rounds between two evaluations,
    None where only the last round is evaluated.
    """

    hidden: tuple[int, ...]
    rows: int
    every: int | None

    @property
    def parameters(self) -> int:
        """Weights and biases, float32 each."""
        widths = (len(_FEATURES), *self.hidden, 2)
        return sum((before + 1) * after for before, after in pairwise(widths))

    @property
    def size(self) -> int:
        """Bytes of the model."""
        return 4 * self.parameters


SMALL = Network((32,), rows=1_000, every=1)
"""30-32-2, trained for an epoch of batches of 32 in each round, as the recipe does, and evaluated after each."""

LARGE = Network((3_300, 3_300), rows=32, every=None)
"""44 MB, and so few rows that a round is one update: what is measured is the way, not the training."""


@dataclass(frozen=True)
class Measured:
    """A deployed run.

    seconds_per_round: the median of all rounds but the first, and the last where it alone is evaluated.
    seconds_to_first_round: from before the start of the submitting process to the end of the first round.
    """

    seconds_per_round: float
    seconds_to_first_round: float


def deployed_rounds(network: Network, rounds: int, sites: int) -> Measured:
    """Provision, admit and start a coordinator and sites, submit a task whose digest is approved, and time its rounds.

    Raises Failed.
    """
    with tempfile.TemporaryDirectory(prefix="deployed-") as temporary, Processes(Path(temporary)) as processes:
        begun, ends = _Deployed(Path(temporary), processes, network, rounds, sites).run()
    lasting = np.diff(ends)
    counted = lasting[:-1] if network.every is None and len(lasting) > 1 else lasting
    return Measured(float(np.median(counted)), ends[0] - begun)


def coordinator_peak(network: Network, rounds: int, sites: int) -> int:
    """The largest sum, in bytes, of the proportional set sizes of the coordinator's processes in such a run.

    Apart from what is timed, since each look costs milliseconds. Raises Failed.
    """
    with tempfile.TemporaryDirectory(prefix="deployed-") as temporary, Processes(Path(temporary)) as processes:
        deployed = _Deployed(Path(temporary), processes, network, rounds, sites, watched=True)
        deployed.run()
        return deployed.peak


class _Deployed:
    """A consortium in folders below one, all of whose sites are connected."""

    def __init__(
        self, folder: Path, processes: Processes, network: Network, rounds: int, sites: int, *, watched: bool = False
    ) -> None:
        self.peak = 0
        self._folder, self._processes, self._rounds, self._watched = folder, processes, rounds, watched
        names = [f"site-{number}" for number in range(1, sites + 1)]
        self._task = folder / "task.yaml"
        self._task.write_text(json.dumps(_task(network, rounds, names)))
        digest = task_digest(load_task(self._task).spec)
        port, admin_port = free_ports(2)
        make_consortium(folder, names, port=port, admin_port=admin_port)
        for seed, name in enumerate(names):
            site = folder / "sites" / name
            _write_table(site / "rows.csv", network.rows, seed)
            (site / "site.yaml").write_text(json.dumps(_site_file(digest)))
        self._coordinator = processes.start("coordinator", _medfed("coordinator", "start", folder / "coordinator"))
        for name in names:
            processes.start(name, _medfed("site", "start", folder / "sites" / name))
        joined = "Successfully registered client"
        registered = lambda: all(joined in processes.said(name).read_text(errors="replace") for name in names)  # noqa: E731
        processes.await_that(registered, "all sites to register", _START_SECONDS)

    def run(self) -> tuple[float, list[float]]:
        """The clock before the submitting process began, and at the end of each round."""
        why = [word for name, value in _WHY.items() for word in (f"--{name}", value)]
        begun = time.time()
        command = [*_medfed("submit", str(self._task), self._folder / "coordinator"), *why, "--json"]
        self._processes.start("submit", command)
        self._processes.await_that(self._finished, "the run's end", _RUN_SECONDS)
        ends = [event["time"] for event in self._events() if event["event"] == "round"]
        if len(ends) != self._rounds:
            raise Failed(f"{len(ends)} rounds were done, not {self._rounds}")
        return begun, ends

    def _finished(self) -> bool:
        if self._watched:
            self.peak = max(self.peak, tree_memory(self._coordinator))
        return any(event["event"] == "finished" for event in self._events())

    def _events(self) -> list[dict[str, Any]]:
        """What the run told so far, whole lines alone."""
        found = list((self._folder / "coordinator" / "runs").glob("*/events.jsonl"))
        text = found[0].read_text() if found else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _medfed(*words: str | Path) -> list[str]:
    """A command line; the last word is the folder it works in."""
    *command, folder = map(str, words)
    return [sys.executable, "-m", "medfed", *command, "--folder", folder]


def _task(network: Network, rounds: int, sites: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "benchmark",
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": list(network.hidden)},
        "federation": {"strategy": "fedavg", "rounds": rounds, "batch_size": 32, "lr": 0.05},
        "sites": dict.fromkeys(sites, "rows"),
        "data": {
            "id": "id",
            "label": {"column": "ill", "classes": [0, 1]},
            "columns": dict.fromkeys(_FEATURES, "continuous"),
            "split": {"column": "part"},
        },
        "evaluation": {"every": network.every or rounds},
    }


def _site_file(digest: str) -> dict[str, Any]:
    anything = dict.fromkeys(("task_types", "algorithms", "steps", "releases"), "*")
    return {
        "contact": "steward@hospital.example",
        "datasets": {"rows": {"path": "rows.csv", "id": "id"}},
        "policy": anything | {"minimum_patients": 1},
        "approvals": {"auto_approve": [digest]},
    }


def _write_table(path: Path, rows: int, seed: int) -> None:
    """A table of 30 numbers and an illness that the first of them makes likelier."""
    random, tested = np.random.default_rng(seed), rows // 4
    features = random.normal(size=(rows + tested, len(_FEATURES)))
    ill = (features[:, 0] + random.normal(size=rows + tested) > 0).astype(int)
    lines = [",".join(("id", "part", *_FEATURES, "ill"))]
    for row, values in enumerate(features):
        part = "train" if row < rows else "test"
        lines.append(",".join((f"{seed}-{row}", part, *(f"{value:.6f}" for value in values), str(ill[row]))))
    path.write_text("\n".join(lines) + "\n")
