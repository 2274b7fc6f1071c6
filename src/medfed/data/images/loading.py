"""From a table's pictures to one array: each read, prepared and stacked; what cannot be read is counted."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.data.images.cache import ImageCache
from medfed.data.images.masks import class_indices, require_masks, require_same_place
from medfed.data.images.transforms import Preparation
from medfed.data.raw import Picture, Pictures, Unread, Unreadable
from medfed.spec.images import ImageSpec

LARGEST_SET = 16 * 2**30
"""Bytes of a site's prepared images, which stay in memory together."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The images that could be read.

    array: (n, channels, …) float32. masks: (n, …) uint8 class indices; None where they were not asked for. kept: the
    index of each in the table. digests: of each kept one's content, in hex. unread: the files that give none.
    """

    array: NDArray[np.float32]
    masks: NDArray[np.uint8] | None
    kept: NDArray[np.int64]
    digests: tuple[str, ...]
    unread: tuple[Unread, ...]


def load_pictures(pictures: Pictures, images: ImageSpec, where: str, classes: tuple[int, ...] | None = None) -> Loaded:
    """Read and prepare all pictures.

    classes: the number of each class in the masks, which are then read and prepared with their images. Raises DataError
    where none can be read, where more than the task's share cannot, where they differ in shape, where they take too
    much memory together, and where a mask is missing or not one of its image; MissingExtra.
    """
    reader = ImageReader.of(images, where, classes)
    if classes is not None:
        require_masks(pictures, where)
    masks_of = pictures.masks if classes is not None else (None,) * len(pictures.each)
    unread, kept, digests, masks = list(pictures.unread), list[int](), list[str](), list[NDArray[np.uint8]]()
    array: NDArray[np.float32] | None = None
    try:
        for index, (picture, mask) in enumerate(zip(pictures.each, masks_of, strict=True)):
            try:
                digest = picture.digest()
                image = reader.prepared(picture, digest) if mask is None else reader.with_mask(picture, digest, mask)
            except Unreadable as error:
                unread.append(Unread(picture.name, error.reason))
                continue
            if mask is not None:
                image, indices = image[:-1], image[-1]
                masks.append(indices.astype(np.uint8))
            if array is None:
                array = _room(len(pictures.each), image.shape, where)
            if image.shape != array.shape[1:]:
                raise _unlike(image.shape, array.shape[1:], where)
            array[len(kept)] = image
            kept.append(index)
            digests.append(digest.hex())
    finally:
        pictures.close()
    check_share(unread, [pictures.each[index] for index in kept], images.max_unreadable, where)
    if array is None:
        raise DataError("there are no images", where=where, remedy="name the folder or file that holds them")
    return Loaded(
        array[: len(kept)],
        np.stack(masks) if classes is not None else None,
        np.array(kept, dtype=np.int64),
        tuple(digests),
        tuple(unread),
    )


def tried(pictures: Pictures) -> tuple[Unread, ...]:
    """The files that give no image, after every one was read."""
    unread = list(pictures.unread)
    try:
        for picture in (*pictures.each, *(mask for mask in pictures.masks if mask is not None)):
            try:
                picture.pixels()
            except Unreadable as error:
                unread.append(Unread(picture.name, error.reason))
    finally:
        pictures.close()
    return tuple(unread)


def check_share(unread: Sequence[Unread], read: Sequence[Picture], allowed: float, where: str) -> None:
    """Raise DataError where more than this share of the files cannot be read. It counts reasons, and names no file.

    A file of many frames counts once, as a series does that is a volume.
    """
    amiss = {_file(each.name): each.reason for each in unread if not each.ignored}
    files = len({_file(each.name) for each in read} | set(amiss))
    if not amiss or len(amiss) <= allowed * files:
        return
    reasons = ", ".join(f"{count}: {reason}" for reason, count in Counter(amiss.values()).most_common(5))
    raise DataError(
        f"{len(amiss)} of {files} files cannot be read, more than the share of {allowed:.4g} that may be "
        f"left out ({reasons})",
        where=where,
        remedy="medfed data unreadable TASK lists them; mend them, or raise data.images.max_unreadable",
    )


def _file(name: str) -> str:
    """The file's part of a picture's name, which may say a frame besides."""
    return re.sub(r"#[0-9]+$", "", name)


@dataclass(frozen=True)
class ImageReader:
    """How the images of a task are read. classes: the number of each class in their masks."""

    preparation: Preparation
    cache: ImageCache
    where: str
    classes: tuple[int, ...]

    @classmethod
    def of(cls, images: ImageSpec, where: str, classes: tuple[int, ...] | None = None) -> ImageReader:
        """A reader of images, or of images with masks, whose preparations are cached apart."""
        preparation = Preparation(images)
        recipe = preparation.recipe if classes is None else (*preparation.recipe, f"classes={classes}")
        return cls(preparation, ImageCache.from_environment(recipe), where, classes or ())

    def prepared(self, picture: Picture, digest: bytes) -> NDArray[np.float32]:
        """The image (channels, …), from the cache or its file. Raises Unreadable, DataError."""
        image = self.cache.get(digest)
        if image is None:
            image = self._finite(self.preparation(picture.pixels(), self.where))
            self.cache.put(digest, image)
        return image

    def with_mask(self, picture: Picture, digest: bytes, mask: Picture) -> NDArray[np.float32]:
        """As above, with the indices of the mask's classes as one channel more; both are kept as one."""
        both = hashlib.sha256(digest + mask.digest()).digest()
        found = self.cache.get(both)
        if found is None:
            pixels = picture.pixels()
            require_same_place(picture, mask, self.where)
            indices = class_indices(mask, pixels.shape[1:], self.classes, self.where)
            image = self._finite(self.preparation(pixels, self.where))
            found = np.concatenate([image, self.preparation.of_mask(indices, self.where)])
            self.cache.put(both, found)
        return found

    @staticmethod
    def _finite(image: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(image).all():
            raise Unreadable("it holds numbers that are not finite")
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
