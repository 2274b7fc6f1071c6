"""Distances between the outlines of two shapes: the Hausdorff distance, and its 95th percentile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PERCENTILE = 95


def hausdorff(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: tuple[float, ...] | None = None
) -> tuple[float, float]:
    """(95th percentile, maximum) Hausdorff distance between two shapes of one grid, neither empty.

    From each pixel of an outline the distance to the nearest of the other; of these the percentile (linear
    interpolation) or the maximum, and of both directions the larger (Huttenlocher et al. 1993; the percentile as MONAI
    and the reference code of Nikolov et al. 2021 take it). An outline is what erosion by a cross takes away; a shape
    ends at the image's edge. spacing: of the pixels along each axis, in mm; None: 1, and distances are in pixels.
    """
    from scipy.ndimage import distance_transform_edt

    window = _around(one | other)
    outlines = [_outline(one[window]), _outline(other[window])]
    away = [distance_transform_edt(~outline, sampling=spacing) for outline in outlines]
    found = [away[1][outlines[0]], away[0][outlines[1]]]
    return (
        max(float(np.percentile(each, _PERCENTILE)) for each in found),
        max(float(each.max()) for each in found),
    )


def _around(shape: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds a shape."""
    window = []
    for axis in range(shape.ndim):
        (taken,) = np.nonzero(shape.any(axis=tuple(other for other in range(shape.ndim) if other != axis)))
        window.append(slice(int(taken[0]), int(taken[-1]) + 1))
    return tuple(window)


def _outline(shape: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    return np.asarray(shape & ~binary_erosion(shape))
