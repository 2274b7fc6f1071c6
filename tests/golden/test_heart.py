"""The published benchmark Fed-Heart-Disease (J. Ogier du Terrail et al., NeurIPS 2022 Datasets and Benchmarks)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.heart import PUBLISHED, SITES, accuracies, task

import medfed
from medfed.core.examples import Split
from medfed.data.heart import published_benchmark

if TYPE_CHECKING:
    import pandas

PUBLISHED_MEANS = {
    "pooled": 0.7353,
    "local": 0.7299,
    "fedavg": 0.6850,
    "fedprox": 0.6850,
    "scaffold": 0.6840,
    "fedadam": 0.7255,
}
"""Test accuracy, mean over seeds 42 to 46 of the mean of the four hospitals."""

QUICK = "fedadam"


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> dict[str, pandas.DataFrame]:
    return published_benchmark(shared_data / "heart")


def test_the_published_split(frames: dict[str, pandas.DataFrame]) -> None:
    rows = {name: frame["split"].value_counts() for name, frame in frames.items()}
    assert {name: (counts["train"], counts["test"]) for name, counts in rows.items()} == {
        "Cleveland": (199, 104),
        "Hungarian": (172, 89),
        "Switzerland": (30, 16),
        "VA": (85, 45),
    }
    positive = {name: (frame.loc[frame["split"] == "train", "num"] > 0).mean() for name, frame in frames.items()}
    assert {name: round(rate, 3) for name, rate in positive.items()} == {
        "Cleveland": 0.457,
        "Hungarian": 0.378,
        "Switzerland": 1.000,
        "VA": 0.776,
    }


@pytest.mark.parametrize(
    "strategy", [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in PUBLISHED_MEANS]
)
def test_accuracy_agrees_with_the_published_one(strategy: str, frames: dict[str, pandas.DataFrame]) -> None:
    found = np.mean([accuracies(strategy, seed, frames) for seed in range(42, 47)])
    assert found == pytest.approx(PUBLISHED_MEANS[strategy], abs=0.010)
    assert PUBLISHED[strategy].mean == PUBLISHED_MEANS[strategy]


def test_an_auc_at_a_hospital_with_one_class_does_not_exist(frames: dict[str, pandas.DataFrame]) -> None:
    short = task("fedavg", 42)
    short["federation"] = {"strategy": "fedavg", "rounds": 1, "local_updates": 5}
    process = medfed.build(short, frames)
    state, _ = process.next(process.initialize())
    auc = {r.site: r.measure for r in process.measure(state, Split.TRAIN).rows if r.measure.metric == "auc"}
    assert (auc["Switzerland"].value, auc["Switzerland"].reason) == (None, "one class only")
    assert all(0 < auc[name].value < 1 for name in (*SITES, "federated") if name != "Switzerland")
