from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfed import api
from medfed.core.errors import RunFolderError
from medfed.engine import folder as folder_module
from medfed.engine.comparison import Comparison, strategy_tasks
from medfed.engine.process import RoundMetrics, RunState
from medfed.spec.loading import task_of

TASK: dict[str, Any] = {
    "name": "comparison",
    "task_type": "regression",
    "model": "linear",
    "federation": {"strategy": "fedavg", "epochs": 2, "lr": 0.01},
    "data": {"label": {"column": "y"}, "standardize": "none", "split": {"train": 0.5, "validation": 0, "test": 0.5}},
    "compare": {
        "strategies": ["local", "fedavg", {"name": "fedprox", "mu": 0.5}],
        "overrides": {"local": {"optimizer": "adam", "epochs": 3}},
    },
    "seed": 3,
}


def sites() -> dict[str, Any]:
    random = np.random.default_rng(1)
    features = random.normal(size=(2, 30, 2)).astype(np.float32)
    return {name: (x, x @ np.array([1.0, -2.0])) for name, x in zip(("A", "B"), features, strict=True)}


class Interrupt:
    """An observer that presses Ctrl-C after the first round of one strategy."""

    def __init__(self, name: str, at: str) -> None:
        self.interrupts = name == at

    def begun(self, process: Any, state: RunState) -> None: ...

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        if self.interrupts:
            raise KeyboardInterrupt


def models(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("model.safetensors")}


@pytest.mark.parametrize("at", ["local", "fedavg", "fedprox"])
def test_a_comparison_goes_on_where_it_was_interrupted(tmp_path: Path, at: str) -> None:
    unbroken = api.compare(TASK, sites(), output=tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        api.compare(TASK, sites(), output=tmp_path / "broken", observer=lambda name: Interrupt(name, at))
    finished = {p.parent.name: p.read_bytes() for p in (tmp_path / "broken").glob("*/results.json")}
    begun: list[tuple[str, int]] = []

    class Notes(Interrupt):
        def begun(self, process: Any, state: RunState) -> None:
            begun.append((process.task.federation.strategy.name, state.round))

    again = api.compare(TASK, sites(), output=tmp_path / "broken", observer=lambda name: Notes(name, ""))
    order = ["local", "fedavg", "fedprox"]
    assert begun == [(name, int(name == at)) for name in order[order.index(at) :]]
    assert again.table() == unbroken.table()
    assert models(tmp_path / "broken") == models(tmp_path / "unbroken")
    assert (tmp_path / "broken" / "report.html").is_file()
    for name, content in finished.items():
        assert (tmp_path / "broken" / name / "results.json").read_bytes() == content


def test_a_finished_comparison_is_not_run_again(tmp_path: Path) -> None:
    api.compare(TASK, sites(), output=tmp_path / "done")
    again = api.compare(TASK, sites(), output=tmp_path / "done", observer=lambda name: Interrupt(name, name))
    assert again.outcomes == {}
    assert sorted(again.table()) == ["fedavg", "fedprox", "local"]


def test_another_comparison_or_a_run_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    api.compare(TASK, sites(), output=tmp_path / "done")
    with pytest.raises(RunFolderError, match="another comparison is in this folder"):
        api.compare(TASK | {"seed": 4}, sites(), output=tmp_path / "done")
    with pytest.raises(RunFolderError, match="a run in this folder already"):
        api.compare(TASK, sites(), output=tmp_path / "done" / "fedavg")


def test_a_kill_between_the_two_files_of_a_comparison_is_mended_by_beginning_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison(tmp_path / "new", "name", "regression", {})
    replace = Path.replace
    done: list[Path] = []

    def second_is_never_made(path: Path, target: Path) -> Path:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder_module.Path, "replace", second_is_never_made)
        comparison.begin(["fedavg"], "a task\n", "")
    comparison.begin(["fedavg"], "a task\n", "")
    assert json.loads((tmp_path / "new" / "comparison.json").read_text())["strategies"] == ["fedavg"]
    assert (tmp_path / "new" / "task.yaml").read_text() == "a task\n"


def test_overrides_hold_for_their_strategy_alone() -> None:
    tasks = {name: task.spec.federation for name, task in strategy_tasks(task_of(TASK)).items()}
    assert list(tasks) == ["local", "fedavg", "fedprox"]
    assert (tasks["local"].optimizer, tasks["local"].total_rounds) == ("adam", 3)
    assert (tasks["fedavg"].optimizer, tasks["fedavg"].total_rounds) == ("sgd", 2)
    assert tasks["fedprox"].strategy.options == {"mu": 0.5}
