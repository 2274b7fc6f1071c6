"""What ``benchmarks.imaging`` computes itself, by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.imaging_parts.accuracy import auc_of, difference, paired_interval
from benchmarks.imaging_parts.rounds import WORKLOAD
from benchmarks.simulation_parts.product import task_of
from benchmarks.simulation_parts.workloads import WORKLOADS
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_area_is_scikit_learns_with_ties(rows: list[tuple[bool, int]]) -> None:
    truth = np.array([case for case, _ in rows], np.int64)
    scores = np.array([score for _, score in rows], np.float64)
    if 0 < truth.sum() < truth.size:
        assert auc_of(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_a_paired_interval_is_narrower_than_an_unpaired_one_would_be_and_holds_the_difference() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random(400) < 0.5).astype(np.int64)
    ours = truth + rng.normal(0, 1.0, 400)
    theirs = ours + rng.normal(0, 0.3, 400)
    low, high = paired_interval(truth, [ours], [theirs])
    alone = [auc_of(truth[draw], ours[draw]) for draw in rng.integers(0, 400, (400, 400))]
    assert low <= difference(truth, [ours], [theirs]) <= high
    assert high - low < np.quantile(alone, 0.975) - np.quantile(alone, 0.025)


def test_the_timed_task_is_the_small_network_on_images() -> None:
    task = task_of(WORKLOADS[WORKLOAD])
    assert task["model"] == {"name": "cnn", "input_size": [1, 28, 28]}
    assert task["federation"]["local_epochs"] == 1
