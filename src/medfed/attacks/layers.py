"""Which layers of a network give inputs or labels away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.models.network import Network

if TYPE_CHECKING:
    import torch


def first_linear(network: Network, features: NDArray[np.float32]) -> tuple[int, int] | None:
    """Where weight and bias of the linear layer that reads the record itself stand among the parameters; None if
    another kind of layer does."""
    import torch

    (layer, inputs), *_ = _in_order(network, features)
    if not isinstance(layer, torch.nn.Linear) or layer.bias is None:
        return None
    same = inputs.shape[-1] == features[0].size and torch.equal(inputs.reshape(1, -1), _one(features).reshape(1, -1))
    return _places(network, layer) if same else None


def last_bias(network: Network, features: NDArray[np.float32]) -> int | None:
    """Where the bias of the layer that gives the outputs stands among the parameters; None if it has none."""
    import torch

    layer, _ = _in_order(network, features)[-1]
    if not isinstance(layer, torch.nn.Linear) or layer.bias is None:
        return None
    return _places(network, layer)[1]


def _places(network: Network, layer: torch.nn.Linear) -> tuple[int, int]:
    places = {id(parameter): place for place, parameter in enumerate(network.module.parameters())}
    return places[id(layer.weight)], places[id(layer.bias)]


def _one(features: NDArray[np.float32]) -> torch.Tensor:
    import torch

    return torch.from_numpy(features[:1].copy())


def _in_order(network: Network, features: NDArray[np.float32]) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """The layers with parameters of their own in the order in which they run, each with its input."""
    import torch

    seen: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def see(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((layer, inputs[0]))

    layers = [layer for layer in network.module.modules() if next(layer.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    network.module.eval()
    try:
        with torch.no_grad():
            network.module(_one(features))
    finally:
        for hook in hooks:
            hook.remove()
    return seen
