"""Secret sharing over a prime field: Shamir 1979, "How to Share a Secret"."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence

PRIME = 2**521 - 1
"""The Mersenne prime M_521, above every secret of 512 bits."""


def share(secret: int, threshold: int, points: Sequence[int], *, prime: int = PRIME) -> dict[int, int]:
    """The share q(x) of each point x: q has degree threshold − 1, q(0) is the secret, all else is drawn at random.

    Raises ValueError where the secret is no element of the field, points are not distinct and from 1 on, or fewer than
    the threshold.
    """
    coefficients = [secret, *(secrets.randbelow(prime) for _ in range(threshold - 1))]
    return evaluate(coefficients, points, prime=prime)


def evaluate(coefficients: Sequence[int], points: Sequence[int], *, prime: int = PRIME) -> dict[int, int]:
    """q(x) = Σ a_k x^k mod p at each point, by Horner's rule. Raises ValueError as :func:`share` does."""
    if not 0 <= coefficients[0] < prime:
        raise ValueError("the secret is no element of the field")
    if len(set(points)) < max(len(points), len(coefficients)) or not all(0 < x < prime for x in points):
        raise ValueError("there must be as many distinct points as the threshold, from 1 on")
    found = {}
    for x in points:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % prime
        found[x] = value
    return found


def weights_at_zero(points: Collection[int], *, prime: int = PRIME) -> dict[int, int]:
    """Lagrange's basis at 0 for these points: λ_i = Π_{j≠i} x_j / (x_j − x_i) mod p."""
    found = {}
    for i in points:
        above = below = 1
        for j in points:
            if j != i:
                above, below = above * j % prime, below * (j - i) % prime
        found[i] = above * pow(below, -1, prime) % prime
    return found


def reconstruct(shares: Mapping[int, int], *, prime: int = PRIME) -> int:
    """The secret from shares by their points, of which there must be as many as its threshold.

    Nothing tells whether they were enough, or true: fewer or false ones give a number that has nothing to do with it.
    """
    weights = weights_at_zero(shares, prime=prime)
    return sum(value * weights[x] for x, value in shares.items()) % prime
