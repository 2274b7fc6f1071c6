"""The whole product: ``medfed.run`` with its gate, ledgers, evaluation and checkpoint in every round."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medfed
from benchmarks.simulation_parts.workloads import SEED, TEST_SHARE, SiteRows, Workload

SPLIT = {"train": 1 - TEST_SHARE, "validation": 0.0, "test": TEST_SHARE}


class Stopwatch:
    """An observer that reads the clock when a round is checkpointed."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def begun(self, process: Any, state: Any) -> None:
        """Nothing: the first round counts from the start of the process."""

    def advanced(self, state: Any, metrics: Any) -> None:
        """The end of a round."""
        self.ends.append(time.monotonic())


def product(work: Workload, workers: int | None = None) -> list[float]:
    """The clock at the end of each round, on rows of which every one falls into the split that it is meant for."""
    ids = Ids(max(work.rows) * 2)
    return run(work, {name_of(index): ids.given(work.site(index)) for index in range(work.sites)}, workers)


def one_worker(work: Workload) -> list[float]:
    """:func:`product` in one process."""
    return product(work, workers=1)


def two_workers(work: Workload) -> list[float]:
    """:func:`product` with the sites spread over two processes."""
    return product(work, workers=2)


def scale(work: Workload) -> list[float]:
    """The same with sites whose rows are made when they are asked for; their splits are drawn, so sizes are about."""
    return run(work, {name_of(index): partial(rows_of, work, index) for index in range(work.sites)})


def run(work: Workload, sites: dict[str, Any], workers: int | None = None) -> list[float]:
    """Run the task to its end, report and all; its folder stays in the temporary one. workers: the default if None."""
    stopwatch, task = Stopwatch(), task_of(work)
    if workers is not None:
        task["engine"] = {"workers": workers}
    medfed.run(task, sites, output=tempfile.mkdtemp(prefix="run-") + "/run", observer=stopwatch)
    return stopwatch.ends


def task_of(work: Workload) -> dict[str, Any]:
    """The workload as a task: the engine's settings are the defaults."""
    image = {"input_size": list(work.shape)} if len(work.shape) > 1 else {}
    return {
        "name": "benchmark",
        "task_type": "classification",
        "model": work.model | image,
        "federation": {
            "strategy": work.strategy,
            "rounds": work.rounds,
            "batch_size": work.batch,
            "lr": work.lr,
            "cohort": work.taking_part,
            **work.local,
        },
        "data": {
            "label": {"column": "target", "classes": list(range(work.classes))},
            "standardize": "none",
            "split": SPLIT,
        },
        "seed": SEED,
    }


def name_of(index: int) -> str:
    """A site's name, in the order of its number."""
    return f"site{index:05}"


def rows_of(work: Workload, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A site's features and targets."""
    rows = work.site(index)
    return joined(rows.train.features, rows.test.features), joined(rows.train.targets, rows.test.targets)


def joined(train: NDArray[Any], test: NDArray[Any]) -> NDArray[Any]:
    """The rows of training, then those of test."""
    return np.concatenate([train, test])


class Ids:
    """Patients' ids by the split into which the product's hash puts them."""

    def __init__(self, enough: int) -> None:
        from medfed.data.splits import assign_splits
        from medfed.spec.task import Splits

        names = np.array([str(number) for number in range(8 * enough)])
        codes = assign_splits(names.tolist(), None, Splits.model_validate(SPLIT), SEED)
        self._train, self._test = names[codes == 0], names[codes == 2]

    def given(self, rows: SiteRows) -> tuple[Any, Any, Any]:
        """A site's rows as the product takes them: features, targets, and an id for each."""
        ids = joined(self._train[: len(rows.train)], self._test[: len(rows.test)])
        return joined(rows.train.features, rows.test.features), joined(rows.train.targets, rows.test.targets), ids
