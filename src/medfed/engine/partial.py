"""Training a part of a network: every site is told once which elements are trained, and what the others are."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.errors import CodecError, UserError
from medfed.core.messages import Message, adds
from medfed.core.protocols import Federation, SiteContext
from medfed.core.sensitivity import unmoved
from medfed.core.steps import Release, Step, step
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.elements import Elements
from medfed.models.layers import frozen_elements
from medfed.models.pruning import pruned_elements
from medfed.spec.loading import TaskFile


@dataclass(frozen=True)
class Told(Message, wire="partial.told"):
    """sites: 1, of a site that knows which elements are trained."""

    sites: int = adds(bound=1, sensitivity=unmoved)


@step(releases=Release.SUM)
def set_elements(site: SiteContext, message: Elements) -> Told:
    """Train these elements from now on, and take the values of the others. Raises CodecError where they do not fit."""
    if not message.mask.any():
        raise CodecError("a network of which nothing is trained came")
    site.keep(message)
    return Told(1)


def check_partial(task: TaskFile) -> None:
    """Raise TaskError, located in the file, where the network has no such layers to freeze or prune, or no others.

    A model whose inputs are not known yet is checked when they are.
    """
    spec, pruning = task.spec.model, task.spec.federation.pruning
    if not spec.freeze and pruning is None:
        return
    try:
        network = build_network(spec, spec.input_size or _SOME_COLUMNS, outputs_for(spec.num_classes or 0), 0)
    except UserError:
        return
    try:
        frozen = frozen_elements(network, spec.freeze)
    except UserError as error:
        raise task.error("model", "freeze", cause=error.cause, remedy=error.remedy) from error
    if pruning is None:
        return
    try:
        pruned_elements(network, network.vector(), frozen, pruning.share)
    except UserError as error:
        raise task.error("federation", "pruning", cause=error.cause, remedy=error.remedy) from error


_SOME_COLUMNS = (8,)

STEPS: tuple[Step[Elements, Told], ...] = (set_elements,)


def give_elements(fed: Federation, elements: Elements) -> None:
    """Tell every site of a federation."""
    fed.sum(set_elements, elements)
