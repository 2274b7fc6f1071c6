"""What a task says of images: how each becomes numbers, the same at every site, and how training varies them.

Transforms and augmentations are known by name; each name is a section of its own, and there are no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from medfed.spec.section import Fraction, Positive, Section, named

Size: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=3, description="a list of 2 or 3")
]
"""Height and width of an image, or depth, height and width of a volume."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class Resize(Section):
    """To this size, whatever it was (MONAI ``Resize``)."""

    name: Literal["resize"]
    size: Size
    mode: Literal["area", "nearest", "bilinear", "trilinear"] = "area"


class Crop(Section):
    """The middle, of this size; a smaller image is padded with zeros first (MONAI ``ResizeWithPadOrCrop``)."""

    name: Literal["crop"]
    size: Size


class Scale(Section):
    """Numbers from ``low`` to ``high`` become 0 to 1, and those beyond are cut off (MONAI ``ScaleIntensityRange``)."""

    name: Literal["scale"]
    low: Number
    high: Number


class Normalise(Section):
    """(x − mean) / standard deviation.

    by: ``federated``, by channel over the training images of all sites, formed from sums; ``image``, each image by its
    own (MONAI ``NormalizeIntensity``); ``values``, by ``mean`` and ``std``.
    """

    name: Literal["normalise"]
    by: Literal["federated", "image", "values"] = "federated"
    mean: Number = 0.0
    std: Positive = 1.0


class Flip(Section):
    """Mirror along an axis of the image, 0 being the first after the channels (MONAI ``RandFlip``)."""

    name: Literal["flip"]
    axis: Annotated[int, Field(ge=0, le=2)] = 1
    probability: Fraction = 0.5


class Rotate(Section):
    """Turn by up to so many degrees either way, in the plane of the last two axes (MONAI ``RandRotate``)."""

    name: Literal["rotate"]
    degrees: Annotated[float, Field(gt=0, le=180)] = 10.0
    probability: Fraction = 0.5


class Zoom(Section):
    """Enlarge or shrink by a factor from ``low`` to ``high``, keeping the size (MONAI ``RandZoom``)."""

    name: Literal["zoom"]
    low: Annotated[float, Field(ge=0.5, le=2)] = 0.9
    high: Annotated[float, Field(ge=0.5, le=2)] = 1.1
    probability: Fraction = 0.5


class Noise(Section):
    """Add Gaussian noise of a standard deviation up to ``std`` (MONAI ``RandGaussianNoise``)."""

    name: Literal["noise"]
    std: Positive = 0.05
    probability: Fraction = 0.5


_TRANSFORMS: tuple[type[Section], ...] = (Resize, Crop, Scale, Normalise)
_AUGMENTATIONS: tuple[type[Section], ...] = (Flip, Rotate, Zoom, Noise)


def _chosen(value: Any, known: tuple[type[Section], ...]) -> Any:
    """The section that the name says. Every fault is told in words at the item."""
    value = named(value)
    if isinstance(value, Section):
        return value
    sections = {kind.model_fields["name"].annotation.__args__[0]: kind for kind in known}  # type: ignore[union-attr]
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or name not in sections:
        raise _wrong("names nothing that is known", f"write one of: {', '.join(sections)}")
    try:
        return sections[name].model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0]) if fault["loc"] else name
        keys = ", ".join(key for key in sections[name].model_fields if key != "name")
        raise _wrong(
            f"({name}) has a wrong {key!r}: {fault['msg'].lower().replace('tuple', 'list')}",
            f"the keys of {name}: {keys}",
        ) from None


def _wrong(cause: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("explained", "{cause}", {"cause": cause, "remedy": remedy})


Transform: TypeAlias = Annotated[
    Resize | Crop | Scale | Normalise, BeforeValidator(lambda value: _chosen(value, _TRANSFORMS))
]
Augmentation: TypeAlias = Annotated[
    Flip | Rotate | Zoom | Noise, BeforeValidator(lambda value: _chosen(value, _AUGMENTATIONS))
]


class ImageSpec(Section):
    """How the images of a dataset become numbers. Of no effect where rows are numbers and text.

    channels: 1 (grey: colours by their luminance) or 3 (grey three times); as the files have it, if absent.
    transforms: done once, in order. augment: drawn anew for every training batch. max_unreadable: the largest share
    of a site's files that may be left out because they cannot be read.
    """

    channels: Literal[1, 3] | None = None
    transforms: tuple[Transform, ...] = ()
    augment: tuple[Augmentation, ...] = ()
    max_unreadable: Fraction = 0.05

    @property
    def federated(self) -> bool:
        """Whether images are normalised by sums over all sites, which is the last that is done to them."""
        last = self.transforms[-1] if self.transforms else None
        return isinstance(last, Normalise) and last.by == "federated"

    @property
    def own(self) -> tuple[Section, ...]:
        """The transforms that need nothing but the image."""
        return self.transforms[:-1] if self.federated else self.transforms
