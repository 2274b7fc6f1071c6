"""An evaluation of a finished run's model: on which rows, and the folder that it leaves."""

from __future__ import annotations

import itertools
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfed.core.errors import RunFolderError, UserError
from medfed.engine.assembly import assemble
from medfed.engine.folder import RunFolder, by_metric
from medfed.engine.hospitals import SiteInput, load_hospitals, raw_rows
from medfed.engine.measuring import Measured, final_split, measure_at_sites, measure_rows
from medfed.engine.trained import KeptModel, TrainedModel, kept_models
from medfed.govern.keys import SigningKey
from medfed.spec.loading import TaskFile, load_task
from medfed.version import __version__

if TYPE_CHECKING:
    import pandas

FILE = "evaluation.json"


def evaluate_rows(
    run: Path, rows: str | os.PathLike[str] | pandas.DataFrame, model: str | None, output: Path | None
) -> Path:
    """Measure the model on labelled rows from elsewhere. Returns the folder with ``evaluation.json``."""
    trained = TrainedModel.load(run, model)
    name = Path(rows).stem if isinstance(rows, str | os.PathLike) else "new data"
    raw = raw_rows(TaskFile(trained.task, load_task(run / "task.yaml").document), rows, name)
    measured = measure_rows(trained, raw, name)
    return _written(run, output, name, measured, {"data": name, "split": "external", "model": model or ""})


def evaluate_sites(
    run: Path,
    sites: Sequence[str],
    given: Mapping[str, SiteInput] | None,
    model: str | None,
    output: Path | None,
    key: SigningKey,
) -> Path:
    """Measure the model at the run's simulated sites, each through its gate. Returns the folder, with their ledgers."""
    opened = RunFolder.open(run)
    task, chosen, data = load_task(opened.task), _chosen(run, model), opened.origin().data
    if given is None and not data:
        raise UserError(
            "the rows of this run's sites are not here: they came from memory, or are at hospitals",
            remedy="measure on labelled rows of your own: medfed evaluate RUN --data FILE",
        )
    hospitals = load_hospitals(task, Path(data), given, only=sites)
    name = "-".join(sites) if sites else "sites"
    folder = _new_folder(run, output, name)
    assembly = assemble(task, hospitals, folder, uuid.uuid4().hex, key, trains=False)
    measured = measure_at_sites(assembly, chosen)
    about = {"data": ", ".join(hospitals.sites), "split": final_split(task.spec).value, "model": chosen.name}
    return _written(run, folder, name, measured, about | {"policies": assembly.simulation.policies})


def _chosen(run: Path, name: str | None) -> KeptModel:
    if load_task(run / "task.yaml").spec.federation.keeps_layers:
        raise UserError(
            "each site has layers of its own here, and the model without them is none",
            remedy="measure rows that are at hand, by one site's: medfed evaluate RUN --data FILE --model SITE",
        )
    models = {model.name: model for model in kept_models(run)}
    if (name or "") not in models:
        own = ", ".join(filter(None, models))
        raise UserError(
            "each site has its own model here" if name is None else f"no site called {name!r} has a model here",
            remedy=f"add --model, one of: {own}" if own else "leave out --model: all sites share one model",
        )
    return models[name or ""]


def _new_folder(run: Path, output: Path | None, name: str) -> Path:
    if output is not None:
        if (output / FILE).exists() or (output / "task.yaml").exists() or (output / "ledger").exists():
            raise RunFolderError("something is in this folder already", where=str(output), remedy="name a new one")
        return _made(output)
    slug = re.sub(r"\W+", "-", name).strip("-")[:60] or "rows"
    base = run / "evaluations" / slug
    return _made(next(p for n in itertools.count(1) if not (p := base if n == 1 else Path(f"{base}-{n}")).exists()))


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"the folder cannot be made ({error.strerror})", where=str(folder)) from error
    return folder


def _written(run: Path, folder: Path | None, name: str, measured: Measured, about: dict[str, Any]) -> Path:
    """``evaluation.json`` in a folder, which is new unless the sites' ledgers are in it already."""
    if folder is None or not (folder / "ledger").exists():
        folder = _new_folder(run, folder, name)
    results = _results_of(run)
    content = {
        "medfed": __version__,
        "run": results["run"],
        "name": results["name"],
        "task_type": results["task_type"],
        "strategy": results["strategy"],
        "classes": results["classes"],
        **about,
        "metrics": {site: by_metric(measures) for site, measures in measured.measures.items()},
        "in_training": _federated(results),
        "counts": measured.classes,
        "left_out": measured.left_out,
        "roc": {site: {"fpr": fpr, "tpr": tpr} for site, (fpr, tpr) in measured.curves.items()},
        "confusion": measured.total.confusion if measured.total else [],
        "calibration": [asdict(point) for point in measured.total.calibration] if measured.total else [],
        "absences": [{"site": a.site, "sentence": a.sentence} for a in measured.absences],
    }
    RunFolder(folder).write_json(FILE, content)
    return folder


def _results_of(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise RunFolderError(
            "results.json is absent or damaged", where=str(run), remedy="run the task again"
        ) from error
    return found


def _federated(results: dict[str, Any]) -> dict[str, Any]:
    """What the run itself reached over all of its sites, on the part that no model has seen."""
    metrics: dict[str, dict[str, dict[str, Any]]] = results["metrics"]
    return (metrics.get("test") or next(iter(metrics.values()), {})).get("federated", {})
