"""From a table's pictures to one array: each read, prepared and stacked; what cannot be read is counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.images.cache import ImageCache
from medfed.data.images.transforms import Preparation
from medfed.data.raw import Picture, Pictures, Unread, Unreadable
from medfed.spec.images import ImageSpec

LARGEST_SET = 16 * 2**30
"""Bytes of a site's prepared images, which stay in memory together."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The images that could be read.

    array: (n, channels, …) float32. kept: the index of each in the table. digests: of each kept one's content, in hex.
    unread: the files that give none.
    """

    array: NDArray[np.float32]
    kept: NDArray[np.int64]
    digests: tuple[str, ...]
    unread: tuple[Unread, ...]


def load_pictures(pictures: Pictures, images: ImageSpec, where: str) -> Loaded:
    """Read and prepare all pictures.

    Raises DataError where none can be read, where more than the task's share cannot, where they differ in shape, and
    where they take too much memory together; MissingExtra.
    """
    preparation = Preparation(images)
    cache = ImageCache.from_environment(preparation.recipe)
    unread, kept, digests = list(pictures.unread), list[int](), list[str]()
    array: NDArray[np.float32] | None = None
    try:
        for index, picture in enumerate(pictures.each):
            try:
                digest = picture.digest()
                image = prepared(picture, digest, preparation, cache, where)
            except Unreadable as error:
                unread.append(Unread(picture.name, error.reason))
                continue
            if array is None:
                array = _room(len(pictures.each), image.shape, where)
            if image.shape != array.shape[1:]:
                raise _unlike(image.shape, array.shape[1:], where)
            array[len(kept)] = image
            kept.append(index)
            digests.append(digest.hex())
    finally:
        pictures.close()
    check_share(unread, len(kept), images.max_unreadable, where)
    if array is None:
        raise DataError("there are no images", where=where, remedy="name the folder or file that holds them")
    return Loaded(array[: len(kept)], np.array(kept, dtype=np.int64), tuple(digests), tuple(unread))


def tried(pictures: Pictures) -> tuple[Unread, ...]:
    """The files that give no image, after every one was read."""
    unread = list(pictures.unread)
    try:
        for picture in pictures.each:
            try:
                picture.pixels()
            except Unreadable as error:
                unread.append(Unread(picture.name, error.reason))
    finally:
        pictures.close()
    return tuple(unread)


def check_share(unread: Sequence[Unread], read: int, allowed: float, where: str) -> None:
    """Raise DataError where more than this share of the files cannot be read. It counts reasons, and names no file."""
    amiss = [each for each in unread if not each.ignored]
    if not amiss or len(amiss) <= allowed * (len(amiss) + read):
        return
    reasons = ", ".join(f"{count}: {reason}" for reason, count in Counter(e.reason for e in amiss).most_common(5))
    raise DataError(
        f"{len(amiss)} of {len(amiss) + read} files cannot be read, more than the share of {allowed:.4g} that may be "
        f"left out ({reasons})",
        where=where,
        remedy="medfed data unreadable TASK lists them; mend them, or raise data.images.max_unreadable",
    )


def prepared(
    picture: Picture, digest: bytes, preparation: Preparation, cache: ImageCache, where: str
) -> NDArray[np.float32]:
    """One image after its own transforms, from the cache or anew. Raises Unreadable, DataError."""
    image = cache.get(digest)
    if image is None:
        image = preparation(picture.pixels(), where)
        if not np.isfinite(image).all():
            raise Unreadable("it holds numbers that are not finite")
        cache.put(digest, image)
    return image


def _room(count: int, shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
    size = 4 * count * math.prod(shape)
    if size > LARGEST_SET:
        raise DataError(
            f"the images take {size / 2**30:.1f} GiB of memory together, and {LARGEST_SET // 2**30} are the limit",
            where=where,
            remedy="make them smaller: data: {images: {transforms: [{name: resize, size: [128, 128]}]}}",
        )
    return np.empty((count, *shape), np.float32)


def _unlike(one: tuple[int, ...], other: tuple[int, ...], where: str) -> DataError:
    remedy = "bring them to one size: data: {images: {transforms: [{name: resize, size: [128, 128]}]}}"
    if one[1:] == other[1:]:
        remedy = "bring them to one number of channels: data: {images: {channels: 1}}"
    return DataError(f"the images differ in shape: {_words(other)} and {_words(one)}", where=where, remedy=remedy)


def _words(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
