"""What distillation from a teacher does not go with."""

from __future__ import annotations

from collections.abc import Iterator

from medfed.spec.document import Keys
from medfed.spec.problems import Problem
from medfed.spec.task import TaskSpec

_AT: Keys = ("federation", "distillation")


def check_distillation(spec: TaskSpec) -> Iterator[Problem]:
    """Every disagreement of a task's distillation with the rest of it."""
    told = spec.federation.distillation
    if told is None:
        return
    teacher = told.teacher
    if teacher.run is None and (teacher.sha256 is None or teacher.parent is None or teacher.model is None):
        yield Problem(
            (*_AT, "teacher"), "`teacher` names no finished run", "write, for example: `teacher: {run: runs/big}`"
        )
    if spec.task_type != "classification":
        yield Problem(
            _AT, f"a teacher's answers are probabilities of classes, and this is a {spec.task_type}", "remove it"
        )
    for name in ("record", "labels"):
        if getattr(spec.privacy, name) is not None:
            yield Problem(
                _AT,
                f"the loss of `privacy.{name}` is one of labels alone",
                f"remove `federation.distillation`, or train without `privacy.{name}`",
            )
    if spec.federation.accumulate > 1:
        yield Problem(
            ("federation", "accumulate"),
            "a batch that a teacher answers for is computed as a whole",
            "remove `accumulate`, or write a smaller `batch_size`",
        )
