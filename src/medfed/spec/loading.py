"""Task and policy files, read and checked: every fault is a TaskError with its place, cause and remedy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from medfed.core.errors import TaskError
from medfed.spec.checks import check_task
from medfed.spec.document import MAX_DEPTH, Document, Key, read_yaml
from medfed.spec.overrides import with_overrides
from medfed.spec.policy import Policy
from medfed.spec.problems import explain, task_error
from medfed.spec.segmentation import with_mask_label
from medfed.spec.task import TaskSpec

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class TaskFile:
    """A checked task and the document it came from."""

    spec: TaskSpec
    document: Document

    def error(self, *keys: Key, cause: str, remedy: str) -> TaskError:
        """An error located at a key path of the task, for what only a later stage can know."""
        return TaskError(cause, where=self.document.where(*keys), remedy=remedy)


def load_task(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> TaskFile:
    """The task in a YAML file, with ``--set`` overrides. Raises TaskError, which lists every fault found."""
    return _task(read_yaml(path), overrides)


def task_of(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> TaskFile:
    """The task given as a Python mapping; errors say ``task: key.path``. Raises TaskError."""
    if not isinstance(mapping, Mapping):
        raise TaskError("a task is a mapping", where="task", remedy="pass a dict of sections, or a file's path")
    return _task(Document("task", _plain(mapping, 0)), overrides)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a YAML file; an empty one allows nothing. Raises TaskError, which lists every fault found."""
    return validated(Policy, read_yaml(path, may_be_empty=True))


def validated(model: type[S], document: Document) -> S:
    """The document as a frozen model. Raises TaskError with every problem, each at its line."""
    try:
        return model.model_validate(_tuples(document.data), strict=True)
    except ValidationError as error:
        problems = explain(error, model, document.data)
    raise task_error(document, problems)


def _task(document: Document, overrides: Sequence[str]) -> TaskFile:
    document = with_overrides(document, overrides)
    spec = with_mask_label(validated(TaskSpec, document))
    problems = list(check_task(spec))
    if problems:
        raise task_error(document, problems)
    return TaskFile(spec, document)


def _tuples(value: Any) -> Any:
    """Lists as tuples, which is what frozen models hold."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any, depth: int) -> Any:
    """A Python value as a file would have it: numpy's scalars and arrays, tuples and paths become plain."""
    if depth > MAX_DEPTH:
        raise TaskError("the task is nested too deeply", where="task", remedy="flatten its sections")
    match value:
        case Mapping():
            return {str(key): _plain(item, depth + 1) for key, item in value.items()}
        case np.ndarray() | np.generic():
            return _plain(value.tolist(), depth + 1)
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case os.PathLike():
            return os.fspath(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TaskError(
                f"a value of type {type(value).__name__} stands in the task",
                where="task",
                remedy="use text, numbers, true, false, None, lists and dicts",
            )
