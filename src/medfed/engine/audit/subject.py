"""What is audited: a finished run's folder, and the rows of its sites."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from medfed.core.errors import RunFolderError, UserError
from medfed.data.table import SiteTable
from medfed.engine.cohort import check_cohort
from medfed.engine.folder import RunFolder
from medfed.engine.hospitals import Hospitals, SiteInput, load_hospitals
from medfed.engine.rows import RowsCache
from medfed.engine.store import RunStore, store_paths
from medfed.spec.loading import TaskFile, load_task
from medfed.spec.task import TaskSpec


@dataclass(frozen=True)
class RunFacts:
    """What ``results.json`` says of the run: its id, digest, whether it was simulated, its sites, and the largest
    epsilon of any site, with its delta, where there is one."""

    run: str
    digest: str
    simulation: bool
    sites: tuple[str, ...]
    epsilon: float | None
    delta: float

    @classmethod
    def read(cls, folder: RunFolder) -> RunFacts:
        """Raises RunFolderError where the run is not finished or the file is damaged."""
        file = folder.path / "results.json"
        if not folder.finished:
            raise RunFolderError(
                "this run is not finished",
                where=str(folder.path),
                remedy=f"finish it first: medfed run --resume {folder.path}",
            )
        try:
            found = json.loads(file.read_text())
            spent = [site["epsilon"] for site in found["privacy"].values()]
            deltas = [site["delta"] for site in found["privacy"].values()]
            facts = cls(
                found["run"],
                found["task_digest"],
                found["simulation"],
                tuple(sorted(found["rows"])),
                max(spent, default=None),
                max(deltas, default=0.0),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError("results.json is damaged", where=str(file), remedy="run the task again") from error
        return facts


@dataclass(frozen=True)
class Subject:
    """A finished run and its sites' rows."""

    folder: RunFolder
    facts: RunFacts
    task: TaskFile
    hospitals: Hospitals

    @property
    def spec(self) -> TaskSpec:
        """The resolved task."""
        return self.task.spec

    @cached_property
    def tables(self) -> dict[str, SiteTable]:
        """The rows of every site, by name, sorted."""
        return {site: self.hospitals.rows.get(site).table for site in sorted(self.hospitals.sites)}


def open_subject(
    path: Path,
    sites: Mapping[str, SiteInput] | None,
    data: Path | None,
    check: Callable[[TaskFile, Path], None] | None = None,
    *,
    site: str | None = None,
) -> Subject:
    """A finished run and its rows: those given, those below ``data``, or those below the run's own data folder.

    ``data`` holds the sites' rows as the task names them, or a folder for each site; of a deployed run, which left no
    rows here, it may be one site's own. site: whose own it is, where it holds none of that name. check: of the task,
    before any row is read; raises what it wants. Raises
    RunFolderError, UserError with a remedy where there are no rows, DataError where they are others than the run's.
    """
    if (path / "comparison.json").is_file():
        known = sorted(each.parent.name for each in path.glob("*/results.json"))
        raise RunFolderError(
            "this is a comparison of several runs", where=str(path), remedy=f"name one of them: {path}/{_either(known)}"
        )
    folder = RunFolder.open(path)
    facts, task = RunFacts.read(folder), load_task(folder.task)
    if check is not None:
        check(task, path)
    hospitals = load_hospitals(task, *_rows(folder, facts, task, sites, data, site))
    subject = Subject(folder, facts, task, hospitals)
    if facts.simulation:
        _check_rows(subject)
    return subject


def check_attackable(task: TaskFile, path: Path) -> None:
    """Raise UserError where the attacks cannot read what the sites of the run in a folder sent."""
    if task.spec.model.freeze or task.spec.federation.pruning is not None:
        raise UserError(
            "this run trained a part of its network, and the attacks read updates of whole networks",
            where=str(path),
            remedy="audit a run of the same task without model.freeze and pruning, whose updates say more",
        )
    if task.spec.federation.distillation is not None:
        raise UserError(
            "this run learnt from a teacher, and the attacks read updates by labels alone",
            where=str(path),
            remedy="audit a run of the same task without distillation",
        )
    if task.spec.task_type == "segmentation":
        raise UserError(
            "no attack here is one on masks", where=str(path), remedy="audit a run of classification or regression"
        )


def _rows(
    folder: RunFolder,
    facts: RunFacts,
    task: TaskFile,
    sites: Mapping[str, SiteInput] | None,
    data: Path | None,
    site: str | None,
) -> tuple[Path, Mapping[str, SiteInput] | None]:
    """The data folder, and the sites' rows where the task does not name them below it."""
    if sites is not None:
        return Path.cwd(), sites
    if data is not None and not data.is_dir():
        raise UserError("there is no such data folder", where=str(data), remedy="check --data")
    if data is None:
        return _rows_of_the_run(folder, facts), None
    if site is not None and site not in facts.sites:
        raise _no_such_site(site, facts)
    if facts.simulation and _holds_what_is_named(task.spec, data, site):
        return data, None
    inner = {name: data / name for name in facts.sites if (data / name).is_dir()}
    if site is not None and site not in inner:
        return data, {site: data}
    if not inner and facts.simulation:
        raise UserError(
            f"none of the run's sites has a folder here: {', '.join(facts.sites)}",
            where=str(data),
            remedy="name the folder that holds theirs, or, to explain one site's own rows, that site by --site",
        )
    return data, inner or {data.resolve().name: data}


def _rows_of_the_run(folder: RunFolder, facts: RunFacts) -> Path:
    """The data folder that the run used. Raises UserError where it had none here."""
    if not facts.simulation:
        raise UserError(
            "this run's rows are at its hospitals, and an audit trains on rows",
            where=str(folder.path),
            remedy="audit a simulation of the same task (medfed run TASK, then medfed audit), or, at a hospital, give "
            "its own rows by --data DIR",
        )
    if not (kept := folder.origin().data):
        raise UserError(
            "this run's rows came from memory, and are gone",
            where=str(folder.path),
            remedy="medfed.audit(folder, sites={...}) in Python, or --data DIR with the same rows as files",
        )
    return Path(kept)


def _no_such_site(site: str, facts: RunFacts) -> UserError:
    return UserError(f"there is no site {site!r} in this run", remedy=f"it has: {', '.join(facts.sites)}")


def _holds_what_is_named(task: TaskSpec, data: Path, site: str | None) -> bool:
    """Whether the folder has the rows where the task names them: those of the site, if one is asked for."""
    if task.partition is not None:
        return True
    return bool(task.sites) and (site not in task.sites or (data / task.sites[site].data).exists())


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"


def _check_rows(subject: Subject) -> None:
    """Raise DataError where the rows of a site are not those of the run."""
    for path in store_paths(subject.folder.path):
        with RunStore.open(path) as store:
            for site, table in subject.tables.items():
                if store.cohort(site) is not None:
                    check_cohort(store, table)


def with_tables(hospitals: Hospitals, tables: Mapping[str, SiteTable]) -> Hospitals:
    """The same hospitals, under their policies, with other rows."""
    sites = {name: replace(site, load=partial(_given, tables[name])) for name, site in hospitals.sites.items()}
    rows = RowsCache({name: site.load for name, site in sites.items()}, keep=len(sites))
    return Hospitals(sites, rows, rows.warm())


def _given(table: SiteTable) -> SiteTable:
    return table
