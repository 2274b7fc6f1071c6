"""What a network's answer rests on: Grad-CAM and integrated gradients, by Captum.

Both explain the score of one class (its logit, before the sigmoid or softmax), or the predicted value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import MissingExtra, UserError
from medfed.models.network import Network
from medfed.models.training import one_thread

if TYPE_CHECKING:
    import torch

_ELEMENTS = 2**18
"""Numbers of the inputs in a batch: a gradient of them keeps all layers' outputs in memory."""

_STEPS = (24, 96)
_COMPLETE, _SMALL = 0.05, 0.01
"""The share of |f(x) − f(x')|, or the logits, that integrated gradients may miss before more steps are taken."""

_LARGE = 2**14
"""Numbers of one input beyond which no second attempt is made: it takes minutes."""

_FINE = (4, 2)
"""The least length of each axis of the feature maps that are looked at, the first that any layer reaches."""


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients of n inputs: attributions in the inputs' shape; what their sum misses, shape (n,), signed.

    difference: f(x) − f(x'), which the attributions add up to but for ``missing``.
    """

    attributions: NDArray[np.float32]
    difference: NDArray[np.float64]
    missing: NDArray[np.float64]


def require_captum() -> None:
    """Raise MissingExtra where Captum is not installed."""
    if find_spec("captum") is None:
        raise MissingExtra(
            "explanations need the extra 'imaging' (captum is not installed)", remedy="pip install 'medfed[imaging]'"
        )


def integrated_gradients(
    network: Network,
    inputs: NDArray[np.float32],
    baseline: NDArray[np.float32],
    classes: int,
    targets: NDArray[np.int64],
) -> Integrated:
    """Integrated gradients (Sundararajan, Taly and Yan 2017) along the straight line from a baseline, Gauss–Legendre.

    (xᵢ − x'ᵢ) ∫₀¹ ∂f/∂xᵢ (x' + α(x − x')) dα. baseline: x', of one input's shape; an average one, for at a constant
    image group normalisation has no gradient. targets: the class explained of each input; ignored for values (0
    classes). Where 24 steps miss more of f(x) − f(x') than a twentieth and 0.01, there are 96, unless inputs are large.
    Raises MissingExtra.
    """
    require_captum()
    from captum.attr import IntegratedGradients

    parts = []
    with _explained(network, classes, inputs) as (score, batches):
        for rows, batch in batches:
            target = None if classes == 0 else _tensor(targets[rows])
            for steps in _STEPS if inputs[0].size <= _LARGE else _STEPS[:1]:
                found, missing = IntegratedGradients(score).attribute(
                    batch,
                    baselines=_tensor(baseline[None]),
                    target=target,
                    n_steps=steps,
                    internal_batch_size=_batch_rows(inputs),
                    return_convergence_delta=True,
                )
                reached = found.flatten(1).sum(1) - missing
                if bool((missing.abs() <= (_COMPLETE * reached.abs()).clamp(min=_SMALL)).all()):
                    break
            parts.append((found.detach().numpy(), reached.detach().numpy(), missing.detach().numpy()))
    attributions, difference, gap = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Integrated(attributions.astype(np.float32), difference.astype(np.float64), gap.astype(np.float64))


def gradcam(
    network: Network, inputs: NDArray[np.float32], classes: int, targets: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Grad-CAM (Selvaraju et al. 2017) of each input, shape (n, *spatial), at least 0, in the resolution of the input.

    ReLU(Σ_k α_k A_k) with α_k the mean gradient of the class's score over feature map A_k; the maps are those of the
    last convolutional part of the network (see :func:`last_maps`), and what they give is interpolated. A network that
    does not pool its maps, but joins them position by position, gives the same map another weight at each position,
    whose mean says nothing: there α_k is the gradient at each (HiResCAM, Draelos and Carin 2020), which is the same
    where maps are pooled. Raises UserError where the network has no convolution over the input's axes, MissingExtra.
    """
    require_captum()
    from captum.attr import LayerAttribution, LayerGradCam, LayerGradientXActivation

    parts = []
    with _explained(network, classes, inputs) as (score, batches):
        maps = last_maps(network, inputs[:1])
        for rows, batch in batches:
            target = None if classes == 0 else _tensor(targets[rows])
            if maps.pooled:
                found = LayerGradCam(score, maps.part).attribute(batch, target=target)
            else:
                found = LayerGradientXActivation(score, maps.part).attribute(batch, target=target).sum(1, keepdim=True)
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[inputs.ndim - 2]
            wide = LayerAttribution.interpolate(found.relu(), tuple(inputs.shape[2:]), mode)
            parts.append(wide.detach().squeeze(1).numpy())
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Maps:
    """The part of a network that gives its last feature maps, and whether they are pooled afterwards."""

    part: torch.nn.Module
    pooled: bool


def last_maps(network: Network, inputs: NDArray[np.float32]) -> Maps:
    """The part of the network that gives the last feature maps: after a convolution, and not yet pooled to a point.

    Maps of at least 4 along each axis are looked for, then of 2. Where several parts give the same maps, it is the
    outermost of them that is called once, so that a residual block's sum counts and not its last convolution alone.
    Raises UserError where there is none.
    """
    import torch

    calls: dict[torch.nn.Module, int] = {}
    given: list[tuple[torch.nn.Module, torch.Tensor]] = []
    convolved = False

    def seen(module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal convolved
        from torch.nn.modules.conv import _ConvNd

        convolved = convolved or isinstance(module, _ConvNd)
        calls[module] = calls.get(module, 0) + 1
        if convolved and isinstance(output, torch.Tensor) and output.ndim == inputs.ndim and inputs.ndim > 2:
            given.append((module, output))

    joined = {module.in_features for module in network.module.modules() if isinstance(module, torch.nn.Linear)}
    laid_out = network.laid_out(_tensor(inputs))  # which may try the module out
    handles = [
        module.register_forward_hook(seen) for module in network.module.modules() if module is not network.module
    ]
    try:
        with torch.no_grad():
            network.module(laid_out)
    finally:
        for handle in handles:
            handle.remove()
    for least in _FINE:
        fine = [(module, output) for module, output in given if min(output.shape[2:]) >= least]
        if fine:
            found = [module for module, output in fine if output is fine[-1][1] and calls[module] == 1]
            if found:
                return Maps(found[-1], pooled=fine[-1][1][0].numel() not in joined)
    raise UserError(
        "Grad-CAM needs a network with convolutions over an image, which this model is not",
        remedy="use --method ig, which explains any model",
    )


@contextmanager
def _explained(
    network: Network, classes: int, inputs: NDArray[np.float32]
) -> Iterator[tuple[Callable[[torch.Tensor], torch.Tensor], list[tuple[slice, torch.Tensor]]]]:
    """The score of every class as a function of a batch, and the batches; no layer writes over its input meanwhile."""
    import torch

    network.module.eval()
    inplace = [module for module in network.module.modules() if getattr(module, "inplace", False) is True]

    def score(batch: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = network.module(network.laid_out(batch))
        if classes == 0:
            return outputs.squeeze(-1)
        return torch.cat([-outputs, outputs], dim=1) if outputs.shape[1] == 1 else outputs

    size = _batch_rows(inputs)
    batches = [
        (slice(first, first + size), _tensor(inputs[first : first + size])) for first in range(0, len(inputs), size)
    ]
    for module in inplace:
        module.inplace = False  # type: ignore[assignment]
    try:
        with one_thread():
            yield score, batches
    finally:
        for module in inplace:
            module.inplace = True  # type: ignore[assignment]


def _batch_rows(inputs: NDArray[np.float32]) -> int:
    return max(_ELEMENTS // max(int(np.prod(inputs.shape[1:])), 1), 1)


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))
