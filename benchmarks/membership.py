"""What differential privacy by record costs in accuracy, and what it does against membership inference.

    python -m benchmarks.membership --json membership.json
    python -m benchmarks.membership --heart DIR --models 16

For each epsilon, models are trained by FedAvg over four hospitals, each model on a random half of every hospital's
training rows. Each is attacked by LiRA (Carlini et al. 2022, "Membership Inference Attacks From First Principles", with
the global variance that suits few shadow models): all other models are its shadows, those that had a row and those that
had not. It is attacked as its participants know it, at the end of training.

- ``NAME/EPSILON/accuracy``: on test rows that no model was trained on, the mean over models.
- ``NAME/EPSILON/auc``: of LiRA, over all rows and models; .5 is a guess.
- ``NAME/EPSILON/tpr``: its true positive rate at 1 % of false positives, with a 95 % interval (Wilson); .01 is a guess.

The data are scikit-learn's breast cancer, dealt to four hospitals, and UCI Heart Disease by its hospitals where DIR
holds the four ``processed.*.data`` files.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row, print_rows, write_rows
from medfed import build
from medfed.models.catalogue import build_network
from medfed.spec.loading import task_of

EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0, 1.0)
DELTA, FALSE_POSITIVES = 1e-3, 0.01
_TESTED = 0.2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Hospital:
    """One hospital's rows: features (n, d), standardised; labels (n,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Shadow:
    """One model. members: by row of all hospitals' training rows, whether it was trained on it. scores: the logit of
    the probability that it gives to each row's own label. accuracy: on the test rows."""

    members: NDArray[np.bool_]
    scores: Floats
    accuracy: float


def breast_cancer() -> list[Hospital]:
    """Four hospitals of unlike size."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features = (features - features.mean(0)) / features.std(0)
    parts = np.split(order, (np.cumsum([0.4, 0.3, 0.2]) * len(order)).astype(int))
    return [Hospital(features[part].astype(np.float32), labels[part].astype(np.int64)) for part in parts]


def heart(source: Path) -> list[Hospital]:
    """The hospitals of Fed-Heart-Disease, each standardised by itself as there."""
    import pandas

    from medfed.data.heart import published_benchmark

    frames = published_benchmark(source)
    joined = pandas.concat(frames, names=["hospital", "row"])
    levels = ["cp", "restecg"]
    features = pandas.get_dummies(
        joined.drop(columns=["id", "num", "split"]), columns=levels, drop_first=True, dtype=float
    )
    hospitals = []
    for name in frames:
        rows = features.loc[name].to_numpy(np.float64)
        rows = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1.0)
        labels = (joined.loc[name]["num"].to_numpy(np.int64) > 0).astype(np.int64)
        hospitals.append(Hospital(rows.astype(np.float32), labels))
    return hospitals


def task(epsilon: float | None, seed: int, hidden: Sequence[int]) -> dict[str, Any]:
    """A small network, trained for long enough that it can learn rows by heart."""
    private = {} if epsilon is None else {"privacy": {"record": {"epsilon": epsilon, "delta": DELTA}}}
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": list(hidden)},
        "federation": {"strategy": "fedavg", "rounds": 30, "local_epochs": 1, "batch_size": 16, "lr": 0.2},
        "data": {
            "label": {"column": "label", "classes": [0, 1]},
            "standardize": "none",
            "split": {"train": 1, "validation": 0, "test": 0},
        },
        "seed": seed,
        **private,
    }


def shadows(hospitals: Sequence[Hospital], epsilon: float | None, models: int) -> Iterator[Shadow]:
    """Models, each of a random half of the training rows; every row is in half of the models."""
    random = np.random.default_rng(7)
    tested = [random.random(len(each.labels)) < _TESTED for each in hospitals]
    train = [Hospital(h.features[~out], h.labels[~out]) for h, out in zip(hospitals, tested, strict=True)]
    test = [Hospital(h.features[out], h.labels[out]) for h, out in zip(hospitals, tested, strict=True)]
    halves = [_halves(len(each.labels), models, random) for each in train]
    for number in range(models):
        chosen = [half[number] for half in halves]
        described = task(epsilon, number, [32])
        process = build(
            described,
            {
                f"hospital {place}": (each.features[half], each.labels[half])
                for place, (each, half) in enumerate(zip(train, chosen, strict=True))
            },
        )
        state = process.initialize()
        while not process.done(state):
            state, _ = process.next(state)
        network = build_network(task_of(described).spec.model, train[0].features.shape[1:], 1, 0)
        network.load(process.weights(state)[""])
        right = np.concatenate([(_logits(network, each.features) > 0) == each.labels for each in test])
        scores = np.concatenate([_logits(network, each.features) * (2 * each.labels - 1) for each in train])
        yield Shadow(np.concatenate(chosen), scores, float(right.mean()))


def _halves(rows: int, models: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """(models, rows): whose training rows are whose; the second half of the models has what the first has not."""
    half = models // 2
    first = np.array([random.permutation(rows) < rows // 2 for _ in range(half)])
    return np.concatenate([first, ~first])


def _logits(network: Any, features: NDArray[np.float32]) -> Floats:
    import torch

    with torch.no_grad():
        found: Floats = network.module.eval()(torch.from_numpy(features)).squeeze(-1).double().numpy()
    return found


def lira(found: Sequence[Shadow]) -> tuple[Floats, NDArray[np.bool_]]:
    """Each model's rows by the log-likelihood ratio of having been members, and whether they were."""
    scores, members = np.array([each.scores for each in found]), np.array([each.members for each in found])
    ratios = []
    for target in range(len(found)):
        others = np.arange(len(found)) != target
        inside = np.ma.masked_array(scores[others], ~members[others])
        outside = np.ma.masked_array(scores[others], members[others])
        ratios.append(_likelihood(scores[target], inside) - _likelihood(scores[target], outside))
    return np.concatenate(ratios), members.reshape(-1)


def _likelihood(scores: Floats, shadow: Any) -> Floats:
    """log N(score; the row's mean, one deviation for all rows) but for a constant."""
    mean = shadow.mean(0)
    deviation = math.sqrt(float((shadow - mean).var()))
    found: Floats = np.ma.filled(-(((scores - mean) / deviation) ** 2) / 2 - math.log(deviation), 0.0)
    return found


def rows_of(name: str, hospitals: Sequence[Hospital], models: int) -> Iterator[Row]:
    """The rows of one data set."""
    from sklearn.metrics import roc_auc_score

    for epsilon in EPSILONS:
        found = list(shadows(hospitals, epsilon, models))
        ratios, members = lira(found)
        threshold = np.quantile(ratios[~members], 1 - FALSE_POSITIVES)
        caught, of = int((ratios[members] > threshold).sum()), int(members.sum())
        low, high = _wilson(caught, of)
        at = f"{name}/{'none' if epsilon is None else f'{epsilon:g}'}"
        spread = np.std([each.accuracy for each in found])
        yield Row(
            f"{at}/accuracy", float(np.mean([e.accuracy for e in found])), "share", None, None, f"sd {spread:.3f}"
        )
        yield Row(f"{at}/auc", float(roc_auc_score(members, ratios)), "", None, None, f"LiRA, {models} models")
        yield Row(f"{at}/tpr", caught / of, "share", None, None, f"at 1 % false positives; {low:.3f} to {high:.3f}")


def _wilson(caught: int, of: int, z: float = 1.96) -> tuple[float, float]:
    share, spread = caught / of, z * z / of
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return centre - half, centre + half


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, attack, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--heart", type=Path, help="the folder of UCI Heart Disease")
    parser.add_argument("--models", type=int, default=16, help="models for each epsilon, an even number from 4 on")
    options = parser.parse_args(arguments)
    if options.models < 4 or options.models % 2:
        parser.error("--models takes an even number from 4 on")
    found = list(rows_of("breast", breast_cancer(), options.models))
    if options.heart:
        found += rows_of("heart", heart(options.heart), options.models)
    print_rows(found)
    if options.json:
        write_rows(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
