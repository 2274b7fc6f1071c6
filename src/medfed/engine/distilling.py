"""Distillation at a site: it is given the teacher once, keeps it, and answers its own training rows by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medfed.core.errors import CodecError, DataError, UserError
from medfed.core.examples import Examples
from medfed.core.messages import Message, Vector, adds
from medfed.core.protocols import Federation, SiteContext
from medfed.core.sensitivity import unmoved
from medfed.core.steps import Release, Step, step
from medfed.engine.rows import SiteRows, weights_digest
from medfed.models.catalogue import build_network, check_options, outputs_for
from medfed.models.distillation import Teaching, answers, answers_to_batch, prepared_answers
from medfed.models.network import Network
from medfed.spec.loading import TaskFile
from medfed.spec.task import TaskSpec


@dataclass(frozen=True, eq=False)
class TeacherWeights(Message, wire="distilling.teacher"):
    """The flat vector of the network that the task calls its teacher."""

    weights: Vector


@dataclass(frozen=True)
class Taught(Message, wire="distilling.taught"):
    """sites: 1, of a site that has the teacher."""

    sites: int = adds(bound=1, sensitivity=unmoved)


@step(releases=Release.SUM)
def set_teacher(site: SiteContext, message: TeacherWeights) -> Taught:
    """Keep the teacher for the training that follows. Raises CodecError where its weights are not finite."""
    if not np.isfinite(message.weights).all():
        raise CodecError("a teacher came whose weights are not finite")
    site.keep(message)
    return Taught(1)


STEPS: tuple[Step[TeacherWeights, Taught], ...] = (set_teacher,)


def give_teacher(fed: Federation, weights: Vector) -> None:
    """Give the teacher to every site of a federation."""
    fed.sum(set_teacher, TeacherWeights(weights))


def check_teacher(task: TaskFile) -> None:
    """Raise TaskError, located in the file, where the teacher's network is not installed, or takes no such options."""
    told = task.spec.federation.distillation
    if told is None or told.teacher.model is None:
        return
    try:
        check_options(told.teacher.model, task.spec.task_type)
    except UserError as error:
        if error.where or error.code == "extra":
            raise
        raise task.error("federation", "distillation", "teacher", cause=error.cause, remedy=error.remedy) from error


def teaching(
    task: TaskSpec, kept: TeacherWeights | None, rows: SiteRows, examples: Examples, classes: int, student: Network
) -> Teaching | None:
    """How the teacher's answers enter the loss of a site's training; None where the task has none, or lets it say
    nothing. They are computed once where rows stay as they are, and else for each batch.

    Raises DataError where the site was not given the teacher, CodecError where its weights are another network's.
    """
    told = task.federation.distillation
    if told is None or told.alpha == 0 or told.teacher.model is None:
        return None
    if kept is None:
        raise DataError("this site was not given the teacher: it was absent when the others were")
    model, shape = told.teacher.model, examples.features.shape[1:]

    def teacher() -> Network:
        network = build_network(model, shape, outputs_for(classes), 0, kept.weights.copy())
        network.move(student.device)
        return network

    if task.data.images.augment:
        return Teaching(told.temperature, told.alpha, answers_to_batch(teacher()))
    digest = weights_digest(kept.weights)
    known = rows.taught(digest)
    if known is None:
        known = answers(teacher(), examples)
        rows.keep_taught(digest, known)
    return Teaching(told.temperature, told.alpha, prepared_answers(known, student.device))
