"""One strategy under several labels: the bytes that each sends, beside its metric."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medfed
from medfed.core.errors import TaskError

HIDDEN = 400
WHOLE = 3 * HIDDEN + HIDDEN + HIDDEN + 1


def sites() -> dict[str, Any]:
    found = {}
    for number, site in enumerate(("ashford", "birch")):
        features = np.random.default_rng([5, number]).normal(size=(60, 3)).astype(np.float32)
        found[site] = features, (features[:, 0] > 0).astype(np.int64)
    return found


def task(**compare: Any) -> dict[str, Any]:
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [HIDDEN]},
        "federation": {"strategy": "fedavg", "rounds": 2, "lr": 0.1},
        "data": {"label": {"column": "y", "classes": [0, 1]}},
        "compare": compare,
        "seed": 3,
    }


LABELS = {
    "strategies": ["local", "fedavg", "int8", "frozen"],
    "overrides": {
        "int8": {"strategy": "fedavg", "compression": "int8"},
        "frozen": {"strategy": "fedavg", "model": {"freeze": ["0"]}},
    },
}


def test_the_report_sets_bytes_beside_the_metric(tmp_path: Path) -> None:
    medfed.compare(task(**LABELS), sites(), output=tmp_path / "compared")
    html = (tmp_path / "compared" / "report.html").read_text()
    section = html[html.index('id="sent"') : html.index('id="left"')]
    rows = {
        cells[0]: cells[1:]
        for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", section)
        if (cells := re.split(r"</th>|</td>|<td class=\"num\">", row.replace("</td><td", "<td")))
    }
    shown = {name: [cell for cell in cells if cell] for name, cells in rows.items()}
    assert list(shown) == ["FedAvg", "int8", "frozen"]  # a baseline sends nothing
    # the bytes in the ledgers: 4, 1.002 and 4 a number, and the frame of a message
    expected = {"FedAvg": 4 * WHOLE, "int8": WHOLE + 4, "frozen": 4 * (HIDDEN + 1)}
    for name, numbers in expected.items():
        share = float(shown[name][1].removesuffix(" %")) / 100
        assert numbers <= share * 4 * WHOLE <= numbers + 400
    assert shown["frozen"][2] == f"{HIDDEN + 1:,}"
    values = {
        label: json.loads((tmp_path / "compared" / folder / "results.json").read_text())["metrics"]["test"]
        for label, folder in (("FedAvg", "fedavg"), ("int8", "int8"), ("frozen", "frozen"))
    }
    for name, found in values.items():
        auc = found["federated"]["auc"]["value"]
        assert float(shown[name][3]) == pytest.approx(auc, abs=6e-4)
        if name != "FedAvg":
            told = float(shown[name][4].replace("−", "-"))
            assert told == pytest.approx(auc - values["FedAvg"]["federated"]["auc"]["value"], abs=6e-4)
    assert shown["FedAvg"][4] == "—"
    assert section.count("<svg") == 2


def test_a_run_s_report_says_what_an_update_takes(tmp_path: Path) -> None:
    outcome = medfed.run(
        task() | {"model": {"name": "mlp", "hidden": [HIDDEN], "freeze": ["0"]}}, sites(), output=tmp_path / "run"
    )
    page = (outcome.folder.path / "report.html").read_text()
    assert f"{HIDDEN + 1:,} of its {WHOLE:,} numbers were trained and sent" in page


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"../up": {"strategy": "fedavg"}}, "cannot be a label"),
        ({"pooled": {"strategy": "fedavg"}}, "cannot be a label"),
        ({"int8": {"strategy": "fedavg", "model": {"freeze": 3}}}, "freeze"),
        ({"int8": {"strategy": "fedavg", "model": {"pretrained": "x"}}}, "other than `pretrained`"),
        ({"int8": {"compression": "int8"}}, "no algorithm is called 'int8'"),
    ],
)
def test_labels_that_cannot_be_are_refused(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=re.escape(said)):
        medfed.check(task(strategies=["fedavg", *overrides], overrides=overrides))
