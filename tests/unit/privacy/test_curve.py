"""Points against the vectors of RFC 7748 and RFC 9380, and X25519 written out; the bit that the twist would tell."""

from __future__ import annotations

import secrets
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import Refused
from medfed.privacy.curve import as_array, elligator2, hashed_to_curve, multiplied, on_curve, received, refuse_twist

P = 2**255 - 19
FIELD = st.integers(0, P - 1)
SCALARS = st.binary(min_size=32, max_size=32)

LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
]
"""The u-coordinates of the points of order 1, 2, 4 and 8 on curve and twist (Bernstein's list)."""


def x25519(scalar: bytes, u: int) -> int:
    """The Montgomery ladder of RFC 7748, section 5, written out."""
    k = (int.from_bytes(scalar, "little") & ~7 & (2**255 - 1)) | 2**254
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swapped:
        x2, z2 = x3, z3
    return x2 * pow(z2, P - 2, P) % P


def point(u: int) -> bytes:
    return u.to_bytes(32, "little")


def times(scalar: bytes, *points: bytes) -> list[bytes]:
    return multiplied(X25519PrivateKey.from_private_bytes(scalar), points)


@pytest.mark.parametrize(
    ("scalar", "u", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_published_products(scalar: str, u: str, product: str) -> None:
    assert times(bytes.fromhex(scalar), bytes.fromhex(u))[0].hex() == product


def test_published_iteration() -> None:
    k = u = point(9)
    for _ in range(1000):
        k, u = times(k, u)[0], k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize(
    ("r", "q"),
    [
        (
            "608d892b641f0328523802a6603427c26e55e6f27e71a91a478148d45b5093cd",
            "51125222da5e763d97f3c10fcc92ea6860b9ccbbd2eb1285728f566721c1e65b",
        ),
        (
            "46f5b22494bfeaa7f232cc8d054be68561af50230234d7d1d63d1d9abeca8da5",
            "7d56d1e08cb0ccb92baf069c18c49bb5a0dcd927eff8dcf75ca921ef7f3e6eeb",
        ),
        (
            "235fe40c443766ce7e18111c33862d66c3b33267efa50d50f9e8e5d252a40aaa",
            "3fbe66b9c9883d79e8407150e7c2a1c8680bee496c62fabe4619a72b3cabe90f",
        ),
        (
            "001e92a544463bda9bd04ddbe3d6eed248f82de32f522669efc5ddce95f46f5b",
            "227e0bb89de700385d19ec40e857db6e6a3e634b1c32962f370d26f84ff19683",
        ),
    ],
)
def test_published_maps_to_the_curve(r: str, q: str) -> None:
    assert f"{elligator2(int(r, 16)):064x}" == q


@given(FIELD)
def test_on_the_curve_is_eulers_criterion(u: int) -> None:
    assert on_curve(u) == (pow(u**3 + 486662 * u * u + u, (P - 1) // 2, P) in (0, 1))


@given(st.integers(1, P - 1))
def test_every_field_element_but_zero_maps_onto_the_curve(r: int) -> None:
    u = elligator2(r)
    assert pow(u**3 + 486662 * u * u + u, (P - 1) // 2, P) == 1
    assert elligator2(-r % P) == u


@given(SCALARS, SCALARS, FIELD)
def test_blinding_commutes_on_curve_and_twist(a: bytes, b: bytes, u: int) -> None:
    for candidate in (u, (-u - 486662) % P, 2):
        if candidate not in LOW_ORDER:
            one = times(b, *times(a, point(candidate)))[0]
            assert one == times(a, *times(b, point(candidate)))[0]
            assert one == point(x25519(b, x25519(a, candidate)))
    assert not on_curve(2)  # on the twist


def test_a_multiple_tells_the_twist_which_identifiers_are_kept_from() -> None:
    scalar = secrets.token_bytes(32)
    coordinates = [secrets.randbelow(P) for _ in range(200)]
    before = [on_curve(u) for u in coordinates]
    after = [on_curve(int.from_bytes(product, "little")) for product in times(scalar, *map(point, coordinates))]
    assert before == after and 60 < sum(before) < 140
    hashed = [hashed_to_curve(bytes(32), b"", f"patient {n}") for n in range(200)]
    refuse_twist(hashed, "they")
    refuse_twist(times(scalar, *hashed), "they")


def test_identifiers_are_hashed_apart_by_key_context_and_spelling() -> None:
    points = {
        hashed_to_curve(key, context, identifier)
        for key in (bytes(32), b"\1" + bytes(31))
        for context in (b"one", b"two")
        for identifier in ("a", "b", "ab")
    }
    assert len(points) == 12
    bits = Counter(
        bit for p in range(300) for bit in np.unpackbits(as_array([hashed_to_curve(b"k", b"", f"{p}")]))[:248]
    )
    assert abs(bits[1] - 37200) < 5 * (74400 / 4) ** 0.5


@pytest.mark.parametrize("u", LOW_ORDER)
def test_points_of_low_order_are_refused(u: int) -> None:
    with pytest.raises(Refused, match="low order"):
        times(secrets.token_bytes(32), point(9), point(u))


@pytest.mark.parametrize("alias", [9 + 2**255, P, P + 1, P + 18, 2**255 - 1, 2**256 - 1])
def test_other_encodings_of_a_point_are_refused(alias: int) -> None:
    with pytest.raises(Refused, match="not canonical"):
        received(as_array([point(9), point(alias)]), 2, "they")


def test_the_largest_canonical_coordinates_are_received() -> None:
    points = [point(P - 1), point(P - 2), point(0), point(2**254)]
    assert received(as_array(points), 4, "they") == points


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 31), np.uint8),
        np.zeros((1, 32), np.uint8),
        np.zeros((3, 32), np.uint8),
        np.zeros(64, np.uint8),
        np.zeros((2, 32), np.int64),
    ],
)
def test_what_is_not_as_many_points_is_refused(array: np.ndarray) -> None:
    with pytest.raises(Refused, match="2 points of 32 bytes"):
        received(array, 2, "they")


def test_progress_is_told_every_thousand_points() -> None:
    told: list[int] = []
    multiplied(X25519PrivateKey.generate(), [point(9)] * 2500, told.append)
    assert told == [1000, 2000]
