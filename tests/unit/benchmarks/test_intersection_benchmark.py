from __future__ import annotations

import json
from pathlib import Path

from benchmarks import intersection
from benchmarks.rows import Row


def test_a_tiny_run_measures_every_row(tmp_path: Path) -> None:
    status = intersection.main(["--identifiers", "40", "--records", "30", "--json", str(tmp_path / "rows.json")])
    rows = {row["name"]: Row(**row) for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert status == 0
    assert rows.keys() == {"psi/count", "psi/match", "linkage/encode", "linkage/pair"}
    assert 0 < rows["psi/count"].value < rows["psi/match"].value
    assert all(row.value > 0 for row in rows.values())


def test_half_of_the_identifiers_are_in_common() -> None:
    assert intersection.intersection(10)[2] == 5
