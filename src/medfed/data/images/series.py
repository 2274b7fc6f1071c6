"""Which slices make a volume, and in which order: by their geometry (DICOM PS3.3 C.7.6.2)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfed.data.images.wire import Header
from medfed.data.raw import Unreadable

_UNEVEN = 0.05
"""The share of the usual distance by which two neighbouring slices may be nearer or farther."""

_SAME_DIRECTION = 3
"""Decimals to which directions of one volume agree."""


@dataclass(frozen=True)
class Slice:
    """A file of one frame, and what it says of itself."""

    path: Path
    header: Header


def grouped(slices: Iterable[Slice]) -> list[list[Slice]]:
    """The slices of one series, size and direction together, each series in the order of its first file."""
    groups: defaultdict[tuple[object, ...], list[Slice]] = defaultdict(list)
    for each in slices:
        header = each.header
        direction = tuple(np.round(header.orientation, _SAME_DIRECTION).tolist())
        groups[header.study, header.series or str(each.path.parent), header.shape, direction].append(each)
    return list(groups.values())


def in_order(slices: list[Slice]) -> list[Slice]:
    """The slices along the normal of their plane; by instance number where they do not say where they are.

    The normal is the cross product of the directions of rows and of columns. Raises Unreadable where two slices are in
    one place, or one is missing between others.
    """
    if len(slices) == 1:
        return slices
    if not all(each.header.position and each.header.orientation for each in slices):
        numbers = [each.header.instance for each in slices]
        if len(set(numbers)) < len(numbers):
            raise Unreadable("a series whose slices say neither place nor number")
        return sorted(slices, key=lambda each: each.header.instance)
    rows, columns = np.array(slices[0].header.orientation).reshape(2, 3)
    normal = np.cross(rows, columns)
    if not np.linalg.norm(normal) > 0.5:
        raise Unreadable("a series whose directions are no plane")
    place = {id(each): float(np.dot(each.header.position, normal)) for each in slices}
    ordered = sorted(slices, key=lambda each: place[id(each)])
    gaps = np.array([place[id(after)] - place[id(before)] for before, after in itertools.pairwise(ordered)])
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() < 1e-3 * usual:
        raise Unreadable("a series with two slices in one place")
    if (np.abs(gaps - usual) > _UNEVEN * usual).any():
        raise Unreadable("a series with slices missing, or unevenly apart")
    return ordered
