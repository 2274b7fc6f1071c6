"""What is a site's own of a model: layers that stay there between rounds, and models fine-tuned for it.

An algorithm sees none of it. A site trains from the federated weights with its own layers in place, keeps these, and
hands the algorithm weights in which they have not changed; so they are in no update that leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Message, Vector
from medfed.core.protocols import GradientTransform, OwnModel, SiteContext, Trained
from medfed.models.local_layers import local_elements
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch

    from medfed.models.network import Network


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, eq=False)
class LocalElements(Message, wire="personal.local_elements"):
    """The values of a site's own layers, in the order of their places in the flat vector."""

    values: Vector


class Memory(Protocol):
    """What a site keeps: a step's view of it, or the store of a run that is over."""

    def recall(self, kind: type[M]) -> M | None:
        """The message of this type that was kept last, or None."""
        ...


def personal_weights(site: Memory, federation: FederationSpec, network: Network, weights: Vector) -> Vector:
    """What a site makes of federated weights: its own model where it has one, else the weights with its own layers."""
    own = site.recall(OwnModel)
    return with_local_layers(site, federation, network, weights) if own is None else own.weights


def with_local_layers(site: Memory, federation: FederationSpec, network: Network, weights: Vector) -> Vector:
    """Federated weights with the site's own layers in place, where it keeps some and has trained before."""
    kept = site.recall(LocalElements) if federation.keeps_layers else None
    if kept is None:
        return weights
    own = weights.copy()
    own[_local(network, federation)] = kept.values
    return own


def without_local_layers(
    site: SiteContext, federation: FederationSpec, network: Network, weights: Vector, trained: Trained
) -> Trained:
    """The outcome of training with the site's own layers as they came, once the site keeps what they are now."""
    if not federation.keeps_layers:
        return trained
    places = _local(network, federation)
    site.keep(LocalElements(trained.weights[places]))
    trained.weights[places] = weights[places]
    return trained


def on_shared_layers(
    federation: FederationSpec, network: Network, transform: GradientTransform | None
) -> GradientTransform | None:
    """An algorithm's change of gradients, which speaks of federated weights, kept off the site's own layers."""
    if transform is None or not federation.keeps_layers:
        return transform
    return _except_at(_local(network, federation), network, transform)


def fine_tuning(federation: FederationSpec) -> FederationSpec:
    """How a site fine-tunes: the task's local training, for other epochs and at its own constant rate."""
    tune = federation.fine_tune
    assert tune is not None  # noqa: S101 - the step is admitted for such tasks alone
    changed = {
        "rounds": 1,
        "epochs": None,
        "local_updates": None,
        "local_epochs": tune.epochs,
        "lr": tune.lr or federation.lr,
        "schedule": type(federation.schedule)(),
    }
    return federation.model_copy(update=changed)


def _except_at(places: NDArray[np.int64], network: Network, transform: GradientTransform) -> GradientTransform:
    import torch

    index = torch.from_numpy(places[places < network.weights.numel()]).to(network.device)

    def shared(gradient: torch.Tensor, weights: torch.Tensor) -> None:
        own = gradient.index_select(0, index)
        transform(gradient, weights)
        gradient.index_copy_(0, index, own)

    return shared


def _local(network: Network, federation: FederationSpec) -> NDArray[np.int64]:
    assert federation.local_layers != "none"  # noqa: S101 - asked for where layers are kept
    return local_elements(network, federation.local_layers)
