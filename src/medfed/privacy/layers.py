"""Which layers forbid differential privacy by record: those through which one row changes what another does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medfed.core.errors import UserError

if TYPE_CHECKING:
    import torch


def check_layers(module: torch.nn.Module) -> None:
    """Raise UserError, which names the layer, where one normalises over a batch or keeps running statistics of rows.

    Normalisation over the channels of one row (group, layer, or instance normalisation) may stay.
    """
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if _mixes_rows(layer):
            raise UserError(
                f"the layer {name or 'network'!r} ({kind}) mixes the rows of a batch, so no row's own gradient exists",
                remedy="write `norm: group` in `model` where the network has this option, or use one with GroupNorm or "
                "LayerNorm in its place; or train without privacy.record",
            )
        if getattr(layer, "track_running_stats", False):
            raise UserError(
                f"the layer {name or 'network'!r} ({kind}) keeps running statistics of the rows, which no noise covers",
                remedy="build it with track_running_stats=False, or use GroupNorm; or train without privacy.record",
            )


def _mixes_rows(layer: torch.nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm

    return isinstance(layer, _BatchNorm) and not isinstance(layer, _InstanceNorm)
