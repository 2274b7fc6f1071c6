"""The task's transforms and augmentations, as MONAI's. MONAI is imported where a task names any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, MissingExtra
from medfed.spec.images import Crop, Flip, ImageSpec, Noise, Normalise, Resize, Rotate, Scale, Zoom
from medfed.spec.section import Section

if TYPE_CHECKING:
    import torch

Augment: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]"
"""(a batch's inputs (n, channels, …), its targets) → both, varied: masks (n, …) move as their images do."""

NEAREST = "nearest-exact"
"""How masks are resampled: each pixel takes the class of the one at its own middle, as ``area`` and ``bilinear`` see
it."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, as Pillow and pydicom use it."""


def require_monai(images: ImageSpec) -> None:
    """Raise MissingExtra where the task names transforms, and MONAI is not installed."""
    if (images.own or images.augment) and find_spec("monai") is None:
        raise MissingExtra(
            "data.images names transforms, which need the extra 'imaging' (monai is not installed)",
            remedy="pip install 'medfed[imaging]'",
        )


class Preparation:
    """What is done to each image by itself: its channels, then the task's transforms in order."""

    def __init__(self, images: ImageSpec) -> None:
        """Raises MissingExtra."""
        require_monai(images)
        self._channels = images.channels
        self._steps = images.own
        self._done: dict[tuple[int, bool], list[Callable[..., Any]]] = {}

    @property
    def recipe(self) -> tuple[str, ...]:
        """All that decides what an image becomes, in words."""
        if not self._steps:
            return (f"channels={self._channels}",)
        import monai

        return (f"channels={self._channels}", f"monai={monai.__version__}", *map(repr, self._steps))

    def __call__(self, image: NDArray[Any], where: str) -> NDArray[np.float32]:
        """The image (channels, …) as float32. Raises DataError where a transform is for other dimensions."""
        array = with_channels(np.asarray(image, dtype=np.float32), self._channels)
        return self._moved(array, where, mask=False)

    def of_mask(self, mask: NDArray[np.float32], where: str) -> NDArray[np.float32]:
        """The mask (1, …) of class indices, moved as its image is; what is padded is of class 0. Raises as above."""
        return self._moved(mask, where, mask=True)

    def restored(self, values: NDArray[np.float32], shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
        """Values (k, …) of prepared pixels, brought back to the pixels of the image as it was, (k, *shape).

        What was resized is resampled linearly; what was cropped away is 1 in the first of the k and 0 in the others,
        as the probabilities of background are. Raises as above.
        """
        import torch
        from torch.nn import functional

        self._made_for(len(shape), where, mask=True)
        steps = [step for step in self._steps if isinstance(step, Resize | Crop)]
        if not steps:
            return values
        shapes = [shape]
        for step in steps[:-1]:
            shapes.append(step.size)
        mode = "bilinear" if len(shape) == 2 else "trilinear"
        for step, before in zip(reversed(steps), reversed(shapes), strict=True):
            if isinstance(step, Crop):
                values = _uncropped(step, values, before)
            else:
                found = functional.interpolate(torch.from_numpy(values)[None], before, mode=mode, align_corners=False)
                values = found[0].numpy()
        return values

    def _moved(self, array: NDArray[np.float32], where: str, *, mask: bool) -> NDArray[np.float32]:
        for transform in self._made_for(array.ndim - 1, where, mask=mask):
            array = np.asarray(transform(array), dtype=np.float32)
        return np.ascontiguousarray(array)

    def _made_for(self, dimensions: int, where: str, *, mask: bool) -> list[Callable[..., Any]]:
        if (dimensions, mask) not in self._done:
            for step in self._steps:
                if isinstance(step, Resize | Crop) and len(step.size) != dimensions:
                    raise DataError(
                        f"{step.name} has a size of {len(step.size)} numbers, and the images have {dimensions} "
                        "dimensions",
                        where=where,
                        remedy="write [height, width] for images, [depth, height, width] for volumes",
                    )
            steps = [step for step in self._steps if not mask or isinstance(step, Resize | Crop)]
            self._done[dimensions, mask] = [_transform(step, mask=mask) for step in steps]
        return self._done[dimensions, mask]


def with_channels(image: NDArray[np.float32], channels: int | None) -> NDArray[np.float32]:
    """The image with one or three channels; as it is for None."""
    if channels is None or image.shape[0] == channels:
        return image
    if channels == 1:
        return np.tensordot(_LUMINANCE, image[:3], axes=1)[None].astype(np.float32)
    return np.repeat(image[:1], 3, axis=0)


def _uncropped(step: Crop, values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Each value where its pixel was before the crop, which tells by moving the pixels' own numbers."""
    numbers = np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(1, *shape)
    origin = np.asarray(_transform(step, mask=True)(numbers), dtype=np.float64).ravel().astype(np.int64)
    whole = np.zeros((len(values), int(np.prod(shape))), np.float32)
    whole[0] = 1
    kept = origin > 0
    whole[:, origin[kept] - 1] = values.reshape(len(values), -1)[:, kept]
    return whole.reshape(len(values), *shape)


def _transform(step: Section, *, mask: bool) -> Callable[..., Any]:
    from monai import transforms

    match step:
        case Resize(size=size, mode=mode):
            return transforms.Resize(spatial_size=size, mode=NEAREST if mask else mode, anti_aliasing=False)
        case Crop(size=size):
            return transforms.ResizeWithPadOrCrop(spatial_size=size)
        case Scale(low=low, high=high):
            return transforms.ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        case Normalise(by="image"):
            return transforms.NormalizeIntensity(channel_wise=True)
        case Normalise(mean=mean, std=std):
            return transforms.NormalizeIntensity(subtrahend=np.array(mean), divisor=np.array(std))
    raise AssertionError(f"unreachable: {step!r}")


def augmentation(images: ImageSpec, generator: np.random.Generator) -> Augment:
    """What varies a training batch (n, channels, …), drawn by ``generator``."""
    require_monai(images)
    random = [_augmentation(each) for each in images.augment]
    for transform in random:
        transform.set_random_state(seed=int(generator.integers(2**32)))

    def augment(batch: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if not len(batch):
            return batch, targets
        masks = targets[:, None].float() if targets.dim() > 1 else [None] * len(batch)
        rows = [_applied(random, row, mask) for row, mask in zip(batch, masks, strict=True)]
        moved = [mask for _, mask in rows if mask is not None]
        together = torch.stack(moved)[:, 0].round().to(targets.dtype) if moved else targets
        return torch.stack([row for row, _ in rows]), together

    return augment


def _applied(
    random: Sequence[Any], row: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An image and its mask, if it has one, by one draw of each transform."""
    for transform in random:
        row = transform(row)
        if mask is not None:
            mask = _as_drawn(transform, mask)
    return _tensor(row), None if mask is None else _tensor(mask)


def _as_drawn(transform: Any, mask: torch.Tensor) -> torch.Tensor:
    """The mask (1, …) moved as the transform last moved an image; noise moves nothing."""
    from monai import transforms

    match transform:
        case transforms.RandFlip():
            moved = transform(mask, randomize=False)
        case transforms.RandRotate():
            moved = transform(mask, mode="nearest", randomize=False)
        case transforms.RandZoom():
            moved = transform(mask, mode=NEAREST, randomize=False)
        case _:
            moved = mask
    return _tensor(moved)


def _tensor(row: Any) -> torch.Tensor:
    import torch

    return torch.as_tensor(row.as_tensor() if hasattr(row, "as_tensor") else row, dtype=torch.float32)


def _augmentation(step: Section) -> Any:
    from monai import transforms

    match step:
        case Flip(axis=axis, probability=p):
            return transforms.RandFlip(prob=p, spatial_axis=axis)
        case Rotate(degrees=degrees, probability=p):
            return transforms.RandRotate(range_x=np.deg2rad(degrees), prob=p, padding_mode="zeros")
        case Zoom(low=low, high=high, probability=p):
            return transforms.RandZoom(prob=p, min_zoom=low, max_zoom=high, padding_mode="constant")
        case Noise(std=std, probability=p):
            return transforms.RandGaussianNoise(prob=p, std=std)
    raise AssertionError(f"unreachable: {step!r}")
