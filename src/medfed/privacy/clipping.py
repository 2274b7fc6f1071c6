"""Sums of gradients of single rows, each clipped: Σ_i g_i · min(1, C / ‖g_i‖₂) (Abadi et al. 2016, Algorithm 1).

:class:`PerRow` forms every row's gradient and works for any network that can be batched by ``torch.func.vmap``: each
row goes through the network by itself, so nothing of another can be in its gradient. :class:`Bookkeeping` does for
networks of known layers that keep rows apart (:mod:`medfed.privacy.rowwise`) what Bu et al. 2023 ("Differentially
private optimization on large model at small cost") do: one ordinary backward pass gives the layers' inputs a and output
gradients b; the norms follow from these, and the clipped sum is the product of a with b scaled
(:mod:`medfed.privacy.layer_gradients`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from medfed.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from medfed.privacy.rowwise import RowwiseNetwork

Losses: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
"""(network outputs (n, k), targets (n,)) → each row's own loss, shape (n,)."""

_GRADIENTS = 2**23
"""Numbers of single rows' gradients that are held at once: 32 MiB."""

_HELD, _MOST_ROWS = 2**26, 256
"""Numbers that layers take in and give out, and what is made of them, that are held at once: 256 MiB; and rows."""


class ClippedSum(Protocol):
    """Σ_i g_i · min(1, C / ‖g_i‖₂) over some rows; a row whose gradient is not finite adds nothing."""

    def rows_at_once(self, features: torch.Tensor) -> int:
        """The rows of a call, for bounded memory, of rows such as these, of which there is at least one."""
        ...

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum, float32 of shape (d,), over at least one row."""
        ...


def clipped_sum(module: torch.nn.Module, losses: Losses, clip_norm: float) -> ClippedSum:
    """The cheaper of both ways that the network allows."""
    from medfed.privacy.rowwise import RowwiseNetwork

    rowwise = RowwiseNetwork.of(module)
    return PerRow(module, losses, clip_norm) if rowwise is None else Bookkeeping(rowwise, losses, clip_norm)


def factors(squared_norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """min(1, C / ‖g_i‖₂) from ‖g_i‖₂², shape (n,); 0 where that is not finite."""
    found = clip_norm * squared_norms.rsqrt()  # of a gradient of zeros: min(1, ∞); of an infinite one: 0
    return found.clamp(max=1.0).nan_to_num(nan=0.0)


class PerRow:
    """Every row's own gradient by ``vmap(grad)`` (see the module)."""

    def __init__(self, module: torch.nn.Module, losses: Losses, clip_norm: float) -> None:
        self._module = module
        self._losses = losses
        self._clip_norm = clip_norm

    def rows_at_once(self, features: torch.Tensor) -> int:
        """As :meth:`ClippedSum.rows_at_once`: by the size of a gradient."""
        return max(1, _GRADIENTS // max(1, sum(p.numel() for p in self._module.parameters() if p.requires_grad)))

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum. Raises UserError where the network cannot be batched."""
        import torch
        from torch.func import functional_call, grad, vmap

        parameters = [p for p in self._module.parameters() if p.requires_grad]
        places = _places(self._module, parameters)

        def loss(values: list[torch.Tensor], row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            named = {name: values[k] for name, k in places.items()}
            outputs = functional_call(self._module, named, (row.unsqueeze(0),), tie_weights=False)
            return self._losses(outputs, target.unsqueeze(0)).sum()

        each_row = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
        try:
            found = each_row([p.detach() for p in parameters], features, targets)
        except RuntimeError as error:
            raise UserError(
                "this network's gradients cannot be formed row by row, as differential privacy needs them",
                remedy="leave out layers that change their own state or that vmap cannot batch, such as recurrent ones",
            ) from error
        gradients = [each.flatten(1) for each in found]
        scale = factors(torch.stack([each.square().sum(1) for each in gradients]).sum(0), self._clip_norm)
        finite = scale > 0
        return torch.cat([scale[finite] @ each[finite] for each in gradients])


def _places(module: torch.nn.Module, parameters: Sequence[torch.Tensor]) -> dict[str, int]:
    """Each name that one of the parameters has in some layer → its number; a layer used twice is named once.

    Torch would tie names itself, but leaves a layer that is used twice with the wrong tensors.
    """
    numbers = {id(p): k for k, p in enumerate(parameters)}
    return {
        f"{prefix}{'.' if prefix else ''}{name}": numbers[id(p)]
        for prefix, layer in module.named_modules()
        for name, p in layer.named_parameters(recurse=False)
        if id(p) in numbers
    }


class Bookkeeping:
    """One backward pass for all rows (see the module)."""

    def __init__(self, network: RowwiseNetwork, losses: Losses, clip_norm: float) -> None:
        self._network = network
        self._losses = losses
        self._clip_norm = clip_norm
        self._rows: dict[torch.Size, int] = {}

    def rows_at_once(self, features: torch.Tensor) -> int:
        """As :meth:`ClippedSum.rows_at_once`: by what the layers hold of one row."""
        import torch

        from medfed.privacy.layer_gradients import numbers_held

        shape = features.shape[1:]
        if shape not in self._rows:
            with torch.enable_grad():
                taken = self._network.checked(features[:1].clone())
            held = sum(numbers_held(each.layer, each.entering, each.leaving) for each in taken)
            self._rows[shape] = max(1, min(_MOST_ROWS, _HELD // max(1, held)))
        return self._rows[shape]

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum."""
        import torch

        from medfed.privacy.layer_gradients import layer_gradients

        outputs, taken = self._network(features)
        slopes = torch.autograd.grad(self._losses(outputs, targets).sum(), [each.left for each in taken])
        with torch.no_grad():
            each = [layer_gradients(t.layer, t.entering, slope) for t, slope in zip(taken, slopes, strict=True)]
            scale = factors(torch.stack([layer.squared_norms for layer in each]).sum(0), self._clip_norm)
            finite = scale > 0
            kept = None if bool(finite.all()) else finite  # to pick rows takes longer than to sum them
            scale = scale if kept is None else scale[kept]
            return torch.cat([part for layer in each for part in layer.sums(scale, kept)])
