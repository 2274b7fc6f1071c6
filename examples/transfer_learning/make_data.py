"""Write a public collection of pictures of three textures, and two clinics' few pictures of two others."""

import sys
from pathlib import Path

import numpy as np

target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")
SIDE = 20


def pictures(rng: np.random.Generator, angles: list[float], labels: np.ndarray, light: int) -> np.ndarray:
    """Faint stripes at each label's angle, of random width and phase, in noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    found = np.empty((len(labels), SIDE, SIDE), np.uint8)
    for number, label in enumerate(labels):
        angle, width, phase = angles[label] + rng.normal(0, 0.12), rng.uniform(4, 7), rng.uniform(0, 2 * np.pi)
        stripes = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / width + phase)
        found[number] = (110 + light + 14 * stripes + rng.normal(0, 26, (SIDE, SIDE))).clip(0, 255)
    return found


def write(name: str, seed: int, count: int, angles: list[float], light: int) -> None:
    """One archive of so many pictures."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(angles), count)
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    np.savez(target / name, images=pictures(rng, angles, labels, light), labels=labels)


write("public.npz", 1, 2400, [0.0, 0.8, 1.6], 0)
write("clinics/Lake.npz", 2, 150, [0.4, 1.2], 20)
write("clinics/Hill.npz", 3, 150, [0.4, 1.2], -15)
