"""The bodies of the simulation benchmark do the same arithmetic, and its table says what was measured."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.rows import exceeded
from benchmarks.simulation_parts import ours, raw
from benchmarks.simulation_parts.measure import BodyFailed, Sample, run_body
from benchmarks.simulation_parts.product import Ids, task_of
from benchmarks.simulation_parts.runs import Measured, measure, plan
from benchmarks.simulation_parts.table import fact_rows, ratio_rows, scale_rows
from benchmarks.simulation_parts.workloads import SEED, STRATEGIES, WORKLOADS, Workload

from medfed.core.rng import generator
from medfed.data.splits import assign_splits
from medfed.spec.task import Splits

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def small(name: str, strategy: str = "fedavg") -> Workload:
    """A few rounds of a workload at a few of its sites, all of which take part."""
    work = replace(WORKLOADS[name], rounds=3, sites=3, cohort=None, strategy=STRATEGIES[strategy])
    return replace(work, rows=(20, 30)) if name in {"W2", "images"} else work


def product_order(site: int, epoch: int, rows: int) -> torch.Tensor:
    """The order in which the product visits a site's rows."""
    return torch.from_numpy(generator(SEED, f"site{site:05}", "shuffle", epoch).permutation(rows))


def raw_weights(work: Workload) -> np.ndarray:
    """The raw loop's last weights, when it visits the rows in the product's order."""
    *_, (_, state) = raw.rounds(work, order=product_order)
    return torch.cat([value.flatten() for value in state.values()]).numpy()


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_sequential_path_computes_what_the_raw_loop_does(name: str) -> None:
    *_, (_, weights) = ours.one_by_one(small(name))
    np.testing.assert_allclose(weights, raw_weights(small(name)), atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["W1/logistic", "W1/mlp", "W3"])
def test_the_kernel_computes_what_the_raw_loop_does(name: str, strategy: str) -> None:
    work = small(name, strategy)
    *_, (_, weights) = ours.stacked(work)
    np.testing.assert_allclose(weights, raw_weights(work), atol=1e-5)


def test_two_workers_compute_what_one_process_does() -> None:
    *_, (_, together) = ours.two_workers(small("W2"))
    *_, (_, alone) = ours.one_by_one(small("W2"))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_site_has_its_stated_rows_and_the_product_splits_them_so(name: str) -> None:
    work = WORKLOADS[name]
    least, most = work.rows
    ids = Ids(most * 2)
    for index in range(min(work.sites, 20)):
        rows = work.site(index)
        assert least <= len(rows.train) <= most
        assert len(rows.test) == -(-len(rows.train) // 4)
        features, targets, patients = ids.given(rows)
        codes = assign_splits(patients.tolist(), None, Splits.model_validate(task_of(work)["data"]["split"]), SEED)
        assert codes.tolist() == [0] * len(rows.train) + [2] * len(rows.test)
        assert len(features) == len(targets) == len(set(patients.tolist()))


def test_sizes_are_those_that_the_table_states() -> None:
    sizes = {name: sum(p.numel() for p in raw.network(work).parameters()) for name, work in WORKLOADS.items()}
    assert sizes == {"W1/logistic": 14, "W1/mlp": 481, "W2": 220_234, "W3": 2_762, "images": 219_649}
    assert WORKLOADS["W1/mlp"].updates(185) == 100
    assert WORKLOADS["W3"].updates(41) == 5


def test_a_body_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sample = run_body(["raw", "W1/logistic", "--rounds", "3"], watched=True)
    assert 0 < sample.each < sample.first < sample.wall
    assert sample.cpu > 0
    assert 50e6 < sample.memory < 5e9


def test_a_body_that_fails_is_told_and_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(BodyFailed, match="invalid choice"):
        run_body(["nothing", "W2", "--rounds", "1"])
    runs = [replace(plan(["W2"], 1, sys.executable)[0], body="nothing")]
    measured = Measured()
    measure(runs, 2, measured)
    assert list(measured.failed) == ["W2/nothing"]
    assert measured.samples == measured.memory == {}


def test_children_count_towards_memory() -> None:
    from benchmarks.simulation_parts.measure import _pss, _tree

    assert next(_tree(os.getpid())) == os.getpid()
    assert _pss(os.getpid()) > 10e6
    child = os.fork()
    if not child:
        os.read(os.pipe()[0], 1)  # until it is killed
    try:
        assert child in list(_tree(os.getpid()))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert _pss(child) == 0


def sample(each: float, first: float = 2.0, memory: int = 0) -> Sample:
    return Sample(first, each, wall=3.0, cpu=2.5, memory=memory)


def test_ratios_are_of_medians_summed_over_a_works_workloads() -> None:
    measured = Measured(
        {
            "W1/logistic/raw": [sample(0.04), sample(0.9), sample(0.02)],
            "W1/mlp/raw": [sample(0.06)],
            "W1/logistic/kernel": [sample(0.01), sample(0.012), sample(0.5)],
            "W1/mlp/kernel": [sample(0.008)],
            "W1/logistic/product": [sample(0.02, first=3.0)],
            "W1/mlp/product": [sample(0.02, first=1.0)],
        },
        {
            "W1/logistic/raw": [300, 290, 900],
            "W1/mlp/raw": [300],
            "W1/logistic/product": [400],
            "W1/mlp/product": [260, 900, 20],
        },
    )
    rows = {row.name: row for row in ratio_rows(["W1"], measured)}
    assert set(rows) == {"W1/kernel", "W1/first_round", "W1/memory"}
    assert rows["W1/kernel"].ratio == pytest.approx(0.2)
    assert rows["W1/kernel"].peer == "raw: 0.1 s/round"
    assert rows["W1/first_round"].ratio == pytest.approx(1.0)
    assert rows["W1/memory"].ratio == pytest.approx(1.1)
    assert exceeded(list(rows.values())) == ["W1/kernel"]


def test_facts_give_spread_and_what_the_process_took() -> None:
    samples, peaks = [sample(1.0), sample(2.0), sample(4.0)], [300_000_000, 320_000_000, 290_000_000]
    rows = {row.name: row for row in fact_rows(Measured({"W2/raw": samples}, {"W2/raw": peaks}))}
    assert rows["measured/W2/raw/round"].value == 2.0
    assert rows["measured/W2/raw/spread"].value == pytest.approx(1.5)
    assert rows["measured/W2/raw/cpu"].value == 2.5
    assert rows["measured/W2/raw/memory"].value == 300
    assert rows["measured/W2/raw/memory"].peer == "peak PSS with its children; quartiles 295.0, 310.0"


def test_memory_at_scale_is_compared_with_a_tenth_of_the_sites() -> None:
    (row,) = scale_rows({1_000: sample(1.0, memory=300), 10_000: sample(1.0, memory=480)})
    assert (row.name, row.ratio, row.limit) == ("scale/memory", pytest.approx(1.6), 1.5)
    assert scale_rows({1_000: sample(1.0)}) == []
