from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import RunFolderError
from medfed.core.examples import Split
from medfed.engine.folder import Origin, RunFolder
from medfed.engine.process import RoundMetrics, Row, RunState, SiteVersions
from medfed.engine.stopping import Progress
from medfed.metrics.measure import Measure

ORIGIN = Origin("0123", "/data", "2026-01-31T10:15:00+00:00")


def state(number: int, sites: int = 2) -> RunState:
    versions = SiteVersions.of({f"site {k}": number * 10 for k in range(sites)})
    return RunState(number, (), versions, Progress(), (), "")


def metrics(number: int) -> RoundMetrics:
    rows = (
        Row(number, "Kraków", Split.TEST, Measure("loss", 0.5 / number, 40)),
        Row(number, "federated", Split.TEST, Measure("auc", None, 0, reason="withheld")),
    )
    return RoundMetrics(number, rows)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "task_type: classification\n", ORIGIN)


def lines(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def test_a_new_folder_holds_task_and_origin(folder: RunFolder) -> None:
    assert folder.task.read_text() == "task_type: classification\n"
    assert RunFolder.open(folder.path).origin() == ORIGIN
    assert not folder.finished
    assert folder.restore() is None


def test_a_folder_with_a_run_is_not_begun_again(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="a begun run in this folder already") as error:
        RunFolder.create(folder.path, "", ORIGIN)
    assert f"--resume {folder.path}" in error.value.remedy


def test_a_folder_without_a_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run in this folder"):
        RunFolder.open(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be made"):
        RunFolder.create(tmp_path / "file" / "run", "", ORIGIN)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"run": "a"}', "\x00"])
def test_a_damaged_origin_is_said_to_be(folder: RunFolder, content: str) -> None:
    (folder.path / "origin.json").write_text(content)
    with pytest.raises(RunFolderError, match="absent or damaged"):
        folder.origin()


def test_metrics_are_lines_and_the_checkpoint_is_the_last_state(folder: RunFolder) -> None:
    folder.record(state(0))
    folder.record(state(1), metrics(1))
    folder.record(state(2), metrics(2))
    assert lines(folder) == [
        {"round": n, "site": site, "split": "test", **fields}
        for n in (1, 2)
        for site, fields in (
            ("Kraków", {"metric": "loss", "value": 0.5 / n, "n": 40}),
            ("federated", {"metric": "auc", "value": None, "n": None, "reason": "withheld"}),
        )
    ]
    restored = folder.restore()
    assert restored is not None
    assert restored.round == 2
    assert list(restored.versions.by_site().values()) == [20, 20]
    assert len(lines(folder)) == 4


@given(cut=st.integers(1, 400), rounds=st.integers(1, 3))
def test_what_was_written_after_the_checkpoint_is_cut_off_torn_or_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, rounds: int
) -> None:
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", "", ORIGIN)
    folder.record(state(0))
    for number in range(1, rounds + 1):
        folder.record(state(number), metrics(number))
    checkpointed = (folder.path / "metrics.jsonl").read_bytes()
    checkpoint = (folder.path / "checkpoint" / f"state-{rounds}").read_bytes()
    folder.record(state(rounds + 1), metrics(rounds + 1))
    (folder.path / "checkpoint" / f"state-{rounds + 1}").unlink()
    (folder.path / "checkpoint" / f"state-{rounds}").write_bytes(checkpoint)
    appended = (folder.path / "metrics.jsonl").read_bytes()[: len(checkpointed) + cut]
    (folder.path / "metrics.jsonl").write_bytes(appended)
    restored = folder.restore()
    assert restored is not None
    assert restored.round == rounds
    assert (folder.path / "metrics.jsonl").read_bytes() == checkpointed


def test_metrics_without_any_checkpoint_are_removed(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").write_text('{"round": 1')
    assert folder.restore() is None
    assert not (folder.path / "metrics.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"MEDFED1\0", b"junk" * 40])
def test_a_damaged_checkpoint_is_said_to_be(folder: RunFolder, content: bytes) -> None:
    (folder.path / "checkpoint" / "state-0").write_bytes(content)
    with pytest.raises(RunFolderError, match="the checkpoint is damaged"):
        folder.restore()


def test_a_truncated_checkpoint_is_damaged_at_every_length(folder: RunFolder) -> None:
    folder.record(state(1), metrics(1))
    whole = (folder.path / "checkpoint" / "state-1").read_bytes()
    for length in range(len(whole)):
        (folder.path / "checkpoint" / "state-1").write_bytes(whole[:length])
        with pytest.raises(RunFolderError, match="damaged"):
            folder.restore()


def test_a_checkpoint_is_written_over_the_last_but_one(folder: RunFolder) -> None:
    for number in range(8, 13):
        folder.record(state(number, sites=200 if number == 9 else 1))
    assert {path.name for path in (folder.path / "checkpoint").iterdir()} == {"state-11", "state-12"}
    (folder.path / "checkpoint" / "state-11").write_bytes(b"half written over when a kill came")
    restored = folder.restore()
    assert restored is not None and restored.round == 12
    folder.record(replace(state(13), stopped="the last round was reached"))
    assert [path.name for path in (folder.path / "checkpoint").iterdir()] == ["state-13"]
    restored = folder.restore()
    assert restored is not None and restored.round == 13


def test_a_result_that_is_no_number_is_not_written_as_one(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("results.json", {"loss": float("nan")})
    assert not folder.finished


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_run_folder import metrics, state
from medfed.core.errors import RunFolderError
from medfed.engine.folder import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    RunFolder(Path(sys.argv[1])).record(state(2, sites=500), metrics(2))
except RunFolderError as error:
    print(error)
    sys.exit(error.exit_status)
"""


@pytest.mark.parametrize("limit", [300, 5000], ids=["within the metrics", "within the checkpoint"])
def test_a_disk_that_fills_while_checkpointing_leaves_the_checkpoint_before_it_whole(
    folder: RunFolder, limit: int
) -> None:
    folder.record(state(0))
    folder.record(state(1), metrics(1))
    before = {p: p.read_bytes() for p in (folder.path / "metrics.jsonl", folder.path / "checkpoint" / "state-1")}
    assert len(before[folder.path / "metrics.jsonl"]) < 300
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder.path, Path(__file__).parent, str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot write (File too large)" in ended.stdout
    assert "free disk space" in ended.stdout
    assert not list(folder.path.rglob("*.partial"))
    restored = folder.restore()
    assert restored is not None
    assert restored.round == 1
    assert {path: path.read_bytes() for path in before} == before
    folder.record(state(2), metrics(2))
    again = folder.restore()
    assert again is not None
    assert again.round == 2
