"""The task's images as MONAI reads and prepares them: the same numbers in the same order, for a bundle."""

from __future__ import annotations

from typing import Any

from medfed.core.errors import UserError
from medfed.data.encoding import Encoding
from medfed.data.images.wire import Window
from medfed.spec.images import Crop, Normalise, Resize, Scale
from medfed.spec.section import Section
from medfed.spec.task import DataSpec

_EPSILON = 1e-9

_AS_READ = (
    "$lambda image: (lambda i: i if i.mode in ('L', 'I', 'F', 'RGB') or i.mode.startswith('I;16') else "
    "i.convert('L' if i.mode in ('1', 'LA', 'La') else 'RGB'))"
    "(__import__('PIL.ImageOps', fromlist=['ImageOps']).exif_transpose(image))"
)
"""Which colours a picture is read in, and which way up, as at a site."""

_GREY = (
    "$lambda x: x if x.shape[0] == 1 else (x[:3] * torch.tensor([0.299, 0.587, 0.114]).reshape(3, *[1] * (x.ndim - 1)))"
    ".sum(0, keepdim=True)"
)
_COLOUR = "$lambda x: x if x.shape[0] == 3 else x[:1].repeat(3, *[1] * (x.ndim - 1))"


def preprocessing(
    data: DataSpec, encoding: Encoding, *, dimensions: int, window: Window | None
) -> list[dict[str, Any]]:
    """MONAI's dictionary transforms from a file to the network's input. dimensions: 2 for images, 3 for volumes.

    Raises UserError where every file states its own window, for which MONAI has no transform, and for DICOM volumes.
    """
    steps = _reading(data, dimensions)
    if window is not None:
        steps.append(_windowed(window))
    if data.images.channels is not None:
        steps.append(_step("Lambdad", func=_GREY if data.images.channels == 1 else _COLOUR))
    steps += [_own(step) for step in data.images.own]
    if encoding.standardize != "none":
        divisor = [scale + _EPSILON for scale in encoding.scale.tolist()]
        given = {"subtrahend": encoding.mean.tolist(), "divisor": divisor, "channel_wise": True}
        steps.append(_step("NormalizeIntensityd", **given))
    return [*steps, _step("EnsureTyped", dtype="$torch.float32", track_meta=False)]


def _step(target: str, **options: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": "image", **options}


def _reading(data: DataSpec, dimensions: int) -> list[dict[str, Any]]:
    """A file as (channels, height, width) or (channels, depth, height, width); MONAI's readers give axes in reverse."""
    if data.connector.name == "dicom" and dimensions == 3:
        raise UserError("a bundle of a model of DICOM volumes is not supported", remedy="use --format onnx")
    if data.connector.name == "dicom":
        steps = [_step("LoadImaged", reader="PydicomReader", image_only=True), _step("EnsureChannelFirstd")]
        return [*steps, _step("Transposed", indices=[0, 2, 1])]
    if dimensions == 3:
        return [
            _step("LoadImaged", reader="NibabelReader", image_only=True),
            _step("EnsureChannelFirstd"),
            _step("Orientationd", axcodes="LPS", labels=None),
            _step("Transposed", indices=[0, 3, 2, 1]),
        ]
    reader = {"_target_": "PILReader", "converter": _AS_READ, "reverse_indexing": False}
    return [_step("LoadImaged", reader=reader, image_only=True), _step("EnsureChannelFirstd")]


def _windowed(window: Window) -> dict[str, Any]:
    """A stated window by DICOM PS3.3 C.11.2.1.2, which is linear between its ends."""
    if window.center is None or window.width is None:
        raise UserError(
            "the task shows each image in the window that its file states, for which MONAI has no transform",
            remedy="state one in the task, data: {connector: {window: [center, width]}}, and train again; or use onnx",
        )
    low = window.center - 0.5 - (window.width - 1) / 2
    high = window.center - 0.5 + (window.width - 1) / 2
    return _step("ScaleIntensityRanged", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)


def _own(step: Section) -> dict[str, Any]:
    match step:
        case Resize(size=size, mode=mode):
            return _step("Resized", spatial_size=list(size), mode=mode, anti_aliasing=False)
        case Crop(size=size):
            return _step("ResizeWithPadOrCropd", spatial_size=list(size))
        case Scale(low=low, high=high):
            return _step("ScaleIntensityRanged", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
        case Normalise(by="image"):
            return _step("NormalizeIntensityd", channel_wise=True)
        case Normalise(mean=mean, std=std):
            return _step("NormalizeIntensityd", subtrahend=mean, divisor=std)
    raise AssertionError(f"unreachable: {step!r}")
