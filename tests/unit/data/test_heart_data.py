from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medfed.core.errors import DataError
from medfed.core.examples import Split
from medfed.data.connectors import CONNECTORS
from medfed.data.encoding import encode, fit_to, new_encoding
from medfed.data.frames import raw_from_frame
from medfed.data.heart import SITES, fetch_heart, published_benchmark
from medfed.data.kinds import Kind
from medfed.data.table import load_table
from medfed.spec.task import TaskSpec

HEART = Path(__file__).resolve().parents[4] / "shared" / "data" / "heart"
needs_heart = pytest.mark.skipif(not HEART.is_dir(), reason="the heart data are not beside the checkout")


def task_of(folder):
    from ruamel.yaml import YAML

    return TaskSpec.model_validate(YAML(typ="safe").load((folder / "task.yaml").read_text()))


@needs_heart
def test_four_sites_are_written_with_a_task_that_reads_them(tmp_path):
    files = fetch_heart(tmp_path, HEART)
    assert sorted(f.relative_to(tmp_path).as_posix() for f in files) == [
        "LICENSE.txt",
        "cleveland/data.csv",
        "hungarian/data.csv",
        "switzerland/data.csv",
        "task.yaml",
        "va/data.csv",
    ]
    assert "10.24432/C52P4X" in (tmp_path / "LICENSE.txt").read_text()
    task = task_of(tmp_path)
    assert list(task.sites) == list(SITES.values())
    rows = {}
    for site, entry in task.sites.items():
        raw = CONNECTORS.get("csv")(tmp_path / entry.data, task.data, site)
        table = load_table(task.data, task.task_type, site, raw)
        rows[site] = table.rows()
        assert table.patients() == table.rows()
    assert rows == {"Cleveland": 303, "Hungarian": 261, "Switzerland": 46, "VA": 130}


@needs_heart
def test_the_published_split_and_its_positive_rates():
    sites = published_benchmark(HEART)
    split = {name: frame["split"].value_counts().to_dict() for name, frame in sites.items()}
    assert split == {
        "Cleveland": {"train": 199, "test": 104},
        "Hungarian": {"train": 172, "test": 89},
        "Switzerland": {"train": 30, "test": 16},
        "VA": {"train": 85, "test": 45},
    }
    rates = [round(float((f[f["split"] == "train"]["num"] > 0).mean()), 3) for f in sites.values()]
    assert rates == [0.457, 0.378, 1.000, 0.776]


@needs_heart
def test_the_features_are_those_of_the_published_protocol(tmp_path):
    """Against the protocol written out in pandas: dummies without the first, unbiased training deviation."""
    import pandas

    fetch_heart(tmp_path, HEART)
    spec = task_of(tmp_path).data
    data = spec.model_copy(update={"split": spec.split.model_copy(update={"column": "split"})})
    columns = {n: c for n, c in data.columns.items() if c.type != "ignore"}
    data = data.model_copy(update={"columns": columns})
    kinds = {name: Kind(column.type) for name, column in columns.items()}
    levels = {name: tuple(map(str, c.levels)) for name, c in columns.items() if c.levels}
    for name, frame in published_benchmark(HEART).items():
        table = load_table(data, "classification", name, raw_from_frame(frame))
        encoding = fit_to(new_encoding(kinds, levels, "site", ("negative", "positive")), table)
        raw = frame[list(columns)]
        parts = [
            pandas.DataFrame({f"{n}={v}": raw[n] == float(v) for v in levels[n][1:]})
            if n in ("cp", "restecg")
            else raw[[n]]
            for n in columns
        ]
        matrix = pandas.concat(parts, axis=1).astype(float)
        train = frame["split"] == "train"
        expected = (matrix - matrix[train].mean()) / (matrix[train].std() + 1e-9)
        assert len(encoding.features) == 13
        for split in (Split.TRAIN, Split.TEST):
            examples = encode(table, encoding, split)
            chosen = frame["split"] == split.value
            np.testing.assert_allclose(examples.features, expected[chosen], rtol=1e-6, atol=1e-6)
            assert examples.targets.tolist() == (frame["num"][chosen] > 0).astype(int).tolist()


@needs_heart
def test_an_altered_file_is_refused(tmp_path):
    for site in SITES:
        name = f"processed.{site}.data"
        (tmp_path / name).write_bytes((HEART / name).read_bytes() + b"\n")
    with pytest.raises(DataError, match="not the published file"):
        fetch_heart(tmp_path / "out", tmp_path)


def test_an_absent_source_is_explained(tmp_path):
    with pytest.raises(DataError, match=re.escape("processed.cleveland.data")):
        fetch_heart(tmp_path, tmp_path / "nowhere")


def test_nothing_is_downloaded_but_by_https(tmp_path, monkeypatch):
    monkeypatch.setattr("medfed.data.heart._ADDRESS", "http://127.0.0.1/")
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        fetch_heart(tmp_path)
    assert "by --from" in caught.value.remedy


def test_a_target_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "cleveland").write_text("")
    (tmp_path / "source").mkdir()
    with pytest.raises(DataError):
        fetch_heart(tmp_path / "cleveland", tmp_path / "source")
