"""Images from gradients: Geiping et al. 2020, "Inverting Gradients – How easy is it to break privacy in federated
learning?", equation 4.

From noise x the attacker minimises 1 − cos(∇L(x, y), g) + α TV(x) by Adam on the signs of the gradient, within the
range of pixels, where g is the gradient that it saw and y the label that :mod:`medfed.attacks.labels` reads off it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.labels import label
from medfed.attacks.layers import last_bias
from medfed.attacks.results import Picture
from medfed.attacks.victim import Update, Victim
from medfed.core.examples import Examples
from medfed.models.loss import cross_entropy
from medfed.models.training import one_thread

if TYPE_CHECKING:
    import torch

_RATE = 0.1
_FALLS = (3 / 8, 5 / 8, 7 / 8)
_TOTAL_VARIATION = 1e-2
_BETA1, _BETA2 = 0.9, 0.999
_IMAGE = 3
"""Axes of an image: channels, height, width."""

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """An image (channels, height, width), what the attack made of its gradient, and how well it did."""

    original: Image
    found: Image
    picture: Picture


def applies(victim: Victim, records: Examples) -> bool:
    """Whether the records are images and the targets classes."""
    images = records.features[0].ndim == _IMAGE
    return images and victim.classes > 0 and last_bias(victim.network, records.features) is not None


def reconstruct(
    victim: Victim, update: Update, images: Image, *, iterations: int, random: np.random.Generator
) -> Reconstructed:
    """Reconstruct the one image behind an update, and look for its original among the site's ``images`` (n, …)."""
    place = last_bias(victim.network, update.records.features)
    assert place is not None  # noqa: S101 - see applies
    gradient = victim.gradient(update)
    victim.network.load(update.start)
    original = update.records.features[0]
    low, high = float(images.min()), float(images.max())
    begin = random.normal((low + high) / 2, (high - low) / 4, original.shape).astype(np.float32)
    found = _minimized(victim, gradient, label(gradient[place]), begin, (low, high), iterations)
    distances = ((images - found) ** 2).reshape(len(images), -1).sum(1)
    own = float(((original - found) ** 2).sum())
    picture = Picture(
        psnr=psnr(found, original, high - low),
        mean_psnr=psnr(images.mean(0), original, high - low),
        found=bool(own <= distances.min()),
    )
    return Reconstructed(original, found, picture)


def psnr(found: Image, original: Image, span: float) -> float:
    """The peak signal-to-noise ratio in dB, 10 log10(span² / mean squared error); 100 at most."""
    error = float(np.mean((found.astype(np.float64) - original) ** 2))
    return min(10 * float(np.log10(span**2 / max(error, 1e-30))), 100.0)


def _minimized(
    victim: Victim,
    gradient: Sequence[torch.Tensor],
    target: int,
    begin: Image,
    limits: tuple[float, float],
    iterations: int,
) -> Image:
    """The image after so many signed steps of Adam, whose rate falls by ten after 3/8, 5/8 and 7/8 of them."""
    import torch

    cost = _cost(victim, gradient, target)
    image = torch.from_numpy(begin)[None].clamp(*limits).requires_grad_()
    mean, square, rate = torch.zeros_like(image), torch.zeros_like(image), _RATE * (limits[1] - limits[0])
    falls = {round(share * iterations) for share in _FALLS}
    with one_thread():
        for step in range(1, iterations + 1):
            (slope,) = torch.autograd.grad(cost(image), image)
            rate = rate / 10 if step in falls else rate
            with torch.no_grad():
                sign = slope.sign()
                mean.mul_(_BETA1).add_(sign, alpha=1 - _BETA1)
                square.mul_(_BETA2).add_(sign**2, alpha=1 - _BETA2)
                corrected = (square / (1 - _BETA2**step)).sqrt() + 1e-8
                image -= rate * (mean / (1 - _BETA1**step)) / corrected
                image.clamp_(*limits)
    found: Image = image.detach()[0].numpy()
    return found


def _cost(victim: Victim, gradient: Sequence[torch.Tensor], target: int) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    module, loss = victim.network.module.eval(), cross_entropy(None)
    parameters, truth = list(module.parameters()), torch.tensor([target])
    seen = torch.cat([each.reshape(-1) for each in gradient])

    def cost(image: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor
        found = torch.autograd.grad(loss(module(image), truth), parameters, create_graph=True)
        flat = torch.cat([each.reshape(-1) for each in found])
        cosine = torch.dot(flat, seen) / (flat.norm() * seen.norm()).clamp(min=1e-12)
        value = 1 - cosine + _TOTAL_VARIATION * _variation(image)
        return value

    return cost


def _variation(image: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference of neighbouring pixels."""
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    across: torch.Tensor = (image[..., :, 1:] - image[..., :, :-1]).abs().mean()
    return down + across
