"""``medfed check`` says what differential privacy does not cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfed.cli.main import main
from medfed.privacy import extra

TASK = "task_type: classification\nmodel: logistic\nfederation: {strategy: fedavg}\n"


def told(capsys: pytest.CaptureFixture[str], path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(path)])
    assert not ended.value.code
    return capsys.readouterr().err


def test_what_leaves_without_noise_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private = told(capsys, tmp_path / "task.yaml", TASK + "privacy: {record: {epsilon: 3}}\n")
    assert "numbers of rows" in private and "metrics leave without noise" in private
    assert "noise" not in told(capsys, tmp_path / "task.yaml", TASK)


def test_an_extra_that_is_not_here_is_told_with_its_pip_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    found = told(capsys, tmp_path / "task.yaml", TASK + "privacy: {record: {epsilon: 3}}\n")
    assert "opacus, dp-accounting is not installed" in found and "pip install 'medfed[privacy]'" in found
