"""Audits of whole runs, small enough to be over in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medfed
from medfed.attacks.results import Attack, Audit
from medfed.core.errors import DataError, RunFolderError, UserError
from medfed.engine.audit.audit import Effort
from medfed.engine.audit.place import held

ROWS, COLUMNS = 48, 20
EFFORT = Effort(models=8, trainings=2, records=20, images=1, iterations=120)
LARGER = Effort(models=16, trainings=12, records=20)
Sites = Mapping[str, tuple[np.ndarray, np.ndarray]]


def sites(*, noise: float = 1.0, shape: tuple[int, ...] = (COLUMNS,), count: int = 3) -> Sites:
    """Hospitals whose labels depend on the first number; with ``noise`` of them drawn at random."""
    random, made = np.random.default_rng(4), {}
    for number in range(count):
        features = random.standard_normal((ROWS, *shape))
        labels = (features.reshape(ROWS, -1)[:, 0] > 0).astype(int)
        drawn = random.random(ROWS) < noise
        made[f"hospital {number}"] = (features, np.where(drawn, random.integers(0, 2, ROWS), labels))
    return made


def task(**changes: Any) -> dict[str, Any]:
    """A network that has the time to learn its rows by heart."""
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [64]},
        "federation": {"strategy": "fedavg", "rounds": 60, "batch_size": 8, "lr": 0.3},
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.5, "validation": 0, "test": 0.5}},
        "engine": {"workers": 1},
        "seed": 1,
    } | changes


def audited(folder: Path, rows: Sites, described: dict[str, Any], effort: Effort = EFFORT, **options: Any) -> Audit:
    medfed.run(described, rows, output=folder)
    return medfed.audit(folder, rows, effort=effort, **options)


def training_rows(folder: Path) -> list[int]:
    return [rows["train"] for rows in json.loads((folder / "results.json").read_text())["rows"].values()]


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    folder = tmp_path_factory.mktemp("audits") / "by-heart"
    return folder, audited(folder, sites(), task(), LARGER)


def test_members_of_a_model_that_learnt_rows_by_heart_are_found(by_heart: tuple[Path, Audit]) -> None:
    found = by_heart[1].membership
    assert found is not None
    assert found.own is not None
    assert found.shadows.auc_low > 0.8
    assert found.shadows.tpr_low > 0.05
    assert found.own.auc_low > 0.7
    assert (found.models, found.share, found.records) == (16, 0.5, 3 * ROWS)


def test_its_canaries_show_that_it_has_no_small_epsilon(by_heart: tuple[Path, Audit]) -> None:
    found = by_heart[1].canary
    assert found is not None
    assert found.accounted is None
    assert found.epsilon > 1
    assert found.planted == 12 * sum(int(0.25 * n) for n in training_rows(by_heart[0]))


def test_records_sent_alone_come_back_and_labels_with_them(by_heart: tuple[Path, Audit]) -> None:
    audit = by_heart[1]
    assert audit.inversion is not None
    assert audit.labels is not None
    assert (audit.inversion.single.count, audit.labels.single.count) == (20, 20)
    assert audit.inversion.update.count < audit.inversion.update.of
    assert audit.attacked == 3
    assert [each.attack for each in audit.not_tried] == [Attack.RECONSTRUCTION]


def test_its_folder_tells_all_of_it_and_no_value_of_a_row(by_heart: tuple[Path, Audit]) -> None:
    folder, audit = by_heart
    assert (
        json.loads((folder / "audit.json").read_text())["membership"]["shadows"]["auc"] == audit.membership.shadows.auc
    )  # type: ignore[union-attr]
    assert 'href="audit.html"' in (folder / "report.html").read_text()
    told = (folder / "audit.html").read_text() + (folder / "audit.json").read_text()
    values = {f"{value:.6g}" for features, _ in sites().values() for value in features.flat}
    assert not [value for value in values if value in told]
    assert not (folder / "audit" / "work").exists()
    assert (folder / "audit" / "key.json").stat().st_mode & 0o077 == 0


def test_an_audit_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    rows, described = sites(), task(federation={"strategy": "fedavg", "rounds": 3, "batch_size": 8, "lr": 0.3})
    whole = audited(tmp_path / "whole", rows, described, attacks=(Attack.MEMBERSHIP,))
    medfed.run(described, rows, output=tmp_path / "broken")

    def interrupt(attack: Attack, done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medfed.audit(tmp_path / "broken", rows, effort=EFFORT, attacks=(Attack.MEMBERSHIP,), progress=interrupt)
    models = tmp_path / "broken" / "audit" / "models"
    written = {path.name: path.stat().st_mtime_ns for path in models.iterdir()}
    assert len(written) == 5
    again = medfed.audit(tmp_path / "broken", rows, effort=EFFORT, attacks=(Attack.MEMBERSHIP,))
    assert again.membership == whole.membership
    assert {name: (models / name).stat().st_mtime_ns for name in written} == written


def test_models_of_other_rows_are_not_used_again(tmp_path: Path) -> None:
    described = task(federation={"strategy": "fedavg", "rounds": 2, "batch_size": 8, "lr": 0.3})
    audited(tmp_path / "run", sites(), described, attacks=(Attack.MEMBERSHIP,))
    with pytest.raises(DataError, match="rows are not those"):
        medfed.audit(tmp_path / "run", sites(noise=0.5), effort=EFFORT)
    (tmp_path / "run" / "audit" / "key.json").write_text("{}")
    before = (tmp_path / "run" / "audit" / "models" / "shadow-000.npz").stat().st_mtime_ns
    medfed.audit(tmp_path / "run", sites(), effort=EFFORT, attacks=(Attack.MEMBERSHIP,))
    assert (tmp_path / "run" / "audit" / "models" / "shadow-000.npz").stat().st_mtime_ns != before


@pytest.mark.parametrize("strategy", ["local", "pooled"])
def test_a_baseline_sends_no_update_but_has_members(tmp_path: Path, strategy: str) -> None:
    described = task(federation={"strategy": strategy, "rounds": 20, "batch_size": 8, "lr": 0.3})
    found = audited(tmp_path / "run", sites(), described, attacks=(Attack.INVERSION, Attack.MEMBERSHIP))
    assert found.inversion is None
    assert "no update leaves" in next(each.why for each in found.not_tried if each.attack is Attack.INVERSION)
    assert found.membership is not None
    assert found.membership.shadows.auc_low > 0.6


@pytest.mark.parametrize(("strategy", "standardize"), [("fedprox", "site"), ("scaffold", "none"), ("fedadam", "site")])
def test_every_strategy_can_be_attacked(tmp_path: Path, strategy: str, standardize: str) -> None:
    described = task(federation={"strategy": strategy, "rounds": 2, "batch_size": 8, "lr": 0.05})
    described["data"] = {**described["data"], "standardize": standardize}
    found = audited(tmp_path / "run", sites(), described)
    assert found.inversion is not None
    assert found.inversion.single.count == 20
    assert found.membership is not None
    assert found.canary is not None


def test_under_secure_aggregation_the_total_is_attacked(tmp_path: Path) -> None:
    described = task(
        federation={"strategy": "fedavg", "rounds": 2, "batch_size": 8, "lr": 0.05}, privacy={"aggregation": "secure"}
    )
    found = audited(tmp_path / "run", sites(), described, attacks=(Attack.INVERSION, Attack.LABELS))
    assert found.total
    assert found.attacked == 1
    assert found.inversion is not None
    assert found.inversion.update.of > 60
    assert "totals over the sites alone" in (tmp_path / "run" / "audit.html").read_text()


def test_numbers_are_predicted_and_members_of_them_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = {f"hospital {n}": (random.standard_normal((ROWS, 5)), random.standard_normal(ROWS)) for n in range(2)}
    described = task(
        task_type="regression", federation={"strategy": "fedavg", "rounds": 40, "batch_size": 8, "lr": 0.05}
    )
    described["data"] = {"split": described["data"]["split"]}
    found = audited(tmp_path / "run", rows, described)
    assert found.membership is not None
    assert found.membership.shadows.auc_low > 0.55
    assert found.canary is not None
    assert found.inversion is not None
    assert found.inversion.single.count == 20


def test_images_are_rebuilt_and_shown_only_where_the_reader_asks(tmp_path: Path) -> None:
    described = task(
        model={"name": "cnn", "input_size": [1, 8, 8]},
        federation={"strategy": "fedavg", "rounds": 1, "batch_size": 8, "lr": 0.05},
    )
    rows, folder = sites(shape=(1, 8, 8), count=2), tmp_path / "run"
    found = audited(folder, rows, described, attacks=(Attack.RECONSTRUCTION,))
    assert found.reconstruction is not None
    assert len(found.reconstruction.pictures) == 1
    assert not (folder / "audit-pictures.html").exists()
    assert "<img" not in (folder / "audit.html").read_text()
    medfed.audit(folder, rows, effort=EFFORT, attacks=(Attack.RECONSTRUCTION,), pictures=True)
    assert (folder / "audit-pictures.html").read_text().count("data:image/png;base64") == 2
    assert (folder / "audit-pictures.html").stat().st_mode & 0o077 == 0
    assert "<img" not in (folder / "audit.html").read_text()
    medfed.audit(folder, rows, effort=EFFORT, attacks=(Attack.RECONSTRUCTION,))
    assert not (folder / "audit-pictures.html").exists()


def test_rows_that_came_from_memory_have_to_be_given_again(by_heart: tuple[Path, Audit]) -> None:
    with pytest.raises(UserError, match="came from memory") as refused:
        medfed.audit(by_heart[0])
    assert "--data" in refused.value.remedy


def test_a_deployed_run_has_no_rows_here(tmp_path: Path, by_heart: tuple[Path, Audit]) -> None:
    for name in ("task.yaml", "results.json", "origin.json", "model.safetensors", "encoding.bin"):
        (tmp_path / name).write_bytes((by_heart[0] / name).read_bytes())
    results = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(results | {"simulation": False}))
    with pytest.raises(UserError, match="at its hospitals") as refused:
        medfed.audit(tmp_path)
    assert "simulation of the same task" in refused.value.remedy
    at_the_site = medfed.audit(tmp_path, sites(count=1), effort=EFFORT, attacks=(Attack.MEMBERSHIP,))
    assert at_the_site.membership is not None
    assert "between hospitals" in (tmp_path / "audit.html").read_text()


def test_one_audit_of_a_run_works_at_a_time(tmp_path: Path) -> None:
    rows, described = sites(), task(federation={"strategy": "fedavg", "rounds": 1, "batch_size": 8, "lr": 0.3})
    medfed.run(described, rows, output=tmp_path / "run")
    (tmp_path / "run" / "audit").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        medfed.audit(tmp_path / "run", rows, effort=EFFORT)
    (tmp_path / "run" / "audit").unlink()
    with held(tmp_path / "run"), pytest.raises(RunFolderError, match="another audit"):
        medfed.audit(tmp_path / "run", rows, effort=EFFORT)


def test_an_unfinished_run_and_a_comparison_are_refused(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("name: x\n")
    with pytest.raises(RunFolderError, match="not finished"):
        medfed.audit(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(RunFolderError, match="comparison"):
        medfed.audit(tmp_path)
    with pytest.raises(UserError, match="8, 12, 16"):
        Effort(models=9)


@pytest.mark.slow
def test_under_differential_privacy_nobody_is_found_and_no_more_is_measured_than_is_accounted(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    described = task(privacy={"record": {"epsilon": 2.0, "delta": 1e-3}})
    found = audited(tmp_path / "run", sites(), described, LARGER)
    assert found.membership is not None
    assert found.membership.shadows.auc < 0.6
    assert found.membership.shadows.tpr_low <= 0.02
    assert found.canary is not None
    assert found.canary.accounted is not None
    assert found.canary.epsilon <= found.canary.accounted <= 2.0
    assert found.inversion is not None
    assert found.inversion.single.count == 0
