"""What was asked about a final state can be asked again after a crash: the sites give the replies that they kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas

from medfed.api import simulation_key
from medfed.core.examples import Split
from medfed.engine.assembly import assemble
from medfed.engine.hospitals import load_hospitals
from medfed.engine.process import Process, RunState
from medfed.engine.simulation import attached
from medfed.spec.loading import task_of

TASK = {
    "name": "asked twice",
    "task_type": "classification",
    "model": {"name": "logistic"},
    "federation": {"strategy": "fedavg", "rounds": 2},
    "data": {"id": "id", "label": {"column": "y"}, "columns": {"x": "continuous"}},
    "sites": {"A": "A", "B": "B"},
}


def hospital(seed: int) -> pandas.DataFrame:
    x = np.random.default_rng(seed).normal(size=120)
    return pandas.DataFrame({"id": [f"{seed}-{i}" for i in range(120)], "x": x, "y": (x > 0).astype(int)})


def all_that_is_asked(process: Process, state: RunState) -> list[object]:
    train = process.measure(state, Split.TRAIN)
    test, shown = process.appraise(state, Split.TEST)
    appraised = {site: (one.roc.x.tolist(), one.confusion, one.intervals) for site, one in shown.items()}
    return [train.rows, test.rows, appraised, {site: sheet.rows for site, sheet in process.sheets(state).items()}]


def test_a_final_state_that_is_asked_about_again_releases_nothing_anew(tmp_path: Path) -> None:
    def entries() -> list[dict[str, object]]:
        return [json.loads(line) for line in (tmp_path / "ledger" / "A.jsonl").read_text().splitlines()]

    task = task_of(TASK)
    hospitals = load_hospitals(task, tmp_path, {"A": hospital(1), "B": hospital(2)})
    assembly = assemble(task, hospitals, tmp_path, "run", simulation_key())
    with attached(assembly.simulation):
        process = assembly.process
        state, _ = process.next(process.initialize())
        first, before = all_that_is_asked(process, state), entries()
        process.federation.conversation.begin_round(0, {})  # another coordinator's process knows the state alone
        assert all_that_is_asked(process, state) == first
    kinds = Counter(entry["kind"] for entry in entries()[len(before) :])
    assert kinds["release"] == 0
    assert kinds["repeat"] == 7  # own metrics and sums of two splits; the appraisal and the patients' rows; the sheet
