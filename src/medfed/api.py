"""MedFed from Python: run a task, step it by hand, compare strategies, predict.

::

    import medfed

    medfed.run("task.yaml")                                        # the whole run, into a folder with a report

    process = medfed.build("task.yaml")                            # or by hand
    state = process.initialize()
    state, metrics = process.next(state)

    medfed.run(task, sites={"Cleveland": frame, "VA": (features, targets)})   # sites from memory
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from medfed.core.errors import MissingExtra, RunFolderError, UserError
from medfed.core.examples import Split
from medfed.data.raw import Unread
from medfed.engine.assembly import assemble, check_parts
from medfed.engine.buildable import check_connector, check_start
from medfed.engine.cohort import check_cohort
from medfed.engine.comparison import Comparison, strategy_tasks
from medfed.engine.folder import Origin, RunFolder
from medfed.engine.hospitals import (
    Hospitals,
    SiteInput,
    load_hospitals,
    missing_files,
    raw_rows,
    require_positive,
    unread_files,
)
from medfed.engine.outcome import Outcome
from medfed.engine.process import Process, RoundMetrics, RunState
from medfed.engine.run import Observer
from medfed.engine.run import run as run_rounds
from medfed.engine.simulation import Simulation, attached
from medfed.engine.start import Source
from medfed.engine.store import RunStore
from medfed.engine.teacher import resolve_sources
from medfed.engine.trained import TrainedModel
from medfed.engine.wholesite import cost_in_words
from medfed.govern.keys import SigningKey, home, load_or_create_key
from medfed.spec.canonical import dump_task, resolved
from medfed.spec.loading import TaskFile, load_task, task_of
from medfed.spec.task import TaskSpec

if TYPE_CHECKING:
    import pandas

    from medfed.attacks.results import Attack, Audit
    from medfed.engine.audit.audit import Effort, Progress
    from medfed.engine.deployed.folders import SiteFolder
    from medfed.engine.exporting.onnx import Exported
    from medfed.evaluate.explained import Method

FilePath: TypeAlias = "str | os.PathLike[str]"
Task: TypeAlias = "FilePath | Mapping[str, Any] | TaskSpec | TaskFile"
"""A task: its file's path, a mapping of sections, or one already read."""


class Silent:
    """An observer that shows nothing."""

    def begun(self, process: Process, state: RunState) -> None:
        """Show nothing."""

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        """Show nothing."""


def read_task(task: Task, overrides: Sequence[str] = ()) -> TaskFile:
    """The checked task. Raises TaskError, which lists every fault with its line."""
    match task:
        case TaskFile():
            return task if not overrides else task_of(resolved(task.spec), overrides)
        case TaskSpec():
            return task_of(resolved(task), overrides)
        case Mapping():
            return task_of(task, overrides)
        case _:
            return load_task(task, overrides)


@dataclass(frozen=True)
class Checked:
    """A valid task, and what is still wanting before it can run here: extras to install, files to bring.

    warnings: what the task's protection costs, where that is much.
    """

    task: TaskFile
    missing: tuple[UserError, ...]
    warnings: tuple[str, ...] = ()


def check(task: Task, *, data: FilePath | None = None, overrides: Sequence[str] = ()) -> Checked:
    """Everything that can be known without running: the task's form, that its parts exist and fit, its policy files.

    Raises TaskError. An extra that is not installed here, or a site's file that is not here, makes no task wrong:
    it is told beside it.
    """
    checked, sources = resolve_sources(read_task(task, overrides))
    missing: dict[str, UserError] = {str(error): error for error in missing_files(checked, _data_folder(checked, data))}
    for each in (checked, *strategy_tasks(checked).values()):
        try:
            check_parts(each, tuple(each.spec.sites))
        except MissingExtra as extra:
            missing[str(extra)] = extra
    try:
        check_connector(checked)
        check_start(checked, next((source for source in sources if source.starts), None))
    except MissingExtra as extra:
        missing[str(extra)] = extra
    warnings = _costs(checked, missing)
    return Checked(checked, tuple(missing.values()), warnings)


def _costs(checked: TaskFile, missing: dict[str, UserError]) -> tuple[str, ...]:
    """What differential privacy of whole sites costs, where the task names its sites; a missing extra is told."""
    if not checked.spec.sites:
        return ()
    try:
        trainers = checked.spec.sites.keys() - {*checked.spec.evaluation.holdout}
        return tuple(cost_in_words(checked.spec, len(trainers), None))
    except MissingExtra as extra:
        missing[str(extra)] = extra
        return ()


def unreadable(
    task: Task, *, data: FilePath | None = None, overrides: Sequence[str] = ()
) -> dict[str, tuple[Unread, ...]]:
    """Each simulated site's files that give no image, with the reason of each. Raises TaskError, DataError."""
    checked = read_task(task, overrides)
    return unread_files(checked, _data_folder(checked, data))


def build(
    task: Task,
    sites: Mapping[str, SiteInput] | None = None,
    *,
    data: FilePath | None = None,
    overrides: Sequence[str] = (),
) -> Process:
    """A process to be stepped by hand; its ledgers and memories live in a temporary folder, and go with it.

    sites: rows by site, in place of those that the task names. data: the folder that the task's paths are below.
    """
    checked, sources = resolve_sources(read_task(task, overrides))
    hospitals = _hospitals(checked, _data_folder(checked, data), sites)
    folder = Path(tempfile.mkdtemp(prefix="medfed-"))
    try:
        for source in sources:
            source.keep(folder)
        assembly = assemble(checked, hospitals, folder, uuid.uuid4().hex, simulation_key())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(assembly.process, _discard, assembly.simulation, folder)
    return assembly.process


def run(
    task: Task,
    sites: Mapping[str, SiteInput] | None = None,
    *,
    data: FilePath | None = None,
    output: FilePath | None = None,
    overrides: Sequence[str] = (),
    observer: Observer | None = None,
) -> Outcome:
    """Run a task to its end, in ``output`` or a new folder below ``runs/``, and write the report.

    A folder in which nothing was computed, for a mistake in the task or the data, is removed again. Raises
    TaskError, DataError, RunFolderError, QuorumLost, Refused.
    """
    begun = time.monotonic()
    checked, sources = resolve_sources(read_task(task, overrides))
    root = _data_folder(checked, data)
    hospitals = _hospitals(checked, root, sites)
    place = Path(output) if output is not None else new_output(checked)
    folder = _new_folder(checked, root if sites is None else None, place, sources)
    try:
        return _run(checked, hospitals, folder, observer or Silent(), begun)
    except UserError:
        if not folder.begun:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def resume(
    folder: FilePath, sites: Mapping[str, SiteInput] | None = None, *, observer: Observer | None = None
) -> Outcome:
    """Go on with a run from its last checkpoint; the end is the same to the bit as that of an unbroken run.

    ``sites`` has to be given again where the rows came from memory. Raises RunFolderError where there is no run, or
    it is finished already.
    """
    if (Path(folder) / "comparison.json").exists():
        raise RunFolderError(
            "this is a comparison, not a run", where=str(folder), remedy=f"medfed compare TASK --output {folder}"
        )
    begun = time.monotonic()
    opened = RunFolder.open(Path(folder))
    if opened.finished:
        _report(opened.path)  # a kill may have come between the results and the report
        raise RunFolderError("this run is finished", where=str(folder), remedy=f"read {Path(folder) / 'report.html'}")
    checked, data = load_task(opened.task), opened.origin().data
    if sites is None and not data:
        raise UserError("this run's rows came from memory", remedy="medfed.resume(folder, sites={...})")
    return _run(checked, load_hospitals(checked, Path(data), sites), opened, observer or Silent(), begun)


def compare(
    task: Task,
    sites: Mapping[str, SiteInput] | None = None,
    *,
    data: FilePath | None = None,
    output: FilePath | None = None,
    overrides: Sequence[str] = (),
    observer: Callable[[str], Observer] | None = None,
) -> Comparison:
    """Run the task under each strategy of its ``compare`` section, on the same rows, and write one report.

    A folder that holds some of the runs already is gone on with. ``observer`` is asked for one a strategy.
    """
    from medfed.engine.crosssite import compare_across_sites

    checked, sources = resolve_sources(read_task(task, overrides))
    tasks, root = strategy_tasks(checked), _data_folder(checked, data)
    for each in tasks.values():
        check_parts(each, tuple(each.spec.sites if sites is None else sites))
    hospitals = load_hospitals(checked, root, sites)
    require_positive(hospitals, checked)
    folder = Path(output) if output is not None else new_output(checked)
    outcomes: dict[str, Outcome] = {}
    comparison = Comparison(folder, checked.spec.name, checked.spec.task_type, outcomes)
    comparison.begin(list(tasks), dump_task(checked.spec), str(root) if sites is None else "")
    with RunStore.open(folder / "cohorts") as store:
        for site in hospitals.sites:
            check_cohort(store, hospitals.rows.get(site).table)
    for name, each in tasks.items():
        place = folder / name
        watcher = observer(name) if observer else Silent()
        if (place / "task.yaml").exists():
            opened = RunFolder.open(place)
        else:
            opened = _new_folder(each, root if sites is None else None, place, sources)
        if not opened.finished:
            outcomes[name] = _run(each, hospitals, opened, watcher, time.monotonic())
    compare_across_sites(checked, hospitals, folder, {name: folder / name for name in tasks}, simulation_key())
    _report(folder)
    return comparison


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

    sites, data: its rows, where the run's own data folder does not have them (see :func:`build`). attacks: all of them
    if not given. pictures: also write
    the images that were reconstructed, which are of training records, into ``audit-pictures.html``. An audit that was
    interrupted goes on. Raises RunFolderError, UserError, DataError, TaskError.
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
    _report(subject.folder.path)
    return found.audit


def _unwatched(done: int, of: int) -> None:
    """Show no progress."""


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

    sites, data: the rows, where the run's own data folder does not have them (see :func:`build`); with ``site``, data
    may be that site's own folder. output: a folder
    outside the run's, ``RUN-local`` beside it if not given; each site has one below it. Raises RunFolderError,
    UserError, DataError, MissingExtra.
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


def _unseen(attack: Attack, done: int, of: int) -> None:
    """Show no progress."""


def simulation_key() -> SigningKey:
    """The key that signs the ledgers of simulated runs; made at first use, outside every run folder."""
    return load_or_create_key(home() / "keys", "simulation")


def write_report(folder: FilePath) -> Path:
    """Write a run's or a comparison's ``report.html`` anew, with a run's model card; returns the report."""
    return _report(Path(folder))


def _run(task: TaskFile, hospitals: Hospitals, folder: RunFolder, observer: Observer, begun: float) -> Outcome:
    assembly = assemble(task, hospitals, folder.path, folder.origin().run, simulation_key())
    with attached(assembly.simulation):
        outcome = run_rounds(assembly.process, assembly.simulation, folder, observer, begun)
    _report(folder.path)
    return outcome


def _hospitals(task: TaskFile, data: Path, sites: Mapping[str, SiteInput] | None) -> Hospitals:
    """The sites' rows, read only after all that can be known without them was checked."""
    check_parts(task, tuple(task.spec.sites if sites is None else sites))
    hospitals = load_hospitals(task, data, sites)
    require_positive(hospitals, task)
    return hospitals


def _report(folder: Path) -> Path:
    from medfed.report.card import write_card_of
    from medfed.report.folder import is_comparison, read_run
    from medfed.report.page import write_page_of
    from medfed.report.page import write_report as write_page

    if is_comparison(folder) or not (folder / "task.yaml").exists():
        return write_page(folder)
    run = read_run(folder)
    write_card_of(run, folder)
    return write_page_of(run, folder)


def _data_folder(task: TaskFile, data: FilePath | None) -> Path:
    """The folder that a task's paths are below: the one given, or the task file's own."""
    if data is not None:
        if not Path(data).is_dir():
            raise UserError("there is no such data folder", where=str(data), remedy="check --data")
        return Path(data).resolve()
    file = Path(task.document.path)
    return file.resolve().parent if file.is_file() else Path.cwd()


def new_output(task: TaskFile) -> Path:
    """A new, empty folder below ``runs/``, named after the task and the time, which no other process gets."""
    slug = re.sub(r"\W+", "-", task.spec.name).strip("-") or "task"
    base = Path("runs") / f"{slug}-{datetime.now():%Y%m%d-%H%M%S}"
    for path in (base if n == 1 else base.with_name(f"{base.name}-{n}") for n in itertools.count(1)):
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("unreachable: the count has no end")


def _new_folder(task: TaskFile, data: Path | None, path: Path, sources: tuple[Source, ...]) -> RunFolder:
    origin = Origin(uuid.uuid4().hex, str(data or ""), datetime.now(UTC).isoformat(timespec="seconds"))
    return RunFolder.create(path, dump_task(task.spec), origin, sources)


def _discard(simulation: Simulation, folder: Path) -> None:
    simulation.detach()
    shutil.rmtree(folder, ignore_errors=True)
