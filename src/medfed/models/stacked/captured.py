"""Any network without data-dependent control flow, as one captured graph.

``vmap`` makes the network of one site, z = f(w, x), that of a stack; autograd gives each site's gradient,
(∂z/∂w)ᵀ c (μ(z) − t). The operations that both come down to are recorded once for every shape of a stack, and the
recording is then replayed; or compiled, where the rounds repay the seconds which that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from medfed.models.network import Network
from medfed.models.stacked.kernel import Batch, OnBatch
from medfed.models.stacked.recording import record
from medfed.models.stacked.residual import Residual

if TYPE_CHECKING:
    import torch

Graph: TypeAlias = "Callable[..., tuple[torch.Tensor, ...]]"
"""(leaves…, x, t, c) → the gradient of each leaf."""

_SITES = 8


class CapturedKernel:
    """The kernel (see the module) of any network. Leaves are its parameters.

    Stacks are padded to a multiple of 8 sites and batches to one of four sizes an octave, so that few shapes occur.
    """

    ones = 0

    def __init__(self, network: Network, input_shape: tuple[int, ...], residual: Residual, *, compiled: bool) -> None:
        self._module = network.module
        self._input_shape = input_shape
        self._residual = residual
        self._compiled = compiled
        self._graphs: dict[torch.Size, Graph] = {}
        self._names = tuple(name for name, _ in network.module.named_parameters())
        self.shapes = tuple(tuple(p.shape) for p in network.module.parameters())
        self.columns = np.arange(network.size)

    def padded_sites(self, sites: int) -> int:
        """The next multiple of 8."""
        return -(-sites // _SITES) * _SITES

    def padded_rows(self, rows: int) -> int:
        """The next of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …"""
        unit = 1 << max(rows.bit_length() - 3, 0)
        return -(-rows // unit) * unit

    def bind(self, leaves: list[torch.Tensor], into: list[torch.Tensor], rows: int, *, keep: bool) -> OnBatch:
        """As :class:`medfed.models.stacked.kernel.Kernel`."""
        import torch

        put = torch._foreach_add_ if keep else torch._foreach_copy_

        def accumulate(batch: Batch) -> None:
            x, t, c = batch
            arguments = (*leaves, x.view(*x.shape[:2], *self._input_shape), t, c)
            if c.shape not in self._graphs:
                self._graphs[c.shape] = self._capture(arguments)
            put(into, self._graphs[c.shape](*arguments))

        return accumulate

    def _capture(self, arguments: Sequence[torch.Tensor]) -> Graph:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        self._module.train()
        with sdpa_kernel(SDPBackend.MATH):  # the form of attention that vmap can batch
            recorded = record(self._gradients, arguments)
        if any("convolution" in str(node.target) for node in recorded.graph.nodes):
            raise NotImplementedError("stacked convolutions are slower than one after the other")
        return _compile(recorded, arguments) if self._compiled else recorded

    def _gradients(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        import torch

        *weights, x, t, c = arguments
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in weights]
            z = torch.func.vmap(self._outputs)(*leaves, x)
            products = z * self._residual(z.detach(), t, c)  # whose sum has the gradient wanted
            return torch.autograd.grad(products.sum(), leaves, materialize_grads=True)

    def _outputs(self, *arguments: torch.Tensor) -> torch.Tensor:
        import torch

        *leaves, x = arguments
        z: torch.Tensor = torch.func.functional_call(self._module, dict(zip(self._names, leaves, strict=True)), (x,))
        return z


def _compile(recorded: torch.fx.GraphModule, arguments: Sequence[torch.Tensor]) -> Graph:
    """The recording compiled, or itself where there is no compiler or it fails."""
    import torch

    try:
        compiled = torch.compile(recorded, fullgraph=True, dynamic=False)
        compiled(*arguments)
    except Exception:  # whatever a compiler may raise: the recording does the same, more slowly
        return recorded
    return compiled
