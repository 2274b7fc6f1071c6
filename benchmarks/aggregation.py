"""Aggregation and codec: what a round costs the coordinator beside one copy of an update in memory.

    python -m benchmarks.aggregation --json aggregation.json

A round of FedAvg is driven by the real federation over an engine whose replies are decoded from bytes.

- ``aggregate/fold``: seconds per update from the first reply to the new model, the engine's own time taken off; beside
  a copy of the update's array into new memory.
- ``aggregate/peak_models``: the most memory that a process needs for the round, in models: the model itself, the
  total and the present reply.
- ``codec/encode``: an update to new bytes, beside a copy of its array to new bytes; ``codec/decode``: from bytes to
  views, beside a copy of the array into new memory.
- ``copy/…``: those copies. NumPy asks for huge pages, which new bytes do not get: hence two.
- ``aggregate/digest``: the SHA-256 of what is asked, once a round for all sites.

Bodies and copies alternate, and all run in each repetition, so that what else the machine does falls on all of them; a
figure is the median over repetitions, a ratio the median of their ratios. Memory is measured on Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, report
from medfed.algorithms.fedavg import FedAvg, WeightedDelta
from medfed.core.codec import decode, encode
from medfed.core.messages import Vector
from medfed.core.wire import Reply, Request
from medfed.engine.federation import Conversation, SiteFederation
from medfed.spec.loading import task_of

PARAMETERS = 11_700_000
"""As many as a ResNet-18 has."""

UPDATES = (10, 100)
DISTINCT = 3
"""Updates that are folded in turn, so that none is found in the processor's cache."""

FOLD_LIMIT, PEAK_LIMIT, ENCODE_LIMIT, DECODE_LIMIT = 1.0, 3.2, 1.5, 0.05


@dataclass
class Arriving:
    """An engine whose replies come as bytes. begun: when it was first asked. apart: seconds of its own since then."""

    receive: Callable[[], bytes]
    begun: float = 0.0
    apart: float = 0.0

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """A reply to each request in turn, received when it is asked for."""
        self.begun = time.perf_counter()
        for request in requests:
            yield self._reply(request)

    def _reply(self, request: Request) -> Reply:
        begun = time.perf_counter()
        body = decode(self.receive(), WeightedDelta)
        reply = Reply(request.run, request.site, request.round, request.call, 1, request.digest(), body)
        self.apart += time.perf_counter() - begun
        return reply


def drawn(parameters: int, seed: int) -> Vector:
    """A vector of standard normal values."""
    return np.random.default_rng(seed).standard_normal(parameters, np.float32)


def run_round(initial: Vector, updates: int, engine: Arriving) -> None:
    """One round of FedAvg over as many sites as there are updates."""
    settings = {"strategy": "fedavg", "epochs": 1}
    task = task_of({"task_type": "classification", "model": "logistic", "federation": settings}).spec
    sites = tuple(f"site-{number:04}" for number in range(updates))
    federation = SiteFederation(Conversation(engine, "run", "0" * 64, round=1), sites, task.federation, seed=0)
    algorithm = FedAvg(initial, rounds=1)
    algorithm.round(federation, algorithm.initialize(federation))


def seconds(body: Callable[[], object]) -> float:
    """How long it takes, what it makes being given back outside of that time."""
    begun = time.perf_counter()
    made = body()
    taken = time.perf_counter() - begun
    del made
    return taken


def timed_round(initial: Vector, updates: int, received: Iterator[bytes]) -> tuple[float, float]:
    """Seconds per update from the first reply to the new model, and seconds of the requests before."""
    engine = Arriving(lambda: next(received))
    begun = time.perf_counter()
    run_round(initial, updates, engine)
    ended = time.perf_counter()
    return (ended - engine.begun - engine.apart) / updates, engine.begun - begun


@dataclass(frozen=True)
class Body:
    """What is timed: its row, the copy beside which it stands, and its limit."""

    name: str
    peer: str
    limit: float | None


ARRAY, NEW_BYTES = "copy/array", "copy/bytes"
PEERS = {ARRAY: "a copy of the update's array into new memory", NEW_BYTES: "a copy of the update's array to new bytes"}
BODIES = (
    Body("codec/encode", NEW_BYTES, ENCODE_LIMIT),
    Body("codec/decode", ARRAY, DECODE_LIMIT),
)


def measured(parameters: int, updates: Sequence[int], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each body by name, one a repetition, after one that does not count."""
    samples = [WeightedDelta(drawn(parameters, seed), 100) for seed in range(DISTINCT)]
    encodings = [encode(sample) for sample in samples]
    initial = drawn(parameters, DISTINCT)
    found: dict[str, list[float]] = {}
    received = cycle(encodings)
    for repetition in range(repetitions + 1):
        sample, encoding = samples[repetition % DISTINCT], encodings[repetition % DISTINCT]
        bodies: dict[str, Callable[[], object]] = {
            NEW_BYTES: partial(bytes, sample.delta.data),
            "codec/encode": partial(encode, sample),
            "codec/decode": partial(decode, encoding, WeightedDelta),
        }
        taken, copies = {}, []
        for name, body in bodies.items():
            copies.append(seconds(sample.delta.copy))
            taken[name] = seconds(body)
        for number in updates:
            rounds = []
            for _ in range(max(updates) // number):
                copies.append(seconds(sample.delta.copy))
                rounds.append(timed_round(initial, number, received))
            taken[fold_of(number)], taken["aggregate/digest"] = np.median(rounds, axis=0).tolist()
        taken[ARRAY] = float(np.median(copies))
        if repetition:
            for name, value in taken.items():
                found.setdefault(name, []).append(value)
    return found


def fold_of(updates: int) -> str:
    """The row of folding so many updates."""
    return f"aggregate/fold/{updates}"


def time_rows(found: dict[str, list[float]], updates: Sequence[int]) -> list[Row]:
    """The rows of what was timed, the worse fold first."""
    folds = [_time_row(found, Body(fold_of(number), ARRAY, FOLD_LIMIT)) for number in updates]
    others = [_time_row(found, body) for body in (*BODIES, Body("aggregate/digest", ARRAY, None))]
    copies = [Row(name, float(np.median(found[name])), "s", None, None, PEERS[name]) for name in PEERS]
    return [_worst("aggregate/fold", folds), *folds, *others, *copies]


def _time_row(found: dict[str, list[float]], body: Body) -> Row:
    values = np.array(found[body.name])
    low, ratio, high = np.quantile(values / np.array(found[body.peer]), [0.25, 0.5, 0.75])
    peer = f"{PEERS[body.peer]}; quartiles {low:.3f} to {high:.3f}"
    return Row(body.name, float(np.median(values)), "s", float(ratio), body.limit, peer)


def _worst(name: str, rows: Sequence[Row]) -> Row:
    return replace(max(rows, key=lambda row: row.ratio or 0.0), name=name)


def peak_rows(parameters: int, updates: Sequence[int]) -> list[Row]:
    """The rows of memory, the worse first."""
    peer = f"one model of {parameters:,} parameters"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        received = Path(folder) / "update"
        received.write_bytes(encode(WeightedDelta(drawn(parameters, 0), 100)))
        for number in updates:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                models = fresh.submit(peak_models, parameters, number, received).result()
            rows.append(Row(f"aggregate/peak_models/{number}", models, "models", models, PEAK_LIMIT, peer))
    return [_worst("aggregate/peak_models", rows), *rows]


def peak_models(parameters: int, updates: int, received: Path) -> float:
    """The most memory of this process during a round, in models, beyond what it had before there was one."""
    run_round(drawn(10, 0), 1, Arriving(lambda: encode(WeightedDelta(drawn(10, 1), 1))))
    before = _resident("VmRSS")
    initial = drawn(parameters, 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is sought from here on
    run_round(initial, updates, Arriving(received.read_bytes))
    return (_resident("VmHWM") - before) / initial.nbytes


def _resident(key: str) -> int:
    """Bytes, from the line of that name in Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="float32 parameters of the model")
    parser.add_argument("--updates", type=int, nargs="+", default=UPDATES, help="counts of updates in a round")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args(arguments)

    found = measured(options.parameters, options.updates, options.repetitions)
    rows = time_rows(found, options.updates) + peak_rows(options.parameters, options.updates)
    return report(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
