"""What a finished run leaves: its metrics on every split, curves, data sheets, models, and its environment."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medfed.core.examples import Split
from medfed.data.quality import Cell, DataSheet
from medfed.engine.folder import RunFolder, measured
from medfed.engine.process import Process, RoundMetrics, Row, RunState
from medfed.engine.simulation import Simulation
from medfed.engine.trained import save_models
from medfed.version import __version__

PACKAGES = ("torch", "numpy", "duckdb", "pandas", "scikit-learn", "cryptography", "pydantic", "safetensors")


@dataclass(frozen=True)
class Outcome:
    """A finished run in memory: the last state, its reason to stop, and the final metrics by split."""

    folder: RunFolder
    state: RunState
    metrics: dict[Split, RoundMetrics]

    def value(self, metric: str, site: str = "federated", split: Split = Split.TEST) -> float | None:
        """A final metric at a site, or over all; None where there is none."""
        return self.metrics[split].value(metric, site) if split in self.metrics else None


def write_outcome(
    process: Process, state: RunState, simulation: Simulation, folder: RunFolder, seconds: float
) -> Outcome:
    """Measure the final model on every split, write it all, and close the ledgers."""
    metrics = {Split(split): process.measure(state, Split(split)) for split in process.task.measured_splits}
    final_split = Split.TEST if Split.TEST in metrics else Split(process.task.monitored_split)
    curves = process.curves(state, final_split)
    save_models(process, state, folder.path)
    shown = {site: sheet_fields(sheet) for site, sheet in process.sheets(state).items()}
    folder.write_json("sheets.json", shown)
    folder.write_json("environment.json", environment())
    encoding, spec = state.lanes[0].encoding, process.task
    absences = (*state.absences, *(absence for found in metrics.values() for absence in found.absences))
    simulation.close("complete")
    folder.write_json(
        "results.json",
        {
            "medfed": __version__,
            "run": process.federation.conversation.run,
            "name": spec.name,
            "task_type": spec.task_type,
            "strategy": spec.federation.strategy.name,
            "task_digest": process.federation.conversation.task,
            "status": "complete",
            "stopped_because": state.stopped,
            "rounds": state.round,
            "seed": spec.seed,
            "parameters": len(next(iter(process.weights(state).values()))),
            "simulation": True,
            "policies": simulation.policies,
            "features": list(encoding.features),
            "classes": list(encoding.classes),
            "rows": {site: sheet["splits"] for site, sheet in shown.items()},
            "metrics": {split: _by_site(found.rows) for split, found in metrics.items()},
            "roc": {site: {"fpr": c.fpr.tolist(), "tpr": c.tpr.tolist()} for site, c in curves.items()},
            "absences": [{"round": a.round, "site": a.site, "sentence": a.sentence} for a in absences],
            "started": folder.origin().started,
            "seconds": round(seconds, 3),
            "baselines": [],
        },
    )
    return Outcome(folder, state, metrics)


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
