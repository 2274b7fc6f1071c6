"""Which bodies are run, in which order, and what each took."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulation_parts.measure import BodyFailed, Sample, run_body
from benchmarks.simulation_parts.workloads import WORKLOADS, WORKS

OWN_BODIES = ("raw", "kernel", "sequential", "raw_evaluates", "product")
"""Each next to what it is compared with."""

PEERS = {"pfl": "pfl-research", "flwr": "Flower's simulation"}
WATCHED = ("raw", "product", *PEERS)
"""The bodies whose memory is measured."""

OTHER_STRATEGIES = ("fedprox", "scaffold")
STRATEGY_WORKLOAD = "W1/mlp"
"""The one workload on which the other strategies are measured."""

SCALES = (1_000, 10_000)
_SCALE_ROUNDS = 3


@dataclass(frozen=True)
class Run:
    """One body on one workload. python: the interpreter that it needs."""

    workload: str
    body: str
    rounds: int
    strategy: str = "fedavg"
    python: str = sys.executable

    @property
    def name(self) -> str:
        """As rows are called: ``W1/mlp/kernel``, ``W1/mlp/scaffold/kernel``, ``W2/peer/pfl``."""
        prefix = {"fedavg": ""}.get(self.strategy, f"{self.strategy}/")
        return f"{self.workload}/{'peer/' if self.body in PEERS else prefix}{self.body}"

    def sample(self, *, watched: bool) -> Sample:
        """Run it once; watched: for its memory. Raises BodyFailed."""
        options = ["--rounds", str(self.rounds), "--strategy", self.strategy]
        return run_body([self.body, self.workload, *options], self.python, watched=watched)


@dataclass
class Measured:
    """By each run's name: its timed samples, the peak bytes of watched ones, and what those said that failed."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def plan(works: Sequence[str], rounds: int | None, python: str) -> list[Run]:
    """The runs of one repetition, in order."""
    peers = [peer for peer in PEERS if installed(peer, python)]
    for peer in PEERS.keys() - set(peers):
        print(f"{PEERS[peer]} ({peer}) is not installed: its rows are left out")
    runs = []
    for workload in (name for work in works for name in WORKS[work]):
        count = rounds or WORKLOADS[workload].rounds
        runs += [Run(workload, body, count) for body in OWN_BODIES]
        runs += [Run(workload, peer, count, python=python) for peer in peers]
        for strategy in OTHER_STRATEGIES if workload == STRATEGY_WORKLOAD else ():
            runs += [Run(workload, body, count, strategy) for body in ("raw", "kernel")]
    return runs


def installed(package: str, python: str) -> bool:
    """Whether the interpreter has a package."""
    question = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", question], check=False).returncode == 0


def measure(runs: Sequence[Run], repetitions: int, measured: Measured) -> None:
    """Time all of them in order, again and again, then watch some as often; one that failed is not run again."""
    for repetition in range(repetitions):
        for run in runs:
            sample = _attempt(run, f"{repetition + 1}/{repetitions}", measured, watched=False)
            if sample is not None:
                measured.samples.setdefault(run.name, []).append(sample)
    for repetition in range(repetitions):
        for run in runs:
            if run.body in WATCHED and run.strategy == "fedavg":
                sample = _attempt(run, f"memory {repetition + 1}/{repetitions}", measured, watched=True)
                if sample is not None:
                    measured.memory.setdefault(run.name, []).append(sample.memory)
    _show("")


def _attempt(run: Run, progress: str, measured: Measured, *, watched: bool) -> Sample | None:
    """One sample, or None where the run fails or did before; what was measured of it is then forgotten."""
    if run.name in measured.failed:
        return None
    _show(f"{progress} {run.name}")
    try:
        return run.sample(watched=watched)
    except BodyFailed as failure:
        measured.failed[run.name] = str(failure)
        measured.samples.pop(run.name, None)
        measured.memory.pop(run.name, None)
        return None


def _show(progress: str) -> None:
    """One line that is written over, where a person looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


def scale_samples(quick: bool, measured: Measured) -> dict[int, Sample]:
    """One product run at each number of sites, rows on demand; a tenth of the sites where it is quick."""
    found = {}
    for sites in (count // 10 if quick else count for count in SCALES):
        try:
            found[sites] = run_body(
                ["scale", "W3", "--rounds", str(_SCALE_ROUNDS), "--sites", str(sites)], watched=True
            )
        except BodyFailed as failure:
            measured.failed[f"scale/{sites}"] = str(failure)
    return found
