"""From what is given for each site, a file or data in memory, to the hospitals of a simulation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from medfed.algorithms import ALGORITHMS
from medfed.core.collector import rare_collections
from medfed.core.errors import TaskError, UserError
from medfed.data.acquisition import reacquired
from medfed.data.arrays import ArrayData, load_arrays
from medfed.data.division import divided, site_names
from medfed.data.frames import raw_from_frame
from medfed.data.labels import POSITIVE
from medfed.data.raw import IMAGE, RawTable, Unread
from medfed.data.table import SiteTable, held_out, load_table
from medfed.engine.buildable import connector_of
from medfed.engine.federation import share
from medfed.engine.repeated_patients import repeated_patients
from medfed.engine.rows import RowsCache
from medfed.engine.simulation import SimulatedSite
from medfed.spec.loading import TaskFile, load_policy
from medfed.spec.policy import Policy
from medfed.spec.task import BASELINES, Partition, SiteEntry, TaskSpec

if TYPE_CHECKING:
    import pandas

GivenRows: TypeAlias = "str | os.PathLike[str] | pandas.DataFrame | tuple[Any, ...] | ArrayData"
"""A site's rows: a file's path, a data frame, (features, targets), or arrays with patient ids."""

SiteInput: TypeAlias = "GivenRows | Callable[[], GivenRows]"
"""A site's rows, or a function that gives them when they are needed; it may be called again."""

PERMISSIVE = "permissive"


@dataclass(frozen=True)
class Hospitals:
    """The sites of a simulation, and their rows as far as memory holds them.

    known: the training rows of each site that was loaded at the start.
    """

    sites: dict[str, SimulatedSite]
    rows: RowsCache
    known: dict[str, int]


@rare_collections()
def load_hospitals(
    task: TaskFile,
    data: Path,
    given: Mapping[str, SiteInput] | None = None,
    *,
    only: Sequence[str] = (),
) -> Hospitals:
    """The sites from ``given``, else as the task names them, else one folder each below ``data``.

    only: some of them, if not all. Rows are loaded and checked here, unless there are so many that they are loaded when
    needed. Raises DataError or TaskError naming site, file and column, UserError for a name that no site has.
    """
    sites = _sites(task, data, given)
    if unknown := [name for name in only if name not in sites]:
        raise UserError(f"no site is called {unknown[0]!r}", remedy=f"known: {', '.join(sites)}")
    sites = {name: site for name, site in sites.items() if not only or name in only}
    rows = RowsCache({name: site.load for name, site in sites.items()}, share(task.spec.federation.cohort, len(sites)))
    known = rows.warm()
    if len(known) == len(sites):
        _note_repeated_patients(rows, known, task)
    return Hospitals(sites, rows, known)


def require_positive(hospitals: Hospitals, task: TaskFile) -> None:
    """Raise TaskError where no site has a row of the class that ``label.positive`` lists: its values are mistyped.

    Nothing is known where there are so many sites that not all are loaded.
    """
    label = task.spec.data.label
    if label is None or label.positive is None or len(hospitals.known) < len(hospitals.sites):
        return
    if not any((hospitals.rows.get(site).table.targets == POSITIVE).any() for site in hospitals.sites):
        raise task.error(
            *("data", "label", "positive"),
            cause=f"no site has a value of `positive` in the column {label.column!r}",
            remedy="write its values as they stand in the data, upper and lower case too",
        )


def _note_repeated_patients(rows: RowsCache, sites: Iterable[str], task: TaskFile) -> None:
    """Write into the findings of each site that some of its patients are at another one too.

    Ids are the task's, or the images' own; without them an image is known by its content, and other rows by nothing.
    """
    tables = {site: rows.get(site).table for site in sites}
    if task.spec.data.id is None:
        tables = {site: table for site, table in tables.items() if IMAGE in table.columns}
    for site, count in repeated_patients({site: set(table.ids) for site, table in tables.items()}).items():
        findings = replace(tables[site].findings, elsewhere=count)
        rows.get(site).table = replace(tables[site], findings=findings)


def _sites(task: TaskFile, data: Path, given: Mapping[str, SiteInput] | None) -> dict[str, SimulatedSite]:
    permissive = Policy.permissive()
    if given is not None:
        if not isinstance(given, Mapping) or not given:
            raise UserError(
                "sites are a mapping of names to rows", remedy='sites={"A": frame, "B": (features, targets)}'
            )
        return {
            site: SimulatedSite(partial(_table, task, site, rows), permissive, PERMISSIVE)
            for site, rows in given.items()
        }
    if task.spec.partition is not None:
        return _divided(task, data, task.spec.partition)
    entries = task.spec.sites or _folders(task, data)
    hospitals = {}
    for site, entry in entries.items():
        path = _below(task, data, entry.data, "sites", site, "data")
        policy, source = permissive, PERMISSIVE
        if entry.policy is not None:
            policy = known_policy(_below(task, data, entry.policy, "sites", site, "policy"))
            source = entry.policy
        hospitals[site] = SimulatedSite(partial(_table, task, site, path), policy, source)
    return hospitals


def _divided(task: TaskFile, data: Path, partition: Partition) -> dict[str, SimulatedSite]:
    """The sites of one data set, which is read when the first of them is loaded."""
    whole = _Whole(task, _below(task, data, partition.data, "partition", "data"), partition)
    permissive = Policy.permissive()
    return {
        site: SimulatedSite(partial(whole.table, site), permissive, PERMISSIVE) for site in site_names(partition.sites)
    }


@dataclass(frozen=True)
class _Whole:
    """One data set, and its parts by site."""

    task: TaskFile
    path: Path
    partition: Partition

    @cached_property
    def _parts(self) -> dict[str, RawTable]:
        spec, raw = self.task.spec, read_raw(self.task, self.path, "partition")
        if raw.pictures is not None:  # parts no longer know what could not be read of the whole
            from medfed.data.images.loading import check_share

            check_share(raw.pictures.unread, raw.pictures.each, spec.data.images.max_unreadable, raw.source)
        parts = divided(raw, spec.data, self.partition, spec.seed)
        return reacquired(parts, self.partition, spec.seed) if self.partition.by == "acquisition" else parts

    def table(self, site: str) -> SiteTable:
        spec = self.task.spec
        return _apart(spec, load_table(spec.data, spec.task_type, site, self._parts[site], spec.seed))


def missing_files(task: TaskFile, data: Path) -> list[TaskError]:
    """The files of the task's sites that are not below the data folder. Raises TaskError for a bad policy file."""
    missing = []
    if task.spec.partition is not None:
        try:
            _below(task, data, task.spec.partition.data, "partition", "data")
        except TaskError as error:
            missing.append(error)
    for site, entry in task.spec.sites.items():
        for key, path in (("data", entry.data), ("policy", entry.policy)):
            try:
                found = _below(task, data, path, "sites", site, key) if path is not None else None
            except TaskError as error:
                missing.append(error)
                continue
            if key == "policy" and found is not None:
                known_policy(found)
    return missing


def known_policy(path: Path) -> Policy:
    """The policy in a file. Raises TaskError for an algorithm that no installed code has, since it may be mistyped."""
    policy = load_policy(path)
    for name in policy.algorithms if policy.algorithms != "*" else ():
        if name not in (*ALGORITHMS.names(), *BASELINES):
            raise TaskError(
                f"the policy allows an algorithm {name!r}, which does not exist",
                where=str(path),
                remedy=ALGORITHMS.suggestion(name),
            )
    return policy


def read_raw(task: TaskFile, path: Path, where: str) -> RawTable:
    """A file's rows as its connector reads them. Raises TaskError for an unknown connector, DataError."""
    return connector_of(task)(path, task.spec.data, where)


def unread_files(task: TaskFile, data: Path) -> dict[str, tuple[Unread, ...]]:
    """Each simulated site's files that give no image, with their reasons; every file is read for it.

    Raises TaskError, and DataError where the site's rows are none at all.
    """
    from medfed.data.images.loading import tried

    entries = task.spec.sites or _folders(task, data)
    if task.spec.partition is not None:
        entries = {"partition": SiteEntry(data=task.spec.partition.data)}
    found = {}
    for site, entry in entries.items():
        raw = read_raw(task, _below(task, data, entry.data, "sites", site, "data"), site)
        found[site] = tried(raw.pictures) if raw.pictures is not None else ()
    return found


def _arrays(rows: tuple[Any, ...], site: str) -> ArrayData:
    if len(rows) not in (2, 3):
        raise UserError("arrays are given as (features, targets) or (features, targets, ids)", where=site)
    return ArrayData(*rows)


def raw_rows(task: TaskFile, rows: str | os.PathLike[str] | pandas.DataFrame, where: str) -> RawTable:
    """The rows of a file or a data frame, as text. Raises UserError for anything else."""
    if isinstance(rows, str | os.PathLike):
        return read_raw(task, Path(rows), where)
    if not hasattr(rows, "columns"):
        raise UserError(
            f"rows cannot be given as {type(rows).__name__}",
            where=where,
            remedy="give a file's path, a pandas data frame, or for a site (features, targets)",
        )
    return raw_from_frame(rows)


def _table(task: TaskFile, site: str, rows: SiteInput) -> SiteTable:
    spec = task.spec
    if callable(rows):
        rows = rows()
    if isinstance(rows, tuple):
        rows = _arrays(rows, site)
    if isinstance(rows, ArrayData):
        return _apart(spec, load_arrays(spec.data, spec.task_type, site, rows, spec.seed))
    return _apart(spec, load_table(spec.data, spec.task_type, site, raw_rows(task, rows, site), spec.seed))


def _apart(spec: TaskSpec, table: SiteTable) -> SiteTable:
    """The table, all of its rows external where the task holds its site out."""
    return held_out(table) if table.site in spec.evaluation.holdout else table


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
