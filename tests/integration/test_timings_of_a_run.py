"""Where a run's time went: printed, as JSON, and in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hospitals_on_disk import write_hospitals

from medfed import api
from medfed.cli.main import main
from medfed.core.timings import Phase

PHASES = [phase.value for phase in Phase]


def run(folder: Path, capsys: pytest.CaptureFixture[str], *options: str, workers: int = 1) -> list[str]:
    """The lines that ``medfed run`` prints."""
    made = write_hospitals(folder / "data", extra={"engine": {"workers": workers, "batched": "off"}})
    with pytest.raises(SystemExit) as ended:
        main(["run", str(made), "--output", str(folder / "run"), *options])
    assert not ended.value.code
    return capsys.readouterr().out.splitlines()


def of_folder(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())["timings"]
    return found


def test_the_first_round_and_a_table_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(tmp_path, capsys, "--timings")
    begun = [line.partition(" ")[0] for line in lines].index("Round")
    assert lines[begun + 1].startswith("first round done ") and lines[begun + 1].endswith(" s after the start")
    assert sum("first round" in line for line in lines) == 1
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[0] for row in table] == PHASES
    shares = {phase: (float(seconds), int(share.rstrip("%"))) for phase, seconds, share in table}
    whole = sum(seconds for seconds, _ in shares.values())
    for seconds, share in shares.values():
        assert abs(share - 100 * seconds / whole) < 0.6 + 0.5 / whole


def test_nothing_of_it_is_printed_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "\n".join(run(tmp_path, capsys))
    assert "first round" not in told and "time, all processes" not in told
    assert [each["phase"] for each in of_folder(tmp_path)["phases"]] == PHASES


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = [json.loads(line) for line in run(tmp_path, capsys, "--timings", "--json")]
    assert [event["event"] for event in events] == ["begun", "round", "first_round", "round", "round", "finished"]
    assert events[2]["seconds"] > 0
    assert events[-1]["timings"] == of_folder(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_phase_that_ran_took_time(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    run(tmp_path, capsys, "--quiet", workers=workers)
    seconds = {each["phase"]: each["seconds"] for each in of_folder(tmp_path)["phases"]}
    waited = seconds.pop("wait")
    assert (waited > 0) == (workers > 1)
    assert all(each > 0 for each in seconds.values()), seconds
    assert sum(each["share"] for each in of_folder(tmp_path)["phases"]) == pytest.approx(1, abs=1e-3)


def test_in_one_process_the_phases_add_up_to_the_time_that_passed(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sites = {f"s{n}": (draw.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2) for n in range(4)}
    task = {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "scaffold", "rounds": 40, "local_updates": 30, "batch_size": 8},
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.7, "validation": 0, "test": 0.3}},
        "engine": {"workers": 1, "batched": "off"},
    }
    outcome = api.run(task, sites, output=tmp_path / "run")
    passed = json.loads((tmp_path / "run" / "results.json").read_text())["seconds"]
    accounted = sum(each.seconds for each in outcome.timings.phases)
    assert 0.8 * passed < accounted < passed + 0.01
    assert 0 < outcome.timings.first_round < passed
    assert max(outcome.timings.phases, key=lambda each: each.seconds).phase == "train"
