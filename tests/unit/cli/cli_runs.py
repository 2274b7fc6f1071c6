"""A small task whose sites' files a test may spoil, and medfed's commands in this process."""

from __future__ import annotations

import copy
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECRET = "PATIENT-7421-SECRET"

TASK: dict[str, Any] = {
    "name": "bad input",
    "task_type": "classification",
    "model": "logistic",
    "federation": {"strategy": "fedavg", "epochs": 1, "batch_size": 8},
    "sites": {"North": "north.csv", "South": "south.csv"},
    "data": {
        "id": "id",
        "label": {"column": "ill", "classes": [0, 1]},
        "columns": {"age": "continuous", "sex": {"type": "binary", "levels": [0, 1]}},
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    },
}


def table(rows: int = 24, *, ill: str | None = None, prefix: str = SECRET) -> str:
    """Rows whose ids carry the secret; ``ill`` gives every patient the same label."""
    lines = [f"{prefix}-{k:03},{40 + k % 17},{k % 2},{(k // 2) % 2 if ill is None else ill}" for k in range(rows)]
    return "\n".join(["id,age,sex,ill", *lines]) + "\n"


def with_cell(line: int, column: int, value: str, content: str | None = None) -> str:
    """The table with one cell replaced; line 1 is the header."""
    lines = [line.split(",") for line in (content or table()).splitlines()]
    lines[line - 1][column] = value
    return "\n".join(",".join(cells) for cells in lines) + "\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended and all that it showed."""

    status: int
    out: str
    err: str

    @property
    def told(self) -> str:
        return self.out + self.err


@dataclass
class Workplace:
    """A folder with a task and its sites' files."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, north: str | bytes | None = None, task: dict[str, Any] | None = None) -> None:
        content = table() if north is None else north
        (self.folder / "north.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        (self.folder / "south.csv").write_text(table(prefix="other"))
        self.write_task(task or TASK)

    def write_task(self, task: dict[str, Any]) -> None:
        (self.folder / "task.yaml").write_text(json.dumps(task, indent=1, ensure_ascii=False))

    def medfed(self, *arguments: str | Path) -> Ended:
        from medfed.cli.main import main

        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as leaving:
                main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        shown = self.capsys.readouterr()
        return Ended(int(leaving.value.code or 0), shown.out, shown.err)

    def run(self, *options: str) -> Ended:
        return self.medfed("run", self.folder / "task.yaml", "--output", self.folder / "run", *options)

    def assert_nothing_leaked(self, ended: Ended) -> None:
        """No cell's value was shown, nor is it in any file of the run but the site's own log."""
        assert SECRET not in ended.told
        assert "Traceback" not in ended.told
        run = self.folder / "run"
        for path in run.rglob("*"):
            if path.is_file() and not path.match("sites/*/site.log"):
                assert SECRET.encode() not in path.read_bytes(), path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The task with one key set, or removed where the value is None."""
    task = copy.deepcopy(TASK)
    section: Any = task
    *keys, last = path.split(".")
    for key in keys:
        section = section[key]
    if value is None:
        del section[last]
    else:
        section[last] = value
    return task
