"""A network's layers by name, as a task names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import UserError
from medfed.models.elements import EVERYTHING, Elements

if TYPE_CHECKING:
    import torch

    from medfed.models.network import Network


def frozen_elements(network: Network, freeze: Sequence[str]) -> Elements:
    """The elements of a network that is trained as a whole which are outside the frozen layers.

    A layer's running statistics are frozen with it. Raises UserError for a name that no layer has, or where nothing
    is left to train.
    """
    if not freeze:
        return EVERYTHING
    frozen = matching(network.module, freeze)
    trained = np.concatenate([np.full(tensor.numel(), name not in frozen) for name, tensor in flat_tensors(network)])
    if not trained[: network.weights.numel()].any():
        raise UserError("all layers are frozen, so that nothing is trained", remedy="leave one out of model.freeze")
    return Elements.of(network.vector(), trained)


def flat_tensors(network: Network) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of all that a network's flat vector holds, in its order."""
    yield from network.module.named_parameters()
    yield from ((name, buffer) for name, buffer in network.module.named_buffers() if buffer.is_floating_point())


def matching(module: torch.nn.Module, patterns: Sequence[str]) -> frozenset[str]:
    """The parameters and buffers of the layers, or with the names, that are given, each perhaps as a pattern (``*``).

    Raises UserError, which lists the layers, for one that fits nothing.
    """
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in names if any(fnmatchcase(part, pattern) for part in _beginnings(name))}
        if not fitting:
            layers = dict.fromkeys(name.partition(".")[0] for name in names)
            raise UserError(
                f"the network has no layer {pattern!r}", remedy=f"its layers: {', '.join(layers)}, and those in them"
            )
        found |= fitting
    return frozenset(found)


def head_of(module: torch.nn.Module) -> str:
    """The name of the last layer that has parameters."""
    names = [name for name, layer in module.named_modules() if any(True for _ in layer.parameters(recurse=False))]
    last: str = names[-1]
    return last


def _beginnings(name: str) -> Iterator[str]:
    """``layer1``, ``layer1.0`` and ``layer1.0.weight`` of ``layer1.0.weight``."""
    parts = name.split(".")
    return (".".join(parts[: length + 1]) for length in range(len(parts)))
