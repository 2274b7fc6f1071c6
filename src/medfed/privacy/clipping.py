"""Sums of gradients of single rows, each clipped: Σ_i g_i · min(1, C / ‖g_i‖₂) (Abadi et al. 2016, Algorithm 1).

:class:`PerRow` forms every row's gradient and works for any network that can be batched by ``torch.func.vmap``: each
row goes through the network by itself, so nothing of another can be in its gradient. :class:`Bookkeeping` does for
chains of linear layers and convolutions what Bu et al. 2023 ("Differentially private optimization on large model at
small cost") do: one ordinary backward pass gives the layers' inputs a and output gradients b; norms follow from these
without the gradients, ‖a bᵀ‖² = ‖a‖²‖b‖² in a linear layer, and the clipped sum is a product of a with b scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from medfed.core.errors import UserError

if TYPE_CHECKING:
    import torch

Losses: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
"""(network outputs (n, k), targets (n,)) → each row's own loss, shape (n,)."""

_ELEMENTS = 2**23
"""Numbers of single rows' gradients that are held at once: 32 MiB."""


class ClippedSum(Protocol):
    """Σ_i g_i · min(1, C / ‖g_i‖₂) over some rows; a row whose gradient is not finite adds nothing."""

    rows_at_once: int
    """Rows of a call, for bounded memory."""

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum, float32 of shape (d,), over at least one row."""
        ...


def clipped_sum(module: torch.nn.Module, losses: Losses, clip_norm: float) -> ClippedSum:
    """The cheaper of both ways that the network allows."""
    chain = chain_of(module)
    return PerRow(module, losses, clip_norm) if chain is None else Bookkeeping(chain, losses, clip_norm)


def factors(squared_norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """min(1, C / ‖g_i‖₂) from ‖g_i‖₂², shape (n,); 0 where that is not finite."""
    import torch

    found = (clip_norm / squared_norms.sqrt()).clamp(max=1.0)  # of a gradient of zeros: min(1, ∞)
    return torch.where(torch.isfinite(squared_norms), found, torch.zeros_like(found))


class PerRow:
    """Every row's own gradient by ``vmap(grad)`` (see the module)."""

    def __init__(self, module: torch.nn.Module, losses: Losses, clip_norm: float) -> None:
        self._module = module
        self._losses = losses
        self._clip_norm = clip_norm
        self.rows_at_once = max(1, _ELEMENTS // max(1, sum(p.numel() for p in module.parameters())))

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum. Raises UserError where the network cannot be batched."""
        import torch
        from torch.func import functional_call, grad, vmap

        parameters = list(self._module.parameters())
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
    """Each name that a parameter has in some layer → its number; a layer used twice is named once.

    Torch would tie names itself, but leaves a layer that is used twice with the wrong tensors.
    """
    numbers = {id(p): k for k, p in enumerate(parameters)}
    return {
        f"{prefix}{'.' if prefix else ''}{name}": numbers[id(p)]
        for prefix, layer in module.named_modules()
        for name, p in layer.named_parameters(recurse=False)
    }


class Bookkeeping:
    """One backward pass for a chain of layers (see the module)."""

    def __init__(self, chain: Sequence[torch.nn.Module], losses: Losses, clip_norm: float) -> None:
        self._chain = chain
        self._losses = losses
        self._clip_norm = clip_norm
        widest = max((sum(p.numel() for p in layer.parameters()) for layer in chain), default=1)
        self.rows_at_once = max(1, min(256, _ELEMENTS // max(1, widest)))

    def __call__(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The flat sum."""
        import torch

        layers, inputs, outputs, value = [], [], [], features
        for layer in self._chain:
            entering, value = value, layer(value)
            if next(layer.parameters(), None) is not None:
                layers.append(layer)
                inputs.append(entering.detach())
                outputs.append(value)
        slopes = torch.autograd.grad(self._losses(value, targets).sum(), outputs)
        with torch.no_grad():
            each = [_Layer.of(*found) for found in zip(layers, inputs, slopes, strict=True)]
            scale = factors(torch.stack([layer.squared_norms for layer in each]).sum(0), self._clip_norm)
            finite = scale > 0
            kept = slice(None) if bool(finite.all()) else finite  # to pick rows takes longer than to sum them
            return torch.cat([part for layer in each for part in layer.sums(scale[kept], kept)])


class _Layer:
    """A layer's part in the rows' gradients: of its weight, as a product or formed; and of its bias, if it has one."""

    def __init__(
        self,
        product: tuple[torch.Tensor, torch.Tensor] | None,
        formed: torch.Tensor | None,
        bias: torch.Tensor | None,
    ) -> None:
        """product: outputs' gradients b (n, o) and inputs a (n, i). formed: (n, …). bias: (n, o)."""
        self._product, self._formed, self._bias = product, formed, bias
        if product is not None:
            b, a = product
            self.squared_norms = b.square().sum(1) * a.square().sum(1)
        elif formed is not None:
            self.squared_norms = formed.square().flatten(1).sum(1)
        if bias is not None:
            self.squared_norms = self.squared_norms + bias.square().sum(1)

    @classmethod
    def of(cls, layer: torch.nn.Module, entering: torch.Tensor, slope: torch.Tensor) -> _Layer:
        """From a layer's inputs and the loss's gradient by its outputs."""
        from torch import nn
        from torch.nn import functional

        has_bias = layer.bias is not None
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)  # noqa: S101 - as chain_of takes none
            patches = functional.unfold(entering, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            flat = slope.flatten(2)
            return cls(None, flat @ patches.transpose(1, 2), flat.sum(2) if has_bias else None)
        if entering.dim() == 2:
            return cls((slope, entering), None, slope if has_bias else None)
        slope, entering = slope.flatten(1, -2), entering.flatten(1, -2)
        return cls(None, slope.transpose(1, 2) @ entering, slope.sum(1) if has_bias else None)

    def sums(self, scale: torch.Tensor, kept: torch.Tensor | slice) -> list[torch.Tensor]:
        """Σ_i scale_i · g_i of the weight and of the bias, each flat, over the rows that are kept: those finite."""
        if self._product is not None:
            b, a = self._product
            weight = (b[kept] * scale.unsqueeze(1)).T @ a[kept]
        else:
            assert self._formed is not None  # noqa: S101 - one of both is given
            weight = scale @ self._formed[kept].flatten(1)
        return [weight.flatten()] + ([] if self._bias is None else [scale @ self._bias[kept]])


def chain_of(module: torch.nn.Module) -> list[torch.nn.Module] | None:
    """The layers of a network that is nothing but a chain of them, each known and used once; else None."""
    from torch import nn

    if type(module) is nn.Sequential:
        chains = [chain_of(layer) for layer in module]
        layers = [layer for chain in chains for layer in chain or ()]
        repeated = len({id(p) for layer in layers for p in layer.parameters()}) < sum(
            1 for layer in layers for _ in layer.parameters()
        )
        return None if None in chains or repeated else layers
    return [module] if _known(module) else None


def _known(layer: torch.nn.Module) -> bool:
    """Whether a layer treats each row by itself, and its gradient has the form that :class:`_Layer` takes."""
    from torch import nn

    if any(not p.requires_grad for p in layer.parameters()) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if type(layer) is nn.Flatten:
        return layer.start_dim == 1
    plain = (nn.Linear, nn.Dropout, nn.Identity, nn.Tanh, nn.Sigmoid, nn.GELU, nn.MaxPool2d, nn.AvgPool2d)
    return type(layer) in plain or (type(layer) is nn.ReLU and not layer.inplace)
