"""Noise in a released sum, calibrated to what its fields declare: discrete Laplace or discrete Gaussian.

A field lies on the grid of its resolution ρ (whole numbers for counts), so that one patient moves it by Δ/ρ steps, and
by one more in each element that is rounded. Where F fields move, each bears a share: noise of scale F·Δ₁/ε (Laplace),
which is (ε/F, 0)-differentially private for each and (ε, 0) for all; or of σ = z·√F·Δ₂ (Gaussian), which is as one
release with noise multiplier z, since the fields over their Δ₂ move by √F at most together.

The discrete Gaussian's cost is that of the continuous one with the same z: for σ of two steps and more they differ by
e^(−2π²σ²), below 1e-34 (Canonne, Kamath and Steinke 2020, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from medfed.core.messages import Adds, Message, additive_fields
from medfed.core.sensitivity import Bounds, Sensitivity, unmoved
from medfed.core.spending import Mechanism, Spend
from medfed.privacy.accountant import noise_for
from medfed.privacy.discrete import discrete_gaussian, discrete_laplace
from medfed.spec.task import ReleasePrivacy

M = TypeVar("M", bound=Message)

_PARTS = 10**6
"""The denominator of rational scales."""

_LEAST_SQUARE = 4 * _PARTS
"""σ² of two steps."""


@dataclass(frozen=True)
class ReleaseNoise:
    """The noise of a task's releases. noise_multiplier: z of the Gaussian mechanism, 1/ε of Laplace."""

    mechanism: Mechanism
    noise_multiplier: float

    @classmethod
    def of(cls, release: ReleasePrivacy) -> ReleaseNoise:
        """From the task's section; the Gaussian's z is the least with which one release costs ε at δ, by PLD."""
        if release.mechanism == "laplace":
            return cls(Mechanism.LAPLACE, 1 / release.epsilon)
        if release.delta is None:
            raise ValueError("a Gaussian release takes a delta")
        return cls(Mechanism.GAUSSIAN, noise_for(release.epsilon, release.delta, 1.0, 1))

    @property
    def spend(self) -> Spend:
        """What one release spends."""
        return Spend(self.noise_multiplier, 1.0, 1, self.mechanism)


def undeclared(kind: type[Message]) -> tuple[str, ...]:
    """The fields of a summed message that do not declare their sensitivity."""
    return tuple(name for name, declared in additive_fields(kind).items() if declared.sensitivity is None)


def moved_fields(kind: type[Message], bounds: Bounds) -> dict[str, Sensitivity]:
    """The fields that one patient moves, with how much. Raises TypeError where one does not declare it,
    or declares a bound that the task does not set."""
    found = {}
    for name, declared in additive_fields(kind).items():
        if declared.sensitivity is None:
            raise TypeError(f"{kind.__name__}.{name} declares no sensitivity")
        sensitivity = declared.sensitivity(bounds)
        if sensitivity.l1 > 0:
            found[name] = sensitivity
        elif declared.sensitivity is not unmoved:
            raise TypeError(f"{kind.__name__}.{name} has no bound under this task")
    return found


def noised(message: M, noise: ReleaseNoise, bounds: Bounds) -> M:
    """The message with noise in every field that a patient moves; the others as they are."""
    kind, declared = type(message), additive_fields(type(message))
    moved = moved_fields(kind, bounds)
    values = {
        name: _noised(getattr(message, name), declared[name], moved[name], noise, len(moved))
        if name in moved
        else getattr(message, name)
        for name in declared
    }
    return kind(**values)


def _noised(value: Any, declared: Adds, sensitivity: Sensitivity, noise: ReleaseNoise, fields: int) -> Any:
    array = np.asarray(value)
    step = declared.resolution or 1.0
    draw = _sampler(in_steps(sensitivity, declared, array.size), noise, fields)
    steps = [round(each / step) + draw() for each in array.reshape(-1).tolist()]
    if declared.resolution == 0:
        return steps[0] if not isinstance(value, np.ndarray) else np.array(steps, array.dtype).reshape(array.shape)
    if not isinstance(value, np.ndarray):
        return steps[0] * step
    return np.array([each * step for each in steps], array.dtype).reshape(array.shape)


def in_steps(sensitivity: Sensitivity, declared: Adds, elements: int) -> Sensitivity:
    """A sensitivity in steps of the field's grid, what rounding may add included."""
    if declared.resolution == 0:
        return sensitivity
    step = declared.resolution
    return Sensitivity(sensitivity.l1 / step + elements, sensitivity.l2 / step + math.sqrt(elements))


def _sampler(steps: Sensitivity, noise: ReleaseNoise, fields: int) -> Callable[[], int]:
    """Draws of noise for a field of this sensitivity, one of so many. Scales are rounded up to millionths."""
    if noise.mechanism is Mechanism.LAPLACE:
        scale = math.ceil(steps.l1 * fields * noise.noise_multiplier * _PARTS)
        return lambda: discrete_laplace(scale, _PARTS)
    square = max(math.ceil((noise.noise_multiplier * steps.l2) ** 2 * fields * _PARTS), _LEAST_SQUARE)
    return lambda: discrete_gaussian(square, _PARTS)
