"""Tasks, read and checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from medfed.core.errors import MissingExtra, UserError
from medfed.data.raw import Unread
from medfed.engine.assembly import check_parts
from medfed.engine.buildable import check_connector, check_start
from medfed.engine.comparison import strategy_tasks
from medfed.engine.hospitals import missing_files, unread_files
from medfed.engine.teacher import resolve_sources
from medfed.engine.wholesite import cost_in_words
from medfed.spec.canonical import resolved
from medfed.spec.loading import TaskFile, load_task, task_of
from medfed.spec.task import TaskSpec

FilePath: TypeAlias = "str | os.PathLike[str]"
Task: TypeAlias = "FilePath | Mapping[str, Any] | TaskSpec | TaskFile"
"""A task: its file's path, a mapping of sections, or one already read."""


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


def data_folder(task: TaskFile, data: FilePath | None) -> Path:
    """The folder that a task's paths are below: the one given, or the task file's own."""
    if data is not None:
        if not Path(data).is_dir():
            raise UserError("there is no such data folder", where=str(data), remedy="check --data")
        return Path(data).resolve()
    file = Path(task.document.path)
    return file.resolve().parent if file.is_file() else Path.cwd()


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
    missing: dict[str, UserError] = {str(error): error for error in missing_files(checked, data_folder(checked, data))}
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
    return unread_files(checked, data_folder(checked, data))
