"""What differential privacy by record costs in accuracy, and what it does against membership inference.

    python -m benchmarks.membership --json membership.json
    python -m benchmarks.membership --heart DIR --models 16

For each epsilon, models are trained by FedAvg over four hospitals, each model on a random half of every hospital's
training rows. Each is attacked by the LiRA of ``medfed audit`` (:mod:`medfed.attacks.membership`): all other models are
its shadows, those that had a row and those that had not. It is attacked as its participants know it, at the end of
training.

- ``NAME/EPSILON/accuracy``: on test rows that no model was trained on, the mean over models.
- ``NAME/EPSILON/auc``: of LiRA, over all rows and models, with a 95 % interval; .5 is a guess.
- ``NAME/EPSILON/tpr``: its true positive rate at 1 % of false positives, with a 95 % interval (bootstrap over rows);
  .01 is a guess.

The data are scikit-learn's breast cancer, dealt to four hospitals, and UCI Heart Disease by its hospitals where DIR
holds the four ``processed.*.data`` files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row, print_rows, write_rows
from medfed import build
from medfed.attacks.margins import margins
from medfed.attacks.membership import AT_ONCE, Shadow, judged, members_of, success
from medfed.core.examples import Examples
from medfed.core.rng import generator
from medfed.models.catalogue import build_network
from medfed.spec.loading import task_of

EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0, 1.0)
DELTA = 1e-3
_TESTED = 0.2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Hospital:
    """One hospital's rows: features (n, d), standardised; labels (n,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """One model, as its attacker needs it, over all hospitals' training rows; and its accuracy on the test rows."""

    shadow: Shadow
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
        "engine": {"workers": 1},  # in which noise that was solved for is known to the next model
        "seed": seed,
        **private,
    }


def shadows(hospitals: Sequence[Hospital], epsilon: float | None, models: int) -> Iterator[Measured]:
    """Models, each of a random half of the training rows; every row is in half of the models."""
    random = np.random.default_rng(7)
    tested = [random.random(len(each.labels)) < _TESTED for each in hospitals]
    train = [Hospital(h.features[~out], h.labels[~out]) for h, out in zip(hospitals, tested, strict=True)]
    test = [Hospital(h.features[out], h.labels[out]) for h, out in zip(hospitals, tested, strict=True)]
    turns = range(models // AT_ONCE)
    halves = [np.concatenate([members_of(len(each.labels), 2, random) for _ in turns]) for each in train]
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
        scores = np.concatenate([margins(network, Examples(each.features, each.labels)) for each in train])
        yield Measured(Shadow(np.concatenate(chosen), scores), float(right.mean()))


def _logits(network: Any, features: NDArray[np.float32]) -> Floats:
    import torch

    with torch.no_grad():
        found: Floats = network.module.eval()(torch.from_numpy(features)).squeeze(-1).double().numpy()
    return found


def rows_of(
    name: str, hospitals: Sequence[Hospital], models: int, epsilons: Sequence[float | None] = EPSILONS
) -> Iterator[Row]:
    """The rows of one data set."""
    for epsilon in epsilons:
        found = list(shadows(hospitals, epsilon, models))
        trials = judged([each.shadow for each in found], generator(7, "judged"))
        attack = success(trials, generator(7, "resampled"))
        at = f"{name}/{'none' if epsilon is None else f'{epsilon:g}'}"
        accuracies = [each.accuracy for each in found]
        spread = f"sd {np.std(accuracies):.3f}"
        ends = f"{attack.auc_low:.3f} to {attack.auc_high:.3f}"
        caught = f"at 1 % false positives; {attack.tpr_low:.3f} to {attack.tpr_high:.3f}"
        yield Row(f"{at}/accuracy", float(np.mean(accuracies)), "share", None, None, spread)
        yield Row(f"{at}/auc", attack.auc, "", None, None, f"LiRA, {models} models; {ends}")
        yield Row(f"{at}/tpr", attack.tpr, "share", None, None, caught)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, attack, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--heart", type=Path, help="the folder of UCI Heart Disease")
    parser.add_argument("--models", type=int, default=16, help="models for each epsilon: 8, 12, 16, …")
    options = parser.parse_args(arguments)
    if options.models < 2 * AT_ONCE or options.models % AT_ONCE:
        parser.error("--models takes 8, 12, 16, …")
    found = list(rows_of("breast", breast_cancer(), options.models))
    if options.heart:
        found += rows_of("heart", heart(options.heart), options.models)
    print_rows(found)
    if options.json:
        write_rows(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
