"""What is done with a finished run's model: predict, measure, export, explain, attack."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medfed.api.keys import simulation_key
from medfed.api.reporting import write_report
from medfed.api.tasks import FilePath
from medfed.core.errors import UserError
from medfed.core.examples import Split
from medfed.engine.assembly import check_parts
from medfed.engine.hospitals import SiteInput, raw_rows
from medfed.engine.trained import TrainedModel
from medfed.spec.loading import TaskFile, load_task

if TYPE_CHECKING:
    import pandas

    from medfed.attacks.results import Attack, Audit
    from medfed.engine.audit.audit import Effort, Progress
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.engine.exporting.onnx import Exported
    from medfed.evaluate.explained import Method


def predict(
    run_folder: FilePath,
    rows: FilePath | pandas.DataFrame,
    *,
    site: str | None = None,
    masks: FilePath | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pandas.DataFrame:
    """Score new rows by a finished run's model: the id where there is one, the scores, and the predicted class.

    Rows with a missing feature get no score (unless the task imputes). Of a model of images, ``rows`` is a file, a
    folder of files or an ``.npz`` archive; each image, or series, is a row with its ``file``, and those that cannot be
    read have a ``reason``. ``site`` chooses whose model or standardisation, where each site has its own. masks: a
    folder for the masks that a segmentation predicts, DICOM segmentation objects where the images are DICOM. progress:
    told how many images are done, and of how many. Raises DataError, RunFolderError, UserError.
    """
    import pandas

    model = TrainedModel.load(Path(run_folder), site)
    if masks is not None:
        from medfed.engine.maskfiles import require_masks

        require_masks(model)
    if model.encoding.is_array and isinstance(rows, str | os.PathLike):
        from medfed.engine.scoring import new_images, score_images, score_table

        scored = tuple(score_images(model, new_images(model, Path(rows)), progress or _unwatched))
        if masks is not None:
            from medfed.engine.maskfiles import write_masks

            lacking = write_masks(model, scored, Path(masks))
            scored = tuple(replace(each, reason=each.reason or lacking.get(each.name, "")) for each in scored)
        return pandas.DataFrame(score_table(model, scored))
    task = TaskFile(model.task, load_task(Path(run_folder) / "task.yaml").document)
    raw = raw_rows(task, rows, "new data")
    scores, kept = model.predict(raw)
    columns: dict[str, Any] = {"row": np.arange(raw.rows) + 1}
    if model.task.data.id in raw.columns:
        columns = {str(model.task.data.id): raw.columns[str(model.task.data.id)]}
    return pandas.DataFrame(columns | model.columns(scores, kept, raw.rows))


def evaluate(
    run_folder: FilePath,
    rows: FilePath | pandas.DataFrame | None = None,
    *,
    sites: Sequence[str] = (),
    given: Mapping[str, SiteInput] | None = None,
    model: str | None = None,
    output: FilePath | None = None,
) -> Path:
    """Measure a finished run's model; writes ``evaluation.json`` and ``report.html`` into a folder, which it returns.

    rows: labelled rows from elsewhere, in the form of the task's data; all of them are used. Without them: the test
    part of the run's simulated sites, or those named by ``sites``, each through its gate; of a held-out site all rows.
    given: the sites' rows, where they came from memory. model: whose model or standardisation, where each site has its
    own. output: a new folder below the run's ``evaluations/`` if not given. Raises DataError, RunFolderError,
    UserError, Refused, QuorumLost.
    """
    from medfed.engine.evaluating import evaluate_rows, evaluate_sites
    from medfed.report.evaluation_page import write_evaluation

    run, wanted = Path(run_folder), Path(output) if output is not None else None
    if rows is not None:
        folder = evaluate_rows(run, rows, model, wanted)
    else:
        folder = evaluate_sites(run, sites, given, model, wanted, simulation_key())
    write_evaluation(folder)
    return folder


def export(
    run_folder: FilePath,
    form: Literal["onnx", "bundle"],
    *,
    output: FilePath | None = None,
    site: str | None = None,
    licence: FilePath | None = None,
) -> Exported:
    """Write a finished run's model as ONNX, one file, or as a MONAI bundle, a folder; below ``export/`` if not told.

    site: whose model or standardisation, where each site has its own. licence: a file for the bundle. Raises
    RunFolderError, UserError, MissingExtra.
    """
    from medfed.engine.exporting.about import About
    from medfed.engine.exporting.bundle import export_bundle
    from medfed.engine.exporting.onnx import Exported, export_onnx

    run = Path(run_folder)
    model, about = TrainedModel.load(run, site), About.of(run, site)
    if form == "onnx":
        return export_onnx(model, about, Path(output) if output is not None else run / "export" / "model.onnx")
    folder = Path(output) if output is not None else run / "export" / "bundle"
    return Exported(export_bundle(model, about, folder, Path(licence) if licence is not None else None), None)


def audit(
    run_folder: FilePath,
    sites: Mapping[str, SiteInput] | None = None,
    *,
    data: FilePath | None = None,
    attacks: Sequence[Attack] | None = None,
    effort: Effort | None = None,
    pictures: bool = False,
    progress: Progress | None = None,
) -> Audit:
    """Attack a finished run as a curious coordinator could; writes ``audit.json`` and ``audit.html`` into its folder.

    sites, data: its rows, where the run's own data folder does not have them (see
    :func:`medfed.api.running.build`). attacks: all of them if not given. pictures: also write the images that were
    reconstructed, which are of training records, into ``audit-pictures.html``. An audit that was interrupted goes on.
    Raises RunFolderError, UserError, DataError, TaskError.
    """
    from medfed.attacks.results import Attack
    from medfed.engine.audit.audit import Effort, audit_run
    from medfed.engine.audit.subject import check_attackable, open_subject
    from medfed.report.audit_page import write_audit

    subject = open_subject(Path(run_folder), sites, Path(data) if data is not None else None, check_attackable)
    check_parts(subject.task, tuple(subject.tables))
    wanted = tuple(Attack) if attacks is None else attacks
    found = audit_run(subject, wanted, effort or Effort(), simulation_key(), progress=progress or _unseen)
    subject.folder.write_json("audit.json", asdict(found.audit))
    write_audit(subject.folder.path, found.pictures if pictures else ())
    write_report(subject.folder.path)
    return found.audit


def explain(
    run_folder: FilePath,
    sites: Mapping[str, SiteInput] | None = None,
    *,
    site: str | None = None,
    data: FilePath | None = None,
    split: Split = Split.TEST,
    rows: int = 12,
    methods: Sequence[Method] | None = None,
    output: FilePath | None = None,
) -> tuple[Path, ...]:
    """Explain a finished run's answers at each site, or one, for its own people; returns the pages that were written.

    sites, data: the rows, where the run's own data folder does not have them (see
    :func:`medfed.api.running.build`); with ``site``, data may be that site's own folder. output: a folder outside the
    run's, ``RUN-local`` beside it if not given; each site has one below it. Raises RunFolderError, UserError,
    DataError, MissingExtra.
    """
    from medfed.engine.audit.subject import open_subject
    from medfed.engine.explaining import explain_site, place_outside
    from medfed.models.attribution import require_captum
    from medfed.report.explanation_page import write_explanation

    require_captum()
    place = place_outside(Path(run_folder), None if output is None else Path(output))
    subject = open_subject(Path(run_folder), sites, Path(data) if data is not None else None, site=site)
    known = sorted(subject.hospitals.sites)
    if site is not None and site not in known:
        raise UserError(f"there is no site {site!r} in this run", remedy=f"it has: {', '.join(known)}")
    pages = []
    for name in known if site is None else [site]:
        model = TrainedModel.load(Path(run_folder), name)
        part = Split.EXTERNAL if name in subject.spec.evaluation.holdout else split
        found = explain_site(model, subject.hospitals.rows.get(name).table, part, rows, methods)
        pages.append(write_explanation(found, place / name))
    return tuple(pages)


def explain_at_site(
    site_folder: FilePath,
    run_folder: FilePath,
    *,
    split: Split = Split.TEST,
    rows: int = 12,
    methods: Sequence[Method] | None = None,
    output: FilePath | None = None,
) -> Path:
    """As :func:`explain` at a deployed site: on the rows that its ``site.yaml`` declares for the run's task.

    run_folder: a copy of the coordinator's, in which the model lies. Raises also TaskError.
    """
    from medfed.engine.deployed.cohorts import table_of
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.engine.explaining import explain_site, place_outside
    from medfed.models.attribution import require_captum
    from medfed.report.explanation_page import write_explanation
    from medfed.spec.site import load_site

    require_captum()
    place = place_outside(Path(run_folder), None if output is None else Path(output))
    folder = SiteFolder.open(Path(site_folder))
    model = TrainedModel.load(_kept_at(folder, Path(run_folder)), folder.site)
    table = table_of(folder, load_site(folder.settings), load_task(Path(run_folder) / "task.yaml"))
    return write_explanation(explain_site(model, table, split, rows, methods), place / folder.site)


def _kept_at(folder: SiteFolder, run_folder: Path) -> Path:
    """Where the site keeps the model of a run, with what is its own of it; else the coordinator's copy."""
    try:
        kept = folder.models(str(json.loads((run_folder / "results.json").read_text())["run"]))
    except (OSError, ValueError, KeyError, TypeError):
        return run_folder
    return kept if (kept / "model.safetensors").exists() else run_folder


def _unwatched(done: int, of: int) -> None:
    """Show no progress."""


def _unseen(attack: Attack, done: int, of: int) -> None:
    """Show no progress."""
