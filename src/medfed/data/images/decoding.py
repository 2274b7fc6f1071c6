"""Inside the guarded process: what a file's kind is, and its header and numbers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.data.images import reasons
from medfed.data.images.limits import LARGEST_FILE, check_shape
from medfed.data.images.wire import Header, Order
from medfed.data.raw import Unreadable

PHOTOGRAPHS = (".png", ".jpg", ".jpeg")
NIFTI = (".nii", ".nii.gz")


class NoImage(Unreadable):
    """A whole file that holds no image."""


def prepare() -> None:
    """Import what most files need before memory is limited, as far as it is installed."""
    import contextlib

    for name in ("pydicom.pixels.decoders", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"):
        with contextlib.suppress(ImportError):
            __import__(name)


def header(path: str) -> Header:
    """What the file says of its image. Raises Unreadable, NoImage, and whatever a library raises."""
    _check_size(path)
    if _is(path, PHOTOGRAPHS):
        with _photograph(path) as image:
            return Header(1, shape=(image.height, image.width))
    if _is(path, NIFTI):
        image = _nifti(path)
        affine = np.asarray(image.affine, np.float64)
        placed = affine[:3, 3].tolist(), affine[:3, :3].ravel().tolist()
        finite = bool(np.isfinite(affine).all())
        position, orientation = placed if finite else ([], [])
        return Header(1, shape=image.shape, position=tuple(position), orientation=tuple(orientation))
    from medfed.data.images import dicom

    return dicom.header(path)


def pixels(order: Order) -> NDArray[np.float32]:
    """The numbers, (channels, height, width) or (channels, depth, height, width). Raises as :func:`header`."""
    _check_size(order.path)
    if _is(order.path, PHOTOGRAPHS):
        return _mask_pixels(order.path) if order.mask else _photograph_pixels(order.path)
    if _is(order.path, NIFTI):
        return _nifti_pixels(order.path)
    from medfed.data.images import dicom

    return dicom.pixels(order)


def _is(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings)


def _check_size(path: str) -> None:
    size = os.stat(path).st_size  # noqa: PTH116
    if size == 0:
        raise Unreadable(reasons.EMPTY)
    if size > LARGEST_FILE:
        raise Unreadable(reasons.LARGE_FILE)


def _photograph(path: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # sizes are checked here
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        raise Unreadable(reasons.NO_PHOTOGRAPH) from None
    check_shape((image.height, image.width, 3))
    return image


def _photograph_pixels(path: str) -> NDArray[np.float32]:
    """Grey images as (1, h, w), all others as RGB (3, h, w), turned as their EXIF tag says; the first frame."""
    from PIL import ImageOps

    with _photograph(path) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode not in ("L", "I", "F", "RGB") and not turned.mode.startswith("I;16"):
            turned = turned.convert("L" if turned.mode in ("1", "LA", "La") else "RGB")
        array = np.asarray(turned).astype(np.float32)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _mask_pixels(path: str) -> NDArray[np.float32]:
    """Grey values, or the numbers of a palette's colours, (1, h, w), as they stand in the file."""
    from PIL import ImageOps

    with _photograph(path) as image:
        if image.format != "PNG":
            raise Unreadable(reasons.MASK_FORMAT)
        turned = ImageOps.exif_transpose(image)
        if turned.mode not in ("1", "L", "P", "I") and not turned.mode.startswith("I;16"):
            raise Unreadable(reasons.MASK_OF_COLOURS)
        return np.asarray(turned).astype(np.float32)[None]


def _nifti(path: str) -> Any:
    import nibabel

    try:
        image: Any = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError:
        raise Unreadable(reasons.NO_NIFTI) from None
    shape = image.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 1):
        raise Unreadable(reasons.NO_VOLUME)
    check_shape(shape[:3])
    return image


def _nifti_pixels(path: str) -> NDArray[np.float32]:
    """(1, z, y, x) as an axial DICOM series lies: towards the patient's head, back and left (LPS)."""
    import nibabel

    image = nibabel.as_closest_canonical(_nifti(path))  # type: ignore[no-untyped-call]
    data = np.asarray(image.dataobj, dtype=np.float32)
    volume = data.reshape(data.shape[:3])[::-1, ::-1]
    return volume.transpose(2, 1, 0)[None]
