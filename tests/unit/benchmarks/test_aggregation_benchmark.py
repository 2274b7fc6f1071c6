from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import aggregation
from benchmarks.rows import Row, exceeded, report

NAMES = {"aggregate/fold", "aggregate/peak_models", "codec/encode", "codec/decode"}


def test_a_tiny_run_measures_every_row_and_exits_by_the_limits(tmp_path: Path) -> None:
    options = ["--parameters", "100000", "--updates", "2", "3", "--repetitions", "2"]
    status = aggregation.main([*options, "--json", str(tmp_path / "rows.json")])
    rows = [Row(**row) for row in json.loads((tmp_path / "rows.json").read_text())["rows"]]
    by_name = {row.name: row for row in rows}
    assert by_name.keys() >= NAMES | {"aggregate/fold/2", "aggregate/fold/3", "aggregate/peak_models/3"}
    assert all(row.value >= 0 for row in rows)
    assert all(by_name[name].limit is not None and by_name[name].ratio is not None for name in NAMES)
    for name in ("aggregate/fold", "aggregate/peak_models"):
        assert by_name[name].ratio == max(by_name[f"{name}/{count}"].ratio or 0.0 for count in (2, 3))
    assert status == (1 if exceeded(rows) else 0)


def test_a_round_folds_every_update_that_came() -> None:
    from medfed.algorithms.fedavg import WeightedDelta
    from medfed.core.codec import encode

    came = [encode(WeightedDelta(aggregation.drawn(4, seed), 1)) for seed in range(5)]
    engine = aggregation.Arriving(came.pop)
    aggregation.run_round(aggregation.drawn(4, 9), 5, engine)
    assert came == []
    assert engine.apart > 0


def test_rows_above_their_limit_are_told_and_others_are_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [
        Row("a/at", 2.0, "s", 1.0, 1.0, "peer"),
        Row("a/above", 2.0, "s", 1.01, 1.0, "peer"),
        Row("a/without_limit", 2.0, "s", 9.0, None, "peer"),
        Row("a/without_ratio", 2.0, "s", None, None, "peer"),
    ]
    assert exceeded(rows) == ["a/above"]
    assert report(rows, tmp_path / "rows.json") == 1
    *lines, told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["row", *(row.name for row in rows)]
    assert told == "above the limit: a/above"
    assert [each["name"] for each in json.loads((tmp_path / "rows.json").read_text())["rows"]] == [r.name for r in rows]
    assert report(rows[:1], None) == 0
