"""From what is given for each site, a file or data in memory, to the hospitals of a simulation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from medfed.core.errors import UserError
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.connectors import CONNECTORS
from medfed.data.frames import raw_from_frame
from medfed.data.raw import RawTable
from medfed.data.table import SiteTable, load_table
from medfed.engine.simulation import SimulatedSite
from medfed.spec.loading import TaskFile, load_policy
from medfed.spec.policy import Policy
from medfed.spec.task import SiteEntry

if TYPE_CHECKING:
    import pandas

SiteInput: TypeAlias = "str | os.PathLike[str] | pandas.DataFrame | tuple[Any, Any] | ArrayData"
"""A site's rows: a file's path, a data frame, (features, targets), or arrays with patient ids."""

PERMISSIVE = "permissive"


def load_hospitals(
    task: TaskFile, data: Path, given: Mapping[str, SiteInput] | None = None
) -> dict[str, SimulatedSite]:
    """Every site's rows and policy: from ``given``, else as the task names them, else one folder each below ``data``.

    Raises DataError or TaskError naming site, file and column.
    """
    if given is not None:
        return {
            site: SimulatedSite(_table(task, site, rows), Policy.permissive(), PERMISSIVE)
            for site, rows in given.items()
        }
    entries = task.spec.sites or _folders(task, data)
    hospitals = {}
    for site, entry in entries.items():
        path = _below(task, data, entry.data, "sites", site, "data")
        policy, source = Policy.permissive(), PERMISSIVE
        if entry.policy is not None:
            policy, source = load_policy(_below(task, data, entry.policy, "sites", site, "policy")), entry.policy
        hospitals[site] = SimulatedSite(_table(task, site, path), policy, source)
    return hospitals


def read_raw(task: TaskFile, path: Path, where: str) -> RawTable:
    """A file's rows as its connector reads them. Raises TaskError for an unknown connector, DataError."""
    plugin = task.spec.data.connector
    try:
        connector = CONNECTORS.get(plugin.name)
    except UserError as error:
        raise task.error("data", "connector", cause=error.cause, remedy=error.remedy) from error
    return connector(path, task.spec.data, where)


def raw_rows(task: TaskFile, rows: str | os.PathLike[str] | pandas.DataFrame, where: str) -> RawTable:
    """The rows of a file or a data frame, as text."""
    return read_raw(task, Path(rows), where) if isinstance(rows, str | os.PathLike) else raw_from_frame(rows)


def _table(task: TaskFile, site: str, rows: SiteInput) -> SiteTable:
    spec = task.spec
    if isinstance(rows, tuple):
        rows = ArrayData(*rows)
    if isinstance(rows, ArrayData):
        return load_arrays(spec.data, spec.task_type, site, rows, spec.seed)
    return load_table(spec.data, spec.task_type, site, raw_rows(task, rows, site), spec.seed)


def _folders(task: TaskFile, data: Path) -> dict[str, SiteEntry]:
    """One site a folder, for a task that names none."""
    names = sorted(p.name for p in data.iterdir() if p.is_dir() and not p.name.startswith(".")) if data.is_dir() else []
    if not names:
        raise task.error(
            "sites",
            cause=f"the task names no sites, and {data} has no folder that could be one",
            remedy="add sites: {NAME: {data: FILE.csv}}, or one folder per site below --data",
        )
    return {name: SiteEntry(data=name) for name in names}


def _below(task: TaskFile, data: Path, path: str, *keys: str) -> Path:
    """The path below the data folder. Raises TaskError for one that leaves it, by ``..``, a link or a root."""
    target = (data / path).resolve()
    if Path(path).is_absolute() or not target.is_relative_to(data.resolve()):
        raise task.error(
            *keys,
            cause=f"the path {path!r} leads out of the data folder {data}",
            remedy="name a folder by --data, and paths below it",
        )
    if not target.exists():
        known = ", ".join(sorted(p.name for p in data.iterdir())[:8]) if data.is_dir() else "no such folder"
        raise task.error(*keys, cause=f"there is no {path!r} in the data folder {data}", remedy=f"it has: {known}")
    return target
