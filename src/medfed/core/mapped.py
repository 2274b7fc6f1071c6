"""Arrays that are views of a file: going through one without having all of it in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

_KEPT = 2**20
"""Elements behind which the pages of a mapped file are let go; they are read again when they are looked at again."""


def pieces(flat: NDArray[Any], most: int) -> Iterator[slice]:
    """The slices of a flat array, of so many elements at most, in order."""
    mapped = _mapping(flat) if flat.size > _KEPT else None
    for start in range(0, flat.size, most):
        yield slice(start, start + most)
        if mapped is not None and (start + most) % _KEPT < most:
            mapped.madvise(mmap.MADV_DONTNEED)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array looks into a file, whose pages can be let go."""
    return _mapping(array) is not None


def _mapping(value: Any) -> mmap.mmap | None:
    """The file that an array looks into; None for other arrays, and where pages cannot be let go."""
    while not isinstance(value, mmap.mmap):
        value = value.obj if isinstance(value, memoryview) else getattr(value, "base", None)
        if value is None:
            return None
    return value if hasattr(mmap, "MADV_DONTNEED") else None
