"""The accuracy of one image classifier that four hospitals train, beside what else they could do."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import medfed
from benchmarks.rows import Row
from medfed.core.errors import MedFedError

Floats = NDArray[np.float64]

SEEDS = (0, 1, 2)
FILE = "pneumoniamnist.npz"
SITES = 4
MOST_LOST, LEAST_AUC, LONGEST_SECONDS, MOST_LOST_BY_COMPRESSION = 0.01, 0.94, 300.0, 0.005
_DRAWS = 2000

_RECIPE: dict[str, Any] = {
    "rounds": 400,
    "local_updates": 3,
    "batch_size": 32,
    "lr": 0.1,
    "schedule": "cosine",
}
_POOLED: dict[str, Any] = {"local_updates": 12}
"""A baseline's site does as many updates in all as the four sites of a federation together."""
_CAREFUL: dict[str, Any] = {"lr": 0.02}
"""A lower rate where the sites differ so much."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"strategy": "fedavg"},
    "fedprox": {"strategy": {"name": "fedprox", "mu": 0.01}},
    "scaffold": {"strategy": {"name": "scaffold", "lr": 1.0, "weighting": "rows"}},
    "fedbn": {"strategy": "fedavg", "local_layers": "norm"},
}
COMPRESSIONS: dict[str, tuple[dict[str, Any], float]] = {
    "int8": ({"name": "int8"}, 0.26),
    "topk": ({"name": "topk", "fraction": 0.01}, 0.03),
}
"""How updates are sent, and the largest share of the bytes."""


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, the seconds that it took, and the training rows of each site."""

    folder: Path
    seconds: float
    rows: dict[str, int]

    def scores(self, images: Path, site: str | None = None) -> Floats:
        """The probability of class 1 of each image."""
        found: Floats = medfed.predict(self.folder, images, site=site)["probability_1"].to_numpy(np.float64)
        return found

    def results(self) -> dict[str, Any]:
        """``results.json``."""
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found


def task(seed: int, alpha: float, federation: dict[str, Any], norm: str = "group") -> dict[str, Any]:
    """The task over four sites, by Dirichlet(alpha) on the label. norm: of the network."""
    return {
        "name": "pneumonia",
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": [1, 28, 28], "norm": norm},
        "federation": _RECIPE | federation,
        "partition": {"data": FILE, "sites": SITES, "by": "label", "alpha": alpha},
        "data": {
            "connector": "npz",
            "label": {"column": "label", "classes": [0, 1]},
            "split": {"column": "split"},
            "images": {"transforms": [{"name": "normalise", "by": "image"}]},
        },
        "evaluation": {"every": 20},
        "seed": seed,
    }


def trained(data: Path, described: dict[str, Any]) -> Trained:
    """Run a task; its folder stays in the temporary one."""
    strategy = described["federation"]["strategy"]
    print(f"{strategy if isinstance(strategy, str) else strategy['name']}, seed {described['seed']}", file=sys.stderr)
    begun, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="imaging-")) / "run"
    outcome = medfed.run(described, data=data, output=folder)
    seconds = time.monotonic() - begun
    rows = json.loads((outcome.folder.path / "results.json").read_text())["rows"]
    return Trained(folder, seconds, {site: counts["train"] for site, counts in rows.items()})


def accuracy_rows(data: Path, seeds: Sequence[int]) -> Iterator[Row]:
    """Train all there is to compare, and make rows of it as they are known."""
    images, truth = held_out(data)
    scores: dict[str, list[Floats]] = {"pooled": [], "fedavg": []}
    local, runs = [], []
    for seed in seeds:
        pooled, fedavg, alone = (
            trained(data, task(seed, 0.5, settings))
            for settings in (_POOLED | {"strategy": "pooled"}, {"strategy": "fedavg"}, _POOLED | {"strategy": "local"})
        )
        scores["pooled"].append(pooled.scores(images))
        scores["fedavg"].append(fedavg.scores(images))
        own = [auc_of(truth, alone.scores(images, site)) for site in alone.rows]
        local.append(np.average(own, weights=list(alone.rows.values())))
        runs.append(fedavg)
    auc = {name: float(np.mean([auc_of(truth, each) for each in found])) for name, found in scores.items()}
    lost, (low, high) = auc["pooled"] - auc["fedavg"], paired_interval(truth, scores["pooled"], scores["fedavg"])
    below, alone_auc = 1 - auc["fedavg"], float(np.mean(local))
    paired = f"over {MOST_LOST}; paired 95 %: {low:+.4f}, {high:+.4f}"
    slowest = max(run.seconds for run in runs)
    yield from (
        Row("auc/pooled", auc["pooled"], "AUC", None, None, f"mean of {len(seeds)} seeds"),
        Row("auc/fedavg", auc["fedavg"], "AUC", below / (1 - LEAST_AUC), 1.0, f"1 − AUC over that of {LEAST_AUC}"),
        Row("auc/local_mean", alone_auc, "AUC", below / (1 - alone_auc), 1.0, "1 − AUC of fedavg over its own"),
        Row("auc/pooled-fedavg", lost, "AUC", lost / MOST_LOST, 1.0, paired),
        Row("run/seconds", slowest, "s", slowest / LONGEST_SECONDS, 1.0, f"over {LONGEST_SECONDS:.0f} s"),
    )
    yield from compression_rows(data, seeds, images, truth, runs)
    yield from skewed_rows(data, seeds[0])


def compression_rows(
    data: Path, seeds: Sequence[int], images: Path, truth: NDArray[np.int64], plain: Sequence[Trained]
) -> Iterator[Row]:
    """The bytes of a compressed update over those of a plain one, and the AUC that it costs."""
    for name, (settings, most) in COMPRESSIONS.items():
        runs = [trained(data, task(s, 0.5, {"strategy": "fedavg", "compression": settings})) for s in seeds]
        sent, whole = update_bytes(runs[0]), update_bytes(plain[0])
        ours, theirs = ([each.scores(images) for each in found] for found in (runs, plain))
        lost = difference(truth, theirs, ours)
        low, high = paired_interval(truth, theirs, ours)
        said = f"over {MOST_LOST_BY_COMPRESSION}; paired 95 %: {low:+.4f}, {high:+.4f}"
        yield Row(f"{name}/bytes", sent, "B", sent / whole, most, f"uncompressed: {whole:,.0f} B")
        yield Row(f"{name}/auc_lost", lost, "AUC", lost / MOST_LOST_BY_COMPRESSION, 1.0, said)


def skewed_rows(data: Path, seed: int) -> Iterator[Row]:
    """The strategies where sites have hardly a class in common, with batch normalisation, which FedBN is about.

    One that diverges is told of and has no row.
    """
    for name, settings in STRATEGIES.items():
        try:
            results = trained(data, task(seed, 0.1, _CAREFUL | settings, norm="batch")).results()
        except MedFedError as error:
            print(f"auc/dirichlet_0.1/{name}: no model ({error.cause[:80]})")
            continue
        value = results["metrics"]["test"]["federated"]["auc"]["value"]
        low, high = results["appraisal"]["sites"]["federated"]["intervals"]["auc"]
        yield Row(f"auc/dirichlet_0.1/{name}", value, "AUC", None, None, f"95 %: {low:.4f}, {high:.4f}")


def held_out(data: Path) -> tuple[Path, NDArray[np.int64]]:
    """The official test images as a file of new images, and their labels."""
    with np.load(data / FILE) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"].ravel().astype(np.int64)
    path = Path(tempfile.mkdtemp(prefix="imaging-")) / "test.npz"
    np.savez(path, images=images, labels=labels)
    return path, labels


def update_bytes(run: Trained) -> float:
    """The mean bytes of a site's training releases, from its ledger."""
    sizes = [
        entry["bytes"]
        for ledger in sorted((run.folder / "ledger").glob("site-*.jsonl"))
        for entry in map(json.loads, ledger.read_text().splitlines())
        if entry.get("kind") == "release" and entry.get("step") == "fedavg.train_locally"
    ]
    return float(np.mean(sizes))


def auc_of(truth: NDArray[np.int64], scores: Floats) -> float:
    """The area under the ROC curve: of all pairs of a case and a control, those that are in order, ties by half."""
    cases, controls = scores[truth == 1], np.sort(scores[truth == 0])
    below, not_above = np.searchsorted(controls, cases, "left"), np.searchsorted(controls, cases, "right")
    return float((below + not_above).sum() / (2 * cases.size * controls.size))


def difference(truth: NDArray[np.int64], ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    """The mean over seeds of AUC(ours) − AUC(theirs)."""
    return float(np.mean([auc_of(truth, a) - auc_of(truth, b) for a, b in zip(ours, theirs, strict=True)]))


def paired_interval(truth: NDArray[np.int64], ours: Sequence[Floats], theirs: Sequence[Floats]) -> tuple[float, float]:
    """95 % for :func:`difference`: the images are drawn anew within each class, the same for both and for all seeds."""
    draw, classes = np.random.default_rng(0), [np.flatnonzero(truth == label) for label in (0, 1)]
    found = []
    for _ in range(_DRAWS):
        index = np.concatenate([draw.choice(members, members.size) for members in classes])
        found.append(difference(truth[index], [each[index] for each in ours], [each[index] for each in theirs]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
