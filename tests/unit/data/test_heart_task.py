"""Fetching the data again keeps a task that was edited meanwhile."""

from pathlib import Path

from medfed.data.heart import fetch_heart


def test_an_edited_task_survives_a_second_fetch(shared_data: Path, tmp_path: Path) -> None:
    first = fetch_heart(tmp_path, shared_data / "heart")
    task = tmp_path / "task.yaml"
    task.write_text(task.read_text().replace("epochs: 50", "epochs: 7"))
    assert fetch_heart(tmp_path, shared_data / "heart") == first
    assert "epochs: 7" in task.read_text()
