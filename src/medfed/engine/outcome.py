"""What a finished run leaves: its metrics on every split, curves, data sheets, models, and its environment."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medfed.core.examples import Split
from medfed.core.steps import Release
from medfed.core.timings import Phase
from medfed.data.quality import Cell, DataSheet
from medfed.engine.compression.compressed import update_fields
from medfed.engine.folder import RunFolder, measured
from medfed.engine.process import Process, RoundMetrics, Row, RunState
from medfed.engine.simulation import Simulation
from medfed.engine.spent import SiteSpent, spent_by_site
from medfed.engine.trained import save_models
from medfed.evaluate.appraisal import Appraisal, Curve
from medfed.evaluate.explanation import GRID, Average
from medfed.spec.task import TaskSpec
from medfed.version import __version__

PACKAGES = (
    *("torch", "numpy", "duckdb", "pandas", "scikit-learn", "cryptography", "pydantic", "safetensors"),
    *("monai", "pydicom", "python-gdcm", "pylibjpeg-openjpeg", "pillow", "nibabel"),
)


@dataclass(frozen=True)
class Clock:
    """When a run began (``time.monotonic``), and the seconds from then to the end of its first round."""

    begun: float
    first_round: float


@dataclass(frozen=True)
class PhaseSeconds:
    """The seconds that a phase took, over all processes, and their share of all phases' seconds."""

    phase: str
    seconds: float
    share: float


@dataclass(frozen=True)
class RunTimings:
    """Where a run's time went: the seconds to the end of its first round, and those of each phase."""

    first_round: float
    phases: tuple[PhaseSeconds, ...]


@dataclass(frozen=True)
class Outcome:
    """A finished run in memory: the last state, its reason to stop, the final metrics by split, and its timings."""

    folder: RunFolder
    state: RunState
    metrics: dict[Split, RoundMetrics]
    timings: RunTimings

    def value(self, metric: str, site: str = "federated", split: Split = Split.TEST) -> float | None:
        """A final metric at a site, or over all; None where there is none."""
        return self.metrics[split].value(metric, site) if split in self.metrics else None


@dataclass(frozen=True)
class SiteAppraisal:
    """The final appraisal of one site, or of all; what was not shown is empty, and a withheld count null.

    precision_recall, calibration: of two classes. confusion: true class by predicted. intervals: 95 %, by metric.
    """

    precision_recall: dict[str, list[float]]
    calibration: dict[str, list[float]]
    confusion: list[list[int | None]]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Appraised:
    """The final appraisals of one split, by site and federated."""

    split: str
    sites: dict[str, SiteAppraisal]


@dataclass(frozen=True)
class SentUpdates:
    """The steps by which sites send what they trained; how many of the network's numbers that are; and the bytes that
    an update takes where all are sent as float32."""

    steps: tuple[str, ...]
    trained: int
    whole_bytes: int


@dataclass(frozen=True)
class AverageExplanation:
    """What the model looks at, on average over the sites' rows: shares by feature, or of images a map, row by row.

    withheld: sites left out for want of patients.
    """

    rows: int
    withheld: int
    features: dict[str, float]
    map: list[list[float]]


@dataclass(frozen=True)
class Results:
    """``results.json``: all that was measured, and of what; a withheld count is null."""

    medfed: str
    run: str
    name: str
    task_type: str
    strategy: str
    task_digest: str
    status: str
    stopped_because: str
    rounds: int
    seed: int
    parameters: int
    start: dict[str, str | None] | None
    teacher: dict[str, str | None] | None
    updates: SentUpdates
    simulation: bool
    policies: dict[str, str]
    features: list[str]
    classes: list[str]
    rows: dict[str, dict[str, int | None]]
    metrics: dict[str, dict[str, dict[str, Any]]]
    roc: dict[str, dict[str, list[float]]]
    appraisal: Appraised
    explanations: AverageExplanation | None
    absences: list[dict[str, Any]]
    privacy: dict[str, SiteSpent]
    started: str
    seconds: float
    timings: RunTimings


def write_outcome(
    process: Process, state: RunState, simulation: Simulation, folder: RunFolder, clock: Clock
) -> Outcome:
    """Measure the final model on every split, write it all, and close the ledgers.

    ``results.json`` is written last: where it stands, the run is finished.
    """
    splits = [Split(split) for split in process.task.measured_splits]
    final_split = Split.TEST if Split.TEST in splits else Split(process.task.monitored_split)
    with simulation.timings[Phase.AGGREGATE]:
        metrics = {split: process.measure(state, split) for split in splits if split is not final_split}
        found, appraised = process.appraise(state, final_split)
        metrics[final_split] = _with_appraised(found, final_split, appraised)
        if process.measures_external:
            outside = process.appraise_external(state)
            metrics[Split.EXTERNAL] = _with_appraised(process.measure_external(state), Split.EXTERNAL, outside)
            appraised |= outside
        averaged = process.explain(state, final_split)
        rows, sheets = _sheets(process, state)
    simulation.close("complete")
    timings = _timings(simulation.spent(), clock)
    simulation.parties.detach()  # what follows needs memory, and no sites
    save_models(process, state, folder.path)
    folder.write_sheets(sheets)
    folder.write_json("environment.json", environment())
    spec, encoding, conversation = process.task, state.lanes[0].encoding, process.federation.conversation
    trainers = [site for lane in process.strategy.lanes for site in lane.trainers]
    absences = (*state.absences, *(absence for found in metrics.values() for absence in found.absences))
    results = Results(
        medfed=__version__,
        run=conversation.run,
        name=spec.name,
        task_type=spec.task_type,
        strategy=spec.federation.strategy.name,
        task_digest=conversation.task,
        status="complete",
        stopped_because=state.stopped,
        rounds=state.round,
        seed=spec.seed,
        parameters=len(next(iter(process.weights(state).values()))),
        start=start_fields(spec),
        teacher=teacher_fields(spec),
        updates=sent_updates(process, state),
        simulation=simulation.simulated,
        policies=simulation.policies,
        features=list(encoding.features),
        classes=list(encoding.classes),
        rows=rows,
        metrics={split.value: _by_site(found.rows) for split, found in metrics.items()},
        roc={site: _points(a.roc, "fpr", "tpr") for site, a in appraised.items() if len(a.roc.x)},
        appraisal=Appraised(final_split, {site: _appraisal(a, len(encoding.classes)) for site, a in appraised.items()}),
        explanations=None if averaged is None else _average(averaged, encoding.features),
        absences=[{"round": a.round, "site": a.site, "sentence": a.sentence} for a in absences],
        privacy=spent_by_site(folder.path / "ledger", spec, trainers),
        started=folder.origin().started,
        seconds=round(time.monotonic() - clock.begun, 3),
        timings=timings,
    )
    nested = {
        "privacy": {site: asdict(spent) for site, spent in results.privacy.items()},
        "appraisal": asdict(results.appraisal),
        "updates": asdict(results.updates),
        "explanations": asdict(results.explanations) if results.explanations else None,
        "timings": asdict(timings),
    }
    folder.write_json("results.json", vars(results) | nested)
    return Outcome(folder, state, metrics, timings)


def _with_appraised(metrics: RoundMetrics, split: Split, appraised: Mapping[str, Appraisal]) -> RoundMetrics:
    rows = [
        Row(metrics.round, site, split, measure)
        for site, found in appraised.items()
        for measure in found.measures.measures
    ]
    return replace(metrics, rows=(*metrics.rows, *rows))


def _appraisal(found: Appraisal, classes: int) -> SiteAppraisal:
    cells = list(found.confusion)
    return SiteAppraisal(
        precision_recall=_points(found.precision_recall, "recall", "precision"),
        calibration=_points(found.calibration, "predicted", "observed"),
        confusion=[cells[first : first + classes] for first in range(0, len(cells), classes)],
        intervals={each.metric: (each.low, each.high) for each in found.intervals},
    )


def _average(found: Average, features: tuple[str, ...]) -> AverageExplanation:
    shares = found.shares.tolist()
    if not features and len(shares) == GRID * GRID:
        return AverageExplanation(found.rows, found.withheld, {}, found.shares.reshape(GRID, GRID).tolist())
    names = features or tuple(f"feature {i + 1}" for i in range(len(shares)))
    return AverageExplanation(found.rows, found.withheld, dict(zip(names, shares, strict=True)), [])


def _points(curve: Curve, x: str, y: str) -> dict[str, list[float]]:
    return {x: curve.x.tolist(), y: curve.y.tolist()}


def start_fields(task: TaskSpec) -> dict[str, str | None] | None:
    """What a run began from: the SHA-256 of the weights' file, the earlier run whose they are, and the last layer."""
    told = task.model.pretrained
    return None if told is None else {"sha256": told.sha256, "run": told.parent, "head": told.head}


def teacher_fields(task: TaskSpec) -> dict[str, str | None] | None:
    """Whose answers a run learnt from: the SHA-256 of the weights' file, the run whose they are, and its model."""
    told = task.federation.distillation
    if told is None:
        return None
    teacher = told.teacher
    return {
        "sha256": teacher.sha256,
        "run": teacher.parent,
        "model": None if teacher.model is None else teacher.model.name,
    }


def sent_updates(process: Process, state: RunState) -> SentUpdates:
    """What sites send of their training, in the run's last rounds."""
    steps = [step for step in process.strategy.kind.STEPS if step.releases is Release.SUM]
    sent = [step for step in steps if update_fields(step.reply)]
    fields = max((len(update_fields(step.reply)) for step in sent), default=0)
    whole = len(next(iter(process.weights(state).values())))
    kept = state.lanes[0].elements
    trained = whole if kept.everything else int(np.count_nonzero(kept.mask))
    return SentUpdates(tuple(step.name for step in sent), trained, 4 * whole * fields)


def _sheets(process: Process, state: RunState) -> tuple[dict[str, dict[str, int | None]], dict[str, str]]:
    """By site, the rows of each split, and the data sheet as JSON, which takes a tenth of what its fields do."""
    rows, sheets = {}, {}
    for site, sheet in process.each_sheet(state):
        rows[site] = _counts(sheet.splits)
        sheets[site] = json.dumps(sheet_fields(sheet), ensure_ascii=False, allow_nan=False)
    return dict(sorted(rows.items())), sheets


def _timings(spent: dict[Phase, float], clock: Clock) -> RunTimings:
    whole = sum(spent.values()) or 1.0
    phases = (PhaseSeconds(phase, round(s, 4), round(s / whole, 4)) for phase, s in spent.items())
    return RunTimings(round(clock.first_round, 3), tuple(phases))


def environment() -> dict[str, Any]:
    """The Python, the platform and the versions of the packages that numbers depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {"medfed": __version__} | {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _by_site(rows: tuple[Row, ...]) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        fields = measured(row)
        table.setdefault(row.site, {})[fields.pop("metric")] = fields
    return table


def sheet_fields(sheet: DataSheet) -> dict[str, Any]:
    """A data sheet as JSON; a withheld count is null."""
    dropped = [sheet.incomplete, sheet.unlabelled]
    return {
        "rows": sheet.rows,
        "patients": sheet.patients,
        "splits": _counts(sheet.splits),
        "classes": {classes.split: _counts(classes.classes) for classes in sheet.classes},
        "missing": _counts(sheet.missing),
        "dropped": None if None in dropped else sum(n for n in dropped if n is not None),
        "duplicates": sheet.duplicates,
        "warnings": list(sheet.warnings),
    }


def _counts(cells: tuple[Cell, ...]) -> dict[str, int | None]:
    return {cell.name: cell.count for cell in cells}
