"""Secret sharing against a worked example, exhaustive counts over small fields, and Lagrange's basis in fractions."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medfed.privacy.shamir import PRIME, evaluate, reconstruct, share, weights_at_zero

WIKIPEDIA = {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}
"""https://en.wikipedia.org/wiki/Shamir%27s_secret_sharing: q(x) = 1234 + 166 x + 94 x^2 modulo 1613."""

FIELDS = st.sampled_from([11, 1613, 2**61 - 1, PRIME])


def test_the_worked_example_of_wikipedia() -> None:
    assert evaluate([1234, 166, 94], [1, 2, 3, 4, 5, 6], prime=1613) == WIKIPEDIA
    for three in itertools.combinations(WIKIPEDIA.items(), 3):
        assert reconstruct(dict(three), prime=1613) == 1234
    assert all(reconstruct(dict(two), prime=1613) != 1234 for two in itertools.combinations(WIKIPEDIA.items(), 2))


def test_the_field_is_that_of_the_mersenne_prime_of_521_bits() -> None:
    """The prime of NIST's curve P-521 (FIPS 186-4, D.1.2.5), which its standard writes in decimal digits."""
    written = (
        "68647976601306097149819007990813932172694353001433054093944634591855431833976560521225596406614545549772"
        "96311391480858037121987999716643812574028291115057151"
    )
    assert int(written) == PRIME


@given(st.data(), FIELDS)
def test_any_shares_as_many_as_the_threshold_give_the_secret_back(data: st.DataObject, prime: int) -> None:
    secret = data.draw(st.integers(0, prime - 1))
    points = data.draw(st.lists(st.integers(1, prime - 1), min_size=1, max_size=9, unique=True))
    threshold = data.draw(st.integers(1, len(points)))
    shares = share(secret, threshold, points, prime=prime)
    assert set(shares) == set(points)
    assert all(0 <= value < prime for value in shares.values())
    enough = data.draw(st.permutations(points))[: data.draw(st.integers(threshold, len(points)))]
    assert reconstruct({x: shares[x] for x in enough}, prime=prime) == secret


@pytest.mark.parametrize(("prime", "threshold"), [(5, 2), (5, 3), (5, 4), (7, 3)])
def test_fewer_shares_than_the_threshold_leave_every_secret_equally_likely(prime: int, threshold: int) -> None:
    for points in itertools.combinations(range(1, prime), threshold - 1):
        seen = Counter()
        for coefficients in itertools.product(range(prime), repeat=threshold):
            shares = evaluate(coefficients, range(1, prime), prime=prime)
            seen[tuple(shares[x] for x in points), coefficients[0]] += 1
        assert len(seen) == prime**threshold
        assert set(seen.values()) == {1}


@pytest.mark.parametrize("secret", [0, 4])
def test_the_shares_below_the_threshold_are_drawn_uniformly(secret: int) -> None:
    """All coefficients but the secret are drawn: with one left out, or one that is never zero, some pairs are rarer."""
    prime, times = 5, 5000
    pairs = Counter()
    for _ in range(times):
        shares = share(secret, 3, [2, 3, 4], prime=prime)
        pairs[shares[2], shares[4]] += 1
    counts = [pairs[a, b] for a in range(prime) for b in range(prime)]
    assert stats.chisquare(counts).pvalue > 1e-6


def test_one_share_below_the_threshold_says_another_thing_at_each_sharing() -> None:
    found = {reconstruct(share(42, 3, [1, 2, 3])) for _ in range(20)}
    short = {reconstruct({x: y for x, y in share(42, 3, [1, 2, 3]).items() if x < 3}) for _ in range(20)}
    assert found == {42}
    assert len(short) == 20


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8, unique=True))
def test_the_weights_are_those_of_lagrange_in_fractions(points: list[int]) -> None:
    weights = weights_at_zero(points)
    for i in points:
        exact = Fraction(1)
        for j in points:
            if j != i:
                exact *= Fraction(j, j - i)
        assert weights[i] * exact.denominator % PRIME == exact.numerator % PRIME
    for power in range(len(points)):
        assert sum(w * x**power for x, w in weights.items()) % PRIME == (power == 0)


@given(st.data(), FIELDS)
def test_one_false_share_gives_another_number(data: st.DataObject, prime: int) -> None:
    points = data.draw(st.lists(st.integers(1, prime - 1), min_size=2, max_size=6, unique=True))
    shares = share(data.draw(st.integers(0, prime - 1)), len(points), points, prime=prime)
    true = reconstruct(shares, prime=prime)
    liar = data.draw(st.sampled_from(points))
    changed = (shares[liar] + data.draw(st.integers(1, prime - 1))) % prime
    assert reconstruct({**shares, liar: changed}, prime=prime) != true


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (-1, 2, [1, 2]),
        (7, 2, [1, 2]),
        (3, 2, [1]),
        (3, 2, [0, 1]),
        (3, 2, [1, 1, 2]),
        (3, 2, [1, 7]),
        (3, 2, [-1, 1]),
        (3, 1, []),
    ],
)
def test_what_cannot_be_shared_is_no_value(secret: int, threshold: int, points: list[int]) -> None:
    with pytest.raises(ValueError, match=r"secret is no element|distinct points"):
        share(secret, threshold, points, prime=7)
