"""The teacher of a run: found, checked, and copied into the run's folder, as what it begins from is.

The task that travels to sites says which network the teacher is, and the digest of its weights, and no path.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from medfed.core.errors import UserError
from medfed.core.messages import Vector
from medfed.data.encoding import Encoding, continued
from medfed.engine.start import Source, finished_run, kept_encoding, kept_weights, resolve_start
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.pretrained import load_pretrained
from medfed.spec.loading import TaskFile
from medfed.spec.task import Plugin, Pretrained, TaskSpec, Teacher

_AT = ("federation", "distillation", "teacher")


@dataclass(frozen=True)
class KeptTeacher:
    """A run folder's copy of its teacher. told: what the task says of it."""

    place: Path
    told: Teacher

    @classmethod
    def of(cls, folder: Path, task: TaskSpec) -> KeptTeacher | None:
        """The teacher of the run in a folder; None where it has none."""
        told = task.federation.distillation
        return None if told is None else cls(folder / "teacher", told.teacher)

    def encoding(self, agreed: Encoding) -> Encoding:
        """The teacher's encoding, under which its answers mean what they do.

        Raises DataError where the sites' rows have other columns, levels or classes.
        """
        return continued(kept_encoding(self.place), agreed, new_classes=False)

    def weights(self, input_shape: tuple[int, ...], classes: int) -> Vector:
        """The teacher's flat vector, for such rows. Raises UserError where it is not for them, RunFolderError."""
        network = build_network(_model(self.told), input_shape, outputs_for(classes), 0)
        load_pretrained(network, kept_weights(self.place, self.told.sha256), Pretrained())
        return network.vector()


def _model(told: Teacher) -> Plugin:
    if told.model is None:
        raise UserError("the task does not say which network its teacher is", remedy="name its run by `teacher.run`")
    return told.model


def resolve_sources(task: TaskFile) -> tuple[TaskFile, tuple[Source, ...]]:
    """The task with digests of what it begins from and of its teacher, in place of their paths; and these themselves.

    Raises TaskError, located in the file.
    """
    task, start = resolve_start(task)
    task, teacher = _resolve_teacher(task)
    given = tuple(source for source in (start, teacher) if source is not None)
    if len({source.encoding for source in given if source.encoding is not None}) > 1:
        raise task.error(
            *_AT,
            cause="the teacher's run and the run that training begins from encode rows otherwise",
            remedy="let one of them continue the other's encoding (medfed run --from), or begin with fresh weights",
        )
    return task, given


def _resolve_teacher(task: TaskFile) -> tuple[TaskFile, Source | None]:
    told = task.spec.federation.distillation
    if told is None:
        return task, None
    try:
        found, source = _of_run(told.teacher, task)
    except UserError as error:
        cause = f"{error.cause} ({error.where})" if error.where else error.cause
        raise task.error(*_AT, cause=cause, remedy=error.remedy) from error
    federation = task.spec.federation.model_copy(
        update={"distillation": told.model_copy(update={"teacher": found})},
    )
    return TaskFile(task.spec.model_copy(update={"federation": federation}), task.document), source


def _of_run(told: Teacher, task: TaskFile) -> tuple[Teacher, Source]:
    if told.run is None:
        raise UserError("it names no finished run", remedy="write, for example: `teacher: {run: runs/big}`")
    earlier = finished_run(told.run, task)
    before, now = earlier.task.model.input_size, task.spec.model.input_size
    if before != now:
        raise UserError(
            f"the teacher takes inputs of the shape {_shape(before)}, and the model {_shape(now)}",
            remedy="write `model.input_size` as in the task.yaml of that run",
        )
    digest = hashlib.sha256(earlier.source.weights).hexdigest()
    if told.sha256 not in (None, digest):
        raise UserError("the teacher's weights are other than the task says", remedy=f"their own sha256 is {digest}")
    model = Plugin(name=earlier.task.model.name, **earlier.task.model.options)
    found = Teacher(sha256=digest, parent=earlier.run, model=model)
    return found, replace(earlier.source, kept="teacher")


def _shape(size: tuple[int, ...] | None) -> str:
    return "that the data tell" if size is None else str(list(size))
