"""One task under several strategies, on the same rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically
from medfed.engine.outcome import Outcome
from medfed.spec.comparison import federation_for, model_for
from medfed.spec.loading import TaskFile
from medfed.spec.task import BASELINES, Plugin, Privacy, TaskSpec


@dataclass(frozen=True)
class Comparison:
    """A folder with a run below it for each strategy; ``outcomes`` are of the runs made just now."""

    folder: Path
    name: str
    task_type: str
    outcomes: dict[str, Outcome]

    def begin(self, strategies: list[str], task: str, data: str) -> None:
        """Write down what is compared. Raises RunFolderError where the folder holds something else."""
        content = {
            "name": self.name,
            "task_type": self.task_type,
            "strategies": strategies,
            "folders": {name: name for name in strategies},
            "data": data,
        }
        file, resolved = self.folder / "comparison.json", self.folder / "task.yaml"
        if file.exists():
            same_task = not resolved.exists() or resolved.read_text() == task
            if json.loads(file.read_text()) != content or not same_task:
                raise RunFolderError(
                    "another comparison is in this folder: its task, strategies or data differ",
                    where=str(self.folder),
                    remedy="name another folder by --output, or give the task as it was",
                )
        elif resolved.exists():
            raise RunFolderError(
                "there is a run in this folder already",
                where=str(self.folder),
                remedy="name another folder by --output",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"the folder cannot be made ({error.strerror})", where=str(self.folder)) from error
        write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_atomically(resolved, task)

    def table(self) -> dict[str, dict[str, float | None]]:
        """The federated test metrics by strategy, read from the runs' results."""
        rows = {}
        for name in json.loads((self.folder / "comparison.json").read_text())["strategies"]:
            metrics = json.loads((self.folder / name / "results.json").read_text())["metrics"]
            measured = metrics.get("test") or next(iter(metrics.values()))
            rows[name] = {metric: found["value"] for metric, found in measured["federated"].items()}
        return rows


def strategy_tasks(task: TaskFile) -> dict[str, TaskFile]:
    """The task under each strategy that it compares, with that strategy's overrides of ``federation``."""
    spec = task.spec
    return {
        strategy.name: TaskFile(spec.model_copy(update=_changed(spec, strategy)), task.document)
        for strategy in spec.compare.strategies
    }


def _changed(spec: TaskSpec, strategy: Plugin) -> dict[str, Any]:
    """What differs under a strategy. Baselines are for comparison on one machine, where nothing is to be hidden."""
    federation = federation_for(spec, strategy)
    changed: dict[str, Any] = {"federation": federation, "model": model_for(spec, strategy)}
    if federation.strategy.name in BASELINES:
        changed["privacy"] = Privacy(
            record=spec.privacy.record, labels=spec.privacy.labels, release=spec.privacy.release
        )
    return changed
