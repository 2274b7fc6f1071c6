"""Points of Curve25519 for a Diffie-Hellman set intersection, by their u-coordinates: 32 bytes, little endian.

X25519 (RFC 7748) takes any 32 bytes, multiplies on the curve or on its quadratic twist, wherever the coordinate lies,
and clears the cofactors 8 and 4 since clamped scalars are multiples of 8. So a·(b·H) = b·(a·H) on both, and both have
subgroups of prime order near 2²⁵² and 2²⁵³ (twist security: Bernstein 2006): no scalar leaks through the twist. But a
multiple lies where its point did, and anyone can tell on which of the two. Were an identifier's hash just taken as a
coordinate, a blinded point would keep one bit of its identifier through every blinding and shuffling: whoever gets a
shuffled set back could count matches among its members on the twist apart from those on the curve. So identifiers are
hashed to the curve alone (Elligator 2), and points of a peer that lie on the twist are refused, which would be marks.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from numpy.typing import NDArray

from medfed.core.errors import Refused

POINT_BYTES = 32
_P = 2**255 - 19
_A = 486662


def hashed_to_curve(key: bytes, context: bytes, identifier: str) -> bytes:
    """The point of an identifier: HMAC-SHA-512 of context and identifier, modulo p, mapped by Elligator 2.

    Half the curve's points are reached. Their logarithms are unknown, and a point with a known one can be drawn among
    them, which is what a proof from decisional Diffie-Hellman asks of the hash. Takes a time that depends on the
    identifier: call it where nobody measures.
    """
    digest = hmac.digest(key, context + identifier.encode(), "sha512")
    return elligator2(int.from_bytes(digest, "little") % _P).to_bytes(POINT_BYTES, "little")


def elligator2(r: int) -> int:
    """The u-coordinate on Curve25519 of a field element r (RFC 9380, section 6.7.1 with Z = 2)."""
    u = -_A * pow(1 + 2 * r * r, -1, _P) % _P
    return u if on_curve(u) else (-u - _A) % _P


def on_curve(u: int) -> bool:
    """Whether v² = u³ + 486662 u² + u has a solution: otherwise u is on the twist. 0, of order two, is on both."""
    return _jacobi(u * (u * (u + _A) + 1) % _P, _P) >= 0


def multiplied(
    scalar: X25519PrivateKey, points: Sequence[bytes], progress: Callable[[int], None] | None = None
) -> list[bytes]:
    """The points times the scalar, in order; ``progress`` gets the number done, every thousand points.

    Raises Refused where a point has low order: its multiple would be zero, and tell that it was chosen.
    """
    products = []
    for number, point in enumerate(points, start=1):
        try:
            products.append(scalar.exchange(X25519PublicKey.from_public_bytes(point)))
        except ValueError:
            raise Refused("a point has low order: it blinds nothing", remedy="find out who sent it, and why") from None
        if progress is not None and number % 1000 == 0:
            progress(number)
    return products


def as_array(points: Iterable[bytes]) -> NDArray[np.uint8]:
    """Points as uint8 (n, 32), read-only."""
    return np.frombuffer(b"".join(points), np.uint8).reshape(-1, POINT_BYTES)


def as_points(array: NDArray[np.uint8]) -> list[bytes]:
    """The rows of uint8 (n, 32)."""
    whole = array.tobytes()
    return [whole[start : start + POINT_BYTES] for start in range(0, len(whole), POINT_BYTES)]


def received(array: NDArray[np.uint8], size: int, what: str) -> list[bytes]:
    """The points that a peer sent, which have to be ``size`` different canonical ones.

    Two encodings of one coordinate (with the highest bit set, or p more) would be two names of one point. Raises
    Refused, with ``what`` was sent and never a point.
    """
    if array.dtype != np.uint8 or array.shape != (size, POINT_BYTES):
        raise Refused(f"{what} are not the {size} points of 32 bytes that were committed to")
    high, middle, low = array[:, 31], array[:, 1:31], array[:, 0]
    beyond = (high > 127) | ((high == 127) & (middle == 255).all(axis=1) & (low >= 237))
    if beyond.any():
        raise Refused(f"{what} hold points that are not canonical", remedy="find out who sent them, and why")
    points = as_points(array)
    if len(set(points)) != size:
        raise Refused(f"{what} hold a point twice: whoever repeats points is probing")
    return points


def refuse_twist(points: Sequence[bytes], what: str) -> None:
    """Raise Refused where a point is not on the curve: it would carry a mark through blinding and shuffling."""
    if not all(on_curve(int.from_bytes(point, "little")) for point in points):
        raise Refused(f"{what} hold points of the twist, which no identifier is hashed to")


def _jacobi(a: int, n: int) -> int:
    """The Jacobi symbol (a/n) of an odd n (Cohen 1993, algorithm 1.4.10)."""
    sign = 1
    while a:
        zeros = (a & -a).bit_length() - 1
        a >>= zeros
        if zeros & 1 and n & 7 in (3, 5):
            sign = -sign
        if a & n & 3 == 3:
            sign = -sign
        a, n = n % a, a
    return sign if n == 1 else 0
