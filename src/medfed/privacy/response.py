"""Randomised response on labels: Warner 1965, over k classes as Kairouz, Oh and Viswanath 2014.

A label stays with probability e^ε/(e^ε + k − 1) and becomes each other one with 1/(e^ε + k − 1); the odds of any answer
under two labels are e^ε at most. The same is told as: with probability κ = (e^ε − 1)/(e^ε + k − 1) the label is kept,
else one of all k is drawn, whatever it was.

A model of the true labels is learnt from the answers by the forward correction (Patrini et al. 2017): what it says, p,
is taken through the same chance, κ p + (1 − κ)/k, before it is compared with an answer. The loss is that of the
answers' own likelihood, so that its minimum in expectation is where p is the truth; and it is bounded.
"""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
from numpy.typing import NDArray

from medfed.privacy.keystream import Keystream

_WORDS = 2.0**64


def kept_share(epsilon: float, classes: int) -> float:
    """κ = (e^ε − 1)/(e^ε + k − 1)."""
    return math.expm1(epsilon) / (math.expm1(epsilon) + classes)


def answers(labels: NDArray[np.int64], classes: int, epsilon: float, key: bytes, context: str) -> NDArray[np.int64]:
    """The labels' answers, int64 (n,): the same ones whenever they are asked for under one key and context.

    key: 32 bytes of the site's own, drawn by the system's generator and kept; context: what is drawn once, the task
    and the rows. Words of AES-256 in counter mode under HMAC-SHA-256 of both decide, two for a row in its place. κ is
    met to 2⁻⁶⁴ and never exceeded; the classes' chances differ by less than k · 2⁻⁶⁴.
    """
    stream = Keystream(hmac.new(key, f"answers\0{context}".encode(), hashlib.sha256).digest())
    words = stream.words(2 * labels.size)
    kept = words[: labels.size] < np.uint64(int(kept_share(epsilon, classes) * _WORDS))
    drawn = (words[labels.size :] % np.uint64(classes)).astype(np.int64)
    return np.where(kept, labels, drawn)
