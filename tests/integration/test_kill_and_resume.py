"""A run that is killed at any moment and resumed ends as one that was not, to the bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hospitals_on_disk import outcome, write_hospitals
from killable_medfed import Killable, killable

SCAFFOLD = {"strategy": "scaffold", "data_position": "kept", "cohort": 3}
TASKS: dict[str, dict[str, Any]] = {
    "scaffold, one by one": {**SCAFFOLD, "batched": "off"},
    "scaffold, stacked": {**SCAFFOLD, "batched": "auto"},
    "fedavg, stacked": {"strategy": "fedavg", "optimizer": "adam", "cohort": 2, "batched": "auto"},
    "fedadam": {"strategy": "fedadam", "optimizer": "adam", "optimizer_state": "kept", "data_position": "kept"},
    "local": {"strategy": "local", "optimizer": "adam", "optimizer_state": "kept", "rounds": 2},
}

MOMENTS: dict[str, Callable[[list[str]], int]] = {
    "the first line of a ledger": lambda trace: trace.index("append Nord.jsonl"),
    "task.yaml is there, no checkpoint is": lambda trace: trace.index("replace run/task.yaml") + 1,
    "the store is begun, its tables are not": lambda trace: trace.index("commit"),
    "the first change of the store is made": lambda trace: trace.index("commit") + 1,
    "some cohorts are frozen": lambda trace: trace.index("commit cohort Süd"),
    "the data are prepared, checkpoint 0 is not written": lambda trace: trace.index("replace checkpoint/state-0"),
    "checkpoint 0 is written, its heads are not signed": lambda trace: trace.index("replace checkpoint/state-0") + 1,
    "the memory is settled, nothing has trained": lambda trace: _in_round(trace, 2, "commit settled") + 1,
    "releases are in some ledgers of a call": lambda trace: _in_round(trace, 2, "commit settled") + 2,
    "a release is in the ledger, not in the site's memory": lambda trace: _in_round(trace, 1, "commit version"),
    "some requests of a round are committed, some are not": lambda trace: _in_round(trace, 2, "commit version") + 1,
    "all sites' memories are written, the checkpoint is not": lambda trace: _checkpoint(trace, 2),
    "the checkpoint is written, the heads are not signed": lambda trace: _checkpoint(trace, 2) + 1,
    "some heads are signed": lambda trace: _checkpoint(trace, 2) + 3,
    "the last checkpoint is written, nothing is measured": lambda trace: _last(trace, "replace checkpoint/state-") + 1,
    "the final outcome is measured": lambda trace: _last(trace, "commit version"),
    "the model is written": lambda trace: trace.index("replace run/sheets.json"),
    "some ledgers are closed": lambda trace: _last(trace, "append coordinator.heads.jsonl") - 4,
    "all ledgers are closed, the results are not written": lambda trace: trace.index("replace run/results.json"),
    "the results are written, the report is not": lambda trace: trace.index("replace run/results.json") + 1,
}


def _checkpoint(trace: list[str], number: int) -> int:
    return [n for n, change in enumerate(trace) if change.startswith("replace checkpoint/state-")][number]


def _in_round(trace: list[str], number: int, change: str) -> int:
    begun = _checkpoint(trace, number - 1)
    return next(n for n in range(begun, len(trace)) if trace[n].startswith(change))


def _last(trace: list[str], change: str) -> int:
    return max(n for n, found in enumerate(trace) if found.startswith(change))


@dataclass
class Unbroken:
    """A task, the outcome of its unbroken run, and the changes of files that this run made."""

    task: Path
    outcome: dict[str, Any]
    trace: list[str]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killable]:
    with killable(tmp_path_factory.mktemp("jobs")) as warm:
        yield warm


@pytest.fixture(scope="module")
def unbroken(commands: Killable, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Unbroken]:
    known: dict[str, Unbroken] = {}

    def of(name: str) -> Unbroken:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            federation = TASKS[name].copy()
            engine = {"workers": 1, "batched": federation.pop("batched", "auto")}
            task = write_hospitals(folder, extra={"engine": engine}, **federation)
            assert commands.run("run", task, "--output", folder / "run", run=folder / "run") == 0, commands.output
            known[name] = Unbroken(task, whole_outcome(folder / "run"), commands.trace)
        return known[name]

    return of


def whole_outcome(run: Path) -> dict[str, Any]:
    """As ``outcome``, also where each site has a model of its own."""
    models = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("model.safetensors")}
    if (run / "models").is_dir():
        shutil.copy(next((run / "models").rglob("model.safetensors")), run / "model.safetensors")
        shutil.copy(next((run / "models").rglob("encoding.bin")), run / "encoding.bin")
    return outcome(run) | {"models": models}


def kill_and_resume(commands: Killable, task: Path, folder: Path, moments: list[tuple[int, bool]]) -> Path:
    """Run, die at each moment in turn (counted anew after each resumption), then go on to the end."""
    run = folder / "run"
    begin: tuple[str | Path, ...] = ("run", task, "--output", run)
    for moment, torn in moments:
        begun = (run / "task.yaml").exists()
        again = ("run", "--resume", run) if begun else begin
        status = commands.run(*again, run=run, kill=moment, torn=torn)
        assert status == -9, commands.output.read_text()
    again = ("run", "--resume", run) if (run / "task.yaml").exists() else begin
    status = commands.run(*again, run=run)
    told = commands.output.read_text()
    if status == 2:
        assert "this run is finished" in told
    else:
        assert status == 0, told
    assert (run / "report.html").is_file()
    assert "Traceback" not in told
    assert commands.run("ledger", "verify", run, run=run) == 0, commands.output.read_text()
    return run


@pytest.mark.parametrize("moment", ["some heads are signed", "all sites' memories are written, the checkpoint is not"])
def test_two_moments_of_scaffold(
    commands: Killable, unbroken: Callable[[str], Unbroken], tmp_path: Path, moment: str
) -> None:
    whole = unbroken("scaffold, stacked")
    run = kill_and_resume(commands, whole.task, tmp_path, [(MOMENTS[moment](whole.trace), False)])
    assert whole_outcome(run) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TASKS if name != "local"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_each_moment_that_matters(
    commands: Killable, unbroken: Callable[[str], Unbroken], tmp_path: Path, name: str, moment: str
) -> None:
    whole = unbroken(name)
    number = MOMENTS[moment](whole.trace)
    run = kill_and_resume(commands, whole.task, tmp_path, [(number, False)])
    assert whole_outcome(run) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("draw", range(6))
def test_kills_at_drawn_moments_one_after_the_other(
    commands: Killable, unbroken: Callable[[str], Unbroken], tmp_path: Path, name: str, draw: int
) -> None:
    whole, drawn = unbroken(name), random.Random(f"{name} {draw}")
    moments = [(drawn.randrange(len(whole.trace) // 2), drawn.random() < 0.5) for _ in range(3)]
    run = kill_and_resume(commands, whole.task, tmp_path, moments[: 1 + draw % 3])
    assert whole_outcome(run) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_same_task_twice_gives_the_same_bits(
    commands: Killable, unbroken: Callable[[str], Unbroken], tmp_path: Path, name: str
) -> None:
    whole = unbroken(name)
    assert commands.run("run", whole.task, "--output", tmp_path / "again", run=tmp_path) == 0
    assert whole_outcome(tmp_path / "again") == whole.outcome


@pytest.mark.slow
def test_another_seed_gives_other_bits(commands: Killable, unbroken: Callable[[str], Unbroken], tmp_path: Path) -> None:
    whole = unbroken("scaffold, one by one")
    status = commands.run("run", whole.task, "--set", "seed=12", "--output", tmp_path / "other", run=tmp_path)
    assert status == 0
    assert whole_outcome(tmp_path / "other")["model"] != whole.outcome["model"]
