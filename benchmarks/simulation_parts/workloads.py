"""What every body trains on: the sites' rows, drawn from a seed, and how they train. Numpy alone.

The rows are standard normal; the class of a row is the largest of as many random linear functions of it, so that a
model has something to learn. A site has its stated training rows, and a quarter as many again for test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 20
TEST_SHARE = 0.2
"""The share of a site's rows that are for test: one for four of training, rounded up."""


@dataclass(frozen=True)
class Part:
    """Rows of one site's split: features float32 (n, …), targets int64 (n,)."""

    features: NDArray[np.float32]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class SiteRows:
    """One site's rows."""

    train: Part
    test: Part


@dataclass(frozen=True)
class Workload:
    """A federation to train.

    rows: the least and the most training rows of a site. shape: of one input. local: how long a site trains in a
    round, in the task file's words. cohort: sites that take part in a round.
    """

    name: str
    model: dict[str, Any]
    sites: int
    rows: tuple[int, int]
    shape: tuple[int, ...]
    classes: int
    batch: int
    local: dict[str, int]
    rounds: int
    lr: float = 0.05
    cohort: int | None = None
    strategy: dict[str, Any] = field(default_factory=lambda: {"name": "fedavg"})

    @property
    def taking_part(self) -> int:
        """The sites of one round."""
        return self.cohort or self.sites

    def updates(self, rows: int) -> int:
        """A site's local updates in a round."""
        return self.local.get("local_updates") or self.local["local_epochs"] * -(-rows // self.batch)

    def site(self, index: int) -> SiteRows:
        """The rows of a site, the same at every call."""
        rng = np.random.default_rng([SEED, index])
        train = int(rng.integers(self.rows[0], self.rows[1] + 1))
        rows = train + -(-train // 4)
        features = rng.standard_normal((rows, *self.shape), dtype=np.float32)
        targets = (features.reshape(rows, -1) @ self._teacher).argmax(1)
        return SiteRows(Part(features[:train], targets[:train]), Part(features[train:], targets[train:]))

    @cached_property
    def _teacher(self) -> NDArray[np.float32]:
        size = int(np.prod(self.shape))
        return np.random.default_rng(SEED).standard_normal((size, self.classes), dtype=np.float32)


_HEART: dict[str, Any] = {
    "sites": 4,
    "rows": (185, 185),
    "shape": (13,),
    "classes": 2,
    "batch": 4,
    "local": {"local_updates": 100},
    "rounds": 50,
}

WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1/logistic", {"name": "logistic"}, **_HEART),
        Workload("W1/mlp", {"name": "mlp", "hidden": [32]}, **_HEART),
        Workload(
            "W2",
            {"name": "cnn"},
            sites=10,
            rows=(200, 200),
            shape=(1, 28, 28),
            classes=10,
            batch=32,
            local={"local_epochs": 1},
            rounds=20,
        ),
        Workload(
            "W3",
            {"name": "mlp", "hidden": [64]},
            sites=1000,
            rows=(20, 50),
            shape=(32,),
            classes=10,
            batch=10,
            local={"local_epochs": 1},
            rounds=20,
            cohort=100,
        ),
        Workload(
            "images",
            {"name": "cnn"},
            sites=4,
            rows=(1177, 1177),
            shape=(1, 28, 28),
            classes=2,
            batch=32,
            local={"local_epochs": 1},
            rounds=6,
        ),
    )
}
"""By name: four hospitals with the heart data's sizes, ten with small images, a thousand small sites, and four with a
quarter each of PneumoniaMNIST's number of training images (of :mod:`benchmarks.imaging`)."""

WORKS = {"W1": ("W1/logistic", "W1/mlp"), "W2": ("W2",), "W3": ("W3",)}
"""The workloads whose sums make one row of the table."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "fedprox": {"name": "fedprox", "mu": 0.01},
    "scaffold": {"name": "scaffold", "lr": 1.0, "weighting": "rows"},
}
