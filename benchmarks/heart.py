"""Fed-Heart-Disease: MedFed against the published benchmark.

Source of protocol and published figures: J. Ogier du Terrail et al., "FLamby: Datasets and Benchmarks for Cross-Silo
Federated Learning in Realistic Healthcare Settings", NeurIPS 2022 Datasets and Benchmarks; mean over its seeds 42 to
46 of the mean over four hospitals of test accuracy. The published code draws all hospitals' rows from one random
stream, which no real federation has, so single seeds differ; the mean over the same seeds has to agree.

    python -m benchmarks.heart --data DIR --seeds 42-46 --json heart.json

DIR holds the four ``processed.*.data`` files of UCI Heart Disease.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rows import Row, write_rows

if TYPE_CHECKING:
    import pandas

SITES = ("Cleveland", "Hungarian", "Switzerland", "VA")
TOLERANCE = 0.010


@dataclass(frozen=True)
class Published:
    """Mean test accuracy over seeds 42 to 46 at each hospital, and the mean over hospitals."""

    sites: tuple[float, float, float, float]
    mean: float


PUBLISHED = {
    "pooled": Published((0.7827, 0.7640, 0.7500, 0.6444), 0.7353),
    "local": Published((0.7462, 0.7461, 0.7250, 0.7022), 0.7299),
    "fedavg": Published((0.7308, 0.7191, 0.6500, 0.6400), 0.6850),
    "fedprox": Published((0.7308, 0.7191, 0.6500, 0.6400), 0.6850),
    "scaffold": Published((0.7269, 0.7191, 0.6500, 0.6400), 0.6840),
    "fedadam": Published((0.7519, 0.7461, 0.7375, 0.6667), 0.7255),
}

_CENTRAL = {"epochs": 50, "optimizer": "adam", "lr": 0.001}
_FEDERATED = {"rounds": 15, "local_updates": 100, "lr": 0.001}
FEDERATIONS: dict[str, dict[str, Any]] = {
    "pooled": {**_CENTRAL, "strategy": "pooled"},
    "local": {**_CENTRAL, "strategy": "local"},
    "fedavg": {**_FEDERATED, "strategy": "fedavg"},
    "fedprox": {**_FEDERATED, "strategy": {"name": "fedprox", "mu": 0.01}},
    "scaffold": {**_FEDERATED, "strategy": {"name": "scaffold", "lr": 1.0, "weighting": "rows"}},
    "fedadam": {
        **_FEDERATED,
        "lr": 0.01,
        "strategy": {"name": "fedadam", "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "tau": 1e-8},
    },
}
"""Each strategy as published. The published code weighs SCAFFOLD's sites by their training rows."""

_BINARY = {"type": "binary", "levels": [0, 1]}
COLUMNS: dict[str, Any] = {
    "age": "continuous",
    "sex": _BINARY,
    "trestbps": "continuous",
    "chol": "continuous",
    "fbs": _BINARY,
    "thalach": "continuous",
    "exang": _BINARY,
    "oldpeak": "continuous",
    "cp": {"type": "categorical", "levels": [1, 2, 3, 4]},
    "restecg": {"type": "categorical", "levels": [0, 1, 2]},
}
"""The features in the published order, indicators last: which weight starts where depends on it."""


def task(strategy: str, seed: int) -> dict[str, Any]:
    """The published protocol as a task."""
    return {
        "name": f"heart {strategy}",
        "task_type": "classification",
        "model": "logistic",
        "federation": {"batch_size": 4, "data_position": "kept", **FEDERATIONS[strategy]},
        "data": {
            "id": "id",
            "label": {"column": "num", "positive": [1, 2, 3, 4], "negative": [0]},
            "standardize": "site",
            "split": {"column": "split"},
            "columns": COLUMNS,
        },
        "evaluation": {"every": 1000},
        "seed": seed,
    }


def accuracies(strategy: str, seed: int, frames: dict[str, pandas.DataFrame]) -> list[float]:
    """Test accuracy at each hospital after one whole training."""
    import medfed

    process = medfed.build(task(strategy, seed), frames)
    state = process.initialize()
    while not process.done(state):
        state, metrics = process.next(state)
    found = [metrics.value("accuracy", site) for site in SITES]
    return [value for value in found if value is not None]


def seeds_of(text: str) -> range:
    """``42-46`` or ``42`` as a range."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Run every strategy over the seeds, and over thirty for the interval; 1 where a figure is out of tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four processed.*.data files")
    parser.add_argument("--seeds", type=seeds_of, default=range(42, 47), help="first-last, as 42-46")
    parser.add_argument("--interval-seeds", type=int, default=30, help="number of seeds of the interval (0: none)")
    parser.add_argument("--strategies", nargs="+", choices=sorted(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()

    from medfed.core.errors import MedFedError
    from medfed.data.heart import published_benchmark

    try:
        frames = published_benchmark(options.data)
    except MedFedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    first, count = options.seeds.start, max(len(options.seeds), options.interval_seeds)
    every_seed = range(first, first + count)
    rows = []
    print(f"mean test accuracy; seeds {first}-{options.seeds[-1]}, interval: 2.5 to 97.5 % of {count} single seeds")
    print(
        f"{'strategy':10}{'published':>10}{'measured':>10}{'difference':>11}{'interval':>18}  by hospital (published)"
    )
    with ProcessPoolExecutor(options.processes) as pool:
        for strategy in options.strategies:
            run_seed = partial(accuracies, strategy, frames=frames)
            found = np.array(list(pool.map(run_seed, every_seed)))
            measured, published = found[: len(options.seeds)].mean(0), PUBLISHED[strategy]
            low, high = np.quantile(found.mean(1), [0.025, 0.975])
            mean = float(measured.mean())
            hospitals = "  ".join(f"{m:.4f} ({p:.4f})" for m, p in zip(measured, published.sites, strict=True))
            difference = mean - published.mean
            figures = f"{published.mean:10.4f}{mean:10.4f}{difference:+11.4f}   [{low:.4f}, {high:.4f}]"
            print(f"{strategy:10}{figures}  {hospitals}")
            peer = f"published mean {published.mean}; limit: absolute difference"
            rows.append(
                Row(
                    f"heart/{strategy}/mean_of_sites",
                    mean,
                    "accuracy",
                    mean / published.mean,
                    TOLERANCE,
                    peer,
                )
            )
    if options.json:
        write_rows(options.json, rows)
    failed = [row.name for row in rows if abs(row.value - PUBLISHED[row.name.split("/")[1]].mean) > TOLERANCE]
    print(f"out of tolerance ({TOLERANCE}): {', '.join(failed)}" if failed else f"all within {TOLERANCE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
