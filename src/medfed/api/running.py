"""Runs: from a task to its end, from a checkpoint, step by step, or under several strategies."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from medfed.api.keys import simulation_key
from medfed.api.reporting import write_report
from medfed.api.tasks import FilePath, Task, data_folder, read_task
from medfed.core.errors import RunFolderError, UserError
from medfed.engine.assembly import assemble, check_parts
from medfed.engine.cohort import check_cohort
from medfed.engine.comparison import Comparison, strategy_tasks
from medfed.engine.folder import Origin, RunFolder
from medfed.engine.hospitals import Hospitals, SiteInput, load_hospitals, require_positive
from medfed.engine.outcome import Outcome
from medfed.engine.process import Process, RoundMetrics, RunState
from medfed.engine.run import Observer
from medfed.engine.run import run as run_rounds
from medfed.engine.simulation import Simulation, attached
from medfed.engine.start import Source
from medfed.engine.store import RunStore
from medfed.engine.teacher import resolve_sources
from medfed.spec.canonical import dump_task
from medfed.spec.loading import TaskFile, load_task


class Silent:
    """An observer that shows nothing."""

    def begun(self, process: Process, state: RunState) -> None:
        """Show nothing."""

    def advanced(self, state: RunState, metrics: RoundMetrics) -> None:
        """Show nothing."""


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
    hospitals = _hospitals(checked, data_folder(checked, data), sites)
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
    root = data_folder(checked, data)
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
        write_report(opened.path)  # a kill may have come between the results and the report
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
    tasks, root = strategy_tasks(checked), data_folder(checked, data)
    hospitals = _hospitals(checked, root, sites, *tasks.values())
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
    write_report(folder)
    return comparison


def new_output(task: TaskFile) -> Path:
    """A new, empty folder below ``runs/``, named after the task and the time, which no other process gets."""
    slug = re.sub(r"\W+", "-", task.spec.name).strip("-") or "task"
    base = Path("runs") / f"{slug}-{datetime.now():%Y%m%d-%H%M%S}"
    for path in (base if n == 1 else base.with_name(f"{base.name}-{n}") for n in itertools.count(1)):
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("unreachable: the count has no end")


def _run(task: TaskFile, hospitals: Hospitals, folder: RunFolder, observer: Observer, begun: float) -> Outcome:
    assembly = assemble(task, hospitals, folder.path, folder.origin().run, simulation_key())
    with attached(assembly.simulation):
        outcome = run_rounds(assembly.process, assembly.simulation, folder, observer, begun)
    write_report(folder.path)
    return outcome


def _hospitals(task: TaskFile, data: Path, sites: Mapping[str, SiteInput] | None, *variants: TaskFile) -> Hospitals:
    """The sites' rows, read only after all that can be known without them was checked. variants: run in its place."""
    for each in variants or (task,):
        check_parts(each, tuple(each.spec.sites if sites is None else sites))
    hospitals = load_hospitals(task, data, sites)
    require_positive(hospitals, task)
    return hospitals


def _new_folder(task: TaskFile, data: Path | None, path: Path, sources: tuple[Source, ...]) -> RunFolder:
    origin = Origin(uuid.uuid4().hex, str(data or ""), datetime.now(UTC).isoformat(timespec="seconds"))
    return RunFolder.create(path, dump_task(task.spec), origin, sources)


def _discard(simulation: Simulation, folder: Path) -> None:
    simulation.detach()
    shutil.rmtree(folder, ignore_errors=True)
