"""Run folders like those that a run writes, from seeded random numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HOSPITALS = ("Cleveland", "Hungarian", "Switzerland", "VA Long Beach")
CLASSIFICATION = ("loss", "accuracy", "auc", "recall", "specificity", "brier")
REGRESSION = ("loss", "rmse", "r2")
TASK = """\
name: heart
task_type: classification
model:
  name: logistic
federation:
  strategy:
    name: fedavg
  rounds: 50
  local_epochs: 1
  batch_size: 4
  lr: 0.01
  optimizer: adam
data:
  label:
    column: num
sites: {}
seed: 42
"""


@dataclass(frozen=True)
class Kind:
    """What a made-up run is like."""

    sites: tuple[str, ...] = HOSPITALS
    rounds: int = 50
    strategy: str = "fedavg"
    task_type: str = "classification"
    status: str = "complete"
    lift: float = 0.0
    valueless: bool = False
    seed: int = 7

    @property
    def metrics(self) -> tuple[str, ...]:
        return CLASSIFICATION if self.task_type == "classification" else REGRESSION


def _value(metric: str, progress: float, site: int, rng: np.random.Generator, lift: float) -> float:
    wobble = rng.normal(0, 0.006)
    if metric in ("loss", "rmse"):
        return float(0.36 + 0.03 * (site % 5) + 0.4 * np.exp(-4 * progress) - lift + wobble)
    if metric == "brier":
        return float(0.13 + 0.01 * (site % 5) + 0.12 * np.exp(-4 * progress) - lift / 3 + wobble / 2)
    return float(np.clip(0.86 - 0.02 * (site % 5) - 0.3 * np.exp(-5 * progress) + lift + wobble, 0, 1))


def _measure(kind: Kind, metric: str, site: int, progress: float, rng: np.random.Generator, n: int) -> dict[str, Any]:
    if kind.valueless:
        return {"value": None, "n": None, "reason": "withheld"}
    if site == 2 and metric in ("auc", "specificity"):
        return {"value": None, "n": n, "reason": "one class only"}
    found = {"value": _value(metric, progress, max(site, 0), rng, kind.lift), "n": n}
    return found | ({"error": 0.0004} if metric == "auc" and site == -1 else {})


def write_metrics(folder: Path, kind: Kind) -> None:
    rng = np.random.default_rng(kind.seed)
    with (folder / "metrics.jsonl").open("w") as file:
        for number in range(1, kind.rounds + 1):
            for split in ("train", "validation"):
                for i, site in enumerate((*kind.sites, "federated")):
                    index = -1 if site == "federated" else i
                    for metric in kind.metrics if split == "validation" else ("loss",):
                        measure = _measure(kind, metric, index, number / kind.rounds, rng, 20 + 9 * (i % 5))
                        head = {"round": number, "site": site, "split": split, "metric": metric}
                        file.write(json.dumps(head | measure, ensure_ascii=False) + "\n")


def class_rows(kind: Kind) -> dict[str, dict[str, int]]:
    """The test rows of both classes at each site; the third site has one class only."""
    return {site: {"0": 0 if i == 2 else 30 + 5 * (i % 7), "1": 16 + 7 * (i % 5)} for i, site in enumerate(kind.sites)}


def appraisal(kind: Kind, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Curves, confusion and intervals of every site but the third, which shows its confusion alone."""
    grid = np.linspace(0, 1, 20)
    sites = {}
    for i, site in enumerate((*kind.sites, "federated")):
        shown = i != 2
        negatives, positives = (counts.get(site, {"0": 150, "1": 120})[k] for k in ("0", "1"))
        sites[site] = {
            "precision_recall": {
                "recall": grid.tolist() if shown else [],
                "precision": (1 - 0.5 * grid ** (2 + 0.4 * (i % 6))).tolist() if shown else [],
            },
            "calibration": {
                "predicted": (0.05 + grid[::2] * 0.9).tolist() if shown else [],
                "observed": (grid[::2] ** (0.8 + 0.1 * (i % 6))).tolist() if shown else [],
            },
            "confusion": [[negatives - negatives // 5, negatives // 5], [positives // 4, positives - positives // 4]],
            "intervals": {"auc": [0.801, 0.902], "average_precision": [0.7, 0.9]} if shown else {},
        }
    return {"split": "test", "sites": sites}


def explanations(kind: Kind) -> dict[str, Any] | None:
    """Average shares by feature; of runs of one site, a map."""
    if kind.valueless:
        return None
    if len(kind.sites) == 1:
        y, x = np.mgrid[:14, :14]
        cells = np.exp(-((y - 4) ** 2 + (x - 9) ** 2) / 9)
        return {"rows": 46, "withheld": 0, "features": {}, "map": (cells / cells.sum()).tolist()}
    return {"rows": 200, "withheld": 1, "features": {"age": 0.3, "chol": 0.5, "sex": 0.2}, "map": []}


def results(kind: Kind) -> dict[str, Any]:
    rng = np.random.default_rng(kind.seed + 1)
    counts = class_rows(kind)
    total = sum(sum(c.values()) for c in counts.values())
    final = {
        site: {
            metric: _measure(
                kind,
                metric,
                -1 if site == "federated" else i,
                1.0,
                rng,
                sum(counts[site].values()) if site in counts else total,
            )
            for metric in kind.metrics
        }
        for i, site in enumerate((*kind.sites, "federated"))
    }
    grid = np.linspace(0, 1, 40)
    roc = {
        site: {"fpr": grid.tolist(), "tpr": np.clip(grid ** (0.16 + 0.03 * (i % 6)), 0, 1).tolist()}
        for i, site in enumerate((*kind.sites, "federated"))
        if i != 2
    }
    return {
        "medfed": "0.1.0",
        "run": "heart-20260101T120000-1f3a",
        "name": "heart",
        "task_type": kind.task_type,
        "strategy": kind.strategy,
        "task_digest": "9f" * 32,
        "status": kind.status,
        "stopped_because": "the last round was reached" if kind.status == "complete" else "Ctrl-C was pressed",
        "rounds": kind.rounds,
        "seed": 42,
        "parameters": 14,
        "simulation": True,
        "policies": dict.fromkeys(kind.sites, "permissive"),
        "features": [
            "age",
            "sex",
            "cp=2",
            "cp=3",
            "cp=4",
            "trestbps",
            "chol",
            "fbs",
            "restecg=1",
            "restecg=2",
            "thalach",
        ],
        "classes": ["0", "1"] if kind.task_type == "classification" else [],
        "rows": {
            site: {"train": 199 - i % 97, "validation": None if i == 2 else 30, "test": sum(counts[site].values())}
            for i, site in enumerate(kind.sites)
        },
        "metrics": {"test": final},
        "appraisal": appraisal(kind, counts) if kind.task_type == "classification" and not kind.valueless else {},
        "explanations": explanations(kind),
        "roc": roc if kind.task_type == "classification" and not kind.valueless else {},
        "absences": [{"round": 12, "site": kind.sites[-1], "sentence": "no answer within 30 s"}],
        "started": "2026-01-01T12:00:00+00:00",
        "seconds": 12.5,
    }


def write_sheets(folder: Path, kind: Kind) -> None:
    counts = class_rows(kind)
    sheets = {
        site: {
            "rows": 303 - i % 97,
            "patients": 303 - i % 97,
            "splits": {"train": 199 - i % 97, "test": sum(counts[site].values())},
            "classes": {"train": {"0": None if i == 2 else 108, "1": 91}, "test": counts[site]},
            "missing": {"chol": 3 + i % 97, "trestbps": None},
            "dropped": None if i == 2 else 6,
            "duplicates": 0,
            "warnings": ["only one class is present: AUC and specificity do not exist here"] if i == 2 else [],
        }
        for i, site in enumerate(kind.sites)
        if i != 3
    }
    (folder / "sheets.json").write_text(json.dumps(sheets, ensure_ascii=False))


def write_ledgers(folder: Path, kind: Kind) -> None:
    (folder / "ledger").mkdir()
    steps = (
        ("prepare.standardise", "sum", ["sums float64[2,11]", "rows int64"], 1, 312),
        ("fedavg.train_locally", "sum", ["delta float32[14]", "rows int64"], kind.rounds, 152),
        ("evaluate.measure", "site", ["values float64[6]"], kind.rounds, 240),
        (
            "evaluate.histogram",
            "sum",
            ["positives int64[1000]", "negatives int64[1000]"],
            kind.rounds,
            16_128,
        ),
    )
    for i, site in enumerate(kind.sites):
        entries: list[dict[str, Any]] = [{"kind": "opened", "time": "2026-01-01T12:00:00Z"}]
        for name, release, shapes, times, weight in steps:
            one = {
                "kind": "release",
                "run": "heart",
                "call": 0,
                "step": name,
                "release": release,
                "bytes": weight,
            }
            one |= {"digest": "ab" * 32, "shapes": shapes, "protection": "none (simulation in one process)"}
            entries += [one | {"round": r + 1} for r in range(times)]
        if i == 1:
            entries.append(
                {
                    "kind": "refusal",
                    "step": "levels.find",
                    "code": "too_few",
                    "sentence": "fewer than 5 patients share a level",
                }
            )
        (folder / "ledger" / f"{site.replace('/', '_')}.jsonl").write_text(
            "".join(json.dumps(e) + "\n" for e in entries)
        )


def write_environment(folder: Path) -> None:
    environment = {
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "cpus": 2,
        "packages": {"numpy": "2.4.0", "torch": "2.13.0", "duckdb": "1.4.0"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))


def run_folder(folder: Path, kind: Kind | None = None) -> Path:
    """A whole run folder."""
    kind = kind or Kind()
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(TASK)
    write_metrics(folder, kind)
    (folder / "results.json").write_text(json.dumps(results(kind), ensure_ascii=False, indent=2))
    write_sheets(folder, kind)
    write_environment(folder)
    write_ledgers(folder, kind)
    return folder


def compare_folder(
    folder: Path,
    strategies: tuple[str, ...] = ("local", "pooled", "fedavg", "fedprox", "scaffold"),
    sites: tuple[str, ...] = HOSPITALS,
    rounds: int = 30,
) -> Path:
    """A compare folder with a run folder per strategy."""
    folder.mkdir(parents=True)
    described = {
        "name": "heart",
        "task_type": "classification",
        "strategies": list(strategies),
        "folders": {strategy: strategy for strategy in strategies},
    }
    (folder / "comparison.json").write_text(json.dumps(described))
    for i, strategy in enumerate(strategies):
        lift = -0.06 if strategy == "local" else 0.0
        run_folder(folder / strategy, Kind(strategy=strategy, lift=lift, seed=i + 1, sites=sites, rounds=rounds))
    return folder
