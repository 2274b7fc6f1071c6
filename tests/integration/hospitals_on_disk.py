"""Four small hospitals on disk, and medfed's commands as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SITES = {"Ost": 44, "Nord": 30, "Süd": 61, "West": 23}
TIMES = ("run", "started", "seconds", "timings")
"""What differs between two runs of one task: the run's id, and when."""


def write_hospitals(folder: Path, *, extra: dict[str, Any] | None = None, **federation: Any) -> Path:
    """A task over four sites' tables of four columns; returns the task's file. YAML is a superset of JSON."""
    random = np.random.default_rng(5)
    for shift, (site, rows) in enumerate(SITES.items()):
        (folder / site).mkdir(parents=True)
        age = random.normal(60 + shift, 12, rows).round(1)
        dose = random.exponential(2 + shift, rows).round(3)
        sex = random.integers(0, 2, rows)
        risk = 1 / (1 + np.exp(-(0.08 * (age - 62) + 0.5 * (dose - 3))))
        ill = (random.random(rows) < risk).astype(int)
        table = [f"{site}-{k:03},{age[k]},{sex[k]},{dose[k]},{ill[k]}" for k in range(rows)]
        (folder / site / "rows.csv").write_text("\n".join(["id,age,sex,dose,ill", *table]) + "\n")
    task = {
        "name": "four hospitals",
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [4]},
        "federation": {"strategy": "fedavg", "rounds": 3, "local_updates": 3, "batch_size": 7, "lr": 0.05} | federation,
        "sites": {site: f"{site}/rows.csv" for site in SITES},
        "data": {
            "id": "id",
            "label": {"column": "ill", "classes": [0, 1]},
            "columns": {"age": "continuous", "sex": {"type": "binary", "levels": [0, 1]}, "dose": "continuous"},
            "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        },
        "seed": 11,
    }
    (folder / "task.yaml").write_text(json.dumps(task | (extra or {}), ensure_ascii=False, indent=1))
    return folder / "task.yaml"


def medfed(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command, waited for."""
    return subprocess.run(
        [sys.executable, "-m", "medfed", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def medfed_begun(*arguments: str | Path, cwd: Path, group: bool = False) -> subprocess.Popen[str]:
    """One command, not waited for, which Ctrl-C reaches even where this process ignores it.

    group: as a terminal begins it, in a process group of its own, whose id is that of the process.
    """
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "medfed", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def outcome(run: Path) -> dict[str, Any]:
    """All of a finished run that has to be the same again, to the bit."""
    results = json.loads((run / "results.json").read_text())
    return {
        "model": (run / "model.safetensors").read_bytes(),
        "encoding": (run / "encoding.bin").read_bytes(),
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "sheets": (run / "sheets.json").read_bytes(),
        "task": (run / "task.yaml").read_bytes(),
        "results": {key: value for key, value in results.items() if key not in TIMES},
    }
