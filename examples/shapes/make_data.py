"""Write four clinics' pictures of shapes, each with a mask of the same name: 0 nothing, 1 a disc, 2 a square."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48
CLINICS = {"Lake": (60, 60, 10), "Hill": (90, 80, 14), "Town": (30, 45, 8), "Shore": (75, 100, 18)}
"""Of each: the grey of nothing, the contrast of a shape, and the noise."""


def outlined(rng: np.random.Generator) -> np.ndarray:
    """A mask: a disc and a square side by side, either of them left; or, three in ten, nothing."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if rng.random() < 0.3:
        return mask
    for kind, middle in zip((1, 2), rng.permutation((12, 36)), strict=True):
        down, right = rows - rng.uniform(12, 36), columns - middle - rng.uniform(-2, 2)
        away = np.hypot(down, right) if kind == 1 else np.maximum(abs(down), abs(right))
        mask[away <= rng.uniform(5, 9)] = kind
    return mask


def main(target: Path) -> None:
    """Write 120 pictures a clinic."""
    rng = np.random.default_rng(0)
    for clinic, (light, contrast, noise) in CLINICS.items():
        for folder in ("images", "masks"):
            (target / clinic / folder).mkdir(parents=True, exist_ok=True)
        for number in range(120):
            mask = outlined(rng)
            picture = light + contrast * (mask > 0) + rng.normal(0, noise, mask.shape)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(
                target / clinic / "images" / f"{number:03d}.png"
            )
            Image.fromarray(mask).save(target / clinic / "masks" / f"{number:03d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data"))
