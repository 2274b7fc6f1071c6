"""Chest X-rays by the law of Beer and Lambert: I = I₀ · exp(−∑ μᵢ tᵢ), where the beam goes tᵢ far through material i.

The bodies are ellipsoids and tubes whose thickness along the beam has a closed form. Lengths are in cm, attenuation
coefficients in 1/cm at 60 keV (NIST tables: water 0.206, cortical bone 0.604; lung is water at 0.26 g/cm³).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOFT, BONE, LUNG = 0.206, 0.604, 0.054
HALF_WIDTH, HALF_HEIGHT = 18.0, 20.0
"""Half of what the detector sees."""

Plane = NDArray[Any]


@dataclass(frozen=True)
class Exposure:
    """How a picture is taken. photons: per pixel where nothing is in the way. blur: the detector's, in pixels."""

    rows: int
    columns: int
    photons: float
    blur: float


def transmitted(rng: np.random.Generator, exposure: Exposure, *, ill: bool) -> Plane:
    """The share of the beam that a patient lets through, as the detector counted it: (rows, columns), above 0."""
    from scipy.ndimage import gaussian_filter

    expected = exposure.photons * np.exp(-_attenuation(rng, exposure, ill=ill))
    counted = rng.poisson(gaussian_filter(expected, exposure.blur))
    return np.maximum(counted, 1) / exposure.photons


def _attenuation(rng: np.random.Generator, exposure: Exposure, *, ill: bool) -> Plane:
    """∑ μᵢ tᵢ along each pixel's ray, for a patient drawn by ``rng``."""
    y, x = np.mgrid[-HALF_HEIGHT : HALF_HEIGHT : exposure.rows * 1j, -HALF_WIDTH : HALF_WIDTH : exposure.columns * 1j]
    size = rng.normal(1, 0.05)
    x, y = (x + rng.normal(0, 0.5)) / size, (y + rng.normal(0, 0.5)) / size
    air = _lungs(x, y, rng)
    heart = _ellipsoid(x - 2.2, y - 5.0, 5.0 * rng.normal(1, 0.06), 5.6, 3.5)
    mediastinum = _tube(np.abs(x), 2.6, 3.0)
    air = np.maximum(air - heart - mediastinum, 0)
    bone = _ribs(x, y, rng) + _tube(np.abs(x), 1.5, 1.2) * (1 + 0.15 * np.sin(2 * np.pi * y / 2.6)) + _clavicles(x, y)
    filled = _vessels(rng, air) + (_consolidation(x, y, air, rng) if ill else 0)
    body = _tube(np.abs(x), 16.0 * rng.normal(1, 0.03), 10.0)
    soft = np.maximum(body - air - bone, 0)
    return SOFT * soft + BONE * bone + LUNG * air + (SOFT - LUNG) * np.minimum(filled, air)


def _ellipsoid(x: Plane, y: Plane, a: float, b: float, c: float) -> Plane:
    """Thickness 2c·√(1 − (x/a)² − (y/b)²) of an ellipsoid of half axes a, b and, along the beam, c."""
    return 2 * c * np.sqrt(np.maximum(1 - (x / a) ** 2 - (y / b) ** 2, 0))


def _tube(distance: Plane, radius: float, depth: float) -> Plane:
    """Thickness of an elliptic tube across the beam, at a distance from its axis."""
    return 2 * depth * np.sqrt(np.maximum(1 - (distance / radius) ** 2, 0))


def _lungs(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    deep = rng.normal(1, 0.06)
    right = _ellipsoid(x + 7.2, y + 1.0, 5.4, 12.0 * deep, 6.0)
    left = _ellipsoid(x - 7.2, y + 1.0, 5.2, 11.5 * deep, 6.0)
    domes = 1 / (1 + np.exp(np.clip((y - 9.5 * deep + 0.05 * (np.abs(x) - 7) ** 2) / 0.25, -50, 50)))
    return (right + left) * domes


def _ribs(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Hollow tubes that fall away from the spine at the back, and steeper at the front."""
    tilt, total = rng.normal(1, 0.1), np.zeros_like(x)
    inside = (np.abs(x) < 14.5) & (np.abs(x) > 1.2)
    for number in range(10):
        start = -13.5 + 2.5 * number
        back = start - 0.035 * tilt * (np.abs(x) - 6) ** 2 + 0.12 * np.abs(x)
        front = start + 2.0 + 0.45 * tilt * (14 - np.abs(x)) * 0.6
        total += inside * (_tube(y - back, 0.55, 0.28) + 0.5 * _tube(y - front, 0.5, 0.22) * (np.abs(x) > 6))
    return total


def _clavicles(x: Plane, y: Plane) -> Plane:
    return _tube(y + 14.0 + 0.18 * np.abs(x), 0.6, 0.35) * ((np.abs(x) > 1.8) & (np.abs(x) < 14))


def _vessels(rng: np.random.Generator, air: Plane) -> Plane:
    """Blood among the air: a field whose spectrum falls as 1/f², up to an eighth of the lung's depth."""
    rows, columns = air.shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None] * rows, np.fft.fftfreq(columns)[None, :] * columns)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=air.shape)) / np.maximum(frequency, 2) ** 1.6).real
    return air * np.clip(0.06 + 0.03 * field / field.std(), 0, 0.125)


def _consolidation(x: Plane, y: Plane, air: Plane, rng: np.random.Generator) -> Plane:
    """Fluid in place of air: one or two soft-edged regions in a lung, as deep as they are wide."""
    filled = np.zeros_like(air)
    side = rng.choice((-1, 1))
    for _ in range(rng.integers(1, 3)):
        across, along, radius = side * rng.uniform(6, 9), rng.uniform(-6, 6), rng.uniform(2.2, 4.0)
        distance = np.hypot(x - across, (y - along) / rng.uniform(0.8, 1.3))
        edge = 1 / (1 + np.exp(np.clip((distance - radius) / 0.6, -50, 50)))
        filled += edge * rng.uniform(0.6, 0.9) * 1.4 * radius
    return np.minimum(filled, 0.9 * air)
