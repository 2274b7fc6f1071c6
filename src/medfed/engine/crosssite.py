"""Every model of a comparison at every site: those that a site trained alone, and those that sites share.

It tells whether a model that is good at home is good elsewhere. Each cell is that site's own release, through its gate.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfed.core.files import write_atomically
from medfed.engine.assembly import assemble
from medfed.engine.folder import RunFolder, by_metric
from medfed.engine.hospitals import Hospitals
from medfed.engine.measuring import final_split, measure_apart
from medfed.engine.trained import KeptModel, kept_models
from medfed.govern.keys import SigningKey
from medfed.metrics.measure import Measures
from medfed.spec.loading import TaskFile, load_task
from medfed.spec.task import ModelSpec

FILE = "cross_site.json"
MOST_SITES = 50
"""Up to so many sites, every model is taken to every one."""


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model with the strategy that it comes from."""

    strategy: str
    model: KeptModel


def compare_across_sites(
    task: TaskFile, hospitals: Hospitals, folder: Path, runs: Mapping[str, Path], key: SigningKey
) -> None:
    """Write ``cross_site.json`` and ``cross_site.csv`` into a comparison's folder, where a strategy leaves models that
    are a site's own; once. The sites' ledgers of it are below ``cross_site/``.

    runs: the folder of each strategy's run. Where it cannot be done, the file says why.
    """
    if (folder / FILE).exists() or not any((run / "models").is_dir() for run in runs.values()):
        return
    split, external = final_split(task.spec), sorted({*task.spec.evaluation.holdout} & {*hospitals.sites})
    content: dict[str, Any] = {"split": split.value, "external": external, "models": [], "not_measured": ""}
    if task.spec.privacy.totals_only:
        content["not_measured"] = (
            "The task promises that no hospital's own figures leave it, and this shows nothing else."
        )
    elif len(hospitals.sites) > MOST_SITES:
        content["not_measured"] = f"It is measured where there are {MOST_SITES} hospitals at most."
    else:
        rows: list[dict[str, Any]] = []
        for network, several in _by_network(runs).items():
            alike = TaskFile(task.spec.model_copy(update={"model": network}), task.document)
            assembly = assemble(alike, hospitals, _fresh(folder), uuid.uuid4().hex, key, trains=False)
            found = measure_apart(assembly, [each.model for each in several])
            rows += [_row(each, measured) for each, measured in zip(several, found, strict=True)]
        content["models"] = sorted(rows, key=lambda row: not row["site"])
    write_atomically(folder / "cross_site.csv", _as_csv(content))
    RunFolder(folder).write_json(FILE, content)


def _by_network(runs: Mapping[str, Path]) -> dict[ModelSpec, list[NamedModel]]:
    """The models of all runs, by the network whose they are: a comparison may change it for a strategy.

    A run of which layers stay at each site is left out: no other site can use a model that lacks them.
    """
    found: dict[ModelSpec, list[NamedModel]] = {}
    for strategy, run in runs.items():
        spec = load_task(run / "task.yaml").spec
        if not spec.federation.keeps_layers:
            found.setdefault(spec.model, []).extend(NamedModel(strategy, model) for model in kept_models(run))
    return found


def _fresh(folder: Path) -> Path:
    """A folder for the ledgers; what an interruption left of an earlier one stays beside it."""
    number = sum(1 for _ in folder.glob("cross_site*/"))
    place = folder / ("cross_site" if number == 0 else f"cross_site-{number + 1}")
    place.mkdir()
    return place


def _row(named: NamedModel, measured: dict[str, Measures]) -> dict[str, Any]:
    metrics = {site: by_metric(measures) for site, measures in measured.items()}
    return {"strategy": named.strategy, "site": named.model.name, "metrics": metrics}


def _as_csv(content: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("strategy", "model_of", "tested_at", "split", "metric", "value", "n", "reason"))
    for row in content["models"]:
        for site, metrics in row["metrics"].items():
            split = "external" if site in content["external"] else content["split"]
            for metric, m in metrics.items():
                about = (m["value"], m["n"], m.get("reason", ""))
                writer.writerow((row["strategy"], row["site"], site, split, metric, *about))
    return text.getvalue()
