"""Which elements of a network's flat vector stay at each site: layers that every hospital has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from medfed.models.network import Network
    from medfed.spec.task import LayerChoice


def local_elements(network: Network, chosen: LayerChoice) -> NDArray[np.int64]:
    """The places in ``network.flat``, ascending, of the layers chosen.

    ``statistics``: running means and variances (SiloBN, Andreux et al. 2020); ``norm``: these and the scales and
    shifts of all normalisation layers (FedBN, Li et al. 2021); ``head``: the last layer that has parameters (FedPer,
    Arivazhagan et al. 2019); or layers by name, each with all that is inside it. Raises UserError where the network
    has no such layer, or nothing else.
    """
    names = set(_names(network.module, chosen))
    places = [np.arange(place.start, place.stop) for name, place in network.places().items() if name in names]
    found = np.sort(np.concatenate(places)) if places else np.empty(0, np.int64)
    if found.size == 0:
        raise UserError(f"the model has no {_in_words(chosen)}", remedy=_remedy(network.module))
    if found.size == network.size:
        raise UserError("every layer of the model was chosen: nothing is left for the hospitals to share")
    return found


def _names(module: torch.nn.Module, chosen: LayerChoice) -> Iterator[str]:
    """The names of the parameters and floating-point buffers chosen."""
    if chosen == "statistics":
        yield from (name for name, buffer in module.named_buffers() if buffer.is_floating_point())
        return
    if chosen == "norm":
        layers = [name for name, layer in module.named_modules() if _normalises(layer)]
    elif chosen == "head":
        layers = [name for name, layer in module.named_modules() if any(True for _ in layer.parameters(recurse=False))]
        layers = layers[-1:]
    else:
        layers = list(chosen)
        known = {name for name, _ in module.named_modules()} - {""}
        for name in layers:
            if name not in known:
                raise UserError(f"the model has no layer {name!r}", remedy=_remedy(module))
    tensors = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    yield from (name for name in tensors if any(name.startswith(f"{layer}.") for layer in layers))


def _normalises(layer: torch.nn.Module) -> bool:
    from torch.nn import GroupNorm, LayerNorm
    from torch.nn.modules.batchnorm import _NormBase

    return isinstance(layer, _NormBase | GroupNorm | LayerNorm)


def _in_words(chosen: LayerChoice) -> str:
    match chosen:
        case "statistics":
            return "running statistics (batch normalisation)"
        case "norm":
            return "normalisation layers"
        case _:
            return "parameters in the layers chosen"


def _remedy(module: torch.nn.Module) -> str:
    outermost = [name for name, layer in module.named_children() if any(True for _ in layer.parameters())]
    return f"its layers with parameters: {', '.join(outermost[:20]) or 'none'}"
