"""Images and what a model looks at in them, as PNG in data addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

_LEAST = 256
"""Pixels of a picture's longer side at least: small images are enlarged, pixel by pixel."""

_HEAT, _SIGNED = "inferno", "RdBu_r"
_OPAQUE = 0.55


def slice_of(image: Pixels, *maps: Pixels | None) -> int | None:
    """Of a volume (channels, depth, height, width), the slice in which the maps (…, depth, height, width) weigh most.

    The middle one without maps; None for what is no volume.
    """
    if image.ndim < 4:
        return None
    known = [np.abs(each) for each in maps if each is not None]
    if not known:
        return int(image.shape[1]) // 2
    weight = known[0].sum(axis=tuple(axis for axis in range(known[0].ndim) if axis != known[0].ndim - 3))
    return int(np.argmax(weight))


def grey(image: Pixels) -> Pixels:
    """An image (channels, height, width) or series (times, variables) as (height, width, 3) in [0, 1]."""
    planes = image if image.ndim == 3 else image[None]
    shown = planes if len(planes) == 3 else planes[:1]
    low, high = float(shown.min()), float(shown.max())
    scaled = ((shown - low) / max(high - low, 1e-12)).transpose(1, 2, 0)
    pixels: Pixels = np.repeat(scaled, 4 - scaled.shape[2], axis=2)[..., :3].astype(np.float32)
    return pixels


def with_heat(image: Pixels, heat: Pixels) -> Pixels:
    """The image under a map (height, width) of values of at least 0, each as bright and opaque as it is large."""
    from matplotlib import colormaps

    strength = heat / max(float(heat.max()), 1e-12)
    colours = colormaps[_HEAT](strength)[..., :3]
    cover = (_OPAQUE * strength**0.5)[..., None]
    pixels: Pixels = (grey(image) * (1 - cover) + colours * cover).astype(np.float32)
    return pixels


def signed(attributions: Pixels) -> Pixels:
    """A map of attributions (channels, height, width), added up over channels: red for the class, blue against it."""
    from matplotlib import colormaps

    flat = attributions.sum(0) if attributions.ndim == 3 else attributions
    limit = max(float(np.quantile(np.abs(flat), 0.995)), 1e-12)
    pixels: Pixels = colormaps[_SIGNED](0.5 + flat.clip(-limit, limit) / (2 * limit))[..., :3].astype(np.float32)
    return pixels


def png(pixels: Pixels) -> str:
    """Pixels (height, width, 3) in [0, 1] as a PNG in a data address."""
    from matplotlib.image import imsave

    times = max(_LEAST // max(pixels.shape[:2]), 1)
    large = np.repeat(np.repeat(pixels, times, axis=0), times, axis=1)
    buffer = io.BytesIO()
    imsave(buffer, np.clip(large, 0, 1), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
