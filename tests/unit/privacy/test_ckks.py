"""Words under CKKS: sums are exact whatever they are, and nothing but well-formed ciphertexts reaches TenSEAL."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfed.core.errors import CodecError
from medfed.privacy.he.authenticator import PRIME, Authenticator
from medfed.privacy.he.ckks import MOST_SITES, TOLERANCE, WORDS, Scheme, SecretKey, _parameters, _vector, rows_for
from medfed.privacy.he.words import rings_of, words_of
from medfed.privacy.masks import Ring
from medfed.privacy.ring import add_into

pytest.importorskip("tenseal")

KEY, SCHEME = SecretKey.generate(), Scheme()


def drawn(seed: int, words: int) -> NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 2**32, words, np.uint32)


def added(parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack([SCHEME.add([part[row] for part in parts]) for row in range(len(parts[0]))])


@pytest.mark.parametrize("words", [1, WORDS, WORDS + 1])
def test_a_sum_is_exact_by_another_copy_of_the_key(words: int) -> None:
    given_ = [drawn(site, words) for site in range(3)]
    sums = SecretKey.of(KEY.content()).decrypt(added([KEY.encrypt(each) for each in given_]), words)
    np.testing.assert_array_equal(sums, np.sum([each.astype(np.uint64) for each in given_], axis=0))


@pytest.mark.parametrize("pattern", ["largest", "one", "random"])
def test_the_error_of_most_sites_largest_words_is_far_below_the_tolerance(pattern: str) -> None:
    """Measured .006 of the .125 beyond which a total is refused; .5 would round falsely."""
    largest = np.full(WORDS, 2**32 - 1, np.uint32)
    words = {"largest": largest, "one": np.eye(1, WORDS, 5, dtype=np.uint32)[0], "random": drawn(0, WORDS)}[pattern]
    total = SCHEME.add([KEY.encrypt(words)[0] for _ in range(MOST_SITES)])
    found = np.array(_vector(KEY._context, total).decrypt())
    assert np.abs(found - words.astype(np.float64) * MOST_SITES).max() < TOLERANCE / 4


def test_what_is_shown_of_a_total_is_the_same_whatever_the_noise() -> None:
    """CKKS's noise gives the key away (Li & Micciancio 2021). Two encryptions differ; what they decrypt to does not."""
    words = drawn(1, 100)
    first, second = KEY.encrypt(words), KEY.encrypt(words)
    assert (first != second).mean() > 0.8
    assert KEY.decrypt(first, 100).tobytes() == KEY.decrypt(second, 100).tobytes()


def test_a_ciphertext_under_another_key_is_no_sum_of_words() -> None:
    with pytest.raises(CodecError, match="not that of a sum of whole numbers"):
        KEY.decrypt(SecretKey.generate().encrypt(drawn(2, 10)), 10)


def test_every_ciphertext_and_every_sum_has_the_one_form() -> None:
    parts = [KEY.encrypt(drawn(seed, 40 * WORDS)) for seed in range(2)]
    for rows in (*parts, added(parts), KEY.encrypt(np.zeros(WORDS, np.uint32))):
        SCHEME.form.check(rows, WORDS * len(rows))


@given(at=st.integers(0, 65_675), value=st.integers(0, 255))
@example(at=0, value=255)
@example(at=3, value=7)
@example(at=65_675, value=1)
@settings(max_examples=150, deadline=None)
def test_a_ciphertext_that_was_changed_is_refused_or_is_another_one(at: int, value: int) -> None:
    """No byte outside the coefficients can be changed; changed coefficients decrypt to something or nothing."""
    rows = ENCRYPTED.copy()
    rows[0, at] = value
    form = SCHEME.form
    around = at < len(form.head) or at >= form.size - len(form.tail)
    if around and (rows != ENCRYPTED).any():
        with pytest.raises(CodecError, match="another form"):
            KEY.decrypt(rows, 10)
        return
    try:
        KEY.decrypt(rows, 10)
    except CodecError:
        assert (rows != ENCRYPTED).any()


ENCRYPTED = KEY.encrypt(drawn(3, 10))


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, 65_676), np.uint8),
        np.zeros((2, 65_676), np.uint8),
        np.zeros(65_676, np.uint8),
        np.zeros((1, 10), np.uint8),
        np.zeros((1, 65_676), np.uint8),
        np.full((1, 65_676), 255, np.uint8),
    ],
)
def test_what_is_no_row_of_ciphertexts_is_refused(rows: NDArray[np.uint8]) -> None:
    with pytest.raises(CodecError):
        KEY.decrypt(rows, 10)


def test_a_coefficient_beyond_the_modulus_is_refused() -> None:
    rows = ENCRYPTED.copy()
    rows[0, len(SCHEME.form.head) : len(SCHEME.form.head) + 8] = 255
    with pytest.raises(CodecError, match="not below its modulus"):
        KEY.decrypt(rows, 10)


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_bytes_that_are_no_key_are_refused(content: bytes) -> None:
    with pytest.raises(CodecError):
        SecretKey.of(content)


@given(at=st.integers(0, 61_000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_key_that_was_changed_is_refused_or_decrypts_nothing(at: int, value: int) -> None:
    content = bytearray(KEY.content())
    if content[at] == value:
        return
    content[at] = value
    try:
        other = SecretKey.of(bytes(content))
        assert other.decrypt(ENCRYPTED, 10).shape == (10,)
    except CodecError:
        pass


def test_a_key_of_other_parameters_or_of_none_is_refused() -> None:
    import tenseal

    weaker = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    weaker.global_scale = 2.0**20
    keyless = _parameters(KEY._context)
    for content in (weaker.serialize(save_secret_key=True), keyless, bytes(2**17 + 1)):
        with pytest.raises(CodecError):
            SecretKey.of(content)


def test_who_adds_has_no_key() -> None:
    assert not SCHEME._context.has_secret_key()
    assert len(_parameters(SCHEME._context)) == len(_parameters(KEY._context)) < 100 < len(KEY.content())


# ------------------------------------------------------------------------------------------------------ words, tags


@given(sites=st.integers(1, 5), sizes=st.tuples(*[st.integers(0, 4)] * 3), seed=st.integers(0, 2**32))
def test_words_add_up_to_the_elements_that_rings_add_up_to(sites: int, sizes: tuple[int, int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    narrow, middle, wide = sizes
    shapes = {32: (narrow,), 64: (middle,), 256: (wide, 4)}

    def part() -> dict[int, Ring]:
        return {
            bits: random.integers(0, 2**32 if bits == 32 else 2**64, shape, np.uint32 if bits == 32 else np.uint64)
            for bits, shape in shapes.items()
        }

    parts = [part() for _ in range(sites)]
    sums = np.sum([words_of(each).astype(np.uint64) for each in parts], axis=0).astype(np.uint64)
    total = {bits: ring.copy() for bits, ring in parts[0].items()}
    for other in parts[1:]:
        add_into(total, other)
    for bits, ring in rings_of(sums, shapes).items():
        np.testing.assert_array_equal(ring, total[bits])


def test_tags_add_up_as_words_do_and_no_other_sum_passes() -> None:
    authenticator = Authenticator(secrets.token_bytes(32), b"roster")
    words = {site: drawn(number, 20_000) for number, site in enumerate("abc")}
    tags = [(site, authenticator.tag(site, each)) for site, each in words.items()]
    sums = np.sum([each.astype(np.uint64) for each in words.values()], axis=0).astype(np.uint64)
    assert authenticator.fits(sums, tags)
    alone, off = words["a"].astype(np.uint64), sums.copy()
    off[19_999] += np.uint64(1)
    assert not authenticator.fits(off, tags)
    assert not authenticator.fits(alone, tags)
    assert not authenticator.fits(sums, tags[:2])
    assert not authenticator.fits(sums - alone, tags)
    assert not Authenticator(secrets.token_bytes(32), b"roster").fits(sums, tags)
    assert authenticator.fits(alone, tags[:1])


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
def test_a_tag_is_the_inner_product_by_whole_numbers(words: list[int]) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from medfed.privacy.agreement import derived
    from medfed.privacy.he.messages import framed

    seed = bytes(range(32))
    stream = Cipher(algorithms.AES(derived(seed, framed("hash", b"r"))), modes.CTR(bytes(16))).encryptor()
    drawn_ = [int.from_bytes(stream.update(bytes(16)), "little") for _ in words]
    pad = int.from_bytes(derived(seed, framed("pad", b"r", b"a")), "little")
    expected = (sum(r * x for r, x in zip(drawn_, words, strict=True)) + pad) % PRIME
    found = Authenticator(seed, b"r").tag("a", np.array(words, np.uint32))
    assert int.from_bytes(found, "little") == expected
    assert rows_for(len(words)) == 1
