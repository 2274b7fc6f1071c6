from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import burned_in
from benchmarks.phantoms import KINDS


@pytest.mark.slow
def test_a_tiny_run_measures_every_row(tmp_path: Path) -> None:
    status = burned_in.main(["--images", "1", "--json", str(tmp_path / "rows.json")])
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    texts = {f"found/{size}/{ink}" for size in burned_in.SIZES for ink in burned_in.INKS}
    assert status == 0
    assert rows.keys() == {*(f"alarms/{kind}" for kind in KINDS), *texts, "seconds"}
    assert all(0 <= rows[name] <= 1 for name in rows if name != "seconds")
    assert rows["found/16/1.0"] > sum(rows[f"alarms/{kind}"] for kind in KINDS) / len(KINDS)
