"""Layers that are a site's own: those that stay there between rounds, and those that it trains on in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import UserError
from medfed.models.elements import Elements
from medfed.models.layers import flat_tensors, head_of, matching

if TYPE_CHECKING:
    import torch

    from medfed.models.network import Network
    from medfed.spec.task import LayerChoice


def local_elements(network: Network, chosen: LayerChoice) -> NDArray[np.int64]:
    """The places, ascending, of the layers chosen in the vector that goes into and out of the network.

    ``statistics``: running means and variances (SiloBN, Andreux et al. 2020); ``norm``: these and the scales and
    shifts of all normalisation layers (FedBN, Li et al. 2021); ``head``: the last layer that has parameters (FedPer,
    Arivazhagan et al. 2019); or layers by name. Raises UserError where the network trains no such layer, or nothing
    else.
    """
    mask = _mask(network, chosen)
    found = np.flatnonzero(mask if network.elements.everything else mask[network.elements.mask])
    if found.size == network.size:
        raise UserError("every layer of the model was chosen: nothing is left for the hospitals to share")
    if found.size == 0:
        layers = dict.fromkeys(name.partition(".")[0] for name, _ in network.module.named_parameters())
        raise UserError(f"the model trains no {_in_words(chosen)}", remedy=f"its layers: {', '.join(layers)}")
    return found


def tuned_elements(network: Network, chosen: LayerChoice | Literal["all"]) -> Elements:
    """The elements that fine-tuning trains, of those that the network trains now; all others stay as they are now.

    Raises UserError as :func:`local_elements` does.
    """
    whole = network.flat.numpy(force=True)
    trained = np.ones(whole.size, bool) if network.elements.everything else network.elements.mask.copy()
    if chosen != "all":
        places = np.flatnonzero(trained)[local_elements(network, chosen)]
        trained[:] = False
        trained[places] = True
    return Elements.of(whole, trained)


def _mask(network: Network, chosen: LayerChoice) -> NDArray[np.bool_]:
    """Which elements of the whole flat vector the layers chosen have."""
    names = _names(network.module, chosen)
    return np.concatenate([np.full(tensor.numel(), name in names) for name, tensor in flat_tensors(network)])


def _names(module: torch.nn.Module, chosen: LayerChoice) -> frozenset[str]:
    """The names of the parameters and floating-point buffers chosen."""
    match chosen:
        case "statistics":
            return frozenset(name for name, buffer in module.named_buffers() if buffer.is_floating_point())
        case "norm":
            return frozenset(_normalising(module))
        case "head":
            return matching(module, [head_of(module)])
        case _:
            return matching(module, chosen)


def _normalising(module: torch.nn.Module) -> Iterator[str]:
    from torch.nn import GroupNorm, LayerNorm
    from torch.nn.modules.batchnorm import _NormBase

    for layer, part in module.named_modules():
        if isinstance(part, _NormBase | GroupNorm | LayerNorm):
            yield from (f"{layer}.{name}" for name, _ in (*part.named_parameters(), *part.named_buffers()))


def _in_words(chosen: LayerChoice) -> str:
    match chosen:
        case "statistics":
            return "running statistics (batch normalisation)"
        case "norm":
            return "normalisation layers"
        case _:
            return "parameters in the layers chosen"
