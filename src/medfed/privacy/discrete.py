"""Exact noise on whole numbers: Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy".

A sum of a secret and floating-point noise can give the secret away by its last bits (Mironov 2012). These samplers take
uniform whole numbers of the system's generator and compare whole numbers, so that each value has exactly the chance
that it should. How long they take depends on what they draw, and not on the secret.
"""

from __future__ import annotations

from math import isqrt
from secrets import randbelow

_E = (1, 1)


def bernoulli_exp(numerator: int, denominator: int) -> bool:
    """True with probability exp(−numerator/denominator) (Algorithm 1)."""
    while numerator > denominator:
        if not _bernoulli_exp_below_one(*_E):
            return False
        numerator -= denominator
    return _bernoulli_exp_below_one(numerator, denominator)


def _bernoulli_exp_below_one(numerator: int, denominator: int) -> bool:
    draws = 1
    while randbelow(denominator * draws) < numerator:
        draws += 1
    return draws % 2 == 1


def discrete_laplace(numerator: int, denominator: int = 1) -> int:
    """An integer x with probability in proportion to exp(−|x|/t), t = numerator/denominator (Algorithm 2)."""
    while True:
        rest = randbelow(numerator)
        if not bernoulli_exp(rest, numerator):
            continue
        whole = 0
        while bernoulli_exp(*_E):
            whole += 1
        size = (rest + numerator * whole) // denominator
        negative = randbelow(2) == 1
        if not (negative and size == 0):
            return -size if negative else size


def discrete_gaussian(numerator: int, denominator: int = 1) -> int:
    """An integer x with probability in proportion to exp(−x²/2σ²), σ² = numerator/denominator (Algorithm 3)."""
    scale = isqrt(numerator // denominator) + 1
    while True:
        drawn = discrete_laplace(scale)
        off = abs(drawn) * scale * denominator - numerator
        if bernoulli_exp(off * off, 2 * numerator * denominator * scale * scale):
            return drawn
