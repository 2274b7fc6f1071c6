"""Images drawn by formulas, like those of six kinds of examination, with and without text burned in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint16]
_DEPTH = 4095


def _grid(size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return y, x


def _ellipse(size: int, centre: tuple[float, float], axes: tuple[float, float]) -> NDArray[np.bool_]:
    y, x = _grid(size)
    return ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 < 1


def _clouds(rng: np.random.Generator, size: int, power: float) -> NDArray[Any]:
    """Noise whose spectrum falls as 1/f^power, from 0 to 1: the texture of tissue."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    frequency[0, 0] = 1
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / frequency**power).real
    return (field - field.min()) / (field.max() - field.min())


def slice_of_body(rng: np.random.Generator) -> NDArray[Any]:
    """A CT slice: body, lungs, spine, vessels, a table; noise of 1 to 4 %."""
    size = 512
    image = np.zeros((size, size))
    image[_ellipse(size, (0, 0), (0.85, 0.62))] = 0.45
    for side in (-0.4, 0.4):
        lung = _ellipse(size, (side, -0.05), (rng.uniform(0.25, 0.35), rng.uniform(0.3, 0.42)))
        image[lung] = 0.1
        for _ in range(60):
            centre = (side + rng.normal(0, 0.12), rng.normal(-0.05, 0.15))
            image[_ellipse(size, centre, (0.006 * rng.uniform(0.5, 2.5),) * 2) & lung] = rng.uniform(0.3, 0.5)
    image[_ellipse(size, (0, 0.42), (0.09, 0.1))] = 0.9
    image[np.abs(_grid(size)[0] - 0.75) < 0.008] = 0.35
    return image + 0.05 * _clouds(rng, size, 1.0) + rng.normal(0, rng.uniform(0.01, 0.04), (size, size))


def radiograph(rng: np.random.Generator) -> NDArray[Any]:
    """A chest X-ray: soft shadows and rows of ribs, quantum noise."""
    size = 768
    y, x = _grid(size)
    image = 0.75 - 0.45 * np.exp(-(((np.abs(x) - 0.42) / 0.28) ** 2) - ((y + 0.05) / 0.6) ** 2)
    for rib in range(9):
        line = y - (-0.7 + 0.15 * rib + 0.25 * (np.abs(x) - 0.4) ** 2 * rng.uniform(0.8, 1.2))
        image += 0.1 * np.exp(-((line / 0.02) ** 2)) * (np.abs(x) < 0.75)
    return image + 0.1 * _clouds(rng, size, 1.6) + rng.normal(0, 0.012, (size, size))


def head(rng: np.random.Generator) -> NDArray[Any]:
    """An MR slice of a head: skull, folded tissue, ventricles; Rician noise."""
    size = 256
    image = np.zeros((size, size))
    image[_ellipse(size, (0, 0), (0.7, 0.88))] = 0.95
    image[_ellipse(size, (0, 0), (0.65, 0.83))] = 0.08
    folds = np.where(_clouds(rng, size, 1.2) > 0.5, 0.75, 0.5)
    brain = _ellipse(size, (0, 0), (0.6, 0.78))
    image[brain] = folds[brain]
    for side in (-0.12, 0.12):
        image[_ellipse(size, (side, 0), (0.06, 0.22))] = 0.2
    noise = rng.normal(0, rng.uniform(0.02, 0.05), (2, size, size))
    return np.hypot(image + noise[0], noise[1])


def breast(rng: np.random.Generator) -> NDArray[Any]:
    """A mammogram: fibres, and clusters of small calcifications."""
    size = 768
    inside = _ellipse(size, (-1, 0), (1.3, 0.85))
    image = np.where(inside, 0.3 + 0.5 * _clouds(rng, size, 1.3), 0.02)
    for _ in range(rng.integers(5, 40)):
        centre = (rng.normal(-0.5, 0.1), rng.normal(0, 0.1))
        image[_ellipse(size, centre, (0.004 * rng.uniform(0.5, 2), 0.004 * rng.uniform(0.5, 2)))] = 0.95
    return image + rng.normal(0, 0.01, (size, size))


def emission(rng: np.random.Generator) -> NDArray[Any]:
    """A PET slice: few hot spots of coarse counts."""
    from scipy import ndimage

    spots = np.zeros((168, 168))
    spots[_ellipse(168, (0, 0), (0.6, 0.4))] = 2
    for _ in range(rng.integers(2, 8)):
        y, x = rng.integers(50, 118, 2)
        spots[y : y + 4, x : x + 4] = rng.uniform(20, 60)
    return np.asarray(ndimage.gaussian_filter(rng.poisson(spots * 4).astype(float), 1.5))


def instruments(rng: np.random.Generator) -> NDArray[Any]:
    """Angiography: branching vessels, and a catheter with evenly spaced markers."""
    size = 512
    y, x = _grid(size)
    image = 0.7 + 0.15 * _clouds(rng, size, 1.6)
    for _ in range(12):
        slope, offset, width = rng.normal(0, 1), rng.uniform(-0.8, 0.8), rng.uniform(0.004, 0.02)
        image -= 0.3 * np.exp(-(((y - slope * x - offset + 0.1 * np.sin(5 * x)) / width) ** 2))
    for k in range(6):
        image[_ellipse(size, (-0.5 + 0.07 * k, 0.02 * k), (0.006, 0.012))] = 0.1
    return image + rng.normal(0, 0.015, (size, size))


KINDS: dict[str, Callable[[np.random.Generator], NDArray[Any]]] = {
    "ct": slice_of_body,
    "xray": radiograph,
    "mr": head,
    "mammogram": breast,
    "pet": emission,
    "angiogram": instruments,
}


def phantom(kind: str, rng: np.random.Generator) -> Image:
    """An image of 12 bits without text, of shape (rows, columns)."""
    image = KINDS[kind](rng)
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * (0.9 * _DEPTH)).astype(np.uint16)


def with_text(image: Image, rng: np.random.Generator, *, size: int, ink: float, lines: int = 2) -> Image:
    """The image with lines of text in one of its corners, or anywhere.

    size: the font's height in pixels. ink: brightness of the text from 0 to 1.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    canvas = Pillow.new("L", image.shape[::-1])
    font = ImageFont.truetype(str(_font(rng)), size)
    draw = ImageDraw.Draw(canvas)
    draw.fontmode = str(rng.choice(["1", "L"]))
    text = "\n".join(_words(rng) for _ in range(lines))
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    room = np.maximum(1, np.array([image.shape[1] - (right - left), image.shape[0] - (bottom - top)]) - 8)
    place = rng.uniform(0, 1, 2) if rng.random() < 0.3 else rng.integers(0, 2, 2)
    x, y = 4 + place * room
    draw.multiline_text((float(x), float(y)), text, fill=255, font=font)
    cover = np.asarray(canvas) / 255.0
    return (image * (1 - cover) + ink * _DEPTH * cover).astype(np.uint16)


def _font(rng: np.random.Generator) -> Path:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return folder / str(rng.choice(["DejaVuSans.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf"]))


def _words(rng: np.random.Generator) -> str:
    name = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVWZ"), rng.integers(5, 10)))
    year, month, day = rng.integers(1920, 2020), rng.integers(1, 13), rng.integers(1, 29)
    forms = [f"{name}, A", f"{name.title()} {year}", f"{day:02}.{month:02}.{year}", f"ID {rng.integers(10**5, 10**8)}"]
    return str(rng.choice(forms))
