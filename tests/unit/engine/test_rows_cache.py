from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import medfed
from medfed.core.errors import DataError
from medfed.core.examples import Predictions, Split
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.table import SiteTable
from medfed.engine.assembly import assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess
from medfed.engine.rows import RowsCache, SiteRows, weights_digest
from medfed.engine.simulation import attached
from medfed.govern.keys import SigningKey
from medfed.spec.loading import task_of

TASK = {
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "fedavg", "rounds": 4, "local_updates": 2, "batch_size": 4},
    "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.6, "validation": 0, "test": 0.4}},
}
SPEC = task_of(TASK).spec


def table(site: str, rows: int = 20, seed: int = 0) -> SiteTable:
    draw = np.random.default_rng(seed)
    data = ArrayData(draw.normal(size=(rows, 3)).astype(np.float32), np.arange(rows) % 2)
    return load_arrays(SPEC.data, "classification", site, data, 0)


TABLES = {f"s{n}": table(f"s{n}") for n in range(8)}
SIZE = 2 * TABLES["s0"].nbytes
"""What a table counts for: its rows as typed and as encoded."""


class Sources:
    """Loaders of the tables that note what they load."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self) -> dict[str, Callable[[], SiteTable]]:
        return {site: lambda site=site: self.load(site) for site in TABLES}  # type: ignore[misc]

    def load(self, site: str) -> SiteTable:
        self.loaded.append(site)
        return TABLES[site]


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    sources = Sources()
    cache = RowsCache(sources(), keep=1)
    assert sources.loaded == []
    assert cache.get("s3").table is TABLES["s3"]
    assert cache.get("s3") is cache.get("s3")
    assert sources.loaded == ["s3"]


@given(st.lists(st.sampled_from(sorted(TABLES)), max_size=60), st.integers(1, 8), st.floats(0, 9))
def test_the_sites_asked_for_last_stay_at_least_a_cohort_and_no_more_than_the_budget(
    asked: list[str], keep: int, tables: float
) -> None:
    sources, budget = Sources(), int(tables * SIZE)
    cache, expected, recent = RowsCache(sources(), keep, budget), [], []  # type: ignore[var-annotated]
    for site in asked:
        if site not in recent:
            expected.append(site)
        recent = [each for each in recent if each != site] + [site]
        while len(recent) > keep and len(recent) * SIZE > budget:
            del recent[0]
        cache.get(site)
    assert sources.loaded == expected


def test_a_site_that_was_let_go_is_loaded_again() -> None:
    sources = Sources()
    cache = RowsCache(sources(), keep=2, budget=0)
    first = cache.get("s0")
    for site in ("s1", "s2", "s0"):
        cache.get(site)
    assert sources.loaded == ["s0", "s1", "s2", "s0"]
    assert cache.get("s0") is not first


def test_warming_stops_and_begins_anew_where_a_site_has_to_go() -> None:
    sources = Sources()
    cache = RowsCache(sources(), keep=2, budget=3 * SIZE)
    known = cache.warm()
    assert sources.loaded == list(known) == ["s0", "s1", "s2", "s3"]
    assert set(known.values()) == {TABLES["s0"].rows(Split.TRAIN)}
    sources.loaded.clear()
    cache.get("s3")
    assert sources.loaded == ["s3"]


@pytest.mark.parametrize(("keep", "budget"), [(2, 8 * SIZE), (8, 0)], ids=["within the budget", "one cohort"])
def test_rows_that_can_all_stay_are_loaded_once(keep: int, budget: int) -> None:
    sources = Sources()
    cache = RowsCache(sources(), keep, budget)
    assert list(cache.warm()) == sorted(TABLES)
    for site in TABLES:
        cache.get(site)
    assert sources.loaded == sorted(TABLES)


def test_processes_share_one_budget() -> None:
    sources = Sources()
    whole = RowsCache(sources(), keep=1, budget=6 * SIZE)
    cache = whole.part(3)
    for site in ("s0", "s1", "s2", "s1", "s0"):
        cache.get(site)
    assert sources.loaded == ["s0", "s1", "s2", "s0"]


def test_one_site_more_may_be_added_and_none_replaced() -> None:
    cache = RowsCache({"s0": lambda: TABLES["s0"]}, keep=1)
    cache.add("pooled", lambda: TABLES["s1"])
    cache.add("s0", lambda: TABLES["s2"])
    assert cache.get("pooled").table is TABLES["s1"]
    assert cache.get("s0").table is TABLES["s0"]


def test_a_site_without_training_rows_is_named() -> None:
    only_test = task_of(TASK | {"data": TASK["data"] | {"split": {"train": 0.01, "validation": 0, "test": 0.99}}}).spec  # type: ignore[operator]
    few = load_arrays(only_test.data, "classification", "s9", ArrayData(np.zeros((2, 3)), np.array([0, 1])), 0)
    with pytest.raises(DataError, match="no training rows") as raised:
        RowsCache({"s9": lambda: few}, keep=1).get("s9")
    assert raised.value.where == "s9"


def test_a_site_that_cannot_be_loaded_is_not_half_in_the_cache() -> None:
    tries: list[int] = []

    def load() -> SiteTable:
        tries.append(1)
        if len(tries) == 1:
            raise DataError("the file is locked", where="s0")
        return TABLES["s0"]

    cache = RowsCache({"s0": load}, keep=1)
    with pytest.raises(DataError, match="locked"):
        cache.get("s0")
    assert cache.get("s0").table is TABLES["s0"]


def test_predictions_are_those_of_the_weights_asked_for_last() -> None:
    rows, one, two = SiteRows(TABLES["s0"]), *(weights_digest(np.full(3, n, np.float32)) for n in (1, 2))
    said = Predictions(np.array([0.5]), np.array([1]))
    rows.keep_predictions(one, Split.TEST, said)
    assert rows.predictions(one, Split.TEST) is said
    assert rows.predictions(one, Split.TRAIN) is None
    assert rows.predictions(two, Split.TEST) is None
    rows.keep_predictions(two, Split.TEST, said)
    assert rows.predictions(one, Split.TEST) is None


def test_a_run_in_several_processes_leaves_the_cache_of_this_one_as_it_was(tmp_path: Path) -> None:
    task = task_of(TASK | {"engine": {"workers": 2, "batched": "off"}})
    hospitals = load_hospitals(task, tmp_path, sites(set()))
    before = hospitals.rows._budget
    assembly = assemble(task, hospitals, tmp_path, "the-run", SigningKey.generate())
    with attached(assembly.simulation):
        assert hospitals.rows._budget == before


def arrays(seed: int) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(20, 3)).astype(np.float32), np.arange(20) % 2


def sites(changed: set[str]) -> dict[str, Callable[[], Any]]:
    return {f"s{n}": lambda n=n: arrays(n + 100 * (f"s{n}" in changed)) for n in range(4)}  # type: ignore[misc]


def without_rows_in_memory(process: Any) -> None:
    """Let go of all rows that the sites of a process hold."""
    parties = process.federation.conversation.engine
    assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
    parties.host._consortium.rows._rows.clear()


@pytest.mark.parametrize("batched", ["off", "auto"])
def test_rows_that_change_in_the_middle_of_a_run_are_noticed_when_they_are_loaded_again(batched: str) -> None:
    changed: set[str] = set()
    process = medfed.build(TASK | {"engine": {"workers": 1, "batched": batched}}, sites(changed))
    state, _ = process.next(process.initialize())
    without_rows_in_memory(process)
    state, _ = process.next(state)
    without_rows_in_memory(process)
    changed.add("s2")
    with pytest.raises(DataError, match="s2: the rows are not those with which this run began") as raised:
        process.next(state)
    assert not any(f"s{n}:" in str(raised.value) for n in (0, 1, 3))


def test_rows_that_changed_are_noticed_after_a_restart(tmp_path: Path) -> None:
    class Stopped(medfed.api.Silent):
        def advanced(self, *_: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medfed.run(TASK, sites(set()), output=tmp_path / "run", observer=Stopped())
    with pytest.raises(DataError, match="s1"):
        medfed.api.resume(tmp_path / "run", sites({"s1"}))
    medfed.api.resume(tmp_path / "run", sites(set()))
