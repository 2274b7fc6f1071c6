"""A run of many more sites than a round asks: nothing may grow with those that are not asked."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfed import api
from medfed.engine import rows as engine_rows
from medfed.engine.hospitals import load_hospitals
from medfed.engine.process import RoundMetrics, RunState
from medfed.govern.verify import verify_ledgers
from medfed.spec.loading import task_of

SITES, COHORT = 2000, 20
TABLES = 40
"""Tables that the cache's budget holds here beyond a cohort's."""


class Loaders:
    """Rows given by functions, which count how often each was called."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()

    def __call__(self) -> dict[str, Callable[[], Any]]:
        return {f"clinic {n:04}": lambda n=n: self.load(n) for n in range(SITES)}  # type: ignore[misc]

    def load(self, number: int) -> Any:
        self.calls[number] += 1
        draw = np.random.default_rng([2, number])
        features = draw.normal(size=(20, 8)).astype(np.float32)
        return features, (features[:, 0] > 0).astype(np.int64)


class Counting(api.Silent):
    """An observer that counts open files and tables in memory after each round."""

    def __init__(self) -> None:
        self.files: list[int] = []

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        self.files.append(len(list(Path("/proc/self/fd").iterdir())))


@pytest.mark.slow
def test_two_thousand_sites_of_which_twenty_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[engine_rows.RowsCache] = []
    most = [0]
    begin, get = engine_rows.RowsCache.__init__, engine_rows.RowsCache.get

    def begun(self: engine_rows.RowsCache, sources: Any, keep: int) -> None:
        begin(self, sources, keep, budget=TABLES * 4000)
        caches.append(self)

    def got(self: engine_rows.RowsCache, site: str) -> engine_rows.SiteRows:
        found = get(self, site)
        most[0] = max(most[0], len(self._rows))
        return found

    monkeypatch.setattr(engine_rows.RowsCache, "__init__", begun)
    monkeypatch.setattr(engine_rows.RowsCache, "get", got)
    loaders, counting = Loaders(), Counting()
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 3, "local_updates": 5, "batch_size": 8, "cohort": COHORT},
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.8, "validation": 0, "test": 0.2}},
        "engine": {"workers": 1},
    }
    outcome = api.run(task, loaders(), output=tmp_path / "run", observer=counting)
    assert outcome.state.round == 3
    assert len(counting.files) == 3
    assert max(counting.files) < 2048 + 100
    assert len(caches) == 1
    assert COHORT <= most[0] <= 2 * TABLES
    assert set(loaders.calls) == set(range(SITES))
    parties = verify_ledgers(tmp_path / "run" / "ledger", api.simulation_key().verify_key, finished=True)
    assert len(parties) == SITES + 1


def test_only_so_many_rows_are_loaded_at_the_start_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_rows.RowsCache.__init__, "__defaults__", (TABLES * 4000,))
    loaders = Loaders()
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "rounds": 1, "cohort": COHORT},
        "data": {"label": {"column": "y", "classes": [0, 1]}},
    }
    found = load_hospitals(task_of(task), Path(), loaders())
    assert len(found.sites) == SITES
    assert COHORT <= len(loaders.calls) < 4 * TABLES


FEW_FILES = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import medfed
rows = {f"clinic {n:04}": (np.eye(12, 3, n % 3, dtype=np.float32), np.arange(12) % 2) for n in range(500)}
task = {
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "scaffold", "rounds": 2, "local_updates": 2, "cohort": 300},
    "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.5, "validation": 0, "test": 0.5}},
    "engine": {"workers": int(sys.argv[1])},
}
print(medfed.run(task, rows, output="run").state.round)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_more_sites_than_a_process_may_have_files(tmp_path: Path, workers: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(workers)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "2\n", ended.stderr
    verify_ledgers(tmp_path / "run" / "ledger", api.simulation_key().verify_key, finished=True)
