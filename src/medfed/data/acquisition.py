"""Images as another scanner would have given them: what makes simulated sites unlike in looks, and not in patients.

An image is taken as numbers from its own least, 0, to its own greatest, 1. In this order: the detector's resolution (a
Gaussian blur), its gain and offset, its noise (independent in each pixel), and the curve by which it is shown,
v ← ((v − low) / (high − low))^gamma, cut off at 0 and 1. Then the numbers are brought back to the image's own range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.rng import generator
from medfed.data.raw import Picture, RawTable
from medfed.spec.task import Partition


@dataclass(frozen=True)
class Acquisition:
    """How one site takes its images. gamma, low, high: its curve. noise: standard deviation, of the image's range.

    blur: the Gaussian's standard deviation, as a share of the image's shortest side. gain, offset: v ← gain · v +
    offset, the offset as a share of the range. The defaults change nothing.
    """

    gamma: float = 1.0
    low: float = 0.0
    high: float = 1.0
    noise: float = 0.0
    blur: float = 0.0
    gain: float = 1.0
    offset: float = 0.0

    def applied(self, image: NDArray[Any], draw: np.random.Generator) -> NDArray[np.float32]:
        """The image (channels, …) as float32; one whose numbers are all alike stays as it is."""
        from scipy.ndimage import gaussian_filter

        least, greatest = float(image.min()), float(image.max())
        if not least < greatest < np.inf:
            return np.asarray(image, dtype=np.float32)
        values = (np.asarray(image, dtype=np.float64) - least) / (greatest - least)
        if self.blur:
            width = self.blur * min(image.shape[1:])
            values = gaussian_filter(values, (0, *[width] * (image.ndim - 1)))
        values = self.gain * values + self.offset
        if self.noise:
            values += self.noise * draw.standard_normal(image.shape)
        if (self.gamma, self.low, self.high) != (1.0, 0.0, 1.0):
            values = np.clip((values - self.low) / (self.high - self.low), 0, 1) ** self.gamma
        return np.asarray(least + values * (greatest - least), dtype=np.float32)

    @property
    def words(self) -> str:
        """What the data sheet says."""
        return (
            f"gamma {self.gamma:.2f}, window {self.low:.2f} to {self.high:.2f}, noise {self.noise:.3f}, "
            f"blur {self.blur:.3f}, gain {self.gain:.2f}, offset {self.offset:+.2f}"
        )


def acquisitions(partition: Partition, seed: int) -> tuple[Acquisition, ...]:
    """One a site, in the order of the sites, by the task's seed.

    Each number's range is cut into as many pieces as there are sites, and each site draws from a piece of its own
    (McKay, Beckman, Conover 1979), so that few sites differ as much as many do.
    """
    levels = {each.name: _levels(partition.sites, seed, each.name) for each in fields(Acquisition)}
    drawn = ({name: float(values[site]) for name, values in levels.items()} for site in range(partition.sites))
    return tuple(_acquisition(u, partition) for u in drawn)


def _levels(sites: int, seed: int, name: str) -> NDArray[np.float64]:
    """A number from 0 to 1 for each site, one in each of as many pieces."""
    draw = generator(seed, "acquisition", name)
    return np.asarray((draw.permutation(sites) + draw.random(sites)) / sites)


def _acquisition(u: dict[str, float], partition: Partition) -> Acquisition:
    """A site's acquisition from its levels: at strength 1 gamma is 1/2 to 2, noise up to a fifth of the range."""
    s, vary, chosen = partition.strength, partition.vary, Acquisition()
    if "contrast" in vary:
        chosen = replace(
            chosen, gamma=2 ** (s * (2 * u["gamma"] - 1)), low=s * u["low"] / 5, high=1 - s * u["high"] / 5
        )
    if "noise" in vary:
        chosen = replace(chosen, noise=s * u["noise"] / 5)
    if "scanner" in vary:
        gain, offset = 2 ** (s * (u["gain"] - 0.5)), s * (u["offset"] - 0.5) / 2
        chosen = replace(chosen, blur=s * u["blur"] / 25, gain=gain, offset=offset)
    return chosen


@dataclass(frozen=True, eq=False)
class Reacquired:
    """A picture as a site's scanner gives it: the same at every reading, whatever is read before it."""

    picture: Picture
    acquisition: Acquisition
    seed: int

    @property
    def name(self) -> str:
        """Where the picture is."""
        return self.picture.name

    def digest(self) -> bytes:
        """SHA-256 of the picture's own, and of what is done to it. Raises Unreadable."""
        return hashlib.sha256(self.picture.digest() + repr((self.acquisition, self.seed)).encode()).digest()

    def pixels(self) -> NDArray[np.float32]:
        """Its numbers, of the picture's own shape. Raises Unreadable."""
        draw = generator(self.seed, "acquisition", "noise", self.digest().hex())
        return self.acquisition.applied(self.picture.pixels(), draw)


def reacquired(parts: dict[str, RawTable], partition: Partition, seed: int) -> dict[str, RawTable]:
    """The parts of a data set, each with its site's acquisition. Raises DataError where the rows are no images."""
    return {
        site: _reacquired(raw, acquisition, seed)
        for (site, raw), acquisition in zip(parts.items(), acquisitions(partition, seed), strict=True)
    }


def _reacquired(raw: RawTable, acquisition: Acquisition, seed: int) -> RawTable:
    if raw.pictures is None:
        raise DataError(
            "`by: acquisition` changes how images look, and these rows are a table",
            where=f"partition ({raw.source})",
            remedy="name a connector of images, or partition by even, quantity or label",
        )
    each: Sequence[Picture] = [Reacquired(picture, acquisition, seed) for picture in raw.pictures.each]
    return replace(raw, pictures=replace(raw.pictures, each=tuple(each), simulated=acquisition.words))
