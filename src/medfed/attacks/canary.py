"""Planted records, and what guessing them says of ε: Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1)
Training Run".

Each canary is a training record with a wrong target. A coin decides whether it is trained on or left out. The attacker
ranks the canaries by how much surer of the wrong target a model is than one that never saw it, and guesses the coins of
the first and of the last. Under (ε, δ)-differential privacy it is seldom right often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_LARGEST = 50.0


@dataclass(frozen=True, eq=False)
class Planted:
    """One training. inside: by canary, whether the coin put it in. scores: the higher, the likelier it was."""

    inside: NDArray[np.bool_]
    scores: NDArray[np.float64]


def guesses(trainings: Sequence[Planted]) -> tuple[int, int]:
    """(guesses, right ones): in each training the first quarter by score is guessed in, the last quarter out."""
    made = right = 0
    for each in trainings:
        quarter = max(len(each.scores) // 4, 1)
        order = np.argsort(each.scores)
        right += int(each.inside[order[-quarter:]].sum()) + int((~each.inside[order[:quarter]]).sum())
        made += 2 * quarter
    return made, right


def epsilon_bound(planted: int, made: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The smallest ε under which ``right`` of ``made`` guesses about ``planted`` coins are not too unlikely.

    By bisection of :func:`chance`, which falls as ε grows; 0 where guesses are no better than chance. At δ = 0 it is
    log(p / (1 − p)) of the lower limit p of Clopper and Pearson.
    """
    low, high = 0.0, _LARGEST
    if chance(planted, made, right, low, delta) > 1 - confidence:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        if chance(planted, made, right, middle, delta) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def chance(planted: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """The probability, at most, of so many right guesses under (ε, δ)-differential privacy: Theorem 5.2 there.

    P[B ≥ v] + 2 m δ α with B binomial of ``made`` at e^ε / (1 + e^ε), and α = max_i P[v > B ≥ v − i] / i.
    """
    from scipy.stats import binom

    accuracy = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(right - 1, made, accuracy))
    if right == 0:
        return 1.0
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), made, accuracy))
    alpha = float((below / np.arange(1, right + 1)).max())
    return min(beyond + 2 * planted * delta * alpha, 1.0)


def wrong_target(target: NDArray[np.generic], classes: int) -> NDArray[np.generic]:
    """The targets of canaries: the next class of each, or for regression its mirror image within the range."""
    if classes:
        return np.asarray((target.astype(np.int64) + 1) % classes)
    return np.asarray(target.min() + target.max() - target)
