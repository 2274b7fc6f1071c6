"""What a task names, tried before anything runs: its connector, its network, and the weights that this starts from."""

from __future__ import annotations

import os
from pathlib import Path

from medfed.core.errors import MissingExtra, TaskError, UserError
from medfed.data.connectors import CONNECTORS, Connector
from medfed.data.labels import declared_classes
from medfed.engine.start import Source, located
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.network import Network
from medfed.models.pretrained import load_pretrained, tensors_of
from medfed.models.training import one_thread
from medfed.spec.loading import TaskFile
from medfed.spec.task import TaskSpec

_NOWHERE = Path(os.devnull) / "rows"
"""A path at which there can be no rows."""


def connector_of(task: TaskFile) -> Connector:
    """The task's connector. Raises TaskError, located in the file, for an unknown one; MissingExtra."""
    plugin = task.spec.data.connector
    try:
        return CONNECTORS.get(plugin.name)
    except MissingExtra:
        raise
    except UserError as error:
        raise task.error("data", "connector", cause=error.cause, remedy=error.remedy) from error


def check_connector(task: TaskFile) -> None:
    """Raise TaskError, located in the file, where there is no such connector, or it takes no such options.

    A connector looks at its options before it looks for rows, so that one is asked for rows that are not there.
    """
    connector = connector_of(task)
    try:
        connector(_NOWHERE, task.spec.data, "")
    except TaskError as error:
        raise task.error("data", "connector", cause=error.cause, remedy=error.remedy) from error
    except Exception:  # what any connector says of rows that are not there is no fault of the task
        return


def check_network(task: TaskFile) -> None:
    """Raise TaskError, located in the file, where the network cannot be built for the inputs that the task states.

    A model whose inputs are not known yet is built when they are. Raises MissingExtra.
    """
    try:
        _network(task.spec)
    except MissingExtra:
        raise
    except UserError as error:
        raise task.error("model", cause=error.cause, remedy=error.remedy) from error


def check_start(task: TaskFile, source: Source | None) -> None:
    """Raise TaskError, located in the file, where the network cannot start from these weights.

    Where the inputs are not known yet, only that they can be read. The last layer counts where the task states its
    classes. Raises MissingExtra.
    """
    told = task.spec.model.pretrained
    if told is None or source is None:
        return
    network = _network(task.spec)
    if _classes(task.spec) is None:
        told = told.model_copy(update={"head": "new"})
    try:
        if network is None:
            tensors_of(source.weights)
        else:
            load_pretrained(network, source.weights, told)
    except UserError as error:
        raise located(task, error) from error


def _network(spec: TaskSpec) -> Network | None:
    """The task's network; None where the task does not state its inputs. Raises UserError."""
    if spec.model.input_size is None:
        return None
    with one_thread():
        return build_network(spec.model, spec.model.input_size, outputs_for(_classes(spec) or 0), spec.seed)


def _classes(spec: TaskSpec) -> int | None:
    """The number of classes, 0 of a regression; None where the task leaves it to the data."""
    if spec.task_type == "regression":
        return 0
    declared = declared_classes(spec.data.label)
    return spec.model.num_classes if declared is None else len(declared)
