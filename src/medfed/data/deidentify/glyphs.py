"""Text drawn into an image: rows of shapes like letters, sharply brighter or darker than what is around them.

A heuristic without character recognition. It finds most lines of common overlays, misses some, and takes some
structures of images for text; what it measured stands in ``docs/explanation/de-identification.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]
"""Pixels (rows, columns), or (rows, columns, samples)."""

_LEVELS = ((0.5, 4), (0.25, 4), (0.15, 8))
"""(contrast between a stroke and what is around it, of the frame's range; letters that a line then needs)."""
_LOWEST, _HIGHEST = 5, 48
"""Pixels from foot to top of a letter."""
_THICKEST = 9
"""Pixels of a stroke."""
_WIDEST_OTHER = 0.5
"""The range without a number that lies far off, as a share of the range with it."""
_MOST_SHAPES = 4000
_INK = 0.08
"""How far the brightness of one line's letters may differ, as a share of the frame's range."""


@dataclass(frozen=True)
class _Shapes:
    """Connected components: edges in pixels, and the brightness of the brightest pixel of each."""

    top: Frame
    bottom: Frame
    left: Frame
    right: Frame
    ink: Frame

    @property
    def height(self) -> Frame:
        return self.bottom - self.top

    def chosen(self, which: Frame) -> _Shapes:
        return _Shapes(self.top[which], self.bottom[which], self.left[which], self.right[which], self.ink[which])


def has_text(frame: Frame) -> bool:
    """Whether a frame seems to have a line of text drawn into it, in one of its samples at least."""
    return any(_has_bright_text(grey) or _has_bright_text(1 - grey) for grey in _greys(frame))


def _has_bright_text(grey: Frame) -> bool:
    from scipy import ndimage

    strokes = ndimage.white_tophat(grey, size=(2 * _THICKEST + 1, 2 * _THICKEST + 1))
    return any(_has_line(_letters(grey, strokes > contrast), least) for contrast, least in _LEVELS)


def _greys(frame: Frame) -> Iterator[Frame]:
    """Brightness, of shape (rows, columns), of each sample that is not all alike: from 0 to 1 in that of most contrast.

    Where one number, as of padding, lies so far off that it makes up most of a grey frame's range, also without it.
    """
    planes = _planes(frame)
    ranges = [_range(plane) for plane in planes]
    widest = max(map(_width, ranges))
    for plane, (low, high) in zip(planes, ranges, strict=True):
        if high > low:
            yield ((np.clip(plane, low, high) - low) / widest).astype(np.float32)
    if len(planes) == 1:
        for end in (planes[0].min(), planes[0].max()):
            low, high = _range(planes[0][planes[0] != end])
            if 0 < high - low < _WIDEST_OTHER * widest:
                yield ((np.clip(planes[0], low, high) - low) / (high - low)).astype(np.float32)


def _planes(frame: Frame) -> list[Frame]:
    """The samples of a frame, each once where some are the same."""
    planes = [frame] if frame.ndim == 2 else [frame[..., sample] for sample in range(frame.shape[2])]
    first = [all(not np.array_equal(plane, other) for other in planes[:index]) for index, plane in enumerate(planes)]
    return [np.nan_to_num(plane.astype(np.float64), posinf=0, neginf=0) for plane in compress(planes, first)]


def _range(values: Frame) -> tuple[float, float]:
    """Between which most values are."""
    if not values.size:
        return 0, 0
    low, high = np.percentile(values, (0.05, 99.95))
    return (low, high) if high > low else (values.min(), values.max())


def _width(ends: tuple[float, float]) -> float:
    return ends[1] - ends[0]


def _letters(grey: Frame, strokes: Frame) -> _Shapes:
    """Shapes of strokes that have the size and fill of letters."""
    from scipy import ndimage

    labels, found = ndimage.label(strokes, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    numbers = np.arange(1, found + 1)
    area = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    ink = np.asarray(ndimage.maximum(grey, labels, numbers)) if found else np.zeros(0)
    edges = np.array([[b[0].start, b[0].stop, b[1].start, b[1].stop] for b in boxes]).reshape(-1, 4)
    shapes = _Shapes(edges[:, 0], edges[:, 1], edges[:, 2], edges[:, 3], ink)
    height, width = shapes.height, shapes.right - shapes.left
    highest = max(_HIGHEST, grey.shape[0] // 16)
    fill = area / np.maximum(height * width, 1)
    like_a_letter = (
        (height >= _LOWEST) & (height <= highest) & (width <= 1.6 * height) & (fill >= 0.15) & (height <= 14 * width)
    )
    return shapes.chosen(like_a_letter)


def _has_line(shapes: _Shapes, least: int) -> bool:
    """Whether some shapes stand in a row: same foot or top, same size, same brightness, one close after the other."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    order = np.argsort(shapes.left, kind="stable")[:_MOST_SHAPES]
    shapes = shapes.chosen(order)
    if len(order) < least:
        return False
    height = shapes.height[:, None]
    other = shapes.height[None, :]
    larger = np.maximum(height, other)
    gap = shapes.left[None, :] - shapes.right[:, None]
    beside = (gap >= -0.2 * larger) & (gap <= 1.0 * larger) & (shapes.left[None, :] > shapes.left[:, None])
    alike = (np.minimum(height, other) >= 0.55 * larger) & (abs(shapes.ink[:, None] - shapes.ink[None, :]) <= _INK)
    foot = abs(shapes.bottom[:, None] - shapes.bottom[None, :]) <= np.maximum(1, 0.12 * larger)
    first, second = np.nonzero(beside & alike & foot)
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(order), len(order)))
    _, line = connected_components(graph, directed=False)
    return bool(np.bincount(line).max() >= least)
